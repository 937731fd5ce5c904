"""The page about structured pruning lists the rules that there are."""

from __future__ import annotations

from pathlib import Path

from regrow.model.coupling.rules import RULES
from regrow.model.coupling.rules.table import described

PAGE = Path(__file__).resolve().parents[2] / "docs" / "structured.md"


def test_the_page_has_every_rule() -> None:
    page = PAGE.read_text()
    served = [name for names, _ in described() for name in names]
    assert sorted(f"aten.{name}" for name in served) == sorted(RULES)
    for names, text in described():
        assert text, names
        assert f"| {text} | {', '.join(f'`{name}`' for name in names)} |" in page
