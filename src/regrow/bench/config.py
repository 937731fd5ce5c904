"""The complete description of a run, from a name, a file and flags, checked before it starts."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pydantic
import tomli_w

from regrow.bench.arms import CONTROLS
from regrow.bench.tasks import Task, Training, find_task
from regrow.bench.toml import ParseError, check_schema, parse, read_toml
from regrow.core.errors import RegrowError, unknown
from regrow.core.files import write_atomic
from regrow.engine.program import Program
from regrow.recipes import RECIPES
from regrow.recipes.common import CUT, Cut

SCHEMA = 1
_KEYS = ("schema", "recipe", "task", "model", "seed", "controls", "parameters", "training")


@dataclass(frozen=True)
class RunConfig:
    """One run; `recipe.toml` holds all of it, defaults included.

    Attributes:
        recipe: a name of the recipe table.
        task: a name of the task table, or "package.module:function".
        model: one of the task's networks.
        seed: of initial weights, data order, augmentation and random parts.
        controls: arms beside the recipe, from the dense network and with the same epochs in all.
        parameters: of the recipe, all of them.
        training: all fields of `Training`.
    """

    recipe: str
    task: str
    model: str
    seed: int
    controls: tuple[str, ...]
    parameters: dict[str, Any]
    training: dict[str, Any]

    def program(self) -> Program:
        """The recipe's program.

        Raises:
            RegrowError: as the recipe does.
        """
        return RECIPES[self.recipe].make(seed=self.seed, **self.parameters)

    def settings(self) -> Training:
        return Training(**self.training)

    def write(self, path: Path) -> None:
        """Write `recipe.toml`. TOML has no null: a parameter that is None is left out."""
        data = {"schema": SCHEMA, **asdict(self)}
        data["controls"] = list(self.controls)
        data["parameters"] = {k: v for k, v in self.parameters.items() if v is not None}
        write_atomic(path, tomli_w.dumps(data).encode())


def configure(
    recipe: str,
    *,
    task: str | None = None,
    model: str | None = None,
    seed: int | None = None,
    controls: Sequence[str] | None = None,
    settings: Sequence[str] = (),
) -> tuple[RunConfig, Task]:
    """The run that a command asks for, and its task.

    Args:
        recipe: a name of the recipe table, or the path of a TOML file as `recipe.toml`.
        task, model, seed, controls: replace what the file says.
        settings: "key=value" pairs; the key is a parameter of the recipe or, as
            "training.key", a field of `Training`; the value is TOML, or bare text.

    Raises:
        RegrowError: an unknown key or name (with the nearest one), or a value of the wrong type.
    """
    given: dict[str, Any] = _read(Path(recipe)) if recipe.endswith(".toml") else {"recipe": recipe}
    name = given.get("recipe")
    if not isinstance(name, str):
        raise RegrowError(f"{recipe} names no recipe; add a line like recipe = 'bidirectional'.")
    _, defaults = parameters_of(name)
    where = str(given.get("task", "digits")) if task is None else task
    found = find_task(where)
    network = str(given.get("model", next(iter(found.models)))) if model is None else model
    if network not in found.models:
        raise unknown(f"model of task {found.name!r}:", network, found.models)
    parameters = dict(given.get("parameters", {}))
    training = dict(given.get("training", {}))
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise RegrowError(f"--set {setting!r} is no pair; write key=value.")
        if key.startswith("training."):
            training[key.removeprefix("training.")] = _value(text)
        else:
            parameters[key] = _value(text)
    trained = typed_training(training, found)
    complete = replace(found.training, **trained)
    if "seed" in parameters:
        raise RegrowError(
            "the seed is of the whole run, not of its recipe: say --seed N, or write seed = N "
            "above the tables of a recipe file."
        )
    chosen = typed_parameters(parameters, name)
    if "epochs" in defaults and "epochs" not in chosen:
        total = complete.fine_tune_epochs
        if RECIPES[name].make().start == "initial":  # All training is the recipe's own.
            total += complete.dense_epochs
        defaults["epochs"] = _share(defaults["epochs"], total)
    names = _controls(name, controls if controls is not None else given.get("controls"))
    config = RunConfig(
        name,
        where,
        network,
        _seed(seed if seed is not None else given.get("seed", 0)),
        names,
        _plain({**defaults, **chosen}),
        asdict(complete),
    )
    try:
        config.program()
    except RegrowError as error:
        missing = re.search(r"missing \d+ required .*: (.+)$", str(error.__cause__))
        if isinstance(error.__cause__, TypeError) and missing:
            part = str(error).partition(": ")[0]
            raise RegrowError(
                f"{part} needs the option {missing[1]}: give a table of the name and its options, "
                "as `regrow list` with the name tells them."
            ) from error
        raise
    except (TypeError, ValueError) as error:
        raise RegrowError(f"the parameters of recipe {name!r} do not fit: {error}.") from error
    return config, found


def _read(path: Path) -> dict[str, Any]:
    data = read_toml(path, "recipe")
    check_schema(data, SCHEMA, str(path))
    for key in data:
        if key not in _KEYS:
            raise unknown(f"key in {path}:", key, _KEYS)
    for key in ("task", "model"):
        if not isinstance(data.get(key, ""), str):
            raise RegrowError(f"{path}: {key!r} must be text; got {data[key]!r}.")
    for table in ("parameters", "training"):
        if not isinstance(data.get(table, {}), dict):
            raise RegrowError(f"{path}: {table!r} must be a table, [{table}].")
    return data


def _value(text: str) -> Any:
    try:
        return parse(f"value = {text}")["value"]
    except ParseError:
        return text


def parameters_of(recipe: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Types and defaults of a recipe's parameters, the keywords shared by all included.

    Raises:
        RegrowError: the recipe is not known.
    """
    make = RECIPES[recipe].make
    hints = get_type_hints(make)
    types: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for name, parameter in inspect.signature(make).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            # What a recipe names itself it may have another default for.
            types = {**get_type_hints(Cut), **types}
            defaults = {**defaults, **CUT, **defaults}
        elif name != "seed":
            types[name], defaults[name] = hints[name], parameter.default
    return types, defaults


