"""The law on layers, by reading the imports of every file, those inside functions too."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "regrow"
# From the bottom up: a folder imports itself and what stands before it.
LAYERS = ["core", "model", "parts", "engine", "recipes", "export", "bench", "cli"]
PARTS = ["allocate", "criteria", "patterns", "schedule", "reparam", "units"]
FILES = sorted(SOURCE.rglob("*.py"))
LONGEST = 350


def imports(tree: ast.AST, package: tuple[str, ...] = ()) -> Iterator[str]:
    """Full names of all that a file imports; relative names are resolved against its package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            # `from regrow import parts` names a module as `import regrow.parts` does.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def imports_of(path: Path) -> set[str]:
    package = ("regrow", *path.relative_to(SOURCE).parent.parts)
    return set(imports(ast.parse(path.read_text(encoding="utf-8")), package))


def breaches(layer: str, names: set[str]) -> set[str]:
    """Imports that a file of a layer may not make: higher layers, and the facade."""
    allowed = LAYERS[: LAYERS.index(layer) + 1]
    own = {name for name in names if name.split(".")[0] == "regrow"}
    return {name for name in own if name.split(".")[1:2] == [] or name.split(".")[1] not in allowed}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_lower_ones(layer: str) -> None:
    files = [path for path in FILES if path.relative_to(SOURCE).parts[0] == layer]
    assert files
    wrong = {str(path.relative_to(SOURCE)): breaches(layer, imports_of(path)) for path in files}
    assert not {path: names for path, names in wrong.items() if names}


def test_every_file_is_in_a_layer_or_the_facade() -> None:
    beside = {path.relative_to(SOURCE).parts[0] for path in FILES} - set(LAYERS)
    assert beside <= {"__init__.py", "__main__.py"}


def test_kinds_of_parts_do_not_know_each_other() -> None:
    for path in FILES:
        place = path.relative_to(SOURCE).parts
        if place[0] != "parts" or len(place) < 3:
            continue
        # Regrowth rules score as criteria do, and some are criteria of the dense network.
        known = {"regrowth", "criteria"} if place[1] == "regrowth" else {place[1]}
        for name in imports_of(path):
            if name.startswith("regrow.parts."):
                assert name.split(".")[2] in known, f"{'/'.join(place)} imports {name}"
    assert {path.relative_to(SOURCE).parts[1] for path in FILES if "parts" in path.parts} >= {
        *PARTS,
        "regrowth",
    }


def test_parts_and_core_never_read_a_model() -> None:
    """They are pure: tensors in, values out."""
    for path in FILES:
        if path.relative_to(SOURCE).parts[0] == "parts":
            assert not {n for n in imports_of(path) if n.startswith(("regrow.model", "torch.nn"))}


def test_core_needs_nothing_but_torch_and_numpy() -> None:
    allowed = {*sys.stdlib_module_names, "torch", "numpy", "regrow"}
    for path in FILES:
        if path.relative_to(SOURCE).parts[0] == "core":
            assert {name.split(".")[0] for name in imports_of(path)} <= allowed, path.name


def test_the_library_needs_no_extra() -> None:
    """What the command line brings along is imported there and in bench, and nowhere below."""
    allowed = {*sys.stdlib_module_names, "torch", "numpy", "safetensors", "regrow"}
    allowed |= {"typing_extensions"}  # which torch itself needs
    for path in FILES:
        layer = path.relative_to(SOURCE).parts[0]
        if layer in ("core", "model", "parts", "engine", "recipes"):
            assert {name.split(".")[0] for name in imports_of(path)} <= allowed, path.name


def test_no_file_is_long() -> None:
    lengths = {
        str(path.relative_to(SOURCE)): len(path.read_text(encoding="utf-8").splitlines())
        for path in FILES
    }
    assert not {path: n for path, n in lengths.items() if n > LONGEST}


@pytest.mark.parametrize(
    "text",
    [
        "import regrow.engine.plan",
        "from regrow.engine.plan import Plan",
        "from regrow import engine",
        "import regrow",
        "from ..engine import plan",
        "def f():\n    from regrow.engine import plan",
        "if True:\n    import regrow.cli as c",
    ],
)
def test_the_test_sees_a_breach(text: str) -> None:
    names = set(imports(ast.parse(text), ("regrow", "parts")))
    assert breaches("parts", names)
    assert not breaches(
        "parts", set(imports(ast.parse("from .criteria import x"), ("regrow", "parts")))
    )
    assert not breaches("parts", {"torch", "regrow.core.step.Step", "regrow.parts.criteria.lamp"})
