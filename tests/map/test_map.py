"""Maps in this process: each item computed once and found again, and every way in which one can be asked wrongly."""

import copy
import enum
import logging
import pickle
import sys
import threading
import tracemalloc
import typing as tp
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cloudpickle
import numpy as np
import pydantic
import pytest

import exca
from exca.errors import (
    BatchProtocolError,
    DamagedEntryError,
    InfraError,
    ReadOnlyError,
    UncachedOverrideWarning,
)
from map_models import Halves, Infra, Odd, computed, halves


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace"


@pytest.fixture(params=["folder", "folder and memory", "memory", "neither"])
def infra(request: pytest.FixtureRequest, tmp_path: Path) -> Infra:
    folder = tmp_path / "cache" if "folder" in request.param else None
    return {"folder": folder, "keep_in_ram": "memory" in request.param}


# ------------------------------------------------------------------ asked rightly


def test_results_come_in_the_order_asked_each_distinct_item_computed_once(infra: Infra, trace: Path) -> None:
    assert list(halves(infra, trace=trace).process([3, 1, 3, 2, 1])) == [1.5, 0.5, 1.5, 1.0, 0.5]
    assert computed(trace) == [1, 2, 3]


def test_what_is_missing_is_computed_when_called_not_when_read(infra: Infra, trace: Path) -> None:
    results = halves(infra, trace=trace).process([3, 1])
    assert computed(trace) == [1, 3]
    assert isinstance(results, Iterator)
    assert list(results) == [1.5, 0.5]


ITERABLES: dict[str, tp.Callable[[], Iterable[int]]] = {
    "list": lambda: [1, 2, 3],
    "tuple": lambda: (1, 2, 3),
    "range": lambda: range(1, 4),
    "iterator": lambda: iter([1, 2, 3]),
    "dict": lambda: {1: "a", 2: "b", 3: "c"},
    "array": lambda: np.array([1, 2, 3]),
}


@pytest.mark.parametrize("kind", ITERABLES)
def test_any_iterable_is_taken_by_position_or_name(infra: Infra, kind: str) -> None:
    obj, make = halves(infra), ITERABLES[kind]
    assert list(obj.process(make())) == [0.5, 1.0, 1.5]
    assert list(obj.process(items=make())) == [0.5, 1.0, 1.5]


def test_nothing_asked_nothing_done(infra: Infra, tmp_path: Path) -> None:
    assert list(halves(infra).process([])) == []
    assert not (tmp_path / "cache").exists()


def test_what_is_cached_is_not_computed_again(infra: Infra, trace: Path) -> None:
    obj = halves(infra, trace=trace)
    list(obj.process([1, 2]))
    assert list(obj.process([2, 3, 1])) == [1.0, 1.5, 0.5]
    kept = infra["folder"] is not None or infra["keep_in_ram"]
    assert computed(trace) == ([1, 2, 3] if kept else [1, 1, 2, 2, 3])
    assert list(halves(infra, trace=trace).process([1])) == [0.5]
    assert len(computed(trace)) == (3 if infra["folder"] is not None else 4 if kept else 6)


def test_the_decorated_method_keeps_its_name_and_docstring() -> None:
    assert (Halves.process.__name__, Halves.process.__doc__) == ("process", "Half of each.")


def test_many_items_in_several_rounds_of_look_up(tmp_path: Path) -> None:
    infra = {"folder": tmp_path, "keep_in_ram": False}
    list(halves(infra).process(range(0, 20_000, 2)))
    assert list(halves(infra).process(iter(range(20_000)))) == [k / 2 for k in range(20_000)]


def test_the_cache_is_there_to_look_at(tmp_path: Path) -> None:
    obj = halves({"folder": tmp_path})
    list(obj.process([1, 2]))
    assert isinstance(obj.infra.cache_dict, exca.cachedict.CacheDict)
    assert sorted(obj.infra.cache_dict) == ["1", "2"]
    assert obj.infra.cache_dict[obj.infra.item_uid(2)] == 1.0
    assert obj.infra.cache_dict is obj.infra.cache_dict
    folder = obj.infra.uid_folder()
    assert folder is not None
    assert folder.relative_to(tmp_path).as_posix() == "map_models.Halves.process,1/default"
    assert {"uid.yaml", "full-uid.yaml", "config.yaml"} <= {p.name for p in folder.iterdir()}


