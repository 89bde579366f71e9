"""Names that could be imported from the published release, 0.6.0: published packages import them."""

import importlib
import json
import os
import subprocess
import sys
import typing as tp
from pathlib import Path

import pytest

import exca

NAMES: dict[str, list[str]] = json.loads(Path(__file__).with_name("names_of_0_6.json").read_text("utf8"))


def test_every_name_of_the_published_release_can_be_imported() -> None:
    """In a process of its own: some of the names are steps, whose classes would be found by name from then on."""
    code = (
        "import importlib, json, sys\n"
        "names = json.load(sys.stdin)\n"
        "missing = [(m, n) for m in names for n in names[m] if not hasattr(importlib.import_module(m), n)]\n"
        "print(json.dumps(missing))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(NAMES), check=True, capture_output=True, text=True
    )
    assert json.loads(done.stdout) == []


def test_a_name_that_no_release_had_is_an_attribute_error() -> None:
    for module in NAMES:
        with pytest.raises(AttributeError, match="has no attribute 'never_there'"):
            _ = importlib.import_module(module).never_there


def test_submodules_are_attributes_of_the_package() -> None:
    code = "import exca; [getattr(exca, name) for name in {!r}]"
    names = sorted({module.split(".")[1] for module in NAMES if "." in module})
    subprocess.run([sys.executable, "-c", code.format(names)], check=True)


def test_import_loads_none_of_them() -> None:
    code = "import exca, exca.base, exca.task, exca.map, sys; print([m for m in sys.modules if '.kept' in m])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_what_is_gone_says_what_to_use() -> None:
    from exca.steps.errors import ErrorRegistry

    with pytest.raises(NotImplementedError, match=r"ErrorRegistry .* is gone: .*lookup"):
        ErrorRegistry("somewhere")


def test_loggers_of_modules_are_below_that_of_the_package() -> None:
    names = [module for module in NAMES if "logger" in NAMES[module]]
    loggers = {module: importlib.import_module(module).logger.name for module in names}
    assert {name for name in loggers.values() if not f"{name}.".startswith("exca.")} == set()
    assert exca.logconf.logger.name == "exca"


def test_assignments_to_what_is_kept_are_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    inflight: tp.Any = importlib.import_module("exca.cachedict.inflight")
    monkeypatch.setattr(inflight, "POLL_SECONDS", 0.01, raising=False)
    monkeypatch.setattr(inflight, "WorkerInfo", None)
    assert exca.cachedict.CacheDict(None, keep_in_ram=True) is not None


def test_the_shared_list_of_checks_is_one() -> None:
    import exca.base
    import exca.utils

    assert exca.base.DEFAULT_CHECK_SKIPS is exca.utils.DEFAULT_CHECK_SKIPS
    assert os.fspath(Path(exca.__file__).parent) in exca.__path__
