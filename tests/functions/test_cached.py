"""`exca.cached`: a plain function, its arguments as a configuration, its results as those of a task."""

import copy
import dataclasses
import enum
import functools
import inspect
import logging
import typing as tp
from pathlib import Path

import numpy as np
import pydantic
import pytest

import exca
from exca import helpers
from exca.errors import ChangedConfigError, GoneFieldWarning, ReadOnlyError

CALLS: list[tp.Any] = []
anything: tp.Any = exca.cached  # for uses that type checkers refuse


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


def train(layers: int, name: str = "adam", *, rate: float = 1e-3) -> str:
    """Train a model."""
    CALLS.append((layers, name, rate))
    return f"{layers}-{name}-{rate}"


def last(uid: str) -> str:
    return uid.rpartition("/")[2]


# The call


def test_a_call_is_computed_once(tmp_path: Path) -> None:
    cached = exca.cached(folder=tmp_path)(train)
    assert cached(3) == cached(layers=3) == cached(3, "adam", rate=0.001) == "3-adam-0.001"
    assert CALLS == [(3, "adam", 1e-3)]
    assert cached(4) == "4-adam-0.001"
    assert len(CALLS) == 2
    assert cached.func(3) == "3-adam-0.001"
    assert len(CALLS) == 3


def test_the_function_keeps_its_name_docstring_and_signature(tmp_path: Path) -> None:
    cached = exca.cached(tmp_path, version="2")(train)
    assert cached.__doc__ == "Train a model."
    assert getattr(cached, "__name__", None) == "train"
    assert getattr(cached, "__wrapped__", None) is cached.func is train
    assert inspect.signature(cached) == inspect.signature(train)
    assert "train" in repr(cached)
    assert str(tmp_path) in repr(exca.cached(tmp_path))
    assert copy.deepcopy(cached)(3) == cached(3)


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        (("many",), {}, pydantic.ValidationError, "layers"),
        ((), {}, pydantic.ValidationError, "layers"),
        ((1, "a", 2), {}, TypeError, "takes 2 positional argument"),
        ((1,), {"layers": 1}, TypeError, "two values for argument 'layers'"),
        (
            (1,),
            {"typo": 2},
            TypeError,
            "unexpected keyword argument 'typo': its parameters are layers, name, rate",
        ),
        ((1,), {"infra": {"mode": "force"}}, TypeError, "unexpected keyword argument 'infra'"),
    ],
)
def test_arguments_that_do_not_fit(
    tmp_path: Path, args: tp.Any, kwargs: tp.Any, error: type[Exception], message: str
) -> None:
    cached: tp.Any = exca.cached(folder=tmp_path)(train)
    with pytest.raises(error, match=message):
        cached(*args, **kwargs)
    assert not CALLS


def test_arguments_are_converted_to_their_types(tmp_path: Path) -> None:
    cached: tp.Any = exca.cached(folder=tmp_path)(train)
    assert cached("3", rate="0.5") == "3-adam-0.5" == cached(3, rate=0.5)
    assert len(CALLS) == 1


def test_errors_are_kept_and_have_their_type(tmp_path: Path) -> None:
    @exca.cached(folder=tmp_path)
    def fail(value: int) -> int:
        CALLS.append(value)
        raise ZeroDivisionError(f"no {value}")

    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="no 3"):
            fail(3)
    assert CALLS == [3]
    assert fail.infra_of(3).status() == "failed"
    with pytest.raises(ZeroDivisionError):
        fail.using(mode="retry")(3)
    assert CALLS == [3, 3]
    fail.infra_of(3).clear_job()
    assert fail.infra_of(3).status() == "not submitted"


def test_modes_and_other_fields(tmp_path: Path) -> None:
    cached = exca.cached(folder=tmp_path)(train)
    with pytest.raises(ReadOnlyError):
        cached.using(mode="read-only")(3)
    cached(3)
    assert cached.using(mode="read-only")(3) == "3-adam-0.001"
    cached.using(mode="force")(3)
    assert len(CALLS) == 2
    assert cached.using(version="2").infra_of(3).status() == "not submitted"
    assert cached.using(folder=tmp_path / "other").infra_of(3).status() == "not submitted"
    with pytest.raises(pydantic.ValidationError, match="clutser"):
        tp.cast(tp.Any, cached.using)(clutser="slurm")


def test_without_a_folder_results_can_be_kept_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "exca"):
        plain = exca.cached()(train)
    assert "cached changes nothing" in caplog.text
    assert plain(3) == plain(3)
    assert len(CALLS) == 2
    kept = exca.cached(keep_in_ram=True)(train)
    assert kept(3) is kept(3)
    assert len(CALLS) == 3
    both = exca.cached(folder=tmp_path, keep_in_ram=True)(train)
    assert both(3) is both(layers=3)
    assert exca.cached(folder=tmp_path)(train)(3) == both(3)
    assert len(CALLS) == 4

    @exca.cached(keep_in_ram=True)
    def fail(value: int) -> int:
        CALLS.append(value)
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            fail(1)
    assert CALLS[-2:] == [1, 1]


