"""The handle that a job array yields: how its tasks are, and what can be done with all of them."""

import io
import os
import subprocess
import typing as tp
from pathlib import Path

import pytest

import exca
from exca.engine.array import JobArray
from exca.engine.reports import Progress, Statuses, summary
from exca.errors import InfraError, SchedulerError
from slurm_faults import Faults
from slurm_limits import Qos
from task_models import Double, Failing, Planned, Sleeper
from waiting import wait_for

Infra: tp.TypeAlias = tp.Any  # a dict, which becomes an infra at run time


@pytest.fixture
def infra(tmp_path: Path) -> Infra:
    return {"cluster": "local", "folder": tmp_path / "cache"}


def planned(place: Path, infra: Infra, plan: str, count: int, workers: int = 2) -> JobArray:
    """An array of tasks that do as planned."""
    (place / "plan").write_text(plan)
    task = Planned(place=place, infra=infra)
    with task.infra.job_array(max_workers=workers) as array:
        array.extend(task.infra.clone_obj(x=x) for x in range(count))
    return array


def started(place: Path, plan: str, count: int) -> None:
    def whole() -> int:
        return sum(path.read_text().endswith("\n") for path in place.glob(f"started-{plan}-*"))

    wait_for(lambda: whole() >= count, f"{count} tasks to start")


def test_an_array_is_a_list_and_a_handle(tmp_path: Path, infra: Infra) -> None:
    array = planned(tmp_path, infra, "wait", 3)
    assert isinstance(array, list)
    assert [task.x for task in array] == [0, 1, 2]
    started(tmp_path, "wait", 2)
    assert array.status() == ["running"] * 3
    assert str(array.status()) == "3 running"
    assert not array.wait(timeout=0)
    (tmp_path / "gate").touch()
    assert array.wait()
    assert array.status() == ["completed"] * 3
    assert array.status().counts == {"completed": 3}
    assert [job.result() for job in array.jobs()] == ["wait"] * 3


def test_before_it_is_submitted_a_handle_has_nothing_to_tell(infra: Infra) -> None:
    with (
        Double(infra=infra).infra.job_array(allow_empty=True) as array,
        pytest.raises(InfraError, match="not submitted yet: leave the `with"),
    ):
        array.status()
    assert array.status() == []
    assert str(array.status()) == "no tasks"
    assert array.wait()


def test_progress_counts_and_tells_the_time_left(tmp_path: Path, infra: Infra) -> None:
    array = planned(tmp_path, infra, "wait", 3, workers=1)
    started(tmp_path, "wait", 1)
    progress = array.progress()
    assert (progress.total, progress.done, progress.running, progress.waiting) == (3, 0, 1, 2)
    assert progress.seconds_left is None
    assert str(progress) == "0 of 3 done, 1 running, 2 waiting"
    (tmp_path / "gate").touch()
    array.wait()
    progress = array.progress()
    assert (progress.completed, progress.seconds_left) == (3, 0.0)
    assert progress.rate is not None
    assert str(progress) == "3 of 3 done"
    assert str(Progress(300, 37, 1, 12, 240, rate=0.5)) == (
        "38 of 300 done (1 failed), 12 running, 240 waiting, 10 not submitted, 30.0 per min, about 8.4 min left"
    )


def test_the_bar_counts_failures(tmp_path: Path, infra: Infra, capsys: pytest.CaptureFixture[str]) -> None:
    array = planned(tmp_path, infra, "fail", 2)
    assert array.wait(bar=True)
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert "2 failed" in shown
    assert array.wait()
    assert not capsys.readouterr().err, "no bar where stderr is no terminal"


def test_the_table_has_what_differs_and_why_a_task_failed(tmp_path: Path, infra: Infra) -> None:
    array = planned(tmp_path, infra, "wait", 2, workers=1)
    started(tmp_path, "wait", 1)
    first, second = array.table()
    assert (first.parameters, second.parameters) == ({"x": 0}, {"x": 1})
    assert (first.state, second.state) == ("RUNNING", "PENDING")
    assert first.node
    assert first.seconds is not None
    os.kill(int((tmp_path / "started-wait-0").read_text()), 9)
    (tmp_path / "plan").write_text("fail")
    array.wait()
    lost, failed = array.table()
    assert (lost.state, failed.state) == ("FAILED", "FAILED")
    assert "SIGKILL" in lost.reason
    assert failed.reason == "ValueError: as planned"
    assert failed.log == "ValueError: as planned"
    lines = str(array.table()).splitlines()
    assert lines[0].split() == ["x", "state", "reason", "node", "time", "end", "of", "stderr"]
    assert len(lines) == 3


def test_rich_shows_the_table_and_takes_nothing_in_it_for_markup(tmp_path: Path, infra: Infra) -> None:
    console = pytest.importorskip("rich.console")
    with Double(infra=infra).infra.job_array() as array:
        array.extend(Double(label=label, infra=infra) for label in ("[red]a", "b"))
    array.wait()
    out = io.StringIO()
    console.Console(file=out, width=120).print(array.table())
    assert "[red]a" in out.getvalue()
    assert "COMPLETED" in out.getvalue()


