#!/usr/bin/env bash
# Builds the native part with AddressSanitizer and UBSan, apart from the installed one, and runs the
# codec's, the kernels' and the operations' tests and the fuzzer with it.
#   runtime/tests/sanitize.sh PYTHON [CASES]
set -euo pipefail
python=$(realpath -s "${1:-python3}")
cases=${2:-1000}
cd "$(dirname "$0")/.."
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
"$python" -m pip install --quiet --target "$build/site" --no-deps \
  -C cmake.define.REGROW_SANITIZE=ON -C build-dir="$build/cmake" .
# Python itself is not built so; its own leaks are not ours.
export LD_PRELOAD="$("${CXX:-c++}" -print-file-name=libasan.so) $("${CXX:-c++}" -print-file-name=libubsan.so)"
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export PYTHONPATH="$build/site" PYTHONMALLOC=malloc
"$python" -c "import regrow_runtime, sys; sys.exit('$build' not in regrow_runtime.__file__)"
"$python" -m pytest -q -p no:cacheprovider tests/test_codec.py tests/test_kernels.py tests/test_operations.py
"$python" -m pytest -q -p no:cacheprovider tests/test_stripes.py -k 16-53-46
"$python" tests/fuzz.py --cases "$cases" --seed 0
