"""Fixtures for pytest: ``pytest_plugins = ["exca.testing.plugin"]`` in ``conftest.py``."""

import typing as tp
from pathlib import Path

import pytest

from . import computed, redirect


@pytest.fixture
def exca_cache(tmp_path: Path) -> tp.Iterator[Path]:
    """Give a temporary folder, which is the cache of all objects that the test makes; all runs in this process."""
    with redirect(tmp_path / "exca-cache") as folder:
        assert folder is not None
        folder.mkdir()
        yield folder


@pytest.fixture
def exca_computed() -> tp.Iterator[list[str]]:
    """Give the list of the uids of what was computed in the test so far."""
    with computed() as found:
        yield found
