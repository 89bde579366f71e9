"""Stages that run elsewhere: pools, processes of their own, and several of them at once."""

import os
import pickle
import signal
import threading
from pathlib import Path

import pytest

import elsewhere
import pipeline_steps as pieces
from exca import steps
from exca.errors import JobError, SubmissionError
from exca.steps import addresses
from exca.steps.patterns import Scatter
from exca.steps.pipeline import pipeline_of
from exca.steps.run import StageWorker, prepare
from pipeline_steps import Fails, Noted, Plus, Times, noted
from waiting import wait_for

OFF = ["ThreadPool", "ProcessPool", "LocalProcess", "SubmititDebug"]
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.parametrize("backend", OFF)
def test_items_are_computed_once_elsewhere(backend: str, tmp_path: Path) -> None:
    infra = {"backend": backend, "folder": tmp_path / "cache", "max_jobs": 2}
    step = Noted(notes=tmp_path / "notes", infra=infra)
    assert list(step.run_many([1, 2, 3, 2])) == [2, 3, 4, 3]
    assert list(Noted(notes=tmp_path / "notes", infra=infra).run_many([3, 4])) == [4, 5]
    assert noted(tmp_path / "notes") == ["1", "2", "3", "4"]
    places = {path.name.split("-")[0] for path in (tmp_path / "notes").iterdir()}
    assert (str(os.getpid()) in places) is (backend in ("ThreadPool", "SubmititDebug"))


@pytest.mark.parametrize("backend", ["ThreadPool", "ProcessPool", "LocalProcess"])
def test_an_error_elsewhere_reaches_the_caller_and_is_cached(backend: str, tmp_path: Path) -> None:
    infra = {"backend": backend, "folder": tmp_path, "min_items_per_job": 2}
    step = Fails(infra=infra)
    with pytest.raises(ArithmeticError, match="-3 is below zero"):
        list(step.run_many([1, -3, 2, 4]))
    assert step.lookup(1).status == "success"
    assert step.lookup(-3).status == "error"
    assert step.lookup(4).status == "success"
    with pytest.raises(ArithmeticError, match="-3 is below zero") as caught:
        Fails(infra={**infra, "mode": "cached"}).run(-3)
    assert "mode='retry'" in "\n".join(caught.value.__notes__)


@pytest.mark.parametrize("backend", ["ProcessPool", "LocalProcess"])
def test_a_branch_that_was_killed_is_no_outcome_of_what_scatters(backend: str, tmp_path: Path) -> None:
    def scatter() -> steps.Step:
        infra = {"backend": backend, "folder": tmp_path / "cache"}
        return Each(
            body=KilledOnce(flag=tmp_path / "flag", infra=infra), infra={"folder": tmp_path / "cache"}
        )

    with pytest.raises(JobError, match="killed"):
        scatter().run([1, 2])
    assert scatter().lookup([1, 2]).status is None
    assert scatter().run([1, 2]) == {0: 1, 1: 2}


class KilledOnce(steps.Step):
    flag: Path

    @classmethod
    def _exclude_from_cls_uid(cls) -> list[str]:
        return [*super()._exclude_from_cls_uid(), "flag"]

    def _run(self, x: int) -> int:
        if not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return x


class Each(Scatter):
    body: steps.Step

    def branches(self, item: list[int]) -> list[int]:
        return list(range(len(item)))

    def take(self, item: list[int], branch: int) -> int:
        return item[branch]


@pytest.mark.parametrize("mode", ["cached", "force"])
def test_a_job_that_starts_again_goes_on_where_it_stopped(mode: str, tmp_path: Path) -> None:
    step = Noted(notes=tmp_path / "notes", infra={"folder": tmp_path / "cache", "mode": mode})
    pipeline = pipeline_of(step)
    if mode == "force":
        step.clone({"infra.mode": "cached"}).run_many([1, 2, 3])
        prepare(step._exca_state.forced, pipeline, addresses.keys_of(step, [1, 2, 3]))
    sent = pickle.dumps(StageWorker(pipeline.stages[0], None))
    keys = addresses.keys_of(step, [1, 2, 3])
    before = len(noted(tmp_path / "notes"))
    pickle.loads(sent).compute(keys[:2], [1, 2])  # until it was preempted
    pickle.loads(sent).compute(keys, [1, 2, 3])
    assert len(noted(tmp_path / "notes")) == before + 3
    assert list(step.run_many([1, 2, 3])) == [2, 3, 4]
    assert len(noted(tmp_path / "notes")) == before + 3


def test_results_of_a_pool_are_read_while_others_still_run(tmp_path: Path) -> None:
    gates = tmp_path / "gates"
    gates.mkdir()

    class Gated(steps.Step):
        def _run(self, x: int) -> int:
            wait_for((gates / str(x)).exists)
            return 10 * x

    step = Gated(infra={"backend": "ThreadPool", "folder": tmp_path / "cache"})
    results = iter(step.run_many([1, 2]))
    (gates / "1").touch()
    assert next(results) == 10
    assert step.lookup(2).status == "running"
    (gates / "2").touch()
    assert list(results) == [20]


def test_work_is_split_over_at_most_max_jobs_with_enough_items_each(tmp_path: Path) -> None:
    infra = {"backend": "LocalProcess", "folder": tmp_path, "max_jobs": 3, "min_items_per_job": 2}
    step = Plus(infra=infra)
    list(step.run_many(range(5)))
    jobs = [step.lookup(k).job() for k in range(5)]
    ids = [job.job_id for job in jobs if job is not None]
    assert len(ids) == 5
    assert len(set(ids)) == 2
    job = jobs[0]
    assert job is not None
    assert job.state == "COMPLETED"
    assert job.paths.folder.parent == step.lookup(0).paths.logs_folder


