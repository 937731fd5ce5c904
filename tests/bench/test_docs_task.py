"""What the pages on tasks and recipes show can be run as it is written."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from regrow.bench.config import configure
from regrow.parts.patterns import PATTERNS

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_task_of_the_page_trains(tmp_path: Path) -> None:
    (source,) = blocks("tasks.md", "python")
    (tmp_path / "mytask.py").write_text(source)
    (command,) = blocks("tasks.md", "sh")
    short = ("--set", "training.dense_epochs=2", "--set", "epochs=2", "--set", "training.threads=1")
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(command), *short, "--device", "cpu"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "RANK": "3"},  # a stray rank means nothing
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Automatic Mixed Precision" not in done.stderr
    assert "runs/mine/report.html" in done.stdout
    accuracy = re.search(r"one_shot\s.* (\d+\.\d+) %", done.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) > 80


def test_the_recipe_file_of_the_page_configures(tmp_path: Path) -> None:
    (text,) = blocks("recipes.md", "toml")
    file = tmp_path / "mine.toml"
    file.write_text(text)
    config, _ = configure(str(file))
    assert (config.recipe, config.seed, config.controls) == (
        *("bidirectional", 1),
        ("one_way", "gradual"),
    )
    assert config.parameters["exclude"] == ["conv1"]
    assert config.program().epochs == 40
    assert config.parameters["exchange"] == 0.1
    assert config.training["lr"] == 0.1
    page = (DOCS / "recipes.md").read_text(encoding="utf-8")
    for key in re.findall(r"^(\w+) =", text.partition("[parameters]")[0], re.MULTILINE):
        assert f"| `{key}` |" in page


@pytest.mark.parametrize("command", blocks("recipes.md", "sh")[0].splitlines())
def test_the_commands_of_the_page_configure(command: str) -> None:
    words = shlex.split(command)
    given = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    config, _ = configure(words[2], settings=given)
    config.program()
    if "pattern" in command:
        assert config.parameters["pattern"] == {"name": "n_of_m", "n": 2, "m": 4}
        assert PATTERNS.build(config.parameters["pattern"])