# The address


def test_the_address_is_that_of_with_infra_both_ways(tmp_path: Path) -> None:
    cached, infra = exca.cached(folder=tmp_path)(train), helpers.with_infra(folder=tmp_path)(train)
    assert cached.infra_of(3).uid() == f"{__name__}.train_FuncConfig.build,1/layers=3-59a58b9b"
    assert cached(3) == infra(3)
    assert infra(4, rate=0.5) == cached(4, rate=0.5)
    assert len(CALLS) == 2
    ignoring = exca.cached(folder=tmp_path, ignore=["name"])(train)
    with pytest.warns(
        GoneFieldWarning, match=r"renamed, removed or left out of the uid: name \(was 'adam'\)"
    ):
        assert ignoring(3, "other") == "3-adam-0.001"
    assert ignoring(5, "other") == "5-other-0.001" == infra(5)
    assert len(CALLS) == 3

    def content(value: tp.Any, also: tp.Any = None) -> tp.Any:
        CALLS.append(value)
        return value

    for value in (
        1,
        "a",
        0.5,
        [1, 2],
        (1, 2),
        {"a": 1, "b": {"c.d": [2]}},
        None,
        {2, 1},
        Path("x"),
        Kind.SMALL,
        Point(1),
    ):
        one, other = exca.cached(folder=tmp_path)(content), helpers.with_infra(folder=tmp_path)(content)
        assert one.infra_of(value).uid() == other.config(value).infra.uid()
        one(value)
        assert other.config(value).infra.status() == "completed"


def test_the_address_of_what_with_infra_does_not_take_is_the_name(tmp_path: Path) -> None:
    def odd(infra: int, _q: int = 1, *rest: int, model_config: int = 2, **more: int) -> tp.Any:
        CALLS.append(infra)
        return infra, _q, rest, model_config, more

    with pytest.raises(ValueError, match="infra"):
        helpers.with_infra(folder=tmp_path)(odd)
    cached = exca.cached(folder=tmp_path)(odd)
    assert cached(3) == (3, 1, (), 2, {})
    assert cached(3, 4, 5, 6, model_config=7, build=8) == (3, 4, (5, 6), 7, {"build": 8})
    assert cached.infra_of(3).uid() == f"{__name__}.odd,1/infra_=3-25d46c24"
    assert last(cached.infra_of(3, 4, 5, 6, model_config=7, build=8).uid()).startswith(
        "q_=4,build=8,infra_=3,config_=7,rest=(5,6)-"
    )
    assert cached(3) == cached(infra=3)
    assert len(CALLS) == 2
    found = {(c.build()[0], c.build()[2]) for c in cached.iter_cached()}
    assert found == {(3, ()), (3, (5, 6))}
    with pytest.raises(TypeError, match="further argument named 'rest'"):
        cached(3, rest=4)
    assert cached.infra_of(3).status() == "completed"
    assert cached.submit(3).result() == (3, 1, (), 2, {})


def test_parameters_of_every_kind(tmp_path: Path) -> None:
    def kinds(a: int, /, b: int, *, c: int = 3, **more: float) -> tp.Any:
        return a, b, c, more

    def self_too(self: int, cls: int = 1, folder: str = "x", copy: int = 2) -> tp.Any:
        return self, cls, folder, copy

    def unicode(größe: int, 数: int = 1) -> int:  # noqa: PLC2401 # this is tested
        return größe + 数

    def optional(a: int = None, b: int | None = 3) -> tp.Any:  # type: ignore[assignment] # noqa: RUF013 # often written
        return a, b

    cached = exca.cached(folder=tmp_path)
    assert cached(kinds)(1, 2, d=4) == (1, 2, 3, {"d": 4.0})
    with pytest.raises(TypeError, match="further argument named 'a'"):
        cached(kinds)(1, 2, a=4)
    assert cached(self_too)(5, folder="y") == (5, 1, "y", 2)
    assert cached(self_too)(self=5) == (5, 1, "x", 2)
    assert cached(unicode)(größe=2, 数=3) == 5
    assert cached(unicode)(2, 3) == 5
    assert tp.cast(tp.Any, cached(optional))(None, None) == (None, None)


