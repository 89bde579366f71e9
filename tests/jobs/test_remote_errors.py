"""Errors of all kinds on their way to another process."""

import base64
import pickle
import threading
import typing as tp

import pydantic
import pytest
from pydantic_core import PydanticCustomError

from exca.errors import UnknownClusterError
from exca.jobs import backends, remote_errors
from exca.jobs.backends import Submission


class TwoArguments(Exception):
    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"code {code}: {detail}")
        self.code = code
        self.detail = detail


class Prefixed(ValueError):
    """Unpickled by its constructor, it would say its prefix twice."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(f"prefix {text}")
        self.hint = hint


class WithLock(TwoArguments):
    def __init__(self) -> None:
        super().__init__(7, "locked")
        self.lock = threading.Lock()
        self.args = (*self.args, threading.Lock())


class Slotted(LookupError):
    __slots__ = ("where",)

    def __init__(self, *, where: str) -> None:
        super().__init__("lost")
        self.where = where


class OfSystem(FileNotFoundError):
    def __init__(self, path: str) -> None:
        super().__init__(2, "no such thing", path)


class OfImport(ImportError):
    def __init__(self, package: str, *, extra: str) -> None:
        super().__init__(f"{package} is missing", name=package)
        self.extra = extra


class WithProperty(TwoArguments):
    @property
    def code(self) -> int:
        return 3

    @code.setter
    def code(self, value: int) -> None:
        if getattr(self, "detail", ""):
            raise AttributeError("code is set once")


def carried(error: BaseException) -> BaseException:
    text = remote_errors.dump(error)
    assert text is not None
    again = remote_errors.load(text)
    assert again is not None
    assert type(again) is type(error)
    return again


@pytest.mark.parametrize(
    "error",
    [
        TwoArguments(3, "too late"),
        Prefixed("text", hint="try"),
        Slotted(where="there"),
        OfSystem("/no/such"),
        OfImport("pack", extra="all"),
        WithProperty(3, "fixed"),
        ValueError("plain", 3),
        KeyError("key"),
        UnicodeDecodeError("utf8", b"\xff", 0, 1, "invalid"),
        ExceptionGroup("many", [ValueError("one"), TwoArguments(1, "two")]),
        SystemExit(3),
        StopIteration(5),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_as_it_was(error: BaseException) -> None:
    error.add_note("a note")
    again = carried(error)
    assert str(again) == str(error)
    assert repr(again.args) == repr(error.args)
    assert again.__notes__ == ["a note"]
    for name in (*vars(error), "errno", "strerror", "filename", "name", "value", "reason", "where"):
        if name != "exceptions":
            assert getattr(again, name, None) == getattr(error, name, None)
    if isinstance(error, ExceptionGroup):
        kinds = [type(sub) for sub in tp.cast("ExceptionGroup[Exception]", again).exceptions]
        assert kinds == [ValueError, TwoArguments]


def test_what_cannot_be_pickled_is_left_out_and_named() -> None:
    error = WithLock()
    again = carried(error)
    assert isinstance(again, WithLock)
    assert (again.code, again.detail, again.args[0]) == (7, "locked", "code 7: locked")
    assert "_thread.lock" in again.args[1]  # its repr
    assert not hasattr(again, "lock")
    assert again.__notes__ == ["Left out, since they cannot be pickled: lock"]


class Checked(pydantic.BaseModel):
    x: int
    y: list[pydantic.PositiveInt] = []
    z: str = ""

    @pydantic.field_validator("z")
    @classmethod
    def _refuse(cls, z: str) -> str:
        if z == "own":
            raise PydanticCustomError("own", "of its {own} kind", {"own": "very"})
        raise ValueError("never {right}")


@pytest.mark.parametrize("z", ["own", "other"])
def test_a_validation_error_arrives_as_it_was(z: str) -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        Checked(x="a", y=[0], z=z)  # type: ignore[arg-type] # wrong on purpose
    again = carried(caught.value)
    assert isinstance(again, pydantic.ValidationError)
    assert [error["loc"] for error in again.errors()] == [("x",), ("y", 0), ("z",)]
    assert str(again) == str(caught.value)


def test_a_class_made_in_a_function_is_carried_by_value() -> None:
    class Local(Exception):
        def __init__(self, a: int, b: int) -> None:
            super().__init__(a + b)

    text = remote_errors.dump(Local(1, 2))
    assert text is not None
    assert type(remote_errors.load(text)).__name__ == "Local"


def test_what_is_no_error_is_not_taken_for_one() -> None:
    assert remote_errors.load(None) is None
    assert remote_errors.load("bm8gcGlja2xl") is None
    assert remote_errors.load(base64.b64encode(pickle.dumps("text")).decode()) is None


@pytest.mark.parametrize("cluster", ["nowhere", "", "threadpool"])
def test_an_unknown_cluster_is_an_error_that_names_those_there_are(cluster: str) -> None:
    submission = Submission(cluster, "12", "logs/%j")
    for ask in (lambda s: backends.get(s.cluster), lambda s: backends.cancel([s])):
        with pytest.raises(
            UnknownClusterError, match=f"no cluster '{cluster}': known are 'local', 'slurm', 'debug'"
        ):
            ask(submission)
    assert backends.alive(submission) is None, "it has not ended"
    assert backends.alive(Submission(None, "", "")) is None
