"""The promise of identity: the same configuration has the same uid, for ever and everywhere."""

import collections
import importlib.util
import json
import os
import subprocess
import sys
import types
import typing as tp
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pydantic
import pytest

from exca.identity import export, uid_text

DATA = Path(__file__).parent / "data"
RECORDED: dict[str, dict[str, str]] = json.loads((DATA / "identity_vectors.json").read_text())


# no test may fail because the machine was busy


@pytest.fixture(scope="module")
def models() -> tp.Iterator[types.ModuleType]:
    """The recorded configurations, under the module name that is part of their uids."""
    spec = importlib.util.spec_from_file_location("identity_models", DATA / "identity_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["identity_models"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["identity_models"]


@pytest.fixture(scope="module")
def recorded_again(models: types.ModuleType) -> tp.Any:
    return models.record()


def test_no_case_is_missing(recorded_again: tp.Any) -> None:
    assert sorted(recorded_again) == sorted(RECORDED)


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_recorded_case(recorded_again: tp.Any, name: str) -> None:
    assert recorded_again[name] == RECORDED[name]


def test_unchanged_by_a_second_look(models: types.ModuleType) -> None:
    """What was computed for an object changes nothing for the next one of its class."""
    again = models.record()
    assert {name: case["uid"] for name, case in again.items()} == {n: c["uid"] for n, c in RECORDED.items()}


FOUND: dict[str, dict[str, tp.Any]] = json.loads((DATA / "found_vectors.json").read_text())


@pytest.fixture(scope="module")
def found_again() -> tp.Any:
    """The cases that the search found, in a process of their own: their steps are known there only."""
    run = subprocess.run(
        [sys.executable, DATA / "found_models.py"], cwd=DATA, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(run.stdout)


def test_no_found_case_is_missing(found_again: tp.Any) -> None:
    assert sorted(found_again) == sorted(FOUND)


@pytest.mark.parametrize("name", sorted(FOUND))
def test_found_case(found_again: tp.Any, name: str) -> None:
    assert found_again[name] == FOUND[name]


class Holder(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    value: tp.Any = None
    names: set[str] = set()
    frozen: frozenset[tp.Any] = frozenset()


def uid(**kwargs: tp.Any) -> str:
    return uid_text(export(Holder(**kwargs), uid=True, exclude_defaults=True))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abcxyz", min_size=1, max_size=4), inner)
    ),
    max_leaves=8,
)


def reordered(value: tp.Any) -> tp.Any:
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@hypothesis.given(JSON)
def test_the_order_of_a_dict_never_matters(value: tp.Any) -> None:
    assert uid(value=value) == uid(value=reordered(value))


@hypothesis.given(st.lists(st.text("abc", min_size=1, max_size=3), min_size=2, max_size=5, unique=True))
def test_the_order_of_an_ordered_dict_always_matters(keys: list[str]) -> None:
    forward = collections.OrderedDict((key, 1) for key in keys)
    backward = collections.OrderedDict((key, 1) for key in reversed(keys))
    assert uid(value=forward) != uid(value=backward)


@hypothesis.given(JSON, JSON)
def test_a_value_is_written_as_it_is(first: tp.Any, second: tp.Any) -> None:
    """The configuration of a JSON value is that value, so that two values never meet in one configuration."""
    assert export(Holder(value=[first, second]))["value"] == [first, second]


PROGRAM = """
import dataclasses
import typing as tp
import pydantic
from exca.identity import export, uid_text

@dataclasses.dataclass
class Data:
    names: set[str]
    inner: dict[str, frozenset[str]]

class Holder(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    names: set[str] = set()
    numbers: frozenset[float] = frozenset()
    table: dict[str, tp.Any] = {}
    data: Data | None = None
    odd: set[str] = set()

    @pydantic.field_serializer("odd")
    def odd_names(self, odd: set[str]) -> set[str]:
        return odd

    @pydantic.computed_field
    def pairs(self) -> list[set[str]]:
        return [self.names, self.odd]

names = {"n" + str(k) for k in range(50)}
holder = Holder(names=names, numbers=frozenset(k / 7 for k in range(50)), table={"x": {1, "1", (2, 3)}})
names = frozenset(names)
holder.table["y"] = [Data(set(names), {"k": names})]
holder = holder.model_copy(update={"data": Data(set(names), {"k": names}), "odd": set(names)})
print(uid_text(export(holder, uid=True, exclude_defaults=True)))
"""


def test_every_process_agrees_on_the_order_of_a_set() -> None:
    source = str(Path(__file__).parents[2] / "src")
    uids = set()
    for seed in ("1", "2", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": source}
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, check=True, capture_output=True, text=True
        )
        uids.add(run.stdout)
    assert len(uids) == 1


def test_infinities_and_nan_have_uids_of_their_own() -> None:
    values = [float("inf"), -float("inf"), float("nan"), None, 0.0]
    assert len({uid(value=[value]) for value in values}) == len(values)