def test_results_on_disk_are_read_one_at_a_time(tmp_path: Path) -> None:
    """A map over a million items never holds them all."""

    class Texts(pydantic.BaseModel):
        infra: exca.MapInfra = exca.MapInfra(folder=tmp_path, keep_in_ram=False)

        @infra.apply(item_uid=str)
        def process(self, items: Iterable[int]) -> Iterator[str]:
            return (str(item).zfill(20_000) for item in items)

    list(Texts().process(range(300)))
    results = Texts().process(range(300))
    assert next(results) == "0" * 20_000
    tracemalloc.start()
    try:
        assert sum(1 for _ in results) == 299
        assert tracemalloc.get_traced_memory()[1] < 3_000_000, "all of them are 6 MB"
    finally:
        tracemalloc.stop()


# ------------------------------------------------------------------ uids of items


def make_map(folder: Path | None, **options: tp.Any) -> tp.Any:
    class Named(pydantic.BaseModel):
        infra: exca.MapInfra = exca.MapInfra(folder=folder)

        @infra.apply(**options)
        def process(self, items: Iterable[tp.Any]) -> Iterator[str]:
            return (f"<{item}>" for item in items)

    return Named()


@pytest.mark.parametrize("length", [256, None])
def test_an_item_uid_that_is_no_text_is_told(tmp_path: Path, length: int | None) -> None:
    obj = make_map(tmp_path, item_uid=lambda item: item, item_uid_max_length=length)
    with pytest.raises(TypeError, match=r"item_uid must return a str, got 12 \(int\)"):
        obj.process(["a", 12])


class Colour(enum.StrEnum):
    RED = "red"


def test_an_item_uid_may_be_a_kind_of_text(tmp_path: Path) -> None:
    obj = make_map(tmp_path, item_uid=lambda item: item)
    assert len(list(obj.process(["plain", Colour.RED, np.str_("numpy")]))) == 3
    assert sorted(obj.infra.cache_dict) == ["numpy", "plain", "red"]


def test_long_uids_are_cut_and_stay_apart(tmp_path: Path) -> None:
    obj = make_map(tmp_path, item_uid=str, item_uid_max_length=64)
    items = ["a" * 500 + "b" + "a" * 500, "a" * 500 + "c" + "a" * 500, "short"]
    assert list(obj.process(items)) == [f"<{item}>" for item in items]
    keys = sorted(obj.infra.cache_dict)
    assert len(keys) == 3
    assert max(map(len, keys)) <= 64
    whole = make_map(tmp_path / "whole", item_uid=str, item_uid_max_length=None)
    list(whole.process(items))
    assert sorted(whole.infra.cache_dict) == sorted(items)


def test_the_handler_of_the_results_can_be_chosen(tmp_path: Path) -> None:
    obj = make_map(tmp_path, item_uid=str, cache_type="Pickle")
    assert list(obj.process([1])) == ["<1>"]
    assert '"Pickle"' in next(obj.infra.uid_folder().glob("*.jsonl")).read_text()


# ------------------------------------------------------------------ modes


def test_force_computes_once_per_object_and_item(infra: Infra, trace: Path) -> None:
    if infra["folder"] is None and not infra["keep_in_ram"]:
        pytest.skip("nothing is kept")
    list(halves(infra).process([1, 2]))
    obj = halves({**infra, "mode": "force"}, trace=trace)
    assert list(obj.process([1, 2])) == [0.5, 1.0]
    assert list(obj.process([2, 3, 1])) == [1.0, 1.5, 0.5]
    assert computed(trace) == [1, 2, 3]
    assert list(halves({**infra, "mode": "force"}, trace=trace).process([1])) == [0.5]
    assert computed(trace) == [1, 1, 2, 3]


