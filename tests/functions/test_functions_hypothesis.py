"""Whatever the arguments, a cached call gives what the plain one does, at the address that `with_infra` gives it."""

import itertools
import typing as tp
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_digest import VALUES, exact

import exca
from exca import helpers

few = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


def described(x: tp.Any, y: tp.Any = 1, *rest: tp.Any, **more: tp.Any) -> str:
    return repr([exact(part) for part in (x, y, rest, more)])


def untyped(x, y=1, *rest, **more):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN002, ANN003
    return described(x, y, *rest, **more)


@few
@given(
    st.lists(VALUES, min_size=1, max_size=3), st.dictionaries(st.sampled_from(["a", "copy", "_b"]), VALUES)
)
def test_a_call_gives_what_the_plain_function_gives(
    tmp_path: Path, args: list[tp.Any], kwargs: dict[str, tp.Any]
) -> None:
    """All examples share a folder, so that one would get the result of another if their addresses met."""
    cached: tp.Any = exca.cached(folder=tmp_path, unannotated="hash")(untyped)
    assert cached(*args, **kwargs) == untyped(*args, **kwargs) == cached(*args, **kwargs)  # type: ignore[no-untyped-call] # this is tested


@pytest.mark.parametrize("equal", [True, 1.0, [True], {"a": True}, [[1.0]]])
def test_what_is_equal_to_a_default_and_is_not_the_same_is_another_call(
    tmp_path: Path, equal: tp.Any
) -> None:
    default = {"bool": 1, "float": 1, "list": [[1]] if equal == [[1]] else [1], "dict": {"a": 1}}[
        type(equal).__name__
    ]

    def plain(x, y=default):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        return repr((x, y))

    cached: tp.Any = exca.cached(folder=tmp_path, unannotated="hash")(plain)
    for y in (equal, default):
        assert cached(1, y) == plain(1, y)  # type: ignore[no-untyped-call] # this is tested
    assert cached(1) == plain(1)  # type: ignore[no-untyped-call] # this is tested


@few
@given(st.lists(VALUES, max_size=5))
def test_items_get_their_own_results(tmp_path: Path, items: list[tp.Any]) -> None:
    mapped: tp.Any = exca.map_cached(folder=tmp_path, unannotated="hash")(untyped)
    assert list(mapped.map(items)) == [untyped(item) for item in items]  # type: ignore[no-untyped-call] # this is tested


def typed(x: tp.Any, y: list[float] | None = None, z: dict[str, int | str] = {}) -> None:  # noqa: B006 # it is not changed
    ...


@few
@given(
    JSON,
    st.none() | st.lists(st.floats(), max_size=3),
    st.dictionaries(TEXT, st.integers() | TEXT, max_size=3),
)
def test_the_address_is_that_of_with_infra(tmp_path: Path, x: tp.Any, y: tp.Any, z: tp.Any) -> None:
    cached = exca.cached(folder=tmp_path)(typed)
    config = helpers.with_infra(folder=tmp_path)(typed).config
    for arguments in itertools.product((x,), (None, y), ({}, z)):
        try:
            uid = config(*arguments).infra.uid()
        except (ValueError, TypeError) as error:  # such as an operation of a ConfDict
            with pytest.raises(type(error)):
                cached.infra_of(*arguments).uid()
            continue
        assert cached.infra_of(*arguments).uid() == uid
