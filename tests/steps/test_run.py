"""What a call computes, keeps and says, in this process."""

import itertools
import logging
import pickle
import shutil
import subprocess
import sys
import typing as tp
import weakref
from collections.abc import Iterator
from pathlib import Path

import pydantic
import pytest

import pipeline_steps as pieces
from exca import steps
from exca.errors import (
    AmbiguousItemError,
    BatchProtocolError,
    ChangedConfigError,
    InfraError,
    LostInputError,
    ModeError,
    ReadOnlyError,
    ResolutionError,
)
from exca.steps.helpers import Func
from exca.steps.items import StepItems
from exca.steps.pipeline import pipeline_of
from pipeline_steps import Batch, Decomposed, Fails, Noted, Numbers, Plus, Times, note, noted

Cached = dict[str, tp.Any]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


def infra(folder: Path, **fields: tp.Any) -> Cached:
    return {"backend": "Cached", "folder": folder / "cache", **fields}


def two_stages(tmp_path: Path, first: Cached | None, second: Cached | None, **fields: tp.Any) -> steps.Chain:
    notes = tmp_path / "notes"
    parts = [Noted(name="a", notes=notes, infra=first), Noted(name="b", notes=notes, value=10, infra=second)]
    return steps.Chain(steps=parts, **fields)


# ------------------------------------------------------------------ results


def test_without_infra_each_result_is_computed_when_it_is_asked_for(notes: Path) -> None:
    results = iter(steps.Chain(steps=[Noted(notes=notes), Times()]).run_many(iter([1, 2, 2])))
    assert noted(notes) == []
    assert next(results) == 4
    assert noted(notes) == ["1"]
    assert list(results) == [6, 6]
    assert noted(notes) == ["1", "2", "2"]
    assert list(results) == []


def test_results_have_a_length_and_keys_and_can_be_gone_through_again(notes: Path, tmp_path: Path) -> None:
    def results(values: tp.Iterable[int], **fields: tp.Any) -> StepItems:
        return Noted(notes=notes, **fields).run_many(values)

    for given in (lambda: iter([1, 2, 1]), lambda: [1, 2, 1]):
        computed = results(given())
        assert len(computed) == 3
        assert computed.uids == ["1-8a754ff2", "2-53e97b9b", "1-8a754ff2"]
        assert noted(notes) == []
        assert [list(computed), list(computed)] == [[2, 3, 2], [2, 3, 2]]
        assert noted(notes) == ["1"] * 4 + ["2"] * 2  # without infra, each pass computes
        shutil.rmtree(notes)
    kept = results(iter([1, 2, 1]), infra=infra(tmp_path))
    assert len(kept) == 3
    assert kept.uids == computed.uids
    assert [list(kept), list(kept)] == [[2, 3, 2], [2, 3, 2]]
    assert noted(notes) == ["1", "2"]
    for some in (computed, kept):
        assert list(some.select(["2-53e97b9b"])) == list(some.read(["2-53e97b9b"])) == [3]
        assert list(pickle.loads(pickle.dumps(some))) == [2, 3, 2]
        with pytest.raises(KeyError):
            some.select(["3-nothing"])
    assert not results([])
    assert not results([], infra=infra(tmp_path))


def test_results_without_infra_take_no_more_values_than_are_asked_for() -> None:
    results = Plus().run_many(itertools.count())
    assert list(itertools.islice(results, 3)) == [1, 2, 3]
    assert list(itertools.islice(results, 4)) == [1, 2, 3, 4]


def test_values_that_were_gone_through_are_let_go_with_their_results() -> None:
    class Large:
        pass

    made: list[weakref.ref[Large]] = []

    def values() -> Iterator[Large]:
        for _ in range(3):
            value = Large()
            made.append(weakref.ref(value))
            yield value
            del value

    for _ in Func(function="builtins.id").run_many(values()):
        assert sum(ref() is not None for ref in made[:-1]) <= 1
    assert len(made) == 3
    results = Func(function="builtins.id").run_many(values())
    assert list(results) == list(results)
    assert all(ref() is not None for ref in made[3:])


