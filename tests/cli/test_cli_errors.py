"""Bad input: exit 2, one line that names the thing and the remedy, before any training."""

from __future__ import annotations

import importlib
import resource
import shutil
import sys
from pathlib import Path

import pytest
from blobs_example import BIDIRECTIONAL, Done, call, refused

import regrow.bench.deliver
from regrow.bench.trainer import Trainer
from regrow.core.errors import RegrowError

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> None:
        raise AssertionError("training has begun")

    monkeypatch.setattr(Trainer, "run", run)


BAD_COMMANDS = {
    "recipe": (("bidirectionl",), "unknown recipe 'bidirectionl'. Did you mean 'bidirectional'?"),
    "key": (("one_shot", "--set", "sparsty=0.9"), "'sparsty'. Did you mean 'sparsity'?"),
    "training key": (
        ("one_shot", "--set", "training.dens_epochs=3"),
        "'dens_epochs'. Did you mean 'dense_epochs'?",
    ),
    "no pair": (("one_shot", "--set", "sparsity"), "write key=value"),
    "type": (("one_shot", "--set", "sparsity=much"), "sparsity='much': input should be a valid"),
    "epochs": (
        ("bidirectional_paper", "--set", "epochs=3"),
        "epochs=3: must be a list, as in epochs=[20, 20]",
    ),
    "epochs of the paper's form": (
        ("bidirectional", "--set", "epochs=[3, 3]"),
        "epochs=[3, 3]: input should be a valid integer",
    ),
    "batch size": (("one_shot", "--set", f"training.batch_size={10**30}"), "from 1 to 2147483647"),
    "threads": (("one_shot", "--set", f"training.threads={10**30}"), "threads is in [0, 1024]"),
    "a large seed": (("one_shot", "--seed", str(1 << 63)), "from 0 to 2^63 - 1; got 9223372036"),
    "sparsity 1": (
        ("one_shot", "--set", "sparsity=1"),
        "sparsity is the fraction removed, in [0, 1)",
    ),
    "sparsity negative": (("one_shot", "--set", "sparsity=-0.1"), "[0, 1); got -0.1"),
    "sparsity nan": (("one_shot", "--set", "sparsity=nan"), "[0, 1); got nan"),
    "overshoot": (("bidirectional_paper", "--set", "overshoot=0.5"), "overshoot=0.5 must be above"),
    "overshoot below": (("bidirectional", "--set", "overshoot=0.5"), "must not be below sparsity"),
    "part": (("one_shot", "--set", "criterion=magnitud"), "Did you mean 'magnitude'?"),
    "part of no kind": (("one_shot", "--set", "criterion=0.5"), "criterion"),
    "part's option": (
        ("one_shot", "--set", 'pattern={name="block", rws=2}'),
        "'rws'. Did you mean 'rows'?",
    ),
    "cuts": (("iterative", "--set", "cuts=50"), "50 cuts do not fit 4 epochs"),
    "layer": (("one_shot", "--set", 'include=["nosuch*"]'), "nosuch*"),
    "counts": (("one_shot", "--set", "sparsity=0.999", "--set", "floor=90"), "180"),
    "pattern": (("one_shot", "--set", 'pattern={name="block", rows=5, columns=5}'), "weight"),
    "model": (("one_shot", "--model", "mpl"), "Did you mean 'mlp'?"),
    "seed": (("one_shot", "--seed", "-1"), "seed"),
    "control": (("one_shot", "--controls", "one_wy"), "Did you mean 'one_way'?"),
    "control itself": (("gradual", "--controls", "gradual"), "'gradual' is the recipe"),
    "control of another": (("one_shot", "--controls", "no_regrowth"), "belong to the recipe"),
    "device": (("one_shot", "--device", "gpuu"), "unknown device 'gpuu'"),
    "lr": (("one_shot", "--set", "training.lr=-1"), "training.lr"),
    "lr nan": (("one_shot", "--set", "training.lr=nan"), "training.lr"),
    "momentum": (("one_shot", "--set", "training.momentum=2"), "training.momentum"),
    "batch": (("one_shot", "--set", "training.batch_size=0"), "training.batch_size is from 1 to"),
    "precision": (("one_shot", "--set", "training.precision=fp8"), "precision='fp8'"),
    "recipe file": (("nosuch.toml",), "there is no recipe file 'nosuch.toml'"),
}


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("case", BAD_COMMANDS)
def test_bad_commands(case: str, blobs: str) -> None:
    arguments, says = BAD_COMMANDS[case]
    message = refused("run", *arguments, "--task", blobs, "--out", "out")
    assert says in message
    assert not Path("out").exists()