def test_an_off_process_step_is_sent_what_it_needs(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    infra = {"backend": "LocalProcess", "folder": tmp_path / "cache"}
    steps.Chain(steps=[Noted(notes=notes), Noted(notes=notes, name="b", infra=infra)]).run(1)
    assert noted(notes) == ["1", "b2"]
    assert len(list(notes.iterdir())) == 1
    assert not (notes / f"{os.getpid()}-{threading.get_ident()}").exists()
    kept = steps.Chain(steps=[Plus(infra={**infra, "backend": "Cached"}), Times(infra=infra)])
    assert kept.run(5) == 12


def test_a_chain_elsewhere_is_one_job_with_stages_inside(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    chain = steps.Chain(
        steps=[Noted(notes=notes, infra="Cached"), Times(), Noted(notes=notes, name="c", infra="Cached")],
        infra={"backend": "LocalProcess", "folder": tmp_path / "cache"},
    )
    assert list(chain.run_many([1, 2])) == [5, 7]
    assert noted(notes) == ["1", "2", "c4", "c6"]
    assert [handle.status for handle in chain.lookup(1).stages] == ["success"] * 3
    job = chain.lookup(1).job()
    assert job is not None
    assert job.cluster == "local"


def test_each_stage_starts_as_its_inputs_arrive(tmp_path: Path) -> None:
    """The second stage has computed an item while the first one still works on another."""
    gates = tmp_path / "gates"
    gates.mkdir()

    class First(steps.Step):
        def _run(self, x: int) -> int:
            wait_for((gates / str(x)).exists)
            return x + 1

    class Second(steps.Step):
        def _run(self, x: int) -> int:
            (gates / f"second-{x}").touch()
            return 10 * x

    class Third(steps.Step):
        def _run(self, x: int) -> int:
            (gates / f"third-{x}").touch()
            return x

    infra = {"folder": tmp_path / "cache"}
    chain = steps.Chain(
        steps=[
            First(infra={"backend": "LocalProcess", **infra}),
            Second(infra={"backend": "Cached", **infra}),
            Third(infra={"backend": "LocalProcess", **infra}),
        ]
    )
    found: list[int] = []
    asking = threading.Thread(target=lambda: found.extend(chain.run_many([1, 2])))
    asking.start()
    (gates / "2").touch()
    wait_for((gates / "third-30").exists)
    assert not (gates / "second-2").exists()
    (gates / "1").touch()
    asking.join()
    assert found == [20, 30]


def test_items_that_fail_hold_no_others_up(tmp_path: Path) -> None:
    infra = {"folder": tmp_path / "cache", "max_jobs": 2}
    chain = steps.Chain(
        steps=[
            Fails(infra={"backend": "LocalProcess", **infra}),
            Plus(infra={"backend": "ThreadPool", **infra}),
            Noted(notes=tmp_path / "notes", infra={"backend": "ThreadPool", **infra}),
        ]
    )
    with pytest.raises(ArithmeticError, match="-1 is below zero"):
        list(chain.run_many([-1, 1, 2, 3]))
    assert {"3", "4"} <= set(noted(tmp_path / "notes"))


def test_what_cannot_be_pickled_is_refused_with_nothing_left_behind(tmp_path: Path) -> None:
    step = pieces.Unpicklable(infra={"backend": "LocalProcess", "folder": tmp_path})
    with pytest.raises(SubmissionError, match="cannot send"):
        step.run(1)
    assert step.lookup(1).status is None


def test_a_killed_job_is_told_and_computed_again(tmp_path: Path) -> None:
    class Kills(steps.Step):
        def _run(self, x: int) -> int:
            if not (tmp_path / "second").exists():
                (tmp_path / "second").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return x

    step = Kills(infra={"backend": "LocalProcess", "folder": tmp_path / "cache"})
    with pytest.raises(JobError, match="ended without a result"):
        step.run(1)
    assert step.lookup(1).status is None
    assert step.run(1) == 1


SCRIPT = """
from pipeline_steps import Noted
from exca import steps
infra = dict(backend="LocalProcess", folder={folder!r})
parts = [Noted(notes={notes!r}, name=name, seconds=0.3, infra=infra) for name in "ab"]
print(list(steps.Chain(steps=parts).run_many([1, 2, 3])), flush=True)
"""


def test_who_comes_after_a_killed_interpreter_finds_its_jobs_again(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    script = SCRIPT.format(folder=str(tmp_path / "cache"), notes=str(notes))
    with elsewhere.start(script) as first:
        wait_for(lambda: noted(notes))
        first.kill()
        assert first.stdout is not None
        assert first.stdout.read() == ""
    assert elsewhere.printed(script) == "[3.0, 4.0, 5.0]"
    assert noted(notes) == ["a1", "a2", "a3", "b2", "b3", "b4"]


@pytest.mark.parametrize("backend", ["Slurm", "Auto", "LocalProcess"])
@pytest.mark.parametrize("text", ["a\nb", "a\tb", "a\x00b", "a\x1b[31mb"])
def test_control_characters_are_refused_when_a_backend_is_made(backend: str, text: str) -> None:
    cases: list[tuple[str, object]] = [("job_name", text)]
    if backend != "LocalProcess":
        cases += [(field, text) for field in ("partition", "constraint", "account", "qos")]
        cases += [("additional_parameters", {"comment": text}), ("additional_parameters", {text: 1})]
    for field, value in cases:
        with pytest.raises(ValueError, match=f"{field} holds a control character"):
            Plus.model_validate({"infra": {"backend": backend, field: value}})
