"""The table of downloadable sets."""

from __future__ import annotations

import pytest

from regrow.bench.data.download import get
from regrow.bench.data.sources import CIFAR10, SOURCES
from regrow.core.errors import RegrowError


def test_get_looks_the_name_up(tmp_path):
    with pytest.raises(RegrowError, match=r"'cifar-10'\. Did you mean 'cifar10'"):
        get("cifar-10", tmp_path)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name in CIFAR10.train + CIFAR10.test:
        (folder / name).touch()
    assert get("cifar10", str(tmp_path)) == folder  # it is there: no request


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_rows_are_well_formed(source):
    assert SOURCES[source.name] is source
    assert source.archive == (source.unpacked > 0)
    assert all(len(file.sha256) == 64 and int(file.sha256, 16) for file in source.remote)
    if not source.archive:
        names = {file.name.removesuffix(".gz") for file in source.remote}
        assert names == set(source.train + source.test)
