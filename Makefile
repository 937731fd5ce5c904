# `make demo` runs the main job on a fresh machine; `make test` passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := runtime/pyproject.toml runtime/CMakeLists.txt $(wildcard runtime/native/*) $(wildcard runtime/src/regrow_runtime/*.py)
CASES ?= 1000

.PHONY: demo test install lint docs sanitize cross clean

demo: install
	$(BIN)/regrow run bidirectional --task digits --seed 0 --controls one_way,gradual --out runs/demo --overwrite
	@if [ -f runs/demo/deploy.regrow ]; then \
	  $(BIN)/python examples/classify.py runs/demo/deploy.regrow; \
	fi

test: install lint $(VENV)/.cluster
	$(BIN)/python -m pytest -n 2

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Every table and figure of the docs, from the committed records.
docs: install
	$(BIN)/python experiments/write_docs.py

install: $(VENV)/.installed $(VENV)/.runtime

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "regrow needs Python 3.10 or newer; name one with: make PYTHON=/path/to/python3 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cli,dev,onnx,tensorboard]'
	@touch $@

# The runtime is native; without a compiler all else works, and says what is missing when asked.
$(VENV)/.runtime: $(VENV)/.installed $(RUNTIME)
	@if command -v "$${CXX:-c++}" >/dev/null; then \
	  echo "$(BIN)/python -m pip install --quiet ./runtime" && \
	  $(BIN)/python -m pip install --quiet ./runtime; \
	else \
	  echo "no C++ compiler was found: regrow-runtime is not installed (set CXX to name one)"; \
	fi
	@touch $@

# Ray has no wheels for every Python; without it only the tests of the cluster are left out.
$(VENV)/.cluster: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cluster]' \
	  || echo "Ray could not be installed: the tests of the cluster are left out"
	@touch $@

# Fuzzing of the file reader with its native part under AddressSanitizer and UBSan.
sanitize: install
	runtime/tests/sanitize.sh $(BIN)/python $(CASES)

# The kernels of another processor, in an emulator (Debian: g++-aarch64-linux-gnu, qemu-user-static).
cross:
	runtime/tests/cross.sh

clean:
	rm -rf $(VENV) build dist runs
