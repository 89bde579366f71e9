"""What the tests of claims share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from claimant import Claimant


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose keys are claimed."""
    path = tmp_path / "uid"
    path.mkdir()
    return path


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Claimant]]:
    """Starts other processes that claim in the folder."""
    started: list[Claimant] = []

    def new(host: str = "", heartbeat: float = 5.0) -> Claimant:
        started.append(Claimant(folder, host, heartbeat))
        return started[-1]

    yield new
    for claimant in started:
        claimant.close()
