"""Names, files and flags to one complete configuration, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.bench.config import RunConfig, configure
from regrow.bench.state import identity
from regrow.bench.tasks import find_task
from regrow.core.errors import RegrowError
from regrow.recipes import RECIPES, bidirectional, bidirectional_paper

NAMES = [row.name for row in RECIPES]


@pytest.mark.parametrize("recipe", NAMES)
def test_written_and_read_it_is_the_same(recipe: str, tmp_path: Path) -> None:
    config, task = configure(recipe, seed=3)
    config.write(tmp_path / "recipe.toml")
    again, task_again = configure(str(tmp_path / "recipe.toml"))
    assert again == config
    assert again.program() == config.program()
    assert again.settings() == config.settings() == task.training == task_again.training
    assert identity(vars(again)) == identity(vars(config))


VALUES: dict[str, list[Any]] = {
    "criterion": ["magnitude", {"name": "magnitude"}, "fisher"],
    "allocation": ["uniform", {"name": "global"}],
    "pattern": ["element", {"name": "block", "rows": 2, "columns": 2}],
    "include": [["*"], ["conv*", "hidden*"]],
    "floor": [1, 3],
    "ssim_below": [0.5, None],
    "reference": [0.5, None],
    "regrow": ["gradient", "random"],
    "training.lr": [0.3, 1],
    "training.nesterov": [True, False],
    "training.precision": ["bf16", "auto"],
}


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value).replace('"', "'") if not isinstance(value, str) else f'"{value}"'


@settings(max_examples=40, deadline=None)
@given(st.fixed_dictionaries({}, optional={k: st.sampled_from(v) for k, v in VALUES.items()}))
def test_any_settings_survive_the_file(tmp_path_factory: Any, chosen: dict[str, Any]) -> None:
    if chosen.get("reference") is not None:
        chosen = {**chosen, "regrow": "reference"}  # The one rule that reads it.
    given_ = [f"{key}={toml(value)}" for key, value in chosen.items() if value is not None]
    config, _ = configure("bidirectional_paper", settings=given_)
    for key, value in chosen.items():
        table = config.training if key.startswith("training.") else config.parameters
        assert table[key.removeprefix("training.")] == value
    file = tmp_path_factory.mktemp("round") / "recipe.toml"
    config.write(file)
    assert configure(str(file))[0] == config


def test_flags_replace_what_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        "recipe = 'bidirectional_paper'\nseed = 4\ncontrols = ['gradual']\n"
        "[parameters]\nsparsity = 0.9\nepochs = [2, 3]\n[training]\nlr = 0.5\n"
    )
    config, _ = configure(str(file))
    assert (config.task, config.model, config.seed) == ("digits", "digits_cnn", 4)
    assert config.controls == ("gradual",)
    assert config.program() == bidirectional_paper(0.9, 0.99, (2, 3), seed=4)
    assert config.training["lr"] == 0.5
    assert config.training["momentum"] == 0.9
    flags, _ = configure(
        str(file), seed=5, controls=(), settings=["sparsity=0.95", "training.lr=0.25"]
    )
    assert (flags.seed, flags.controls, flags.parameters["sparsity"]) == (5, (), 0.95)
    assert flags.parameters["epochs"] == [2, 3]
    assert flags.training["lr"] == 0.25


@pytest.mark.parametrize("recipe", [name for name in NAMES if name != "manual"])
def test_epochs_are_the_tasks_unless_given(recipe: str) -> None:
    for task in ("digits", "cifar10"):
        config, _ = configure(recipe, task=task)
        total = find_task(task).training.fine_tune_epochs
        if config.program().start == "initial":
            total += find_task(task).training.dense_epochs
        epochs = config.parameters["epochs"]
        assert (epochs if isinstance(epochs, int) else sum(epochs)) == total
    shared = configure("bidirectional_paper", settings=["training.fine_tune_epochs=7"])[0]
    assert shared.parameters["epochs"] == [3, 4]
    assert shared.program().epochs == 7
    own = configure(
        "bidirectional_paper", settings=["training.fine_tune_epochs=7", "epochs=[5,5]"]
    )[0]
    assert own.program().epochs == 10


def test_a_recipes_own_default_goes_before_the_shared_one(tmp_path: Path) -> None:
    shared = configure("bidirectional_paper")[0].parameters
    config = configure("bidirectional")[0]
    assert (shared["criterion"], config.parameters["criterion"]) == (None, "saliency")
    assert config.program() == bidirectional(epochs=config.parameters["epochs"])
    file = tmp_path / "short.toml"
    file.write_text("recipe = 'bidirectional'\n[parameters]\ncriterion = 'lamp'\nepochs = 4\n")
    assert configure(str(file))[0].program() == bidirectional(epochs=4, criterion="lamp")
    for setting in ("epochs=2", "cuts=2", "rounds=2", "reference=0.5"):
        with pytest.raises(RegrowError, match=r"lasts 2ep|epochs=2|unknown parameter"):
            configure("bidirectional", settings=[setting])


def test_bare_text_needs_no_quotes() -> None:
    config, _ = configure("one_shot", settings=["criterion=magnitude", "training.precision=bf16"])
    assert config.parameters["criterion"] == "magnitude"
    assert config.settings().precision == "bf16"


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("sparsity=[1]", r"sparsity=\[1\]: input should be a valid number\."),
        ("epochs=2.5", r"epochs=2\.5: input should be a valid integer"),
        ("include=3", r'include=3: must be a list, as in include=\["conv1", "fc\*"\]\.'),
        ("training.lr=fast", r"^training\.lr='fast': input should be a valid number"),
        ("allocation={name='explicit',sparsities={conv1='x'}}", r"recipe 'one_shot' .*float: 'x'"),
        ("allocation={name='explicit',sparsities=[1]}", r"^allocation 'explicit': "),
        ("training.nesterov=perhaps", r"nesterov='perhaps': input should be a valid boolean"),
        ("training.precision=fp8", r"precision='fp8': input should be 'auto', 'fp32' or 'bf16'\."),
        ("allocation=explicit", r"^allocation 'explicit' needs the option 'sparsities': give a"),
        ("criterion=3", r"a criterion is a name"),
        ("seed=3", r"say --seed N"),
    ],
)
def test_wrong_types_are_told_in_words(setting: str, says: str) -> None:
    with pytest.raises(RegrowError, match=says) as caught:
        configure("one_shot", settings=[setting])
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_lists_are_told_by_example() -> None:
    with pytest.raises(RegrowError, match=r"^epochs=3: must be a list, as in epochs=\[20, 20\]\.$"):
        configure("bidirectional_paper", settings=["epochs=3"])
    with pytest.raises(RegrowError, match=r"as in sparsities=\[0\.8, 0\.9\]\.$"):
        configure("manual", settings=["sparsities=0.9"])
    with pytest.raises(RegrowError, match=r"as in at=\[20, 20\]\.$"):
        configure("manual", settings=["at=3ep"])


@pytest.mark.parametrize("key", ["include", "exclude", "candidates"])
def test_one_text_is_a_list_of_one(key: str) -> None:
    config, _ = configure("bidirectional_paper", settings=[f"{key}=conv*"])
    assert config.parameters[key] == ["conv*"]


def test_a_control_twice_is_one_arm() -> None:
    assert configure("one_shot", controls=["one_way", "one_way"])[0].controls == ("one_way",)


def test_seeds_are_whole_numbers() -> None:
    for seed in (-1, True, 1.5):
        with pytest.raises(RegrowError, match="whole number"):
            configure("one_shot", seed=seed)  # type: ignore[arg-type]


def test_what_is_written_is_complete(tmp_path: Path) -> None:
    config, _ = configure("iterative")
    assert isinstance(config, RunConfig)
    config.write(tmp_path / "recipe.toml")
    text = (tmp_path / "recipe.toml").read_text()
    assert text.startswith("schema = 1\n")
    for key, value in {**config.parameters, **config.training}.items():
        assert (f"\n{key} = " in text) == (value is not None), key