BAD_FILES = {
    "syntax": ("recipe = ", "recipe.toml cannot be read as TOML"),
    "deep": (f"x = {'[' * 9999}", "recipe.toml is nested too deep"),
    "not text": ("recipe = '\udcff'", "recipe.toml cannot be read as TOML"),
    "newer": ("schema = 2\nrecipe = 'x'\nnew = 1", "has schema 2, this regrow reads 1"),
    "key": ("recipe = 'one_shot'\nsed = 1", "'sed'. Did you mean 'seed'?"),
    "no recipe": ("seed = 1", "names no recipe"),
    "no table": ("recipe = 'one_shot'\nparameters = 1", "'parameters' must be a table"),
    "parameter": ("recipe = 'one_shot'\n[parameters]\nfloo = 1", "Did you mean 'floor'?"),
    "controls": ("recipe = 'one_shot'\ncontrols = 'one_way'", "controls is a list of names"),
    "controls number": ("recipe = 'one_shot'\ncontrols = 1", "controls is a list of names"),
    "seed": ("recipe = 'one_shot'\nseed = 'x'", "the seed is a whole number"),
    "task": ("recipe = 'one_shot'\ntask = 3", "'task' must be text"),
}


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_recipe_files(case: str, blobs: str) -> None:
    text, says = BAD_FILES[case]
    Path("recipe.toml").write_bytes(text.encode(errors="surrogateescape"))
    task = () if case == "task" else ("--task", blobs)
    assert says in refused("run", "recipe.toml", *task, "--out", "out")


BAD_MODULES = {
    "module": ("nosuch_module:task", None, "No module named 'nosuch_module'"),
    "function": ("{}:tsk", "", "tsk"),
    "syntax": ("{}:task", "def task(:", "invalid syntax"),
    "import": ("{}:task", "1 / 0", "raised ZeroDivisionError: division by zero (bad_import_"),
    "raises": (
        "{}:task",
        "def task(): raise KeyError('a\\nb')",
        "raised KeyError: 'a",
    ),
    "splits raise": (
        "{}:task",
        "def task(): return regrow.bench.Task('t', lambda d: 1 / 0, {'m': lambda g: 3})",
        "the splits of task 't' raised ZeroDivisionError: division by zero (bad_splits_raise_",
    ),
    "needs arguments": ("{}:task", "def task(x): pass", "without arguments"),
    "no function": ("{}:task", "task = 3", "without arguments"),
    "returns": ("{}:task", "def task(): return 3", "returned a int"),
    "splits": (
        "{}:task",
        "def task(): return regrow.bench.Task('t', lambda d: 3, {'m': lambda g: nn.Linear(2, 2)})",
        "the splits of task 't' returned a int",
    ),
    "models": (
        "{}:task",
        "def task(): return regrow.bench.Task('t', lambda d: 3, {})",
        "task 't' needs models",
    ),
    "dataset": (
        "{}:task",
        "def task(): return regrow.bench.Task('t', lambda d: regrow.bench.gathered([]),"
        " {'m': lambda g: nn.Linear(2, 2)})",
        "holds no sample",
    ),
    "input": (
        "{}:task",
        "def task():\n p = regrow.bench.TensorPair(torch.zeros(9, 30), torch.zeros(9).long())\n"
        " return regrow.bench.Task('t', lambda d: regrow.bench.Splits(p, p, p),"
        " {'m': lambda g: nn.Linear(20, 20)})",
        "the network of task 't' raised RuntimeError: mat1 and mat2 shapes",
    ),
}


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("case", BAD_MODULES)
def test_bad_tasks(case: str, blobs: str) -> None:
    spec, text, says = BAD_MODULES[case]
    name = f"bad_{case.replace(' ', '_')}_{blobs.partition(':')[0]}"
    if text is not None:
        imports = "import torch, regrow.bench\nfrom torch import nn\n"
        Path(f"{name}.py").write_text(imports + text + "\n")
    message = refused("run", "one_shot", "--task", spec.format(name), "--out", "out")
    assert says in message


@pytest.mark.usefixtures("untrained")
def test_data_that_is_not_there(tmp_path: Path) -> None:
    place = tmp_path / "nothing here"
    message = refused("run", "one_shot", "--task", "cifar10", "--out", "o", "--data-dir", place)
    assert str(place) in message
    assert "regrow data get cifar10" in message
    assert "Did you mean 'cifar100'?" in refused("data", "get", "cifar1000")
    assert "git clone https://" in refused("data", "get", "spoken_digits")


@pytest.mark.usefixtures("untrained")
def test_directories_that_are_not_free(blobs: str) -> None:
    common = ("run", "one_shot", "--task", blobs, "--out")
    Path("photos").mkdir()
    Path("photos/cat.jpg").write_bytes(b"cat")
    for extra in ((), ("--overwrite",)):
        assert "photos is not empty and holds no run" in refused(*common, "photos", *extra)
    assert Path("photos/cat.jpg").exists()
    assert "photos/cat.jpg" in refused(*common, "photos/cat.jpg")
    assert "photos/cat.jpg" in refused(*common, "photos/cat.jpg/run")
    Path("run").mkdir()
    Path("run/recipe.toml").write_text("recipe = 'one_shot'")
    message = refused(*common, "run")
    assert "regrow resume -- run" in message
    assert "--overwrite" in message
    assert "holds no run" in refused("resume", "photos")
    assert "holds no run" in refused("resume", "nosuch")


