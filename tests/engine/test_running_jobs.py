"""What is computed now: jobs of tasks, maps and pipelines, seen and ended by any interpreter."""

import subprocess
import typing as tp
from pathlib import Path

import pytest

import elsewhere
import exca
from exca.errors import JobError
from map_models import Halves
from pipeline_steps import Noted
from task_models import Sleeper
from waiting import wait_for

Infra: tp.TypeAlias = tp.Any  # a dict, which becomes an infra at run time
every_cluster = pytest.mark.parametrize("cluster", ["local", pytest.param("slurm", marks=pytest.mark.slurm)])


@pytest.fixture
def infra(slurm_folder: Path, cluster: str) -> Infra:
    return {"cluster": cluster, "folder": slurm_folder / "cache", "max_jobs": 2}


def computing(halves: Halves, infra: Infra) -> "subprocess.Popen[str]":
    """Start an interpreter that computes four items and prints them."""
    fields = {**infra, "folder": str(infra["folder"])}
    program = f"""
from map_models import Halves
halves = Halves(gate={str(halves.gate)!r}, trace={str(halves.trace)!r}, infra={fields!r})
print(list(halves.process(range(4))))
"""
    other = elsewhere.start(program)
    wait_for(
        lambda: halves.trace is not None and halves.trace.exists() and lines(halves) == 2,
        "both jobs to start",
    )
    return other


def lines(halves: Halves) -> int:
    assert halves.trace is not None
    return len(halves.trace.read_text().splitlines())


@every_cluster
def test_the_jobs_of_a_map_are_seen_by_another_interpreter(infra: Infra, tmp_path: Path) -> None:
    halves = Halves(gate=tmp_path / "gate", trace=tmp_path / "trace", infra=infra)
    assert halves.infra.jobs() == []
    assert str(halves.infra.progress()) == "0 of 0 done"
    other = computing(halves, infra)
    jobs = halves.infra.jobs()
    assert len({job.job_id for job in jobs}) == 2
    assert {job.state for job in jobs} == {"RUNNING"}
    assert all(job.paths.stdout.exists() for job in jobs)
    assert str(halves.infra.progress()) == "0 of 4 done, 4 running"
    assert str(halves.infra.progress(range(6))) == "0 of 6 done, 4 running, 2 not submitted"
    (tmp_path / "gate").touch()
    assert exca.wait(jobs).not_done == []
    assert other.communicate(timeout=100)[0] == "[0.0, 0.5, 1.0, 1.5]\n"
    assert str(halves.infra.progress(range(6))) == "4 of 6 done, 2 not submitted"
    halves.infra.clear()
    assert len(halves.infra.cache_dict) == 0


@every_cluster
def test_the_jobs_of_a_map_are_ended_by_another_interpreter(infra: Infra, tmp_path: Path) -> None:
    halves = Halves(gate=tmp_path / "gate", trace=tmp_path / "trace", infra=infra)
    other = computing(halves, infra)
    jobs = halves.infra.jobs()
    halves.infra.cancel()
    assert exca.wait(jobs).not_done == []
    out, err = other.communicate(timeout=100)
    assert (out, "JobError" in err) == ("", True)
    assert halves.infra.jobs() == []
    (tmp_path / "gate").touch()
    assert list(halves.process(range(4))) == [0, 0.5, 1, 1.5], "the next call computes"


@pytest.mark.parametrize("cluster", ["local"])
def test_errors_of_a_map_are_not_kept(infra: Infra) -> None:
    with pytest.raises(ValueError, match="cannot halve 3"):
        Halves(fail_at=3, infra=infra).process([3])
    assert list(Halves(infra=infra).process([3])) == [1.5]


def test_the_jobs_of_a_pipeline_are_seen_and_ended(tmp_path: Path) -> None:
    local: Infra = {"backend": "LocalProcess", "folder": tmp_path / "cache"}
    step = Noted(notes=tmp_path / "notes", gate=tmp_path / "gate", infra=local)
    plan = step.plan([1, 2])
    assert (plan.jobs(), str(plan.progress())) == ([], "0 of 2 done, 2 not submitted")
    program = f"""
from pipeline_steps import Noted
infra = dict(backend="LocalProcess", folder={str(tmp_path / "cache")!r})
print(list(Noted(notes={str(tmp_path / "notes")!r}, gate={str(tmp_path / "gate")!r}, infra=infra).run_many([1, 2])))
"""
    other = elsewhere.start(program)
    wait_for(lambda: [job.state for job in plan.jobs()] == ["RUNNING"] * 2, "the jobs to run")
    assert str(plan.progress()) == "0 of 2 done, 2 running"
    plan.cancel()
    assert "JobError" in other.communicate(timeout=100)[1]
    assert plan.jobs() == []
    (tmp_path / "gate").touch()
    plan.clear()  # a job that was cancelled while it ran is kept as an error
    assert list(step.run_many([1, 2])) == [2, 3]
    assert str(plan.progress()) == "2 of 2 done"
    plan.clear()
    assert str(plan.progress()) == "0 of 2 done, 2 not submitted"


def test_what_is_not_kept_has_no_jobs() -> None:
    plan = Noted(notes=Path("notes")).plan([1])
    assert (plan.jobs(), str(plan.progress())) == ([], "0 of 1 done, 1 not submitted")
    plan.clear()
    halves = Halves()
    assert list(halves.process([1])) == [0.5]
    assert (halves.infra.jobs(), str(halves.infra.progress([1, 2]))) == ([], "1 of 2 done, 1 not submitted")


def test_a_task_has_the_same_questions(tmp_path: Path) -> None:
    infra: Infra = {"cluster": "local", "folder": tmp_path / "cache"}
    task = Sleeper(gate=tmp_path / "gate", infra=infra)
    assert (task.infra.jobs(), str(task.infra.progress())) == ([], "0 of 1 done, 1 not submitted")
    job = task.infra.job()
    wait_for(task.started().exists, "it to start")
    assert [one.job_id for one in Sleeper(gate=tmp_path / "gate", infra=infra).infra.jobs()] == [job.job_id]
    assert str(task.infra.progress()) == "0 of 1 done, 1 running"
    task.infra.cancel()
    assert isinstance(job.exception(), JobError)
    assert str(task.infra.progress()) == "1 of 1 done (1 failed)"
    task.infra.clear()
    assert task.infra.status() == "not submitted"
