"""A warning names the line of the user's code that led to it."""

import contextlib
import threading
import typing as tp
import warnings
from pathlib import Path

import pydantic
import pytest

import exca
from exca._callers import warn
from exca.errors import RefusalWarning, UncachedOverrideWarning


class Counted(pydantic.BaseModel):
    """A task that a child class overrides."""

    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return 1


class Child(Counted):
    """Overrides the method without an infra."""

    def run(self) -> int:
        return 2


def test_a_warning_while_an_object_is_made_is_at_its_line() -> None:
    with pytest.warns(UncachedOverrideWarning) as caught:
        assert Child().run() == 2
    assert [Path(each.filename) for each in caught] == [Path(__file__)]


def test_a_warning_of_a_call_is_at_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(exca.settings.VARIABLE, "lossy-item-uid")
    monkeypatch.setattr(exca.settings, "_warned", set())

    @exca.map_cached(folder=tmp_path, item_uid=lambda item: f"{item} at 0x7f0000000000>")
    def twice(item: list[int]) -> int:
        return 2 * item[0]

    with pytest.warns(RefusalWarning) as caught:
        assert list(twice.map([[1]])) == [2]
    assert [Path(each.filename) for each in caught] == [Path(__file__)]


def test_a_warning_at_the_end_of_a_with_block_is_at_its_line() -> None:
    text = "@contextlib.contextmanager\ndef leaving():\n    yield\n    warn('odd')"
    names: dict[str, tp.Any] = {"contextlib": contextlib, "warn": warn}
    exec(compile(text, exca.__file__, "exec"), names)  # as if it were exca's
    with pytest.warns(UserWarning, match="odd") as caught, names["leaving"]():
        pass
    assert [Path(each.filename) for each in caught] == [Path(__file__)]


def test_a_warning_without_code_of_the_user_is_at_its_own_line() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # by exec, so that no frame is of this file
        code = compile("warn('odd')", exca.__file__, "exec")
        thread = threading.Thread(target=exec, args=(code, {"warn": warn}))
        thread.start()
        thread.join()
    assert [str(each.message) for each in caught] == ["odd"]