def test_cancel_ends_what_runs_and_keeps_the_rest_from_beginning(tmp_path: Path, infra: Infra) -> None:
    array = planned(tmp_path, infra, "wait", 4, workers=1)
    started(tmp_path, "wait", 1)
    array.cancel()
    assert array.wait()
    assert str(array.status()) == "1 failed, 3 not submitted"
    assert [row.state for row in array.table()] == ["CANCELLED", *["NOT SUBMITTED"] * 3]
    assert len(array.jobs()) == 1
    assert len(list(tmp_path.glob("started-*"))) == 1
    (tmp_path / "gate").touch()
    assert len(array.retry(only="failed")) == 0
    assert len(array.retry(only="lost")) == 4
    assert array.wait()
    assert array.status() == ["completed"] * 4


def test_retry_sends_what_failed_and_leaves_the_rest(
    tmp_path: Path, infra: Infra, caplog: pytest.LogCaptureFixture
) -> None:
    array = planned(tmp_path, infra, "fail", 2)
    array.wait()
    assert str(array.status()) == "2 failed"
    (tmp_path / "plan").write_text("better")
    (tmp_path / "gate").touch()
    assert array.retry(only="lost") == []
    with caplog.at_level("INFO", "exca"):
        jobs = array.retry()
    assert "Retrying 2 of 2 task(s)" in caplog.text
    assert [job.result() for job in jobs] == ["better"] * 2
    assert array.status() == ["completed"] * 2
    assert array.retry() == []
    assert [task.run() for task in array] == ["better"] * 2
    only: tp.Any = "some"
    with pytest.raises(ValueError, match="only='some' is none of 'lost', 'failed' and None"):
        array.retry(only)


def test_a_retry_that_fails_can_be_retried(tmp_path: Path, infra: Infra) -> None:
    array = planned(tmp_path, infra, "fail", 1)
    for _ in range(2):
        array.wait()
        assert array.status() == ["failed"]
        [job] = array.retry()
        assert isinstance(job.exception(), ValueError)
    assert len((tmp_path / "started-fail-0").read_text().split()) == 3


def test_another_interpreter_s_tasks_are_seen(tmp_path: Path, infra: Infra) -> None:
    planned(tmp_path, infra, "wait", 2)
    started(tmp_path, "wait", 2)
    task = Planned(place=tmp_path, infra=infra)
    with task.infra.job_array() as later:
        later.extend(task.infra.clone_obj(x=x) for x in range(2))
    assert later.status() == ["running"] * 2
    (tmp_path / "gate").touch()
    assert later.wait()
    assert later.status() == ["completed"] * 2


def test_what_runs_here_is_done_at_once(tmp_path: Path) -> None:
    with Double().infra.job_array() as array:
        array.extend([Double(x=2), Double(x=3)])
    assert array.status() == ["completed"] * 2
    assert [job.result() for job in array.jobs()] == [4, 6]
    assert "2 tasks: 2 completed" in array.summary()
    assert [row.state for row in array.table()] == ["COMPLETED"] * 2
    array.cancel()
    assert array.retry() == []


def test_local_jobs_are_not_throttled(tmp_path: Path, infra: Infra) -> None:
    array = planned(tmp_path, infra, "wait", 2)
    with pytest.raises(
        InfraError, match="jobs of cluster 'local' can't be throttled once they are submitted"
    ):
        array.throttle(1)
    with pytest.raises(ValueError, match="most=0 jobs can't be"):
        array.throttle(0)
    (tmp_path / "gate").touch()
    array.wait()


def test_calls_of_a_function_have_the_same_handle(tmp_path: Path) -> None:
    function = exca.cached(folder=tmp_path, cluster="local")(halved)
    with function.job_array() as calls:
        for x in (2, 4):
            calls.append(x)
        with pytest.raises(InfraError, match="not submitted yet"):
            calls.status()
    assert calls.wait()
    assert calls.status() == ["completed"] * 2
    assert calls.results() == [1, 2]
    assert [row.parameters for row in calls.table()] == [{"x": 2}, {"x": 4}]


def halved(x: int) -> float:
    return x / 2


# ------------------------------------------------------------------ what was used


