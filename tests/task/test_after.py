"""Tasks that come after others: held back until those are done, and failed where those have failed."""

import json
import os
import signal
import subprocess
import threading
import typing as tp
from pathlib import Path

import pydantic
import pytest

import exca
from exca.errors import EarlierTaskError, InfraError, SubmissionError
from task_models import Double, HalvesOrCalls, Planned, given
from waiting import wait_for

_LONG = pytest.param("slurm", marks=[pytest.mark.slurm, pytest.mark.long])
every_cluster = pytest.mark.parametrize(
    "cluster", [None, "local", pytest.param("slurm", marks=pytest.mark.slurm)]
)
with_jobs = pytest.mark.parametrize("cluster", ["local", pytest.param("slurm", marks=pytest.mark.slurm)])
on_slurm = pytest.mark.parametrize("cluster", [_LONG])
with_jobs_long = pytest.mark.parametrize("cluster", ["local", _LONG])
every_cluster_long = pytest.mark.parametrize("cluster", [None, "local", _LONG])
Infra = dict[str, tp.Any]


@pytest.fixture
def cluster() -> str | None:
    return "local"


@pytest.fixture
def infra(cluster: str | None, slurm_folder: Path) -> Infra:
    return {"folder": slurm_folder / "cache", "cluster": cluster, "retry_backoff_s": 0}


def doubled(infra: Infra, x: int = 1, **fields: tp.Any) -> Double:
    return Double(x=x, infra=given({**infra, **fields}))


def planned(
    infra: Infra, place: Path, plan: str, *, gate: bool = True, x: int = 1, **fields: tp.Any
) -> Planned:
    """Return a task that does what is planned, once there is a gate."""
    place.mkdir(exist_ok=True)
    (place / "plan").write_text(plan)
    if gate:
        (place / "gate").touch()
    return Planned(place=place, x=x, infra=given({**infra, **fields}))


def begun(place: Path) -> int:
    """Return the process of what is planned at a place, once it has begun."""
    started = place / "started-good-1"
    return int(wait_for(lambda: started.exists() and started.read_text(), "the training to begin"))


def content(task: tp.Any) -> dict[str, tp.Any]:
    found: dict[str, tp.Any] = json.loads((task.infra.uid_folder() / "job.json").read_text())
    return found


def outcomes_of(task: tp.Any) -> list[str]:
    return [attempt["state"] for attempt in content(task).get("attempts", ())]


@every_cluster
def test_a_task_begins_when_those_before_it_are_done(infra: Infra, tmp_path: Path) -> None:
    trains = [planned(infra, tmp_path / "train", "good", x=x) for x in (1, 2)]
    report = doubled(infra, after=trains)
    assert report.compute() == 2
    assert [train.infra.status() for train in trains] == ["completed"] * 2
    assert max(content(train)["finished"] for train in trains) <= content(report)["started"]
    assert outcomes_of(report) == []


@with_jobs
def test_it_is_held_back_without_holding_anything(infra: Infra, tmp_path: Path) -> None:
    train = planned(infra, tmp_path / "train", "good", gate=False)
    report = doubled(infra, after=[train.infra.job()], timeout_min=1)
    job = report.infra.job()
    begun(tmp_path / "train")
    assert (report.infra.status(), job.state, job.began()) == ("running", "PENDING", False)
    (tmp_path / "train" / "gate").touch()
    assert job.result() == 2


