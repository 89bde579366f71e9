"""`exca.map_cached`: a function of one item, mapped over many."""

import os
import pickle
import signal
import subprocess
import sys
import typing as tp
from pathlib import Path

import numpy as np
import pydantic
import pytest

import exca
from exca.errors import AmbiguousItemError, ContentError, ReadOnlyError
from waiting import wait_for

CALLS: list[tp.Any] = []


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


def power(item: int, exponent: int = 2, *, offset: float = 0) -> float:
    """Raise an item to a power."""
    CALLS.append(item)
    return float(item**exponent + offset)


class Word(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    text: str
    size: int = 1


# The call


def test_what_is_missing_is_computed_once(tmp_path: Path) -> None:
    mapped = exca.map_cached(folder=tmp_path)(power)
    assert list(mapped.map([1, 2, 3, 2])) == [1, 4, 9, 4]
    assert CALLS == [1, 2, 3]
    assert list(mapped.map(iter([3, 4]))) == [9, 16]
    assert list(mapped.map({4: 0, 1: 0})) == [16, 1]
    assert mapped(4) == mapped(4, 2) == mapped(4, exponent=2, offset=0) == 16
    assert CALLS == [1, 2, 3, 4]
    assert list(mapped.map((2, 3), 3, offset=1)) == [9, 28]
    assert mapped.func(2) == 4
    assert list(mapped.map([])) == []
    again = exca.map_cached(folder=tmp_path)(power)
    CALLS.clear()
    assert list(again.map(range(1, 5))) == [1, 4, 9, 16]
    assert not CALLS


def test_it_computes_when_it_is_called(tmp_path: Path) -> None:
    results = exca.map_cached(folder=tmp_path)(power).map([1, 2])
    assert CALLS == [1, 2]
    assert next(results) == 1


def test_where_results_are_kept(tmp_path: Path) -> None:
    mapped = exca.map_cached(folder=tmp_path)(power)
    list(mapped.map([1, 2], 3))
    infra = mapped.infra_of(3)
    assert infra.uid() == f"{__name__}.power,1/exponent=3-8e9a9db8"
    assert mapped.infra_of(exponent=3).uid() == infra.uid()
    assert mapped.infra_of().uid() == f"{__name__}.power,1/default"
    assert dict(infra.cache_dict.items()) == {"1": 1, "2": 8}
    assert mapped.using(version="2").infra_of().uid().startswith(f"{__name__}.power,2/")
    assert getattr(mapped, "__name__", None) == "power"
    assert mapped.__doc__ == "Raise an item to a power."
    assert "map_cached" in repr(exca.map_cached(folder=tmp_path))


def test_arguments_are_validated(tmp_path: Path) -> None:
    mapped: tp.Any = exca.map_cached(folder=tmp_path)(power)
    assert list(mapped.map(["1", 1, 1.0], exponent="3")) == [1, 1, 1]
    assert CALLS == [1]
    with pytest.raises(pydantic.ValidationError):
        mapped.map([1, "many"])
    with pytest.raises(pydantic.ValidationError, match="exponent"):
        mapped.map([1], exponent="many")
    with pytest.raises(TypeError, match="unexpected keyword argument 'typo'"):
        mapped.map([1], typo=3)
    assert CALLS == [1]


def test_items_of_every_type_are_told_apart(tmp_path: Path) -> None:
    def same(item: tp.Any) -> tp.Any:
        CALLS.append(item)
        return item

    mapped = exca.map_cached(folder=tmp_path)(same)
    items: list[tp.Any] = [
        1,
        "1",
        1.5,
        True,
        None,
        "true",
        [1],
        ["1"],
        {"a": 1},
        Word(text="a"),
        Word(text="b"),
        "[1]",
    ]
    items += [np.arange(3), np.arange(4), [np.arange(3)], "a" * 1000, "a" * 1001, np.float32(1)]
    for _ in range(2):
        found = list(mapped.map(items))
        assert [repr(value) for value in found[:9]] == [repr(value) for value in items[:9]]
        assert len(found) == len(items)
    assert len(CALLS) == len(items)
    keys = list(mapped.infra_of().cache_dict)
    assert len(set(keys)) == len(items)
    assert max(map(len, keys)) < 300

    def words(item: str) -> int:
        return len(item)

    assert list(exca.map_cached(folder=tmp_path)(words).map(["b", "a", "1"])) == [1, 1, 1]
    assert list(exca.map_cached(folder=tmp_path)(words).infra_of().cache_dict) == ["b", "a", "1"]


def test_items_without_a_type(tmp_path: Path) -> None:
    def kind(item, option=1.0):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        CALLS.append(item)
        return type(item).__name__, type(option).__name__

    with pytest.raises(ValueError, match="parameter 'item' has no type"):
        exca.map_cached(folder=tmp_path)(kind)
    mapped = exca.map_cached(folder=tmp_path, unannotated="hash")(kind)
    items = [1, 1.0, (1,), [1], {1}, Path("1"), b"1"]
    names = ["int", "float", "tuple", "list", "set", "PosixPath", "bytes"]
    assert [name for name, _ in mapped.map(items)] == names
    assert [name for name, _ in mapped.map(reversed(items))] == names[::-1]
    assert len(CALLS) == len(items)
    assert mapped(1, 1) == ("int", "int")
    with pytest.raises(ContentError, match="argument 'item'"):
        mapped.map([1, lambda: 3])


def test_the_name_of_an_item_can_be_given(tmp_path: Path) -> None:
    def size(word: Word, items: list[int] | None = None) -> int:
        return len(word.text)

    mapped = exca.map_cached(folder=tmp_path, item_uid=lambda word: word.text)(size)
    assert list(mapped.map([Word(text="a"), Word(text="bc", size=2)])) == [1, 2]
    assert list(mapped.infra_of().cache_dict) == ["a", "bc"]

    def mean(x: np.ndarray, power: int = 1) -> float:
        return float(x.mean() ** power)

    by_shape = exca.map_cached(folder=tmp_path, item_uid=lambda x: str(x.shape))(mean)
    assert list(by_shape.map([np.ones(3), np.ones(4)])) == [1, 1]
    assert list(by_shape.infra_of().cache_dict) == ["(3,)", "(4,)"]

    def number(item: int) -> int:
        return item

    with pytest.raises(AmbiguousItemError):
        exca.map_cached(folder=tmp_path, item_uid=lambda item: "x")(number).map([1, 2])


def test_what_was_computed_before_an_error_is_kept(tmp_path: Path) -> None:
    def inverse(item: int) -> float:
        CALLS.append(item)
        return 1 / item

    mapped = exca.map_cached(folder=tmp_path)(inverse)
    with pytest.raises(ZeroDivisionError):
        mapped.map([1, 2, 0, 4])
    assert list(mapped.map([1, 2, 4])) == [1, 0.5, 0.25]
    assert CALLS == [1, 2, 0, 4]


def test_modes_and_memory(tmp_path: Path) -> None:
    mapped = exca.map_cached(folder=tmp_path)(power)
    with pytest.raises(ReadOnlyError):
        mapped.using(mode="read-only").map([1])
    list(mapped.map([1]))
    assert list(mapped.using(mode="read-only").map([1])) == [1]
    list(mapped.using(mode="force").map([1]))
    assert CALLS == [1, 1]
    kept = exca.map_cached(keep_in_ram=True)(power)
    assert kept(2) is kept(2)
    assert CALLS == [1, 1, 2]
    for exponent in range(40):  # more configurations than are kept open
        mapped(1, exponent)
        kept(1, exponent)
    CALLS.clear()
    for exponent in range(40):
        assert mapped(1, exponent) == kept(1, exponent) == 1
    assert not CALLS


def test_ignored_and_array_parameters(tmp_path: Path) -> None:
    def weigh(item: int, weights: np.ndarray, log: tp.Any = None) -> float:
        CALLS.append(log)
        return float(weights[item])

    mapped = exca.map_cached(folder=tmp_path, ignore=["log"])(weigh)
    weights = np.arange(3.0)
    assert list(mapped.map([1, 2], weights, log=open)) == [1, 2]
    assert list(mapped.map([1, 2], weights.copy())) == [1, 2]
    assert len(CALLS) == 2
    weights[1] = 7
    assert mapped(1, weights) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [({"ignore": ["item"]}, "which is the item"), ({"ignore": ["typo"]}, "ignore names 'typo'")],
)
def test_wrong_options(options: tp.Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        exca.map_cached(folder=".", **options)(power)


def test_the_item_comes_first() -> None:
    def nothing() -> int:
        return 1

    def rest(*items: int) -> int:
        return 1

    def by_name(*, item: int) -> int:
        return item

    for func in (nothing, rest, by_name):
        with pytest.raises(ValueError, match="its first parameter has to be the item"):
            exca.map_cached(folder=".")(tp.cast(tp.Any, func))


# Elsewhere


def with_pid(item: int, offset: int = 0) -> tuple[int, int]:
    return item + offset, os.getpid()


def of_array(item: np.ndarray, weights: np.ndarray) -> tuple[float, int]:
    return float((item * weights).sum()), os.getpid()


@pytest.mark.parametrize(
    "cluster",
    [
        pytest.param("processpool", marks=pytest.mark.long),
        "local",
        pytest.param("slurm", marks=pytest.mark.slurm),
    ],
)
def test_items_are_computed_elsewhere(slurm_folder: Path, cluster: tp.Any) -> None:
    mapped = exca.map_cached(folder=slurm_folder, cluster=cluster, max_jobs=2)(with_pid)
    found = list(mapped.map(range(6), offset=1))
    assert [value for value, _ in found] == [1, 2, 3, 4, 5, 6]
    assert os.getpid() not in {pid for _, pid in found}
    assert list(mapped.map(range(6), offset=1)) == found
    arrays = exca.map_cached(folder=slurm_folder, cluster=cluster)(of_array)
    [(value, pid)] = arrays.map([np.arange(3.0)], np.ones(3))
    assert (value, pid == os.getpid()) == (3.0, False)


def test_threads(tmp_path: Path) -> None:
    mapped = exca.map_cached(folder=tmp_path, cluster="threadpool")(with_pid)
    assert list(mapped.map(range(4))) == [(k, os.getpid()) for k in range(4)]


def test_it_pickles(tmp_path: Path) -> None:
    mapped = exca.map_cached(folder=tmp_path)(power)
    list(mapped.map([1, 2]))
    again = pickle.loads(pickle.dumps(mapped))
    CALLS.clear()
    assert list(again.map([1, 2])) == [1, 4]
    config = pickle.loads(pickle.dumps(mapped.infra_of(3)._obj))
    assert config.infra.uid() == mapped.infra_of(3).uid()
    assert not CALLS


CRASH = """
import os, signal, sys, time
from pathlib import Path
import exca

@exca.map_cached(folder="cache")
def slow(item: int) -> int:
    Path(f"started-{item}-{os.getpid()}").touch()
    while item == 3 and not os.path.exists("gate"):
        time.sleep(0.01)
    return item

if __name__ == "__main__":
    print(list(slow.map([1, 2, 3, 4])))
"""


def test_another_process_goes_on_where_one_was_killed(tmp_path: Path) -> None:
    (tmp_path / "crash.py").write_text(CRASH)
    first = subprocess.Popen([sys.executable, "crash.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: list(tmp_path.glob("started-3-*")), "the third item")
    second = subprocess.Popen([sys.executable, "crash.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    (tmp_path / "gate").touch()
    assert second.communicate(timeout=100)[0] == "[1, 2, 3, 4]\n"
    assert len(list(tmp_path.glob("started-3-*"))) == 2
    assert len(list(tmp_path.glob("started-4-*"))) == 1