def test_an_error_in_the_middle_of_the_values_is_never_their_end(tmp_path: Path) -> None:
    def values() -> Iterator[int]:
        yield 1
        raise LookupError("the list of items broke off")

    results = Plus().run_many(values())
    for _ in range(2):
        with pytest.raises(LookupError, match="broke off"):
            list(results)
    with pytest.raises(LookupError, match="broke off"):
        Plus(infra=infra(tmp_path)).run_many(values())


def test_results_removed_since_are_computed_again_on_the_next_pass(notes: Path, tmp_path: Path) -> None:
    step = Noted(notes=notes, infra=infra(tmp_path, backend="ThreadPool"))
    results = step.run_many([1, 2])
    assert list(results) == [2, 3]
    step.lookup(1).clear_cache()
    assert list(results) == [2, 3]
    assert noted(notes) == ["1", "1", "2"]


def test_the_error_of_a_pool_is_raised_on_each_pass(tmp_path: Path) -> None:
    results = Fails(infra=infra(tmp_path, backend="ThreadPool", max_jobs=1)).run_many([1, -1])
    for _ in range(2):
        passing = iter(results)
        assert next(passing) == 1
        with pytest.raises(ArithmeticError, match="below zero"):
            next(passing)


def test_with_infra_all_that_is_missing_is_computed_at_the_call_and_once(notes: Path, tmp_path: Path) -> None:
    step = Noted(notes=notes, infra=infra(tmp_path))
    results = step.run_many(iter([3, 1, 3]))
    assert noted(notes) == ["1", "3"]
    assert list(results) == [4, 2, 4]
    assert list(Noted(notes=notes, infra=infra(tmp_path)).run_many([1, 2, 3])) == [2, 3, 4]
    assert noted(notes) == ["1", "2", "3"]


def test_a_hit_at_the_end_runs_and_looks_at_nothing_before_it(tmp_path: Path, notes: Path) -> None:
    two_stages(tmp_path, infra(tmp_path), infra(tmp_path)).run(1)
    chain = two_stages(tmp_path, infra(tmp_path), infra(tmp_path))
    assert chain.run(1) == 12
    assert noted(notes) == ["a1", "b2"]
    first, last = pipeline_of(chain).stages
    assert first._store is None
    assert last._store is not None


def test_what_follows_the_last_stage_is_computed_each_time(tmp_path: Path, notes: Path) -> None:
    chain = two_stages(tmp_path, infra(tmp_path), None)
    assert chain.run(1) == 12
    assert list(chain.run_many([1, 1])) == [12, 12]
    assert noted(notes) == ["a1", "b2", "b2", "b2"]


class Forgets(steps.Step):
    """Removes what the step before has stored."""

    folder: Path
    notes: Path
    always: bool = False

    def _run(self, x: float) -> float:
        if self.always or not noted(self.notes):
            note(self.notes, "forgot")
            for item in range(30):
                Plus.model_validate({"infra": infra(self.folder)}).lookup(item).clear_cache()
        return x


def forgetting(tmp_path: Path, *, always: bool) -> steps.Chain:
    first = Plus(infra=infra(tmp_path / "first"))
    last = Forgets(
        folder=tmp_path / "first", notes=tmp_path / "notes", always=always, infra=infra(tmp_path / "last")
    )
    return steps.Chain(steps=[first, last])


def test_a_result_that_is_lost_on_the_way_is_computed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert list(forgetting(tmp_path, always=False).run_many([1, 2, 3])) == [2, 3, 4]
    [line] = caplog.messages
    assert "had a result for" in line
    assert "has none any more: it was damaged (and set aside) or removed. Run again" in line


def test_results_that_are_lost_again_and_again_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(LostInputError, match="has none any more: it was damaged"):
        forgetting(tmp_path, always=True).run_many(range(30)).__iter__().__next__()


def test_the_former_name_of_run() -> None:
    with pytest.warns(DeprecationWarning, match=r"Step\.forward\(\) was renamed: use run\(\)"):
        assert Plus().forward(1) == 2


