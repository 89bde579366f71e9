"""A folder for digests of its own, and projects."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from projects import Project


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXCA_CACHE_DIR", str(tmp_path_factory.mktemp("digests")))


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project in a folder of its own, whose modules are forgotten afterwards."""
    made = Project(tmp_path / "project")
    yield made
    made.forget()