def test_force_replaces_what_is_kept(infra: Infra) -> None:
    calls = []

    class Changing(pydantic.BaseModel):
        infra: exca.MapInfra = exca.MapInfra()

        @infra.apply(item_uid=str)
        def process(self, items: Iterable[int]) -> Iterator[int]:
            calls.append(1)
            return (item + 100 * len(calls) for item in items)

    assert list(Changing.model_validate({"infra": infra}).process([1, 2])) == [101, 102]
    forced = Changing.model_validate({"infra": {**infra, "mode": "force"}})
    assert list(forced.process([1])) == [201]
    if infra["folder"] is not None:
        assert list(Changing.model_validate({"infra": infra}).process([1, 2])) == [201, 102]


def test_under_force_what_was_done_before_an_error_is_not_done_again(tmp_path: Path, trace: Path) -> None:
    obj = halves({"folder": tmp_path, "mode": "force"}, trace=trace, fail_at=3)
    for _ in range(2):
        with pytest.raises(ValueError, match="halve 3"):
            obj.process([1, 2, 3, 4])
    assert computed(trace) == [1, 2]


def test_a_forced_result_that_is_gone_is_computed_again(tmp_path: Path) -> None:
    obj = halves({"folder": tmp_path, "mode": "force", "keep_in_ram": False})
    list(obj.process([1, 2]))
    results = obj.process([1, 2])
    del obj.infra.cache_dict["2"]
    assert list(results) == [0.5, 1.0]


def test_read_only_never_computes(tmp_path: Path, trace: Path) -> None:
    list(halves({"folder": tmp_path}).process([1, 2]))
    obj = halves({"folder": tmp_path, "mode": "read-only"}, trace=trace)
    assert list(obj.process([2, 1])) == [1.0, 0.5]
    with pytest.raises(ReadOnlyError, match=r"1 of 2 item.*'77'"):
        obj.process([1, 77])
    assert computed(trace) == []


def test_an_item_alone_can_be_refused(tmp_path: Path) -> None:
    obj = halves({"folder": tmp_path, "forbid_single_item_computation": True})
    assert list(obj.process([1, 2])) == [0.5, 1.0]
    assert list(obj.process([1])) == [0.5], "cached ones are read"
    assert list(obj.process([1, 3])) == [0.5, 1.5], "it was asked for with others"
    with pytest.raises(InfraError, match=r"'4' .*forbid_single_item_computation"):
        obj.process([4])


# ------------------------------------------------------------------ errors


def test_an_error_names_its_item_and_keeps_what_was_before_it(tmp_path: Path, trace: Path) -> None:
    infra = {"folder": tmp_path}
    with pytest.raises(ValueError, match="cannot halve 3") as caught:
        halves(infra, trace=trace, fail_at=3).process([1, 2, 3, 4])
    assert caught.value.__notes__ == [
        "Raised by Halves.process at item '3': 2 of 4 were done before it and are kept."
    ]
    assert sorted(halves(infra).infra.cache_dict) == ["1", "2"]
    assert list(halves(infra, trace=trace).process([1, 2, 3, 4])) == [0.5, 1.0, 1.5, 2.0]
    assert computed(trace) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("outputs", "words"),
    [(2, r"yielded only 2 output\(s\) for 3 .*so none were stored"), (4, "yielded more outputs than the 3")],
)
def test_a_wrong_number_of_outputs_is_an_error_and_none_is_kept(
    infra: Infra, outputs: int, words: str
) -> None:
    """Nobody can tell which output is whose."""
    obj = Odd.model_validate({"outputs": outputs, "infra": infra})
    with pytest.raises(BatchProtocolError, match=words):
        obj.process([1, 2, 3])
    assert len(obj.infra.cache_dict) == 0


def test_the_arguments_of_apply_are_asked_for() -> None:
    infra: tp.Any = exca.MapInfra()
    with pytest.raises(TypeError, match="'item_uid'"):
        infra.apply(str.upper)
    with pytest.raises(
        TypeError, match=r"takes no method, but got .* write @infra\.apply\(item_uid=\.\.\.\) above it"
    ):
        infra.apply(str.upper, item_uid=str)


