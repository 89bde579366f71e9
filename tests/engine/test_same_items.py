"""Items with one uid: the same, different, or not to be compared."""

import logging
import typing as tp
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pydantic
import pytest

import exca
from exca.engine import same_items
from exca.errors import AmbiguousItemError


class Word:
    """An item of which a part counts."""

    def __init__(self, text: str, start: float) -> None:
        self.text = text
        self.start = start


def text_of(item: tp.Any) -> str:
    return item.text if isinstance(item, Word) else "one"


class Lengths(pydantic.BaseModel):
    """A map whose uids may be of several items."""

    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=text_of)
    def process(self, items: Iterable[tp.Any]) -> Iterator[int]:
        for item in items:
            yield len(item.text) if isinstance(item, Word) else 1


@pytest.fixture
def process(tmp_path: Path) -> tp.Callable[[tp.Iterable[tp.Any]], list[int]]:
    same_items._warned.clear()
    lengths = Lengths(infra=exca.MapInfra(folder=tmp_path))
    return lambda items: list(lengths.process(items))


Process = tp.Callable[[tp.Iterable[tp.Any]], list[int]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", "b"),
        (1, "1"),
        (Path("a/x"), Path("b/x")),
        (("a", 1), ("a", 2)),
        ({"a": [1]}, {"a": [2]}),
        ({"a": 1}, {"b": 1}),
        (np.arange(3), np.arange(3) + 1),
        (np.float64(1), np.float64(2)),
        (None, 0),
    ],
    ids=["text", "types", "paths", "tuples", "dicts", "keys", "arrays", "scalars", "none"],
)
def test_two_different_items_with_one_uid_are_an_error(process: Process, one: tp.Any, other: tp.Any) -> None:
    for items in ([one, other], iter([one, one, other])):
        with pytest.raises(
            AmbiguousItemError, match=r"Lengths\.process,0 gives 'one' for two different items"
        ):
            process(items)
    many: list[tp.Any] = [Word(str(k), 0) for k in range(10_000)]  # looked up in shares
    with pytest.raises(AmbiguousItemError):
        process([one, *many, other])


@pytest.mark.parametrize("keep_in_ram", [False, True])
def test_items_that_have_results_are_compared_over_all_shares(tmp_path: Path, keep_in_ram: bool) -> None:
    lengths = Lengths(infra=exca.MapInfra(folder=tmp_path, keep_in_ram=keep_in_ram))
    many: list[tp.Any] = [Word(str(k), 0) for k in range(10_000)]
    assert len(list(lengths.process(["a", *many]))) == 10_001
    for items in (["a", "b"], ["a", *many, "b"], iter(["a", *many, "b"]), ("a", *many, *many[:3], "b")):
        earlier = "'b' and an earlier one" if isinstance(items, Iterator) else "'a' and 'b'"
        with pytest.raises(
            AmbiguousItemError, match=f"gives 'one' for two different items, {earlier}, of which one"
        ):
            lengths.process(items)
    assert len(list(lengths.process(["a", *many, "a"]))) == len(
        list(lengths.process(iter(["a", *many, "a"])))
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: "".join("ab"),
        lambda: float("nan"),
        lambda: ["a", {"b": (1, 2.0)}],
        lambda: np.array([1.0, np.nan]),
        lambda: {1, 2},
        lambda: Path("a"),
    ],
    ids=["text", "nan", "nested", "array", "set", "path"],
)
def test_equal_items_are_one(
    process: Process, make: tp.Callable[[], tp.Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "exca")
    assert process([make(), make()]) == [1, 1]
    assert caplog.records == []


def test_items_that_cannot_be_compared_are_reported_once(
    process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "exca")
    for _ in range(2):
        assert process([Word("the", 1), Word("cat", 2), Word("the", 3)]) == [3, 3, 3]
    (record,) = caplog.records
    assert "such as Word, have one uid, 'the', and cannot be compared" in record.getMessage()
    assert process([np.array([Word("a", 1)], dtype=object), np.array([Word("b", 1)], dtype=object)]) == [1, 1]


class Means(pydantic.BaseModel):
    """A map whose items are named by their text."""

    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def process(self, items: Iterable[tp.Any]) -> Iterator[int]:
        for _ in items:
            yield 1


LOST = {
    "large": np.zeros(5000),
    "digits": np.array([1 / 3]),
    "nested": {"of": [np.zeros((60, 60))]},
    "object": Word("a", 0),
    "objects": [Word("a", 0)],
}


@pytest.mark.parametrize("item", LOST.values(), ids=list(LOST))
def test_a_text_that_leaves_out_a_part_of_its_item_is_refused(tmp_path: Path, item: tp.Any) -> None:
    """Another item, in another call, would have the same text, and get its result."""
    means = Means(infra=exca.MapInfra(folder=tmp_path))
    with pytest.raises(
        AmbiguousItemError, match=r"Means\.process,0 names an item .* by ['\"].*['\"], which "
    ) as caught:
        means.process(["a", item])
    assert tp.cast(tp.Any, caught.value).code == "lossy-item-uid"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exca.settings, "_warned", set())
        patch.setenv(exca.settings.VARIABLE, "lossy-item-uid")
        with pytest.warns(exca.errors.RefusalWarning, match="lossy-item-uid"):
            assert list(means.process(["a", item])) == [1, 1]


def test_a_text_of_a_table_is_refused(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(AmbiguousItemError, match="which is how pandas shows it"):
        Means(infra=exca.MapInfra(folder=tmp_path)).process([pandas.DataFrame({"a": [1.23456789]})])


@pytest.mark.parametrize(
    "item", [np.arange(3), np.array([0.5, 0.25]), np.float64(1 / 3), (1, [2.5]), Path("a"), {"a": "[...]"}]
)
def test_a_text_that_holds_all_of_its_item_is_none_to_refuse(
    process: Process, item: tp.Any, tmp_path: Path
) -> None:
    assert list(Means(infra=exca.MapInfra(folder=tmp_path)).process([item])) == [1]


def test_a_step_and_a_mapped_function_refuse_such_texts_too(tmp_path: Path) -> None:
    class Mean(exca.steps.Step):
        def item_uid(self, value: tp.Any) -> str:
            return str(value)

        def _run(self, value: tp.Any) -> float:
            return float(value.mean())

    step = Mean(infra={"backend": "Cached", "folder": tmp_path})
    with pytest.raises(AmbiguousItemError, match="Mean names an item"):
        step.run(np.zeros(5000))

    @exca.map_cached(folder=tmp_path, item_uid=str)
    def mean(values: np.ndarray) -> float:
        return float(values.mean())

    with pytest.raises(AmbiguousItemError, match="mean,1 names an item"):
        mean.map([np.zeros(5000)])
    named = exca.map_cached(folder=tmp_path)(mean_of)
    assert list(named.map([np.zeros(5000), np.ones(5000)])) == [0, 1]


def mean_of(values: np.ndarray) -> float:
    return float(values.mean())
