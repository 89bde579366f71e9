"""Addresses and keys: the recorded ones, and those of pipelines written in other ways."""

import copy
import importlib.util
import json
import pickle
import sys
import typing as tp
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline_steps as pieces
from exca import ConfDict, steps
from exca.confdict import UidMaker
from exca.steps import addresses
from exca.steps.conftest import extract_cache_folders
from exca.steps.pipeline import pipeline_of

DATA = Path(__file__).parent / "data"
VECTORS: dict[str, dict[str, tp.Any]] = json.loads((DATA / "steps_vectors.json").read_text())


@pytest.fixture(scope="module")
def recorded() -> tp.Iterator[tp.Any]:
    """The module of the recorded pipelines, its step classes known as long as the tests run."""
    spec = importlib.util.spec_from_file_location("steps_models", DATA / "steps_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def written(folder: Path) -> dict[str, tp.Any]:
    keys = {}
    for path in sorted(folder.rglob("cache/*-info.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        keys[str(path.parent.parent.relative_to(folder))] = sorted(line["#key"] for line in lines)
    yamls = {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("uid.yaml"))}
    return {"folders": list(extract_cache_folders(folder)), "keys": keys, "uid_yaml": yamls}


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_addresses_keys_and_values_are_those_recorded(name: str, recorded: tp.Any, tmp_path: Path) -> None:
    step, arguments = next((s, a) for n, s, a in recorded.cases(tmp_path) if n == name)
    value = step.run(*arguments)
    assert {"value": value, **written(tmp_path)} == VECTORS[name]
    again, _ = next((s, a) for n, s, a in recorded.cases(tmp_path) if n == name)
    assert again.run(*arguments) == value


def test_extract_cache_folders_returns_a_sorted_tuple_of_relative_folders(tmp_path: Path) -> None:
    for name in ("b/cache", "a/x/cache", "a/y"):
        (tmp_path / name).mkdir(parents=True)
    assert extract_cache_folders(tmp_path) == ("a/x", "b")


def test_long_addresses_fold_their_end_and_stay_below_350_characters() -> None:
    segments = [f"type=Step{k},value={k:030d}-0123456{k % 10}" for k in range(30)]
    text = addresses.address(segments)
    assert len(text) <= 350
    kept = text.split("/")[:-1]
    assert kept == segments[: len(kept)]
    assert sum(len(s) + 1 for s in segments[: len(kept) + 1]) + 70 > 350
    assert len(text.split("/")[-1]) <= 70
    assert addresses.address([*segments[:-1], "type=Other-01234567"]) != text


def test_addresses_of_350_characters_are_not_folded() -> None:
    segments = ["a" * 174, "b" * 175]
    assert addresses.address(segments) == "/".join(segments)
    assert addresses.address([*segments[:1], "b" * 176]) != "/".join([segments[0], "b" * 176])


def test_keys_come_from_item_uid_of_the_first_step_else_from_the_value() -> None:
    class Keyed(pieces.Plus):
        def item_uid(self, value: tp.Any) -> str:
            return "x" * int(value)

    assert addresses.key_of(pieces.Plus(), 3) == "3-d2021aee"
    assert addresses.key_of(pieces.Plus(), addresses.NO_INPUT) == "__exca_no_input__"
    assert addresses.NoInput() is addresses.NO_INPUT
    for same in (copy.deepcopy(addresses.NO_INPUT), pickle.loads(pickle.dumps(addresses.NO_INPUT))):
        assert same is addresses.NO_INPUT
    assert addresses.key_of(Keyed(), 3) == "xxx"
    assert addresses.key_of(steps.Chain(steps=[Keyed(), pieces.Plus()]), 3) == "xxx"
    assert addresses.key_of(steps.Chain(steps=[pieces.Plus(), Keyed()]), 3) == "3-d2021aee"
    assert len(addresses.key_of(Keyed(), 1000)) <= 256
    assert addresses.key_of(Keyed(), 1000) != addresses.key_of(Keyed(), 1001)


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.integers(), st.sampled_from([10**15 - 1, 10**15, -(10**15), True, 1.0, 2.5, "1"])))
def test_keys_of_values_are_those_of_uid_maker(value: tp.Any) -> None:
    assert addresses.value_key(value, "") == UidMaker(value).format()


def test_a_value_without_text_says_to_define_item_uid(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"define `def item_uid\(self, value\) -> str` on Plus"):
        pieces.Plus(infra={"backend": "Cached", "folder": tmp_path}).run(object())


def test_pipelines_in_a_configuration_count_as_the_list_of_their_steps() -> None:
    def uid(step: tp.Any) -> dict[str, tp.Any]:
        return dict(ConfDict.from_model(pieces.Holder(step=step), uid=True, exclude_defaults=True))

    study = pieces.Decomposed(transforms=[pieces.Plus(), pieces.Times()])
    parts = {"steps": [{"type": "Decomposed"}, {"type": "Plus"}, {"type": "Times"}]}
    assert uid(study) == {"step": parts}
    assert uid([pieces.Decomposed(), [pieces.Plus(), "Times"]]) == {"step": parts}
    assert uid(pieces.Plus(infra={"backend": "Cached"})) == {"step": {"type": "Plus"}}
    assert uid([pieces.Plus()]) == {"step": {"steps": [{"type": "Plus"}]}}


