"""Arguments that do not count, that have no type, or that are identified by what they hold."""

import dataclasses
import enum
import pickle
import threading
import typing as tp
from pathlib import Path

import numpy as np
import pandas as pd
import pydantic
import pytest

import exca
from exca.errors import ContentError

CALLS: list[tp.Any] = []


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


class Kind(enum.Enum):
    SMALL = "small"
    LARGE = "large"


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    width: int = 3
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("name",)
    name: str = "model"


class Later(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    number: int


def train(layers: int, name: str = "adam", *, rate: float = 1e-3) -> str:
    """Train a model."""
    CALLS.append((layers, name, rate))
    return f"{layers}-{name}-{rate}"


def last(uid: str) -> str:
    return uid.rpartition("/")[2]


# Parameters that do not count, or have no type


def test_ignored_parameters_do_not_count(tmp_path: Path) -> None:
    def fit(size: int, verbose: bool = False, log: tp.Any = print) -> int:
        CALLS.append((verbose, log))
        return size

    cached = exca.cached(folder=tmp_path, ignore=["verbose", "log"])(fit)
    lock = threading.Lock()
    assert cached(1, verbose=True, log=lock) == cached(1) == cached(1, log=open) == 1
    assert CALLS[0] == (True, lock)
    assert len(CALLS) == 1
    assert "verbose" not in cached.infra_of(1, verbose=True).config(exclude_defaults=True)
    assert cached.infra_of(1).uid().endswith("fit_FuncConfig.build,1/size=1-c9d7f188")
    [found] = cached.iter_cached()
    assert found.build() == 1

    def untyped(size: int, verbose=0, *, pool=None): ...  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202

    assert exca.cached(folder=tmp_path, ignore=("verbose", "pool"))(untyped)(3, 1, pool=lock) is None


def test_parameters_without_a_type_are_refused_or_hashed(tmp_path: Path) -> None:
    def untyped(x, y=(1, 2), *rest, z=2.0, **more):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN002, ANN003, ANN202
        CALLS.append(x)
        return x, y, rest, z, more

    with pytest.raises(
        ValueError, match=r"parameter 'x' has no type: annotate it, or write unannotated='hash'"
    ):
        exca.cached(folder=tmp_path)(untyped)
    cached = exca.cached(folder=tmp_path, unannotated="hash")(untyped)
    values = [
        1,
        1.0,
        True,
        "1",
        (1,),
        [1],
        {1},
        frozenset({1}),
        {"a": 1},
        {"a": 1.0},
        {1: "a"},
        b"1",
        None,
        1.5,
    ]
    values += [
        Path("1"),
        Kind.SMALL,
        Point(1),
        Model(),
        Later(number=1),
        {"a.b": 1},
        {"a": {"b": 1}},
        [(1,)],
        [[1]],
    ]
    values += [np.float64(1), np.int64(1), {"x": (1,)}, {"x": [1]}, 1j, int, train, range(1)]
    for _ in range(2):
        for value in values:
            result, y, rest, z, more = cached(value, w=value)
            assert (type(result), result) == (type(value), value) == (type(more["w"]), more["w"])
            assert (y, rest, type(z)) == ((1, 2), (), float)
    assert len(CALLS) == len(values)
    assert len({cached.infra_of(value).uid() for value in values}) == len(values)
    assert cached.infra_of(1).uid() == f"{__name__}.untyped,1/x=1-fcb8d513"
    assert cached(1, (1, 2), z=2.0) == (1, (1, 2), (), 2.0, {})
    assert cached(1) == (1, (1, 2), (), 2.0, {})
    assert cached(1, 2, 3, 4) == (1, 2, (3, 4), 2.0, {})


def test_a_default_that_is_compared_by_identity(tmp_path: Path) -> None:
    missing = object()

    def get(key, default=missing):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        return key if default is missing else default

    cached = exca.cached(folder=tmp_path, unannotated="hash", ignore=["missing"])(get)
    assert cached(3) == 3
    assert cached(3, 4) == 4


# Arrays and other things of which the configuration has a digest


def total(x: np.ndarray, scale: float = 1.0) -> float:
    CALLS.append(x)
    return float(x.sum()) * scale


def test_arrays_are_identified_by_what_they_hold(tmp_path: Path) -> None:
    cached = exca.cached(folder=tmp_path)(total)
    x = np.arange(6.0).reshape(2, 3)
    assert cached(x) == cached(np.asfortranarray(x)) == cached(x.copy()) == 15
    assert CALLS[0] is x
    assert len(CALLS) == 1
    assert cached(x + 1) == 21
    assert cached(x.astype(np.float32)) == 15
    assert cached(x.ravel()) == 15
    assert len(CALLS) == 4
    assert last(cached.infra_of(x).uid()).startswith("x=float64-2x3-xxh3.")
    with pytest.raises(pydantic.ValidationError, match="ndarray"):
        cached(tp.cast(tp.Any, [1, 2]))
    x[0] = 7  # changed in place: another value
    assert cached(x) == 33


def test_tables_tensors_and_what_holds_them(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    def size(tables: list[pd.DataFrame], by_name: dict[str, tp.Any], more: tp.Any = ()) -> int:
        CALLS.append(tables)
        return len(tables) + len(by_name) + len(more)

    cached = exca.cached(folder=tmp_path)(size)

    def arguments(last: float) -> tp.Any:
        frame = pd.DataFrame({"a": [1, 2], "b": ["x", last]})
        tensors = {"t": torch.tensor([1.0, last]), "n": {"deep": [np.array([last])]}}
        return (
            [frame],
            tensors,
            (frame["a"], torch.nn.Linear(1, 1, bias=False).requires_grad_(False).weight * 0 + last),
        )

    assert cached(*arguments(1)) == cached(*arguments(1)) == 5
    assert len(CALLS) == 1
    assert cached(*arguments(2)) == 5
    assert len(CALLS) == 2


def test_a_text_that_looks_like_a_digest_is_a_text(tmp_path: Path) -> None:
    def same(x: tp.Any) -> tp.Any:
        return x

    cached = exca.cached(folder=tmp_path)(same)
    x = np.arange(3)
    text = repr(cached.config(x).x)  # type: ignore[attr-defined] # a field of this function
    assert cached(text) == text
    assert cached([text]) == [text]
    assert np.array_equal(cached(x), x)
    assert cached(text) == text


class Odd:
    def __getattr__(self, name: str) -> tp.Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise RuntimeError(name)

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")

    __hash__ = None  # type: ignore[assignment] # this is tested

    def __repr__(self) -> str:
        return "odd"


def test_odd_objects(tmp_path: Path) -> None:
    def count(x: tp.Any, default: tp.Any = Odd()) -> int:  # noqa: B008 # this is tested
        CALLS.append(x)
        return 3

    cached = exca.cached(folder=tmp_path)(count)
    assert [cached(Odd()), cached(Odd(), Odd()), cached([Odd()])] == [3, 3, 3]
    assert len(CALLS) == 2


def test_what_is_gone_through_once_by_its_type(tmp_path: Path) -> None:
    """Pydantic would validate the items as they are taken, and take them for the address."""

    def total_of(values: tp.Iterable[int]) -> tuple[int, int]:
        return sum(values), sum(values)

    cached = exca.cached(folder=tmp_path)(total_of)
    expected = (3, 3)
    assert cached([1, 2]) == cached((1, 2)) == cached({1: "a", 2: "b"}) == cached(["1", "2"]) == expected  # type: ignore[list-item] # validated by pydantic
    assert len(list(cached.iter_cached())) == 1
    [found] = cached.iter_cached()
    assert found.build() == expected
    with pytest.raises(ContentError, match="only once: give a list"):
        cached(iter([1, 2]))


class Runs(tp.Protocol):
    def run(self) -> int: ...


def test_a_type_that_cannot_be_checked(tmp_path: Path) -> None:
    def runs(x: int, runner: Runs) -> int:
        return runner.run()

    with pytest.raises(
        ValueError,
        match=r"the type of argument 'runner' of .*runs.*Runs.*, cannot be checked: .*Write another",
    ):
        exca.cached(folder=tmp_path)(runs)(1, tp.cast(tp.Any, 2))


def test_what_cannot_be_identified_is_refused_by_name(tmp_path: Path) -> None:
    def count(x: tp.Any, y: tp.Any = 1) -> int:
        CALLS.append(x)
        return 0

    cached = exca.cached(folder=tmp_path)(count)
    circle: list[tp.Any] = []
    circle.append(circle)
    for value in (
        threading.Lock(),
        lambda: 3,
        iter([1]),
        [iter([1])],
        {"a": [open]},
        {"a": [lambda: 3]},
        circle,
    ):
        if value == {"a": [open]}:
            assert cached(value) == 0  # a function that has a name
            continue
        with pytest.raises(
            ContentError, match=r"argument 'y' of .*count holds nothing by which .* ignore="
        ) as caught:
            cached(1, value)
        assert isinstance(caught.value, TypeError)
    assert len(CALLS) == 1
    numbers = iter([1, 2])
    with pytest.raises(ContentError, match="only once"):
        cached(numbers)
    assert list(numbers) == [1, 2]  # as it was


def test_what_the_cache_has_only_a_digest_of_cannot_be_computed_again(tmp_path: Path) -> None:
    cached = exca.cached(folder=tmp_path)(total)
    x = np.arange(3.0)
    cached(x, scale=2.0)
    [found] = cached.iter_cached()
    assert found.build() == 6.0
    assert found.infra.uid() == cached.infra_of(x, scale=2.0).uid()
    assert repr(found.x).startswith("float64-3-xxh3.")  # type: ignore[attr-defined] # a field of this function
    again = found.infra.clone_obj({"infra.mode": "force"})
    with pytest.raises(
        RuntimeError, match=r"argument 'x' of .*total is known by its digest only .* call the function"
    ):
        again.build()
    other = found.infra.clone_obj({"x": x + 1})
    assert other.build() == 12.0
    assert cached.config(x).infra.clone_obj(scale=3.0).build() == 9.0

    def nested(parts: list[np.ndarray], name: str) -> float:
        return float(sum(part.sum() for part in parts))

    holding = exca.cached(folder=tmp_path)(nested)
    assert holding([x, x], "a") == 6.0
    [kept] = holding.iter_cached()
    assert kept.build() == 6.0
    assert holding.config([x, x], "a").infra.clone_obj(name="b").build() == 6.0


def test_configurations_pickle(tmp_path: Path) -> None:
    cached = exca.cached(folder=tmp_path)(total)
    config = cached.config(np.arange(3.0))
    again = pickle.loads(pickle.dumps(config))
    assert type(again) is type(config)
    assert again.infra.uid() == config.infra.uid()
    assert again.build() == 3.0