def finished(task: str, out: str = "run", *more: object) -> Done:
    done = call("run", *BIDIRECTIONAL, "--task", task, "--out", out, *more)
    assert done.code == 0, done.err
    return done


@pytest.mark.parametrize("arm", ["dense", "bidirectional_paper", "one_way"])
@pytest.mark.parametrize("ending", ["done", "progress"])
def test_damaged_checkpoints_are_refused_by_name(arm: str, ending: str, blobs: str) -> None:
    finished(blobs)
    whole = Path(f"run/state/{arm}.done").read_bytes()
    file = Path(f"run/state/{arm}.{ending}")
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for damaged in (b"", whole[:10], whole[:-1], flipped, b"x" + whole):
        file.write_bytes(damaged)
        message = refused("resume", "run")
        assert str(file) in message
        assert "damaged" in message
        assert "delete it" in message
    file.unlink()
    assert call("resume", "run").code == 0


@pytest.mark.parametrize(
    ("old", "new", "arm"),
    [
        ("seed = 0", "seed = 1", "dense"),
        ("lr = 0.1", "lr = 0.2", "dense"),
        ('model = "mlp"', 'model = "wide"', "dense"),
        # The dense network does not depend on what is pruned from it, so it is not asked for again.
        ("sparsity = 0.7", "sparsity = 0.6", "bidirectional_paper"),
    ],
)
def test_checkpoints_of_another_run_are_refused(old: str, new: str, arm: str, blobs: str) -> None:
    module = Path(f"{blobs.partition(':')[0]}.py")
    module.write_text(module.read_text().replace('{"mlp"', '{"wide": network, "mlp"'))
    finished(blobs, "run", "--model", "mlp")
    recipe = Path("run/recipe.toml")
    assert old in recipe.read_text()
    recipe.write_text(recipe.read_text().replace(old, new, 1))
    message = refused("resume", "run")
    assert f"run/state/{arm}.done belongs to another run" in message
    assert "recipe.toml" in message


def test_checkpoints_of_another_arm_or_network_are_refused(blobs: str) -> None:
    finished(blobs)
    shutil.copy("run/state/one_way.done", "run/state/bidirectional_paper.done")
    assert "bidirectional_paper.done belongs to another run" in refused("resume", "run")
    finished(blobs, "run", "--overwrite")
    # The same name in recipe.toml, but the user's code builds another network now.
    module = blobs.partition(":")[0]
    file = Path(f"{module}.py")
    file.write_text(file.read_text().replace("nn.Linear(12, 32)", "nn.Linear(12, 32, bias=False)"))
    del sys.modules[module]
    importlib.invalidate_caches()
    assert "dense.done belongs to another run" in refused("resume", "run")


@pytest.mark.usefixtures("untrained")
def test_full_disk_is_found_before_training(blobs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, needed: int) -> None:
        assert needed > 10 * 4 * 500
        raise RegrowError(f"{folder}: {needed:,} bytes are needed and 0 are free; free some space.")

    monkeypatch.setattr(regrow.bench.deliver, "require_space", full)
    assert "0 are free" in refused("run", *BIDIRECTIONAL, "--task", blobs, "--out", "run")


def test_disk_that_fills_up_while_training(blobs: str) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    command = ("run", *BIDIRECTIONAL, "--task", blobs, "--out", "run")
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, before[1]))
    try:
        done = call(*command, "--checkpoint-seconds", 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.code == 2
    assert "dense.progress cannot be written" in done.err
    assert "Traceback" not in done.err
    assert call("resume", "run").code == 0


def test_loss_that_is_not_finite(blobs: str) -> None:
    done = call(
        *("run", *BIDIRECTIONAL, "--task", blobs, "--out", "run"),
        *("--set", "training.fine_tune_lr=1e30", "--set", "training.weight_decay=1"),
    )
    assert done.code == 2
    assert "the training loss of arm 'bidirectional_paper' became nan in epoch 1" in done.err
    assert "training.fine_tune_lr" in done.err
    assert "Traceback" not in done.err


def test_a_stray_rank_is_no_rank(blobs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    assert "report:" in call("run", "one_shot", "--task", blobs, "--out", "run").out
    assert "holds a run already" in refused("run", "one_shot", "--task", blobs, "--out", "run")


def test_usage_errors_and_failures_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("run", "one_shot").code == 2  # no --out
    assert call("run", "one_shot", "--out", "x", "--seed", "one").code == 2
    assert call("frobnicate").code == 2
    assert call("--help").code == 0

    def broken() -> None:
        raise ZeroDivisionError("a fault of regrow's own")

    monkeypatch.setattr("regrow.cli.catalogue.tables", broken)
    with pytest.raises(ZeroDivisionError):  # to the interpreter, which prints it and exits with 1
        call("list")