# ------------------------------------------------------------------ random pipelines

LEAVES = st.one_of(
    st.builds(lambda v: {"type": "Plus", "value": v}, st.integers(0, 3)),
    st.builds(lambda v: {"type": "Times", "coeff": v}, st.sampled_from([2.0, 0.5, 3])),
    st.sampled_from(["Plus", "Times"]),
)


def nested(flat: list[tp.Any], draw: st.DrawFn, depth: int = 3) -> list[tp.Any]:
    """The same steps, some of them in chains of their own, written in one way or another."""
    out: list[tp.Any] = []
    while flat:
        count = draw(st.integers(1, len(flat)))
        head, flat = flat[:count], flat[count:]
        way = draw(st.sampled_from(["plain", "list", "chain", "names", "object"])) if depth else "plain"
        if way == "plain":
            out.extend(head)
            continue
        inner = nested(head, draw, depth - 1)
        if way == "list":
            out.append(inner)
        elif way == "chain":
            out.append({"type": "Chain", "steps": inner})
        elif way == "names":
            out.append({f"part{k}": sub for k, sub in enumerate(inner)})
        else:
            out.append(steps.Chain(steps=inner, infra=draw(st.sampled_from([None, "Cached"]))))
    return out


@st.composite
def written_twice(draw: st.DrawFn) -> tuple[steps.Step, steps.Step]:
    flat = draw(st.lists(LEAVES, min_size=1, max_size=8))
    plain = steps.Chain(steps=flat)
    return plain, steps.Chain(steps=nested(flat, draw), infra=draw(st.sampled_from([None, "ThreadPool"])))


def address_of(step: steps.Step) -> str:
    path = pipeline_of(step).lineage
    return path.address(len(path.steps))


@settings(max_examples=60, deadline=None)
@given(written_twice())
def test_equal_pipelines_have_equal_addresses_however_nested_and_named(
    pair: tuple[steps.Step, steps.Step],
) -> None:
    plain, other = pair
    assert address_of(plain) == address_of(other)
    assert pipeline_of(plain).lineage.configs() == pipeline_of(other).lineage.configs()


@settings(max_examples=40, deadline=None)
@given(st.lists(LEAVES, min_size=1, max_size=8), st.data())
def test_slices_and_resolved_steps_have_the_addresses_of_their_parts(
    flat: list[tp.Any], data: st.DataObject
) -> None:
    chain = steps.Chain(steps=flat)
    stop = data.draw(st.integers(1, len(flat)))
    start = data.draw(st.integers(0, stop - 1))
    assert address_of(chain[start:stop]) == address_of(steps.Chain(steps=flat[start:stop]))
    study = pieces.Decomposed(transforms=steps.Chain(steps=flat).step_list)
    assert address_of(study) == address_of(steps.Chain(steps=["Decomposed", *flat]))


@settings(max_examples=60, deadline=None)
@given(st.lists(LEAVES, min_size=1, max_size=6), st.lists(LEAVES, min_size=1, max_size=6))
def test_different_pipelines_have_different_addresses(one: list[tp.Any], two: list[tp.Any]) -> None:
    first, second = steps.Chain(steps=one), steps.Chain(steps=two)
    same = [s.model_dump() for s in first.step_list] == [s.model_dump() for s in second.step_list]
    assert (address_of(first) == address_of(second)) is same


class Variant(steps.Step):
    """A generator whose variants share an address and are told apart by their keys."""

    variant: str | None = "a"

    @classmethod
    def _exclude_from_cls_uid(cls) -> list[str]:
        return [*super()._exclude_from_cls_uid(), "variant"]

    def item_uid(self, value: tp.Any) -> str | None:
        assert value is steps.NO_INPUT
        return self.variant

    def _run(self) -> str:
        return f"of {self.variant}"


def test_a_generator_is_asked_for_the_key_of_its_item(tmp_path: Path) -> None:
    infra = {"backend": "Cached", "folder": tmp_path}
    for variant in ("a", "b", None, "a"):
        step = Variant(variant=variant, infra=infra)
        for _ in range(2):
            assert step.run() == f"of {variant}"
        assert step.lookup().uid == (variant or "__exca_no_input__")
        chain = steps.Chain(steps=[Variant(variant=variant, infra="Cached"), "Variant"][:1], infra=infra)
        assert chain.run() == f"of {variant}"
    assert sorted(step.lookup().cache_dict) == ["__exca_no_input__", "a", "b"]


def test_a_step_that_may_take_a_value_does_not_name_its_absence(tmp_path: Path) -> None:
    class Either(steps.Step):
        def item_uid(self, value: tp.Any) -> str | None:
            return str(value)

        def _run(self, x: int = 5) -> int:
            return x

    step = Either(infra={"backend": "Cached", "folder": tmp_path})
    assert step.run(1) == 1
    with pytest.raises(TypeError, match="item_uid of Either gives 'NO_INPUT' for a call without a value"):
        step.run()