def test_values_of_every_type(tmp_path: Path) -> None:
    def typed(  # noqa: PLR0917 # one of each
        path: Path,
        kind: Kind,
        point: Point,
        model: Model,
        word: tp.Literal["a", "b"],
        union: int | str | list[int],
        table: dict[str, list[float]],
        pair: tuple[int, str],
    ) -> tp.Any:
        CALLS.append(path)
        return path, kind, point, model, word, union, table, pair

    cached: tp.Any = exca.cached(folder=tmp_path)(typed)
    arguments: list[tp.Any] = [
        Path("x"),
        Kind.LARGE,
        Point(2),
        Model(width=4),
        "b",
        "3",
        {"a": [1.0]},
        (1, "x"),
    ]
    assert cached(*arguments) == tuple(arguments)
    texts: list[tp.Any] = [
        "x",
        "large",
        {"x": 2},
        {"width": 4, "name": "other"},
        "b",
        "3",
        {"a": [1]},
        [1, "x"],
    ]
    assert cached(*texts) == tuple(arguments)  # of the model the name does not count
    assert len(CALLS) == 1
    with pytest.raises(pydantic.ValidationError, match="word"):
        cached(*arguments[:4], "c", *arguments[5:])
    [found] = cached.iter_cached()
    assert found.build() == tuple(arguments)


def test_a_mutable_default_stays_as_it_is(tmp_path: Path) -> None:
    def grow(name: str, items: list[int] = [1], table: tp.Any = np.zeros(2)) -> tp.Any:  # noqa: B006, B008 # this is tested
        items.append(len(items))
        table += 1
        return items, table.tolist()

    cached = exca.cached(folder=tmp_path)(grow)
    plain = helpers.with_infra()(grow)
    with pytest.raises(
        ChangedConfigError, match="items"
    ):  # what a call does to its arguments would not be repeated
        cached("a")
    assert plain.func("x")[0] == [1, 1]

    def table_only(name: str, table: tp.Any = np.zeros(2)) -> tp.Any:  # noqa: B008 # this is tested
        table += 1
        return table.tolist()

    kept = exca.cached(folder=tmp_path)(table_only)
    assert kept("a") == kept("b") == [1.0, 1.0]
    assert last(kept.infra_of("a", np.zeros(2)).uid()) == last(kept.infra_of("a").uid())


def test_an_argument_that_the_function_changes_is_an_error(tmp_path: Path) -> None:
    @exca.cached(folder=tmp_path, unannotated="hash")
    def normalise(x: tp.Any) -> float:
        x /= 2
        return float(x.sum())

    with pytest.raises(ChangedConfigError, match="x of"):
        normalise(np.ones(3))
    assert normalise.infra_of(np.ones(3)).status() == "not submitted"


def later(value: "Later") -> int:
    return value.number


def test_types_that_are_defined_later_are_found_at_the_first_call(tmp_path: Path) -> None:
    assert exca.cached(folder=tmp_path)(later)({"number": 3}) == 3  # type: ignore[arg-type] # validated by pydantic


class Later(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    number: int


def test_types_that_are_not_there_when_it_runs(tmp_path: Path) -> None:
    def unknown(a: int, b: "NotThere", c: int = 3) -> "NotThere":  # type: ignore[name-defined] # noqa: F821 # this is tested
        return a, b, c

    with pytest.raises(ValueError, match="'NotThere' cannot be found"):
        exca.cached(folder=tmp_path)(unknown)(1, 2)
    hashing = exca.cached(folder=tmp_path, unannotated="hash")(unknown)
    assert hashing("1", (2,)) == (1, (2,), 3)  # type: ignore[arg-type] # validated by pydantic

    def returns(a: int) -> "NotThere":  # type: ignore[name-defined] # noqa: F821 # this is tested
        return a

    assert exca.cached(folder=tmp_path)(returns)("3") == 3  # type: ignore[arg-type] # validated by pydantic


def test_a_function_may_call_itself_and_others(tmp_path: Path) -> None:
    @exca.cached(folder=tmp_path)
    def fibonacci(n: int) -> int:
        CALLS.append(n)
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    @exca.map_cached(folder=tmp_path)
    def twice(item: int) -> int:
        return 2 * fibonacci(item)

    assert list(twice.map([20, 10])) == [13530, 110]
    assert sorted(CALLS) == list(range(21))


def test_a_function_that_is_decorated_already_by_others(tmp_path: Path) -> None:
    def noting(func: tp.Callable[..., tp.Any]) -> tp.Any:
        @functools.wraps(func)
        def noted(*args: tp.Any, **kwargs: tp.Any) -> tp.Any:
            CALLS.append(args)
            return func(*args, **kwargs)

        return noted

    def half(x: int, digits: int = 1) -> float:
        return round(x / 2, digits)

    inner = exca.cached(folder=tmp_path)(noting(half))
    assert inner("3") == inner(3, digits=1) == 1.5
    assert CALLS == [(3, 1)]
    assert inner.infra_of(3).uid().startswith(f"{__name__}.half_FuncConfig.build,1/x=3-")
    assert noting(inner)(3) == 1.5
