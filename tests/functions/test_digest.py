"""The digest of a value: by what it holds, the same in every process, and another for another value."""

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import hashlib
import itertools
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import threading
import typing as tp
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exca.errors import ContentError
from exca.functions.digest import digest

masked_array: tp.Any = np.ma.masked_array


class Color(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Point:
    x: int
    y: tp.Any = None


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: tp.Any) -> None:
        self.value = value


class Vector(np.ndarray[tp.Any, tp.Any]):
    unit = ""


def vector(values: list[float], unit: str) -> Vector:
    """Make an array with an attribute."""
    made = np.asarray(values).view(Vector)
    made.unit = unit
    return made


def named(value: int) -> int:
    """Be known by name."""
    return value


FRAME = {"a": [1, 2, 3], "b": ["x", "y", None], "c": [0.5, np.nan, 1.5]}


def frame(**changes: tp.Any) -> pd.DataFrame:
    """Make a table with mixed columns."""
    return pd.DataFrame({**FRAME, **changes})


def matrix() -> tp.Any:
    """Make an array of a subclass that numpy keeps for old code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.matrix([[1, 2]])


def different() -> list[tp.Any]:
    """Return values of which no two hold the same."""
    numbers = np.arange(6)
    dates = pd.date_range("2020", periods=3)
    simple: list[tp.Any] = [
        None,
        True,
        False,
        0,
        1,
        -1,
        2**70,
        0.0,
        -0.0,
        1.0,
        float("nan"),
        float("inf"),
        1j,
        "",
        "1",
        b"1",
    ]
    simple += [
        "None",
        "True",
        [],
        (),
        {},
        set(),
        frozenset(),
        [1],
        (1,),
        {1},
        frozenset({1}),
        {1: 1},
        {"1": 1},
    ]
    simple += [[[1], 2], [1, [2]], [[1, 2]], ["ab", "c"], ["a", "bc"], ["abc"], bytearray(b"1"), [None], [[]]]
    simple += [collections.OrderedDict(a=1, b=2), collections.OrderedDict(b=2, a=1), {"a": 1, "b": 2}]
    simple += [
        Color.RED,
        Color.BLUE,
        Point(1),
        Point(2),
        Point(1, Point(2)),
        Slotted(1),
        Slotted(2),
        named,
        Point,
    ]
    simple += [
        datetime.date(2020, 1, 1),
        datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
        datetime.timedelta(1),
        Path("a"),
        Path("b"),
    ]
    simple += [
        decimal.Decimal(1),
        fractions.Fraction(1),
        range(3),
        range(4),
        slice(1),
        functools.partial(named, 1),
    ]
    simple += [collections.deque([1]), collections.Counter("a"), os, sys, random.Random(1), random.Random(2)]
    arrays: list[tp.Any] = [
        numbers,
        numbers + 1,
        numbers.astype("i4"),
        numbers.astype(float),
        numbers.reshape(2, 3),
    ]
    arrays += [
        numbers.reshape(3, 2),
        numbers[:0],
        numbers[:0].reshape(0, 3),
        np.array(1),
        np.int64(1),
        np.int32(1),
    ]
    arrays += [
        np.float32(1),
        np.array(["a", "b"]),
        np.array(["a", "b"], dtype=object),
        np.array([1, "b"], dtype=object),
    ]
    arrays += [np.array([1, 2], dtype=">i8"), np.array(["2020"], "M8[D]"), np.array(["2020"], "M8[s]")]
    arrays += [np.zeros(2, [("a", "i4"), ("b", "f8")]), np.zeros(2, [("a", "i4"), ("c", "f8")]), matrix()]
    arrays += [
        masked_array([1, 2], [0, 1]),
        masked_array([1, 2], [1, 0]),
        np.zeros(2, bool),
        np.array([b"a"]),
    ]
    arrays += [
        vector([1.0], "m"),
        vector([1.0], "s"),
        np.longdouble(1),
        np.array([1], np.longdouble),
        numbers > 3,
    ]
    tables: list[tp.Any] = [
        frame(),
        frame(a=[1, 2, 4]),
        frame(b=["x", "y", "z"]),
        frame(b=["x", "y", 1]),
        frame().set_index("a"),
    ]
    tables += [frame()[["b", "a", "c"]], frame().rename(columns={"a": "A"}), frame().astype({"a": "int32"})]
    tables += [frame().astype({"a": "Int64"}), frame(a=[1, 2, None]).astype({"a": "Int64"}), frame()["a"]]
    tables += [frame()["c"], frame()["a"].rename("z"), frame().iloc[:2], frame().iloc[:0], pd.DataFrame()]
    tables += [frame(a=pd.Categorical(["u", "v", "u"])), frame(a=pd.Categorical(["u", "v", "u"], ["v", "u"]))]
    tables += [
        frame(a=pd.Categorical(["u", "v", "u"], ordered=True)),
        frame(a=dates),
        frame(a=dates.tz_localize("UTC")),
    ]
    tables += [dates, dates.tz_localize("UTC"), pd.Index([1, 2]), pd.Index([1, 2], name="x"), pd.Index(["a"])]
    tables += [
        pd.MultiIndex.from_product([[1, 2], ["a"]]),
        frame(a=pd.array(["x", None, "y"], dtype="string")),
    ]
    tables += [
        frame(a=pd.array([True, None, False], dtype="boolean")),
        frame(a=dates.to_period("M")),
        pd.NaT,
        pd.NA,
    ]
    tables += [
        frame(a=pd.arrays.SparseArray([0, 0, 1])),
        frame(a=pd.interval_range(0, 3)),
        pd.Timestamp("2020"),
    ]
    return [*simple, *arrays, *tables]


def test_no_two_values_share_a_digest() -> None:
    values = different()
    found: dict[str, tp.Any] = {}
    for value in values:
        assert digest(value) not in found, (value, found[digest(value)])
        found[digest(value)] = value
    for value in values:  # also inside of others
        assert len({digest([value]), digest((value,)), digest({"a": value}), digest(Point(1, value))}) == 4


def test_what_does_not_count() -> None:
    numbers = np.arange(6).reshape(2, 3)
    wide = np.zeros((2, 6), int)
    wide[:, ::2] = numbers
    for same in (np.asfortranarray(numbers), wide[:, ::2], numbers[::-1][::-1], numbers.copy()):
        assert digest(same) == digest(numbers)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a", "b", 3}) == digest({3, "b", "a"})
    texts = [b"long text".decode() for _ in range(2)]
    assert texts[0] is not texts[1]
    assert digest(texts) == digest([texts[0], texts[0]])
    again = frame().iloc[[2, 1, 0]].iloc[::-1]
    assert digest(again) == digest(frame())
    assert digest(pd.RangeIndex(3)) == digest(pd.Index([0, 1, 2]))
    assert digest(pd.Index(["a", "b"], dtype="string")) == digest(pd.Index(["a", "b"], dtype=object))
    assert digest(frame(b=frame()["b"].copy())) == digest(frame())
    missing = pd.array([1, 2], dtype="Int64")
    missing[0] = pd.NA
    assert digest(pd.Series(missing)) == digest(pd.Series([None, 2], dtype="Int64"))
    masked = masked_array([1, 2], [0, 1])
    assert digest(masked) == digest(masked_array([1, 99], [0, 1]))
    padded = np.zeros(2, np.dtype([("a", "i1"), ("b", "f8")], align=True))
    dirty = np.frombuffer(bytearray(b"\xff" * padded.nbytes), padded.dtype).copy()
    dirty["a"], dirty["b"] = 0, 0
    assert digest(dirty) == digest(padded)


def test_tensors() -> None:
    torch = pytest.importorskip("torch")
    numbers = torch.arange(6.0)
    values = [
        numbers,
        numbers + 1,
        numbers.double(),
        numbers.reshape(2, 3),
        numbers.reshape(3, 2),
        numbers.bfloat16(),
    ]
    values += [
        numbers.to_sparse(),
        numbers > 2,
        torch.tensor(1.0),
        torch.tensor([1 + 2j]),
        torch.empty(0),
        numbers.numpy(),
    ]
    values += [torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)]
    assert len(set(map(digest, values))) == len(values)
    assert digest(numbers.reshape(2, 3).t().t()) == digest(numbers.reshape(2, 3).clone())
    assert digest(numbers.clone().requires_grad_()) == digest(numbers)
    assert digest(torch.nn.Parameter(numbers)) == digest(numbers)
    assert digest(torch.tensor([1 + 2j]).conj()) == digest(torch.tensor([1 - 2j]))
    with pytest.raises(ContentError, match="a meta tensor: give its numbers"):
        digest(torch.empty(3, device="meta"))


def test_sparse_matrices() -> None:
    sparse: tp.Any = pytest.importorskip("scipy.sparse")
    eye = np.eye(3)
    values = [sparse.csr_matrix(eye), sparse.csr_array(eye), sparse.coo_matrix(eye), sparse.eye(2), eye]
    assert len(set(map(digest, values))) == len(values)
    matrix = sparse.csr_matrix(eye)
    before = digest(matrix)
    assert matrix.has_sorted_indices  # which it remembers besides
    assert matrix.has_canonical_format
    assert digest(matrix) == before
    unsorted = sparse.csr_matrix(([1, 2], [1, 0], [0, 2]), shape=(1, 2))
    assert digest(unsorted) == digest(sparse.csr_matrix([[2, 1]]))


def test_circles_end() -> None:
    one: list[tp.Any] = [1]
    one.append(one)
    other: list[tp.Any] = [1, [1]]
    other[1].append(other)
    assert digest(one) == digest(one)
    assert digest(one) != digest(other)
    point = Point(1)
    point.y = point
    assert digest(point) == digest(point)
    deep: list[tp.Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ContentError, match="too deeply"):
        digest(deep)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (threading.Lock(), "cannot be pickled"),
        (lambda: 3, "no name"),
        ([iter([1, 2])], "only once"),
        ({"a": (number for number in [1])}, "only once"),
        (itertools.count(), "only once"),
        (hashlib.md5(), "cannot be pickled"),
        (Point(1, threading.Lock()), "cannot be pickled"),
        (pydantic.SecretStr("word"), "a secret"),
        (Point(1, [pydantic.SecretBytes(b"word")]), "a secret"),
    ],
)
def test_what_cannot_be_identified_is_refused(value: tp.Any, why: str) -> None:
    with pytest.raises(ContentError, match=why):
        digest(value)


_KEYS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
VALUES = st.recursive(
    _KEYS,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(_KEYS, inner) | st.sets(_KEYS),
    max_leaves=12,
)


def exact(value: tp.Any) -> tp.Any:
    """Write a value so that equal texts mean the same value, types and all."""
    if isinstance(value, dict):
        return "dict", sorted((repr(exact(key)), repr(exact(part))) for key, part in value.items())
    if isinstance(value, set):
        return "set", sorted(repr(exact(part)) for part in value)
    if isinstance(value, list | tuple):
        return type(value).__name__, [exact(part) for part in value]
    return type(value).__name__, repr(value)


@settings(max_examples=300, deadline=None)
@given(VALUES, VALUES)
def test_values_share_a_digest_if_they_are_the_same(one: tp.Any, other: tp.Any) -> None:
    assert (digest(one) == digest(other)) == (exact(one) == exact(other))


def test_every_process_gives_the_same() -> None:
    """Hashes of text differ from process to process; digests do not."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import json, test_digest as t\nfrom exca.functions.digest import digest\n"
        "values = [v for v in t.different() if not callable(v)]\n"
        "print(json.dumps([digest(v) for v in values]))"
    )
    found = []
    for seed in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True
        )
        found.append(json.loads(done.stdout))
    assert found[0] == found[1]


def test_digests_are_kept_for_ever() -> None:
    """A digest is part of an address: with another one, results would be computed again."""
    numbers = np.arange(6, dtype="<i8").reshape(2, 3)
    table = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}, index=[3, 4])
    table["b"] = table["b"].astype(object)
    found = {
        "numbers": digest(numbers),
        "table": digest(table),
        "nested": digest([1, 1.5, "a", None, {"k": (numbers, b"x")}, {1, 2}]),
        "object": digest(pathlib.PurePosixPath("a/b")),
        "decimal": digest(decimal.Decimal("1.5")),
        "member": digest(socket.AF_INET),
    }
    assert found == KNOWN


KNOWN = {
    "decimal": "9ed0e29b9dda92bf0a3701f46c5650a0",
    "nested": "e396346dd7c713479a88bb6dceca544a",
    "numbers": "f67fea0e4337a41622604a01360184da",
    "object": "f7a6a1100de1527b1428fe5c5a3c7d0f",
    "member": "4f9cd348b36121cc548d057c3d67f694",
    "table": "82bbee1578e07bf31e04b346d7589e73",
}
