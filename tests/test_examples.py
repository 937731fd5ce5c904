"""The examples run as they stand, and print the sparsity that they promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(
    ("name", "sparsity", "least"), [("prune_once", 0.9, 0.5), ("own_loop", 0.97, 0.5)]
)
def test_example(name: str, sparsity: float, least: float) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), "--epochs", "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not done.stderr
    last = done.stdout.splitlines()[-2:]
    accuracy, printed = (float(re.findall(r"\d\.\d+", line)[-1]) for line in last)
    assert printed == pytest.approx(sparsity, abs=5e-5)
    assert accuracy > least  # chance is 0.1


def test_own_loop_marks_every_added_line() -> None:
    lines = (EXAMPLES / "own_loop.py").read_text().splitlines()
    calls = [
        line for line in lines if re.search(r"regrow\.attach\(|pruning\.(epoch_end|fin)", line)
    ]
    assert [line[-1] for line in calls] == ["2", "1", "3"]
    assert all("# <-" in line for line in calls)


QUICK = """
[[grid]]
task = "digits"
strategies = ["gradual"]
sparsities = [0.9]
seeds = 2
epochs = 2
training = { dense_epochs = 1 }
"""


@pytest.mark.slow
def test_an_array_of_jobs_finishes_a_study(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    (tmp_path / "study.toml").write_text(QUICK)
    words = ["study.toml", "--out", "out", "--jobs", "2", "--cluster", "local", "--hours", "0.2"]

    def submit(*more: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, str(EXAMPLES / "slurm.py"), *words, *more]
        return subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    done = submit()
    assert done.returncode == 0, done.stderr[-2000:]
    assert "not finished" not in (tmp_path / "out" / "report.html").read_text()
    # Two dense cells, and per seed: gradual and its twin under two names, random, small.
    assert len((tmp_path / "out" / "records.csv").read_text().splitlines()) == 1 + 2 + 2 * 6
    outputs = [path.read_text() for path in (tmp_path / "out" / "jobs").glob("*_log.out")]
    assert len(outputs) == 2
    (tmp_path / "study.toml").write_text(QUICK.replace("gradual", "gradul"))
    refused = submit()
    assert refused.returncode != 0
    assert "Did you mean 'gradual'?" in refused.stderr
    assert "submitted" not in refused.stdout


def test_classify_without_torch(tmp_path: Path) -> None:
    pytest.importorskip("regrow_runtime", reason="the runtime is not installed")
    from regrow.bench.models import digits_cnn
    from regrow.export.deploy import pack

    network = digits_cnn().eval()
    pack(network, tmp_path / "m.regrow", torch.zeros(1, 1, 8, 8))
    program = [sys.executable, str(EXAMPLES / "classify.py"), str(tmp_path / "m.regrow")]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    told = float(done.stdout.split()[0])
    digits = load_digits()
    with torch.no_grad():
        scores = network(torch.from_numpy(digits.images[:, None] / 16).float())
    expected = float((scores.argmax(1).numpy() == digits.target).mean())
    assert told == pytest.approx(expected, abs=2e-3)  # untrained scores are nearly equal