def test_none_is_a_result(tmp_path: Path, notes: Path) -> None:
    class Nothing(Noted):
        def _run(self, x: float) -> tp.Any:
            super()._run(x)

    for _ in range(2):
        assert Nothing(notes=notes, infra=infra(tmp_path)).run(1) is None
    assert noted(notes) == ["1"]


def test_a_value_is_given_where_it_is_needed_and_nowhere_else() -> None:
    with pytest.raises(TypeError, match=r"Plus needs a value: call run\(value\)"):
        Plus().run()
    with pytest.raises(TypeError, match=r"Numbers takes no input, but was given 3: call run\(\)"):
        Numbers().run(3)
    with pytest.raises(TypeError, match=r"takes no input, so there are no values"):
        steps.Chain(steps=[Numbers()]).run_many([1])

    class Either(steps.Step):
        def _run(self, x: int = 5) -> int:
            return x + 1

    assert (Either().run(), Either().run(1), steps.Chain(steps=[Plus(), Either()]).run(1)) == (6, 2, 3)


def test_keep_in_ram_answers_from_memory(tmp_path: Path) -> None:
    step = Numbers(infra=infra(tmp_path, keep_in_ram=True))
    assert step.run() is step.run()


def test_an_infra_without_any_folder_is_an_error_that_names_the_step() -> None:
    for chain in (Plus(infra="Cached"), steps.Chain(steps=[Plus(infra="ThreadPool"), Times()])):
        with pytest.raises(InfraError, match=r"Plus has infra='.*' and no folder"):
            chain.run(1)


def test_a_chain_with_infra_is_one_unit_whose_entry_is_its_last_steps(tmp_path: Path, notes: Path) -> None:
    chain = steps.Chain(
        steps=[Noted(notes=notes), [Noted(notes=notes, value=2), Times()]], infra=infra(tmp_path)
    )
    assert chain.run(1) == 8
    flat = steps.Chain(steps=[Noted(notes=notes), Noted(notes=notes, value=2), Times(infra=infra(tmp_path))])
    assert flat.run(1) == 8
    assert noted(notes) == ["1", "2"]


def test_chains_inside_chains_with_the_same_entry_do_not_wait_for_each_other(
    tmp_path: Path, notes: Path
) -> None:
    inner = steps.Chain(steps=[Plus(), Noted(notes=notes, infra="Cached")], infra="Cached")
    chain = steps.Chain(steps=[Plus(), inner], infra=infra(tmp_path))
    assert chain.run(1) == 4
    assert noted(notes) == ["3"]


def test_a_resolved_step_keeps_its_results_where_its_parts_do(tmp_path: Path) -> None:
    chain = steps.Chain(
        steps=[Decomposed(transforms=[Times(infra="Cached")]), "Times"], infra=infra(tmp_path)
    )
    assert chain.run() == [0, 4]
    part = steps.Chain(steps=[Decomposed(), Times()], infra=infra(tmp_path, mode="read-only"))
    assert part.run() == [0, 2]


@pytest.mark.parametrize("number", [0, 1])
def test_a_step_that_stands_for_itself_is_refused(number: int) -> None:
    class Back(steps.Step):
        def _resolve_step(self) -> steps.Step:
            return There()

    class There(steps.Step):
        def _resolve_step(self) -> steps.Step:
            return Back()

    with pytest.raises(ResolutionError, match="goes round in a circle"):
        (pieces.Circle(), Back())[number].run(1)


# ------------------------------------------------------------------ modes


def test_force_computes_again_once_an_object_and_carries_on_to_later_steps(
    tmp_path: Path, notes: Path
) -> None:
    two_stages(tmp_path, infra(tmp_path), infra(tmp_path)).run(1)
    chain = two_stages(tmp_path, infra(tmp_path, mode="force"), infra(tmp_path))
    for _ in range(2):
        assert chain.run(1) == 12
    assert noted(notes) == ["a1", "a1", "b2", "b2"]
    two_stages(tmp_path, infra(tmp_path), infra(tmp_path, mode="force")).run(1)
    assert noted(notes) == ["a1", "a1", "b2", "b2", "b2"]
    chain.run(2)
    assert noted(notes).count("a2") == 1