def test_a_method_that_takes_its_items_for_one_is_told() -> None:
    class One(pydantic.BaseModel):
        infra: exca.MapInfra = exca.MapInfra()

        @infra.apply(item_uid=str)
        def process(self, word: tp.Any) -> tp.Any:
            return word.upper()

    with pytest.raises(AttributeError) as caught:
        list(One().process(["a"]))
    [note, _where] = caught.value.__notes__
    assert note.endswith(
        "One.process is given all items at once: go through them, and yield one result per item."
    )


def test_a_method_that_yields_nothing_at_all_is_told() -> None:
    with pytest.raises(
        BatchProtocolError, match=r"Odd\.process returned None: a map method yields one output per item"
    ):
        Odd(outputs=None).process([1])


def test_a_map_takes_nothing_but_its_items() -> None:
    obj: tp.Any = Halves()
    for args, kwargs in [((), {}), (([1], [2]), {}), (([1],), {"items": [2]}), ((), {"other": [1]})]:
        with pytest.raises(TypeError, match="takes the items"):
            obj.process(*args, **kwargs)


def test_a_map_method_takes_self_and_items() -> None:
    with pytest.raises(ValueError, match=r"a map method takes 'self' and the items"):

        class Wrong(pydantic.BaseModel):
            infra: exca.MapInfra = exca.MapInfra()

            @infra.apply(item_uid=str)
            def process(self) -> int:
                return 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"cluster": "local"}, "needs a folder"),
        (
            {"cluster": "nowhere"},
            "there is no cluster 'nowhere': known are .*'threadpool', 'processpool', and None",
        ),
        ({"max_jobs": 0}, "greater than 0"),
        ({"min_samples_per_job": 0}, "greater than 0"),
        ({"mode": "retry"}, "'cached', 'force' or 'read-only'"),
    ],
)
def test_a_wrong_infra_is_refused_when_it_is_built(wrong: Infra, words: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=words):
        halves(wrong)


def test_a_map_that_asks_for_an_item_in_work_is_told_instead_of_waiting_for_ever(tmp_path: Path) -> None:
    class Circle(pydantic.BaseModel):
        infra: exca.MapInfra = exca.MapInfra(folder=tmp_path)

        @infra.apply(item_uid=str)
        def process(self, items: Iterable[int]) -> Iterator[int]:
            for item in items:
                yield next(Circle().process([item])) + 1

    with pytest.raises(RuntimeError, match="asks for its own result"):
        Circle().process([1])


def test_a_map_may_ask_itself_for_other_items(infra: Infra) -> None:
    class Fibonacci(pydantic.BaseModel):
        infra: exca.MapInfra = exca.MapInfra()

        @infra.apply(item_uid=str)
        def process(self, items: Iterable[int]) -> Iterator[int]:
            for item in items:
                yield item if item < 2 else sum(self.process([item - 2, item - 1]))

    assert list(Fibonacci.model_validate({"infra": infra}).process([12])) == [144]


# ------------------------------------------------------------------ damage while streaming


class Rows(pydantic.BaseModel):
    """Gives arrays, whose data can be damaged behind the back of the index."""

    trace: Path
    infra: exca.MapInfra = exca.MapInfra(keep_in_ram=False)
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("trace",)

    @infra.apply(item_uid=str, cache_type="NumpyArray")
    def process(self, items: Iterable[int]) -> Iterator[tp.Any]:
        for item in items:
            with open(self.trace, "a") as f:
                f.write(f"{item}\n")
            yield np.full(10, item)


def damage(folder: Path, which: slice) -> None:
    for path in sorted(folder.rglob("*.npy"))[which]:
        path.write_bytes(b"garbage")


@pytest.mark.parametrize("container", [list, tuple, dict.fromkeys])
def test_a_result_found_damaged_while_reading_is_computed_again(
    tmp_path: Path, trace: Path, container: tp.Callable[[list[int]], tp.Any]
) -> None:
    infra = {"folder": tmp_path / "cache"}
    list(Rows(trace=trace, infra=infra).process(range(5)))  # type: ignore[arg-type] # validated from a dict
    damage(tmp_path, slice(0, 2))
    results = Rows(trace=trace, infra=infra).process(container(list(range(5))))  # type: ignore[arg-type] # dict
    assert [row[0] for row in results] == [0, 1, 2, 3, 4]
    assert len(computed(trace)) == 7


