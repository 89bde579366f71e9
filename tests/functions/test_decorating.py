"""What `exca.cached` and `exca.map_cached` decorate, and what they refuse."""

import functools
import typing as tp
from pathlib import Path

import numpy as np
import pydantic
import pytest

import exca
from exca import helpers
from exca.functions import CachedFunction
from exca.functions.fields import MapFields, TaskFields

CALLS: list[tp.Any] = []
anything: tp.Any = exca.cached  # for uses that type checkers refuse


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


def train(layers: int, name: str = "adam", *, rate: float = 1e-3) -> str:
    """Train a model."""
    CALLS.append((layers, name, rate))
    return f"{layers}-{name}-{rate}"


class Owner:
    def method(self, x: int) -> int:
        return x

    @classmethod
    def make(cls, x: int) -> int:
        return x

    def __call__(self, x: int) -> int:
        return x


async def coroutine(x: int) -> int:
    return x


def generator(x: int) -> tp.Iterator[int]:
    yield x


async def both_of_them(x: int) -> tp.AsyncIterator[int]:
    yield x


def closing_over(factor: int) -> tp.Callable[[int], int]:
    def times(x: int) -> int:
        return factor * x

    return times


@pytest.mark.parametrize(
    ("func", "message"),
    [
        (Owner.method, "it is a method.*infra.apply"),
        (Owner().method, "it is bound to"),
        (Owner.make, "it is bound to"),
        (Owner.__dict__["make"], "a classmethod depends on more.*infra.apply"),
        (Owner, "it is a class"),
        (Owner(), "no name"),
        (coroutine, "async function.*await .submit"),
        (generator, "a generator cannot be kept: return a list"),
        (both_of_them, "a generator cannot be kept"),
        (lambda x: x, "no name"),
        (functools.partial(train, name="x"), "no name"),
        (
            closing_over(3),
            "uses 'factor' of the function around it .*make it a parameter, or name it in ignore",
        ),
        (dict.get, "'self'|no type"),
        (3, "no function"),
        (print, r"has no type|not known"),
        (helpers.with_infra(cluster="debug", folder=".")(train), "decorated already"),
        (exca.cached(folder=".")(train), "already, so decorate the plain function"),
    ],
)
def test_what_cannot_be_decorated(func: tp.Any, message: str) -> None:
    for decorator in (exca.cached(folder="."), exca.map_cached(folder=".")):
        with pytest.raises((TypeError, ValueError), match=message) as caught:
            decorator(func)
        assert " cannot decorate " in str(caught.value)


def test_options_that_make_no_sense() -> None:
    with pytest.raises(TypeError, match=r"write @exca.cached\(folder=...\)"):
        anything(train)
    with pytest.raises(TypeError, match=r"write @exca.map_cached\(folder=...\)"):
        exca.map_cached(tp.cast(tp.Any, train))
    with pytest.raises(TypeError, match="ignore='verbose' names no parameters"):
        exca.cached(folder=".", ignore="verbose")
    with pytest.raises(ValueError, match="unannotated='any' is neither"):
        anything(folder=".", unannotated="any")
    with pytest.raises(
        ValueError, match="ignore names 'verbose', but its parameters are 'layers', 'name', 'rate'"
    ):
        exca.cached(folder=".", ignore=["verbose"])(train)
    with pytest.raises(pydantic.ValidationError, match="clutser"):
        anything(folder=".", clutser="slurm")
    with pytest.raises(ValueError, match="needs a folder"):
        exca.cached(cluster="local")(train)(3)
    for name in ("verbose", "mmap_mode", "cache_validation_callback", "compress", "bytes_limit", "location"):
        with pytest.raises(TypeError, match=f"{name}=.* is an option of joblib.Memory: "):
            anything(folder=".", **{name: 1})


def test_what_is_closed_over_may_be_ignored(tmp_path: Path) -> None:
    assert exca.cached(folder=tmp_path, ignore=["factor"])(closing_over(3))(2) == 6

    def inner(x: int) -> int:
        return train(x).count("-") and len(np.zeros(x))

    assert exca.cached(folder=tmp_path)(inner)(2) == 2  # modules and functions are no data


def test_a_builtin_function(tmp_path: Path) -> None:
    svd: tp.Any = exca.cached(folder=tmp_path, unannotated="hash")(np.linalg.svd)
    one, two = svd(np.eye(3)), svd(np.eye(3), full_matrices=True)
    assert np.array_equal(one[1], two[1])
    assert [path.name for path in tmp_path.iterdir()] == ["numpy.linalg.svd,1"]


def test_a_decorator_is_made_of_another_as_by_joblib(tmp_path: Path) -> None:
    memory = exca.cached(folder=tmp_path, unannotated="hash")

    @memory.cache
    def one(x):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        return x

    @memory.cache(ignore=["verbose"], version="2")
    def two(x, verbose=0):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        return x, verbose

    assert isinstance(one, CachedFunction)
    assert one(3) == 3
    assert two(3, verbose=1) == two(3) == (3, 1)
    assert two.infra_of(3).uid().startswith(f"{__name__}.two,2/")


def test_the_fields_for_type_checkers_are_those_of_the_infras() -> None:
    for infra, fields in ((exca.TaskInfra, TaskFields), (exca.MapInfra, MapFields)):
        assert {"folder", *fields.__annotations__} == set(infra.model_fields)
