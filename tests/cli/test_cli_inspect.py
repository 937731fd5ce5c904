"""`regrow inspect`, `regrow list` and `regrow report`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from blobs_example import BIDIRECTIONAL, call, read, refused
from safetensors.torch import save_file

from regrow.cli.catalogue import catalogue

COUNTS = {"sparsity", "kept", "total", "density_denominator", "layers", "parameters", "file_bytes"}


@pytest.fixture
def run(blobs: str, quick: None) -> Path:
    assert call("run", *BIDIRECTIONAL, "--task", blobs, "--out", "[bold]run").code == 0
    return Path("[bold]run")  # rich would take it for markup


def test_a_run_and_both_of_its_files_are_counted_alike(run: Path) -> None:
    arm = read(run)["arms"]["bidirectional_paper"]
    for path in (run, run / "model.regrow", run / "model.safetensors"):
        found = call("inspect", path, "--json")
        assert found.code == 0
        counts = found.json()
        assert counts.keys() >= COUNTS
        assert (counts["kept"], counts["total"]) == (arm["kept"], arm["total"])
        assert counts["sparsity"] == arm["sparsity"]
        assert sum(layer["kept"] for layer in counts["layers"]) == arm["kept"]
        assert [layer["name"] for layer in counts["layers"]] == ["0.weight", "4.weight"]
        assert counts["macs_dense"] == 12 * 32 + 32 * 3
        assert counts["macs_kept"] == arm["kept"]
        assert counts["file_bytes"] == Path(counts["path"]).stat().st_size
        shown = call("inspect", path)
        assert shown.code == 0
        assert "0.weight" in shown.out
        assert "[bold]run" in shown.out
        assert f"{arm['sparsity']:.4f}" in shown.out


def test_a_foreign_safetensors_file(tmp_path: Path) -> None:
    weight = torch.zeros(4, 5)
    weight[0] = 1
    half = torch.ones(3, 2, dtype=torch.bfloat16)
    tensors = {"a.weight": weight, "[/b].half": half, "a.bias": torch.ones(4)}
    file = tmp_path / "foreign.safetensors"
    save_file({**tensors, "steps": torch.tensor(7)}, file)
    counts = call("inspect", file, "--json").json()
    assert (counts["kept"], counts["total"], counts["parameters"]) == (11, 26, 30)
    assert counts["sparsity"] == 1 - 11 / 26
    assert counts["macs_kept"] is None
    shown = call("inspect", file)
    assert shown.code == 0
    assert "[/b].half" in shown.out


@pytest.mark.parametrize("note", ["{}", "[1]", "not JSON", '{"kept": 3, "layers": [{}]}'])
def test_a_note_that_regrow_did_not_write(note: str, tmp_path: Path) -> None:
    file = tmp_path / "foreign.safetensors"
    save_file({"a": torch.eye(3)}, file, {"regrow": note})
    counts = call("inspect", file, "--json").json()
    assert (counts["kept"], counts["total"]) == (3, 9)
    assert call("inspect", file).code == 0


def test_list_explains_the_shared_options() -> None:
    shown = call("list", "one_shot").out
    assert "include and" in shown
    assert "floor is the least number" in shown
    assert "seed = 0" not in shown
    assert "--seed" in shown
    assert '("lamp"; of units "norm")' in shown
    assert "that ranks what is cut" in shown


def test_list_tells_a_recipes_own_default_of_a_shared_option() -> None:
    shown = call("list", "bidirectional").out
    assert "criterion = 'saliency'" in shown
    assert "lamp" not in shown
    assert "floor is the least number" in shown


def test_what_cannot_be_inspected(run: Path) -> None:
    for name in ("model.regrow", "model.safetensors"):
        whole = (run / name).read_bytes()
        for size in (0, 5, len(whole) // 2, len(whole) - 1):
            cut = Path(f"cut{Path(name).suffix}")
            cut.write_bytes(whole[:size])
            assert str(cut) in refused("inspect", cut)
    assert "there is no file 'nosuch.regrow'" in refused("inspect", "nosuch.regrow")
    Path("empty").mkdir()
    assert "empty holds no run" in refused("inspect", "empty")
    Path("empty/recipe.toml").write_text("recipe = 'one_shot'")
    assert "regrow resume empty" in refused("inspect", "empty")
    Path("text.txt").write_text("hello")
    assert "text.txt" in refused("inspect", "text.txt")


def test_everything_has_a_name_and_a_summary_of_one_line() -> None:
    rows = call("list", "--json").json()
    assert rows == catalogue()
    for row in rows:
        assert set(row) == {"kind", "name", "summary", "source"}
        assert all(row.values()), row
        assert "\n" not in row["summary"]
    names: dict[str, set[str]] = {}
    for row in rows:
        names.setdefault(row["kind"], set()).add(row["name"])
    assert sum(map(len, names.values())) == len(rows)
    assert names.keys() >= {"recipe", "criterion", "schedule", "regrowth", "task", "control"}
    assert names["recipe"] >= {
        "bidirectional",
        "bidirectional_paper",
        "one_shot",
        "iterative",
        "hybrid",
        "gradual",
    }
    assert names["task"] >= {"digits", "cifar10", "cifar100", "fashion_mnist", "spoken_digits"}
    shown = call("list")
    assert shown.code == 0
    assert "bidirectional" in shown.out


def test_report_on_one_run_and_on_three_seeds(blobs: str, quick: None) -> None:
    for seed in range(3):
        command = ("run", *BIDIRECTIONAL, "--task", blobs, "--seed", seed)
        assert call(*command, "--out", f"runs/{seed}").code == 0
    page = Path("runs/0/report.html")
    before = page.read_bytes()
    page.unlink()
    assert call("report", "runs/0").code == 0
    one = page.read_text()
    assert one.replace("regrow report runs/0", "") != one
    assert len(before) == pytest.approx(len(one), rel=0.01)
    done = call("report", "runs")
    assert done.code == 0
    assert "runs/report.html" in done.out
    text = Path("runs/report.html").read_text()
    assert "bidirectional" in text
    assert "3 seeds" in text
    assert "<script src" not in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert call("report", "runs", "--out", "pages/three.html").code == 0
    assert Path("pages/three.html").exists()
    assert "no record.json" in refused("report", "pages")
    assert "no record.json" in refused("report", "nosuch")
    assert "three.html/page.html" in refused(
        "report", "runs", "--out", "pages/three.html/page.html"
    )
    record = Path("runs/1/record.json")
    record.write_text(json.dumps({**json.loads(record.read_text()), "schema": 9}))
    assert "schema 9" in refused("report", "runs")


def test_the_coupled_groups_of_a_run(run: Path) -> None:
    shown = call("inspect", run, "--groups")
    assert shown.code == 0
    assert "bound: an output of the network" in shown.out
    rows = call("inspect", run, "--groups", "--json").json()["groups"]
    assert [(row["group"], row["units"], row["reason"]) for row in rows] == [
        ("0", 32, None),
        ("4", 3, "an output of the network"),
    ]
    assert rows[0]["macs"] == 12 + 3
    assert "holds no network's class" in refused("inspect", run / "model.regrow", "--groups")