@every_cluster_long
def test_it_fails_with_the_one_before_it_until_that_is_computed_again(infra: Infra, tmp_path: Path) -> None:
    train = planned(infra, tmp_path / "train", "fail")
    report = doubled(infra, after=[train])
    summary = doubled(infra, 2, after=[report])
    with pytest.raises(
        EarlierTaskError, match=r"x=2.* was not computed, since .*Planned.*failed \(ValueError: as pl"
    ):
        summary.compute()
    tasks: list[tp.Any] = [train, report, summary]
    assert [task.infra.status() for task in tasks] == ["failed"] * 3
    with pytest.raises(EarlierTaskError, match="before it"):
        doubled(infra).compute()  # the failure is kept, for those who know nothing of the other task too
    why = exca.why(report)
    failed = f"{train.infra.uid()}, which comes before it, failed (ValueError: as planned)"
    assert (why.hit, why.reason) == (True, f"{failed}; its error is kept")
    again = planned(infra, tmp_path / "train", "good", mode="retry")
    assert again.run() == "good"
    why = exca.why(report)
    assert (why.hit, why.reason) == (False, f"{failed}; that has changed since, so it is computed")
    assert [task.infra.status() for task in tasks] == ["completed", "not submitted", "not submitted"]
    assert summary.compute() == 4
    assert [task.infra.status() for task in tasks] == ["completed"] * 3


@with_jobs_long
def test_a_failure_is_told_to_jobs_that_wait(infra: Infra, tmp_path: Path) -> None:
    train = planned(infra, tmp_path / "train", "good", gate=False)
    reports = [doubled(infra, x) for x in (1, 2)]
    with reports[0].infra.job_array(after=[train]) as array:
        array.extend(reports)
    os.kill(begun(tmp_path / "train"), signal.SIGKILL)
    assert array.wait(60)
    assert array.status() == ["failed", "failed"]
    with pytest.raises(EarlierTaskError, match=r"Planned.*failed \(JobError"):
        reports[0].compute()
    (tmp_path / "train" / "gate").touch()
    train.infra.clone_obj({"infra.mode": "retry"}).run()
    wait_for(lambda: array.status() == ["not submitted"] * 2, "the failures to count no more")
    assert len(array.retry()) == 2
    assert [report.compute() for report in reports] == [2, 4]


@with_jobs_long
def test_one_that_was_lost_and_is_tried_again_still_holds_back(infra: Infra, tmp_path: Path) -> None:
    train = planned(infra, tmp_path / "train", "good", gate=False, retry_on=["killed"])
    report = doubled(infra, after=[train])
    job = report.infra.job()
    os.kill(begun(tmp_path / "train"), signal.SIGKILL)
    (tmp_path / "train" / "gate").touch()
    assert job.result() == 2  # a caller that waits for it alone
    assert (outcomes_of(train), outcomes_of(report)) == (["killed"], ["sent_back"])
    assert content(train)["finished"] <= content(report)["started"]


def test_one_that_is_computed_again_holds_back_until_that_is_done(infra: Infra, tmp_path: Path) -> None:
    assert planned(infra, tmp_path / "train", "old").run() == "old"
    (tmp_path / "train" / "gate").unlink()
    again = planned(infra, tmp_path / "train", "good", gate=False, mode="force")
    report = doubled(infra, after=[again])
    job = report.infra.job()
    begun(tmp_path / "train")
    assert (report.infra.status(), job.state) == ("running", "PENDING")
    (tmp_path / "train" / "gate").touch()
    assert job.result() == 2
    assert content(again)["finished"] <= content(report)["started"]


def test_what_was_lost_and_is_no_object_is_not_waited_for_here(infra: Infra, tmp_path: Path) -> None:
    train = planned(infra, tmp_path / "train", "good", gate=False, retry_on=["killed"])
    train.infra.job()
    os.kill(begun(tmp_path / "train"), signal.SIGKILL)
    wait_for(lambda: train.infra.status() == "not submitted", "the loss to be noted")
    report = doubled({**infra, "cluster": None}, after=[train.infra.uid()])
    with pytest.raises(
        InfraError, match=r"Planned.*, whose job was lost and is yet to be submitted again: nothing was"
    ):
        report.compute()
    assert report.infra.status() == "not submitted"
    (tmp_path / "train" / "gate").touch()
    assert doubled({**infra, "cluster": None}, after=[train]).compute() == 2
    assert outcomes_of(train) == ["killed"]


