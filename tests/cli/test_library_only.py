"""Where only the library is installed, the command says what is missing."""

from __future__ import annotations

import sys

import pytest

import regrow.cli


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "regrow.cli.app", raising=False)
    monkeypatch.setitem(sys.modules, "typer", None)
    with pytest.raises(SystemExit) as stopped:
        regrow.cli.main()
    assert stopped.value.code == 2
    assert "'typer'" in capsys.readouterr().err