def test_where_the_items_are_gone_a_damaged_result_is_told(tmp_path: Path, trace: Path) -> None:
    infra = {"folder": tmp_path / "cache"}
    list(Rows(trace=trace, infra=infra).process(range(5)))  # type: ignore[arg-type] # validated from a dict
    damage(tmp_path, slice(None))
    obj = Rows(trace=trace, infra=infra)  # type: ignore[arg-type] # validated from a dict
    with pytest.raises(DamagedEntryError, match=r"'0' .*ask again"):
        list(obj.process(iter(range(5))))
    assert [row[0] for row in obj.process(range(5))] == [0, 1, 2, 3, 4]


def test_items_changed_since_the_call_are_not_taken_for_those_asked(tmp_path: Path, trace: Path) -> None:
    items = [1, 2]
    obj = Rows(trace=trace, infra={"folder": tmp_path / "cache"})  # type: ignore[arg-type] # validated from a dict
    results = obj.process(items)
    items[:] = [8, 9]
    damage(tmp_path, slice(None))
    with pytest.raises(DamagedEntryError, match="'1'"):
        next(results)


# ------------------------------------------------------------------ threads


@pytest.mark.parametrize("same", [True, False])
def test_threads_that_ask_for_the_same_items_compute_each_once(
    tmp_path: Path, trace: Path, same: bool
) -> None:
    infra = {"folder": tmp_path / "cache"}
    shared = halves(infra, trace=trace)
    start = threading.Barrier(4)

    def ask(k: int) -> list[float]:
        obj = shared if same else halves(infra, trace=trace)
        start.wait()
        return list(obj.process(range(k, k + 20)))

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(4)))
    assert answers == [[item / 2 for item in range(k, k + 20)] for k in range(4)]
    assert computed(trace) == list(range(23))


def test_threads_on_one_object_in_memory_compute_each_item_once(trace: Path) -> None:
    obj = halves({}, trace=trace)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: list(obj.process(range(20))), range(4)))
    assert answers == [[item / 2 for item in range(20)]] * 4
    assert computed(trace) == list(range(20))


# ------------------------------------------------------------------ objects


@pytest.mark.parametrize("how", ["pickle", "cloudpickle", "deepcopy", "copy", "model_copy"])
@pytest.mark.parametrize("folder", [True, False])
def test_a_copy_answers_for_itself(tmp_path: Path, how: str, folder: bool) -> None:
    obj = halves({"folder": tmp_path if folder else None})
    assert list(obj.process([2])) == [1.0]
    makers: dict[str, tp.Callable[[Halves], Halves]] = {
        "pickle": lambda t: pickle.loads(pickle.dumps(t)),
        "cloudpickle": lambda t: tp.cast(Halves, pickle.loads(cloudpickle.dumps(t))),
        "deepcopy": copy.deepcopy,
        "copy": copy.copy,
        "model_copy": lambda t: t.model_copy(update={"factor": 2.0}),
    }
    other = makers[how](obj)
    if how != "model_copy":
        other.factor = 2.0
    assert list(other.process([2])) == [4.0]
    assert other.infra._obj is other
    assert other.infra.cache_dict is not obj.infra.cache_dict
    assert list(obj.process([2])) == [1.0]


def test_a_class_pickled_by_value_and_loaded_where_it_was_made_keeps_its_cache(
    tmp_path: Path, trace: Path
) -> None:
    """Unpickling updates such a class in place, as in a notebook that sends an object to this very process."""

    class Inside(pydantic.BaseModel):
        infra: exca.MapInfra = exca.MapInfra(folder=tmp_path)

        @infra.apply(item_uid=str)
        def process(self, items: Iterable[int]) -> Iterator[int]:
            for item in items:
                with open(trace, "a") as f:
                    f.write(f"{item}\n")
                yield item

    obj = Inside()
    assert list(obj.process([1])) == [1]
    other = pickle.loads(cloudpickle.dumps(obj))
    assert type(other) is Inside
    for one in (obj, other, Inside()):
        assert list(one.process([1])) == [1]
    assert computed(trace) == [1]