def typed_parameters(values: Mapping[str, Any], recipe: str) -> dict[str, Any]:
    """Parameters of a recipe, checked; the seed is none of them.

    Raises:
        RegrowError: a key is not known, or a value is not of its type.
    """
    types, _ = parameters_of(recipe)
    return _typed(values, types, f"parameter of recipe {recipe!r}:")


def typed_training(values: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """Fields of a task's training, checked.

    Raises:
        RegrowError: a key is not known, or a value is not of its type.
    """
    return _typed(values, _training_types(), f"training key of task {task.name!r}:", "training.")


def _training_types() -> dict[str, Any]:
    hints = get_type_hints(Training)
    return {f.name: hints[f.name] for f in fields(Training)}


_LISTS = {str: '["conv1", "fc*"]', int: "[20, 20]", float: "[0.8, 0.9]"}


def _typed(
    values: Mapping[str, Any], types: Mapping[str, Any], kind: str, prefix: str = ""
) -> dict[str, Any]:
    typed = {}
    for key, value in values.items():
        if key not in types:
            raise unknown(kind, key, types)
        if get_origin(types[key]) is Sequence and not isinstance(value, (list, tuple)):
            value = _list_of(f"{prefix}{key}", value, get_args(types[key])[0])
        try:
            typed[key] = pydantic.TypeAdapter(types[key]).validate_python(value)
        except pydantic.ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise RegrowError(
                f"{prefix}{key}={value!r}: {reason[0].lower()}{reason[1:]}."
            ) from error
    return typed


def _list_of(key: str, value: Any, kind: Any) -> list[Any]:
    """One text where texts are wanted is a list of one."""
    if kind is str and isinstance(value, str):
        return [value]
    example = next(_LISTS[k] for k in (kind, *get_args(kind)) if k in _LISTS)
    shown = json.dumps(value) if isinstance(value, (str, bool)) else value
    raise RegrowError(f"{key}={shown}: must be a list, as in {key}={example}.")


def _share(default: Any, total: int) -> Any:
    # A recipe with several phases shares the task's fine-tuning epochs as its own default does.
    if isinstance(default, int):
        return total
    counts = [total * part // sum(default) for part in default]
    return [*counts[:-1], total - sum(counts[:-1])]


def _controls(recipe: str, names: Any) -> tuple[str, ...]:
    if names is None:
        return ("one_way",)
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise RegrowError(f"controls is a list of names, as ['one_way']; got {names!r}.")
    for name in names:
        CONTROLS[name]
        if name == recipe:
            raise RegrowError(
                f"the control {name!r} is the recipe of this run itself; leave it out of controls."
            )
    return tuple(dict.fromkeys(names))


def _seed(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise RegrowError(f"the seed is a whole number from 0 to 2^63 - 1; got {value!r}.")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