@on_slurm
def test_one_that_slurm_requeues_still_holds_back(infra: Infra, tmp_path: Path) -> None:
    train = planned(infra, tmp_path / "train", "good", gate=False)
    report = doubled(infra, after=[train])
    job = report.infra.job()
    begun(tmp_path / "train")
    subprocess.run(["scontrol", "requeue", train.infra.job().job_id], check=True)
    (tmp_path / "train" / "gate").touch()
    subprocess.run(["scontrol", "update", f"JobId={train.infra.job().job_id}", "StartTime=now"], check=True)
    assert job.result() == 2
    assert outcomes_of(report) == []
    assert content(train)["finished"] <= content(report)["started"]


@with_jobs_long
def test_arrays_and_packed_jobs_come_after_each_other(infra: Infra, tmp_path: Path) -> None:
    base = planned(infra, tmp_path / "train", "good", tasks_per_job=2)
    with base.infra.job_array() as trains:
        trains.extend(base.infra.clone_obj({"x": x}) for x in range(3))
    reports = [
        doubled(infra, 10, after=trains, tasks_per_job=2),
        doubled(infra, 11, after=[trains[0]], tasks_per_job=2),
        doubled(infra, 12, after=[trains[0]], tasks_per_job=2),
    ]
    with reports[0].infra.job_array() as array:
        array.extend(reports)
    assert len({job.job_id for job in array.jobs()[1:]}) == 1  # what waits for the same shares a job
    assert len({train.infra.job().job_id for train in trains}) == 2
    assert [report.compute() for report in reports] == [20, 22, 24]
    last = max(content(train)["finished"] for train in trains)
    assert last <= content(reports[0])["started"]


def test_what_no_backend_waits_for_is_waited_for_here(infra: Infra, tmp_path: Path) -> None:
    train = planned({**infra, "cluster": None}, tmp_path / "train", "good", gate=False)
    thread = threading.Thread(target=train.run)
    thread.start()
    begun(tmp_path / "train")
    report = doubled(infra, after=[train.infra.uid()])
    job = report.infra.job()
    assert "comes after tasks that are not done" in job.describe()
    assert (report.infra.status(), job.state, job.done()) == ("not submitted", "UNSUBMITTED", False)
    (tmp_path / "train" / "gate").touch()
    assert job.result() == 2
    thread.join()


def test_what_was_cancelled_before_it_fails_it(infra: Infra, tmp_path: Path) -> None:
    first = planned(infra, tmp_path / "first", "good", gate=False, x=0)
    train = planned(infra, tmp_path / "train", "good", after=[first])
    report = doubled(infra, after=[train])
    job = report.infra.job()
    train.infra.job().cancel()
    (tmp_path / "first" / "gate").touch()
    first.infra.job().wait()
    with pytest.raises(EarlierTaskError, match=r"Planned.* has no result, and no job .*cancelled"):
        job.result()
    assert [task.infra.status() for task in (first, train, report)] == [
        "completed",
        "not submitted",
        "failed",
    ]
    assert train.run() == "good"
    assert report.compute() == 2


def test_what_is_cached_needs_no_job_and_no_wait(infra: Infra, tmp_path: Path) -> None:
    train = planned(infra, tmp_path / "train", "good")
    train.run()
    uid, method = train.infra.uid(), train.infra.uid().partition("/")[0]
    moved = tmp_path / "gone" / uid  # as a cache tells that was moved
    for x, after in enumerate(
        [train, train.infra, train.infra.job(), uid, str(train.infra.uid_folder()), method, moved]
    ):
        assert doubled({**infra, "cluster": None}, x, after=[after]).compute() == 2 * x
    assert doubled({**infra, "cluster": None}, 9).infra.job(after=[train]).result() == 18


