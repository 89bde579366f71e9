"""Fixtures that tests of dependants take from a conftest.py which their packages do not ship."""

import importlib.util
import os
from pathlib import Path

import pytest


def pytest_runtest_setup() -> None:
    """Refuse to test another exca than the one that is meant."""
    import exca

    expected = os.environ["EXCA_DOWNSTREAM_VERSION"]
    if exca.__version__ != expected:
        raise pytest.UsageError(f"exca {exca.__version__} was imported from {exca.__path__}, not {expected}")


@pytest.fixture(scope="session")
def test_data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which the made-up studies of neuralset.events.testing write their recordings."""
    folder = tmp_path_factory.mktemp("studies")
    spec = importlib.util.find_spec("neuralset")
    assert spec is not None, "for the tests of neuralset"
    assert spec.submodule_search_locations is not None, "it is a package"
    for module in (Path(spec.submodule_search_locations[0]) / "events" / "testing").glob("test2*.py"):
        name = module.stem
        (folder / f"Test{name[4:8]}{name[8:].capitalize()}").mkdir()
    return folder
