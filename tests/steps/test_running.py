"""What a call computes, keeps and says, in this process."""

import logging
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import pytest

import pipeline_steps as pieces
from exca import steps
from exca.errors import BatchProtocolError, InfraError, ModeError, ReadOnlyError, ResolutionError
from exca.steps.compiled import pipeline_of
from pipeline_steps import Batch, Decomposed, Fails, Noted, Numbers, Plus, Times, noted

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
    results = steps.Chain(steps=[Noted(notes=notes), Times()]).run_many(iter([1, 2, 2]))
    assert noted(notes) == []
    assert next(results) == 4
    assert noted(notes) == ["1"]
    assert list(results) == [6, 6]
    assert noted(notes) == ["1", "2", "2"]
    assert list(results) == []


def test_with_infra_all_that_is_missing_is_computed_at_the_call_and_once(notes: Path, tmp_path: Path) -> None:
    step = Noted(notes=notes, infra=infra(tmp_path))
    results = step.run_many(iter([3, 1, 3]))
    assert noted(notes) == ["1", "3"]
    assert list(results) == [4, 2, 4]
    assert list(results) == []
    assert list(Noted(notes=notes, infra=infra(tmp_path)).run_many([1, 2, 3])) == [2, 3, 4]
    assert noted(notes) == ["1", "2", "3"]


def test_a_hit_at_the_end_runs_and_looks_at_nothing_before_it(tmp_path: Path, notes: Path) -> None:
    two_stages(tmp_path, infra(tmp_path), infra(tmp_path)).run(1)
    chain = two_stages(tmp_path, infra(tmp_path), infra(tmp_path))
    assert chain.run(1) == 12
    assert noted(notes) == ["a1", "b2"]
    first, last = pipeline_of(chain).stages
    assert first._shelf is None
    assert last._shelf is not None


def test_what_follows_the_last_stage_is_computed_each_time(tmp_path: Path, notes: Path) -> None:
    chain = two_stages(tmp_path, infra(tmp_path), None)
    assert chain.run(1) == 12
    assert list(chain.run_many([1, 1])) == [12, 12]
    assert noted(notes) == ["a1", "b2", "b2", "b2"]


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
            ModeError, match="mode='read-only', but a step before it or in it has mode='force'"
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
        with pytest.raises(BatchProtocolError, match="exactly one a value"):
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