def test_the_uid_and_the_configuration_of_earlier_releases_stay(infra: Infra, tmp_path: Path) -> None:
    train = planned(infra, tmp_path / "train", "good")
    report = doubled({**infra, "cluster": None}, after=[train])
    assert report.infra.uid() == doubled(infra).infra.uid()
    report.compute()
    folder = report.infra.uid_folder()
    assert folder is not None
    assert "after" not in (folder / "config.yaml").read_text()
    assert str(train.infra.uid_folder()) in (folder / "config-new.yaml").read_text()
    (again,) = report.infra.iter_cached()
    assert [str(one) for one in again.infra.after] == [str(train.infra.uid_folder())]
    clone = report.infra.clone_obj({"x": 2})
    assert clone.infra.after == report.infra.after


def test_circles_are_refused(infra: Infra) -> None:
    one, two = doubled(infra), doubled(infra, 2)
    one.infra.after, two.infra.after = [two], [one]
    with pytest.raises(
        InfraError, match=r"in a circle: .*default, which comes after .*x=2.*, which comes after .*default\."
    ):
        one.infra.job()
    with pytest.raises(InfraError, match="in a circle"):
        doubled(infra, 3).infra.job(after=[doubled(infra, 3)])
    assert [task.infra.status() for task in (one, two)] == ["not submitted"] * 2
    assert not any((infra["folder"]).glob("*/*/*.claim"))


class Two(pydantic.BaseModel):
    """Has two tasks."""

    first: exca.TaskInfra = exca.TaskInfra()
    second: exca.TaskInfra = exca.TaskInfra()

    @first.apply
    def one(self) -> int:
        return 1

    @second.apply
    def two(self) -> int:
        return 2


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ("abc", "is no list: write after="),
        (Double(), "is no list: write after="),
        ([3], "holds 3, which is no task"),
        ([HalvesOrCalls()], "is no task"),
        ([exca.TaskInfra()], "is no task"),
        ([Two()], "has 2 tasks: give the infra of the one that is meant"),
        ([""], "is no address of a task"),
        (["../cache/a.B.c,0/x"], "is no address of a task"),
    ],
)
def test_what_is_no_task_is_refused(infra: Infra, after: tp.Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        doubled(infra, after=after)
    with pytest.raises(ValueError, match=message):
        doubled(infra).infra.job(after=after)


@pytest.mark.parametrize(
    "after", ["task_models.Double.compute,1/x=77-00000000", "task_models.Sleeper.run,0", "/nowhere", "x"]
)
def test_an_unknown_task_is_refused_at_submission(infra: Infra, after: str) -> None:
    report = doubled(infra, after=[after])
    with pytest.raises(InfraError, match="and there is no such task in"):
        report.infra.job()
    assert report.infra.status() == "not submitted"


def test_one_that_was_never_submitted_or_is_not_kept_is_refused(infra: Infra) -> None:
    other = doubled(infra, 5)
    other.infra.uid_folder(create=True)
    with pytest.raises(
        InfraError, match=r"x=5.*, which has neither a result nor a job: nothing was submitted"
    ):
        doubled(infra, after=[other.infra.uid()]).infra.job()
    with pytest.raises(InfraError, match=r"Double.* without a folder: nothing of it is kept"):
        doubled(infra, after=[Double()]).infra.job()


@on_slurm
def test_a_dependency_of_the_users_goes_with_it(infra: Infra, tmp_path: Path) -> None:
    train = planned(infra, tmp_path / "train", "good", gate=False)
    own = {"dependency": f"after:{train.infra.job().job_id}"}
    report = doubled(infra, after=[train], slurm_additional_parameters=own)
    job = report.infra.job()
    shown = subprocess.run(
        ["squeue", "-h", "-o", "%E", "-j", job.job_id], check=True, capture_output=True, text=True
    ).stdout
    assert f"afterany:{train.infra.job().job_id}" in shown
    either = doubled(infra, 2, after=[train], slurm_additional_parameters={"dependency": "after:1?after:2"})
    with pytest.raises(SubmissionError, match=r"Slurm can't have the one and any of the others"):
        either.infra.job()
    assert either.infra.status() == "not submitted"
    (tmp_path / "train" / "gate").touch()
    assert job.result() == 2