def test_private_infras_work_too(tmp_path: Path) -> None:
    class Private(pydantic.BaseModel):
        x: int = 1
        _infra: exca.MapInfra = exca.MapInfra(folder=tmp_path)

        @_infra.apply(item_uid=str)
        def process(self, items: Iterable[int]) -> Iterator[int]:
            return (self.x * item for item in items)

    assert list(Private(x=3).process([1, 2])) == [3, 6]
    assert list(Private(x=4).process([1, 2])) == [4, 8]
    assert sorted(Private(x=3)._infra.cache_dict) == ["1", "2"]


def test_a_child_may_override_infra_and_method(tmp_path: Path) -> None:
    class Child(Halves):
        infra: exca.MapInfra = exca.MapInfra(version="child")

        @infra.apply(item_uid=str)
        def process(self, items: Iterable[int]) -> Iterator[float]:
            for value in super().process(items):
                yield value + 100

    child = Child.model_validate({"infra": {"folder": tmp_path}})
    assert list(child.process([1, 2])) == [100.5, 101.0]
    assert list(child.infra.cache_dict.values()) == [100.5, 101.0]
    assert "Child.process,child" in child.infra.uid()


def test_a_child_may_override_the_method_alone(tmp_path: Path, trace: Path) -> None:
    class Child(Halves):
        def process(self, items: Iterable[int]) -> Iterator[float]:
            return (value + 100 for value in super().process(items))

    with pytest.warns(UncachedOverrideWarning, match=r"Child overrides Halves\.process"):
        child = Child.model_validate({"trace": trace, "infra": {"folder": tmp_path}})
    for _ in range(2):
        assert list(child.process([1, 2])) == [100.5, 101.0]
    assert computed(trace) == [1, 2], "the parent's results are cached"
    assert child.infra.uid().startswith("map_models.Halves.process,1/")


def test_the_default_on_the_class_seeds_what_an_instance_leaves_open(tmp_path: Path) -> None:
    obj = halves({"folder": tmp_path, "max_jobs": None})
    assert (obj.infra.version, obj.infra.max_jobs, obj.infra.min_samples_per_job) == ("1", None, 1)
    assert repr(exca.MapInfra(max_jobs=3)) == "MapInfra(max_jobs=3)"


def test_two_maps_and_a_task_on_one_class(tmp_path: Path) -> None:
    class Several(pydantic.BaseModel):
        one: exca.MapInfra = exca.MapInfra(folder=tmp_path)
        two: exca.MapInfra = exca.MapInfra(folder=tmp_path)
        task: exca.TaskInfra = exca.TaskInfra(folder=tmp_path)

        @one.apply(item_uid=str)
        def up(self, items: Iterable[int]) -> Iterator[int]:
            return (item + 1 for item in items)

        @two.apply(item_uid=str)
        def down(self, items: Iterable[int]) -> Iterator[int]:
            return (item - 1 for item in items)

        @task.apply
        def both(self) -> list[int]:
            return [*self.up([1]), *self.down([1])]

    assert Several().both() == [2, 0]
    assert set(Several().one.obj_infras()) == {"one", "two", "task"}


# ------------------------------------------------------------------ progress


class Terminal:
    """A stream that says it is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""

    def isatty(self) -> bool:
        return True


def test_long_work_shows_its_progress_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from exca.engine.items import ProgressBar

    monkeypatch.setattr(ProgressBar, "DELAY", 0)
    assert list(halves({}).process(range(5))) == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert capsys.readouterr().err == ""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    list(halves({}).process(range(5)))
    assert "Halves.process" in terminal.text
    assert "/5" in terminal.text
    assert "item/s" in terminal.text


def test_in_process_work_is_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "exca"):
        list(halves({"folder": tmp_path}).process(range(5)))
    assert not caplog.records