def test_the_former_name_of_force_works_with_a_warning(tmp_path: Path, notes: Path) -> None:
    infra = {"backend": "Cached", "folder": tmp_path}
    with pytest.warns(DeprecationWarning, match='write mode="force"'):
        backend = steps.backends.Cached.model_validate({"folder": tmp_path, "mode": "force-forward"})
    assert backend.mode == "force"
    for chosen in (infra, backend, infra):
        Noted(notes=notes, infra=chosen).run(1)
    assert len(noted(notes)) == 2


def test_force_on_a_chain_is_for_all_its_steps(tmp_path: Path, notes: Path) -> None:
    two_stages(tmp_path, infra(tmp_path), infra(tmp_path)).run(1)
    two_stages(tmp_path, infra(tmp_path), infra(tmp_path), infra=infra(tmp_path, mode="force")).run(1)
    assert noted(notes) == ["a1", "a1", "b2", "b2"]


def test_read_only_is_for_its_own_step(tmp_path: Path, notes: Path) -> None:
    chain = two_stages(tmp_path, infra(tmp_path, mode="read-only"), infra(tmp_path))
    with pytest.raises(
        ReadOnlyError, match=r"1 item\(s\), such as '1-8a754ff2', and mode='read-only' of Noted"
    ):
        chain.run(1)
    assert noted(notes) == []
    two_stages(tmp_path, infra(tmp_path), None).run(1)
    assert chain.run(1) == 12
    with pytest.raises(ReadOnlyError):
        two_stages(tmp_path, infra(tmp_path), infra(tmp_path, mode="read-only")).run(2)
    assert "a2" not in noted(notes)


def test_read_only_after_force_is_an_error_before_anything_runs(tmp_path: Path, notes: Path) -> None:
    two_stages(tmp_path, infra(tmp_path), infra(tmp_path)).run(1)
    for chain in (
        two_stages(tmp_path, infra(tmp_path, mode="force"), infra(tmp_path, mode="read-only")),
        two_stages(tmp_path, infra(tmp_path, mode="force"), None, infra=infra(tmp_path, mode="read-only")),
    ):
        with pytest.raises(
            ModeError, match="mode='read-only', but a step before it, around it or in it has mode='force'"
        ):
            chain.run(1)
    assert noted(notes) == ["a1", "b2"]