def test_the_summary_says_what_was_asked_for_in_vain() -> None:
    resources = {"mem_gb": 256, "cpus_per_task": 8, "timeout_min": 600, "gpus_per_node": 2}
    record: dict[str, tp.Any] = {
        "state": "completed",
        "resources": resources,
        "submitted": "2026-11-30T10:00:00+00:00",
        "started": "2026-11-30T10:02:00+00:00",
        "seconds": 1800.0,
        "used": {"max_rss_mb": 15.3 * 1024, "cpu_seconds": 1980.0},
    }
    attempts = [{"state": "preempted"}, {"state": "node_fail"}]
    error: dict[str, tp.Any] = {"type": "builtins.ValueError", "message": "no"}
    failed = {**record, "state": "failed", "error": error, "attempts": attempts}
    text = summary(
        Statuses(["completed", "failed", "failed"]), [record, failed, {**failed, "ended": "TIMEOUT"}]
    )
    assert text.splitlines() == [
        "3 tasks: 1 completed, 2 failed.",
        "Failed: 1 ValueError, 1 TIMEOUT.",
        "4 attempts were lost (2 preempted, 2 node_fail), of 2 task(s); 3 attempts at most for one.",
        "Computed for 1.5 h in all, 30.0 min at most. GPUs were allocated for 3 GPU hours.",
        "Waited for 2.0 min in the median, 2.0 min at most.",
        "Memory: used 6 % of 256 GB: mem_gb=20 would do.",
        "CPUs: 1.1 of 8 busy on average, 1.1 at most: cpus_per_task=1 would do.",
        "Time: 30.0 min of 600 min at most: timeout_min=38 would do, and shorter jobs start sooner.",
    ]


def test_the_summary_of_an_array_reads_its_records(tmp_path: Path, infra: Infra) -> None:
    with Failing(infra=infra).infra.job_array() as array:
        array.extend(
            [Failing(infra=infra | {"mem_gb": 64}), Failing(kind="kill", infra=infra | {"mem_gb": 64})]
        )
    array.wait()
    lines = array.summary().splitlines()
    assert lines[0] == "2 tasks: 2 failed."
    assert lines[1] == "Failed: 1 ValueError, 1 FAILED."
    assert any(line.startswith("Memory: used 0 % of 64 GB: mem_gb=0.") for line in lines)


def test_waiting_for_an_array_submits_again_what_was_lost(tmp_path: Path, infra: Infra) -> None:
    array = planned(tmp_path, infra | {"retries": 1, "retry_on": ["killed"]}, "wait", 2)
    started(tmp_path, "wait", 2)
    os.kill(int((tmp_path / "started-wait-0").read_text()), 9)
    (tmp_path / "gate").touch()
    assert array.wait()
    assert array.status() == ["completed"] * 2
    assert "1 attempt was lost (1 killed), of 1 task(s); 2 attempts at most for one." in array.summary()


# ------------------------------------------------------------------ on Slurm


@pytest.mark.slurm
def test_an_array_on_slurm_is_looked_at_throttled_and_cancelled_at_once(
    slurm_folder: Path, faults: Faults
) -> None:
    for command in ("squeue", "sacct", "scancel"):
        faults.end(command)
    infra: Infra = {"cluster": "slurm", "folder": slurm_folder / "cache"}
    task = Sleeper(gate=slurm_folder / "gate", infra=infra)
    with task.infra.job_array(max_workers=1) as array:
        array.extend(task.infra.clone_obj(x=x) for x in range(30))
    wait_for(array[0].started().exists, "the first to start")
    before = faults.calls("squeue")
    progress = array.progress()
    assert (progress.running, progress.waiting) == (1, 29)
    assert array.status() == ["running"] * 30
    assert {row.reason for row in array.table()[1:]} <= {"JobArrayTaskLimit", "Resources", "Priority", ""}
    assert faults.calls("squeue") - before <= 2
    array.throttle(3)
    wait_for(lambda: len(list(slurm_folder.glob("gate.*.started"))) >= 2, "more of them to run")
    assert throttle_of(array.jobs()[0].job_id) == "3"
    faults.fail("scontrol", "Job/step already completing or completed")
    with pytest.raises(
        SchedulerError, match=r"did not change how many jobs of array \d+ run at once: .*completing"
    ):
        array.throttle(2)
    array.cancel()
    assert faults.calls("scancel") == 1
    assert array.wait()
    assert array.status().counts.keys() == {"failed", "not submitted"}
    assert faults.calls("sacct") <= 3


def throttle_of(job_id: str) -> str:
    """How many jobs of an array may run at once, in Slurm's words."""
    base = job_id.partition("_")[0]
    said = subprocess.run(
        ["scontrol", "show", "job", "-o", base], capture_output=True, text=True, check=True
    ).stdout
    return said.partition("ArrayTaskThrottle=")[2].split()[0]


@pytest.mark.slurm
def test_tasks_without_room_are_not_retried_but_cancelled(slurm_folder: Path, qos: Qos) -> None:
    qos.limit("MaxSubmitJobsPerUser=0")
    infra: Infra = {"cluster": "slurm", "folder": slurm_folder / "cache", "slurm_qos": qos.name}
    with Double(infra=infra).infra.job_array() as array:
        array.extend(Double(x=x, infra=infra) for x in range(3))
    assert array.status() == ["not submitted"] * 3
    assert [row.state for row in array.table()] == ["UNSUBMITTED"] * 3
    assert array.retry() == []
    array.cancel()
    assert array.jobs() == []
    assert not list(slurm_folder.rglob("unsent.json"))