def test_errors_are_cached_and_raised_again_until_retried(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    with pytest.raises(ArithmeticError, match="-1 is below zero"):
        Fails(allowed=allowed, infra=infra(tmp_path)).run(-1)
    allowed.touch()
    with pytest.raises(ArithmeticError, match="-1 is below zero") as caught:
        Fails(allowed=allowed, infra=infra(tmp_path)).run(-1)
    told = "\n".join(caught.value.__notes__)
    assert "Traceback where it ran" in told
    assert "mode='retry' on the infra of Fails" in told
    assert Fails(allowed=allowed, infra=infra(tmp_path, mode="retry")).run(-1) == -1
    assert Fails(allowed=allowed, infra=infra(tmp_path)).run(-1) == -1


def test_retry_acts_once_for_each_object_and_item(tmp_path: Path, notes: Path) -> None:
    class Never(Noted):
        def _run(self, x: float) -> float:
            super()._run(x)
            raise ArithmeticError(f"never {x:g}")

    def never(mode: str) -> Never:
        return Never(notes=notes, infra=infra(tmp_path, mode=mode))

    def fail(step: steps.Step, value: int) -> None:
        with pytest.raises(ArithmeticError, match=f"never {value}"):
            step.run(value)

    fail(never("cached"), 1)
    again = never("retry")
    for value in (1, 1, 2, 2):  # the error of 2 is its own, and counts as retried
        fail(again, value)
    assert noted(notes) == ["1", "1", "2"]
    fail(never("retry"), 1)
    fail(again.clone(), 2)
    assert noted(notes) == ["1", "1", "1", "2", "2"]


def test_a_mode_of_a_step_in_a_field_is_that_of_the_step_around_it(tmp_path: Path, notes: Path) -> None:
    class Around(steps.Step):
        inner: list[steps.Step]

        def _run(self, x: float) -> float:
            return float(self.inner[0].run(x))

    def around(mode: str, outer: str = "cached") -> steps.Chain:
        inner = Noted(notes=notes, infra=infra(tmp_path, mode=mode))
        return steps.Chain(
            steps=[Around(inner=[inner], infra=infra(tmp_path, mode=outer)), Plus(infra=infra(tmp_path))]
        )

    around("cached").run(1)
    forced = around("force")
    for _ in range(2):
        assert forced.run(1) == 3
    assert noted(notes) == ["1", "1"]
    for modes in (("read-only", "force"), ("force", "read-only")):
        with pytest.raises(ModeError, match="mode='read-only', but a step before it, around it or in it"):
            around(*modes).run(1)


def test_retry_carries_on_to_later_steps_and_keeps_results(tmp_path: Path, notes: Path) -> None:
    allowed = tmp_path / "allowed"

    def chain(mode: str) -> steps.Chain:
        parts = [
            Noted(notes=notes, infra=infra(tmp_path, mode=mode)),
            Fails(allowed=allowed, infra=infra(tmp_path)),
        ]
        return steps.Chain(steps=parts)

    with pytest.raises(ArithmeticError):
        chain("cached").run(-3)
    allowed.touch()
    with pytest.raises(ArithmeticError):
        chain("cached").run(-3)
    assert chain("retry").run(-3) == -2
    assert noted(notes) == ["-3"]


def test_what_is_wrong_with_the_call_is_no_outcome_of_the_item(tmp_path: Path) -> None:
    class Around(steps.Step):
        _inner: steps.Step = pydantic.PrivateAttr()

        def _run(self, x: float) -> float:
            return float(self._inner.run(x))

    def around(inner: steps.Step) -> steps.Chain:
        step = Around(infra=infra(tmp_path))
        step._inner = inner
        return steps.Chain(steps=[step, Plus()], infra=infra(tmp_path))

    with pytest.raises(InfraError, match="no folder"):
        around(Plus(infra="Cached")).run(1)
    with pytest.raises(ReadOnlyError):
        around(Plus(infra=infra(tmp_path, mode="read-only"))).run(1)
    assert [stage.status for stage in around(Plus()).lookup(1).stages] == [None, None]
    assert around(Plus()).run(1) == 3


def test_an_error_inside_a_chain_is_that_of_the_chain(tmp_path: Path) -> None:
    chain = steps.Chain(steps=[Fails(infra="Cached"), Plus()], infra=infra(tmp_path))
    with pytest.raises(ArithmeticError):
        chain.run(-1)
    assert [handle.status for handle in chain.lookup(-1).stages] == ["error", "error"]
    with pytest.raises(ArithmeticError, match="below zero"):
        chain.run(-1)


# ------------------------------------------------------------------ batches


def test_a_batch_that_yields_too_few_or_too_many_is_an_error_and_keeps_nothing(tmp_path: Path) -> None:
    for surplus in (-1, 1):
        step = Batch(surplus=surplus, infra=infra(tmp_path))
        with pytest.raises(BatchProtocolError, match="exactly one result per value"):
            step.run_many([1, 2, 3])
        assert [step.lookup(k).status for k in (1, 2, 3)] == [None, None, None]
        with pytest.raises(BatchProtocolError, match=f"surplus={surplus}"):
            list(Batch(surplus=surplus).run_many([1, 2, 3]))


def test_a_batch_that_takes_too_few_is_an_error() -> None:
    class Stops(steps.Step):
        def _run_batch(self, values: Iterator[int]) -> Iterator[int]:
            yield next(values)

    with pytest.raises(BatchProtocolError, match=r"yielded 1 result\(s\)"):
        list(Stops().run_many([1, 2]))


def test_what_a_batch_yielded_before_an_error_is_kept_and_the_error_tells_what_was_taken(
    tmp_path: Path,
) -> None:
    step = Batch(fail_at=3, eager=False, infra=infra(tmp_path))
    with pytest.raises(ArithmeticError, match="no result for 3") as caught:
        step.run_many([1, 2, 3, 4])
    assert "taken and not yet yielded: '3-d2021aee'" in "\n".join(caught.value.__notes__)
    assert [step.lookup(k).status for k in (1, 2, 3, 4)] == ["success", "success", "error", None]
    eager = Batch(fail_at=3, infra=infra(tmp_path / "b"))
    with pytest.raises(ArithmeticError) as caught:
        eager.run_many([1, 2, 3, 4])
    told = "\n".join(caught.value.__notes__)
    assert "not yet yielded: '3-d2021aee', '4-8c752473'" in told
    assert "The 2 result(s) before them are kept" in told


def test_run_is_a_batch_of_one(tmp_path: Path) -> None:
    assert Batch().run(4) == 40
    assert Batch(infra=infra(tmp_path)).run(4) == 40
    assert steps.Chain(steps=[Batch(), Batch()]).run(4) == 400


@pytest.mark.parametrize("backend", ["Cached", "ThreadPool", "LocalProcess"])
def test_nothing_is_stored_for_a_step_that_was_changed_in_place(backend: str, tmp_path: Path) -> None:
    fields = infra(tmp_path, backend=backend)
    step = pieces.Weighted(weights=[1, 2], infra=fields)
    assert step.run(1) == 3
    step.weights.append(3)
    with pytest.raises(ChangedConfigError, match=r"Weighted was changed after its uid was in use"):
        list(step.run_many([2]))
    assert step.lookup(2).status is None
    assert step.clone().run(2) == 12
    itself = pieces.Weighted(weights=[1], grows=True, infra=fields)
    with pytest.raises(ChangedConfigError, match="nothing was stored"):
        list(itself.run_many([1, 2]))
    assert [itself.lookup(k).status for k in (1, 2)] == [None, None]


def test_two_different_items_of_a_call_with_one_key_are_an_error(tmp_path: Path, notes: Path) -> None:
    class Half(Noted):
        def item_uid(self, value: tp.Any) -> str:
            return str(value // 2)

    step = Half(notes=notes, infra=infra(tmp_path))
    with pytest.raises(
        AmbiguousItemError, match="item_uid of Half gives '1' for two different items, 2 and 3"
    ):
        step.run_many([1, 2, 3])
    assert noted(notes) == []
    assert list(step.run_many([2, 2])) == [3, 3]


def test_an_error_names_the_step(tmp_path: Path) -> None:
    with pytest.raises(ArithmeticError) as caught:
        steps.Chain(steps=[Plus(), Fails()]).run(-5)
    assert caught.value.__notes__ == ["Raised by Fails()."]


# ------------------------------------------------------------------ storage


def test_a_damaged_result_is_computed_again(tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")

    class Ones(steps.Step):
        def _run(self, n: int) -> tp.Any:
            return np.ones(1000 * n)

    step = Ones(infra=infra(tmp_path))
    list(step.run_many([1, 2]))
    for path in (tmp_path / "cache").rglob("data/*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:100])
    fresh = Ones(infra=infra(tmp_path))
    assert [len(value) for value in fresh.run_many([1, 2])] == [1000, 2000]


def test_a_damaged_input_is_computed_again_and_is_no_error_of_the_step_that_wanted_it(tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")

    class Zeros(steps.Step):
        def _run(self, n: int) -> tp.Any:
            return np.zeros(1000 * n)

    class Length(steps.Step):
        def _run(self, x: tp.Any) -> int:
            return len(x)

    def chain() -> steps.Chain:
        return steps.Chain(steps=[Zeros(infra="Cached"), Length(infra="Cached")], infra=infra(tmp_path))

    chain()[:1].run(1)
    for path in (tmp_path / "cache").rglob("data/*"):
        path.write_bytes(path.read_bytes()[:100])
    assert chain().run(1) == 1000


def test_logs_are_captured_where_the_infra_asks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Prints(steps.Step):
        def _run(self, x: int) -> int:
            print(f"got {x}")
            return x

    step = Prints(infra=infra(tmp_path, capture_logs=True))
    step.run(3)
    assert (step.lookup(3).paths.logs_folder / "main-process" / "log.stdout").read_text() == "got 3\n"
    assert capsys.readouterr().out == "got 3\n"


def test_logging_records_are_captured_and_still_reach_whoever_had_them(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        """
import logging, sys
from exca import steps

class Logs(steps.Step):
    def _run(self, x: int) -> int:
        logging.getLogger("mine").warning("warned %d", x)
        logging.getLogger("mine").info("told %d", x)
        return x

if len(sys.argv) > 2:
    logging.basicConfig(level=logging.INFO, format="%(message)s by root")
Logs(infra={"backend": "Cached", "folder": sys.argv[1], "capture_logs": True}).run(3)
assert len(logging.getLogger().handlers) == len(sys.argv) - 2
"""
    )
    for options, printed, kept in (
        ([], ["warned 3"], ["WARNING - mine:7 - warned 3"]),
        (["root"], ["warned 3 by root", "told 3 by root"], ["WARNING - mine:7", "INFO - mine:8 - told 3"]),
    ):
        folder = tmp_path / f"cache{len(options)}"
        done = subprocess.run(
            [sys.executable, str(program), str(folder), *options], capture_output=True, text=True, check=True
        )
        assert [line for line in done.stderr.splitlines() if "3" in line] == printed
        (log,) = folder.rglob("log.stderr")
        lines = [line for line in log.read_text().splitlines() if "mine" in line]
        assert len(lines) == len(kept)
        assert all(part in line for part, line in zip(kept, lines, strict=True))


def test_a_handler_made_while_logs_are_captured_works_afterwards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("made-meanwhile")

    class Configures(steps.Step):
        def _run(self, x: int) -> int:
            logger.addHandler(logging.StreamHandler())
            return x

    step = Configures(infra=infra(tmp_path, capture_logs=True))
    step.run(3)
    logger.warning("after")
    logger.handlers.clear()
    assert "after" in capsys.readouterr().err
    assert "after" not in (step.lookup(3).paths.logs_folder / "main-process" / "log.stderr").read_text()


def test_two_threads_that_ask_for_the_same_compute_it_once(tmp_path: Path, notes: Path) -> None:
    import concurrent.futures

    def ask() -> list[float]:
        chain = steps.Chain(
            steps=[Noted(notes=notes, seconds=0.05, infra="Cached"), Times()], infra=infra(tmp_path)
        )
        return list(chain.run_many(range(4)))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(ask) for _ in range(4)]
        assert [f.result() for f in futures] == [[2, 4, 6, 8]] * 4
    assert noted(notes) == ["0", "1", "2", "3"]


def test_what_is_forced_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Plus(infra=infra(tmp_path)).run(1)
    with caplog.at_level(logging.INFO, logger="exca"):
        Plus(infra=infra(tmp_path, mode="force")).run(1)
    assert "again (mode='force')" in caplog.text


def test_an_error_in_this_thread_between_pools_leaves_later_stages_what_came_before_it(
    tmp_path: Path,
) -> None:
    pool = infra(tmp_path, backend="ThreadPool", max_jobs=2)
    chain = steps.Chain(steps=[Plus(infra=pool), Fails(infra=infra(tmp_path)), Times(infra=pool)])
    values = [*range(8), -5, *range(10, 18)]
    with pytest.raises(ArithmeticError, match="-4 is below zero"):
        chain.run_many(values)
    assert chain.lookup(-5).stages[1].status == "error"
    for value in values:
        first, middle, last = (handle.status for handle in chain.lookup(value).stages)
        assert first == "success"
        assert last == (middle if middle == "success" else None)
    good = [value for value in values if value >= 0]
    assert list(chain.run_many(good)) == [2 * (value + 1) for value in good]
