"""Tasks whose jobs are lost: which of them are tried again, by whom, how often, and what is kept of it."""

import json
import os
import signal
import subprocess
import time
import typing as tp
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydantic
import pytest

import elsewhere
import exca
from exca.claims import Claims
from exca.engine import record
from exca.engine.record import KEY
from exca.errors import JobError, SubmissionError
from exca.jobs import losses
from exca.jobs.backends import Ending
from slurm_faults import Faults
from task_models import given
from waiting import wait_for

CLUSTERS = ["local", pytest.param("slurm", marks=[pytest.mark.slurm, pytest.mark.long])]
every_cluster = pytest.mark.parametrize("cluster", CLUSTERS)
Infra: tp.TypeAlias = tp.Any  # a dict, which becomes an infra at run time


class FlakyError(ConnectionError):
    """An error of a computation that would pass."""


class Unlucky(pydantic.BaseModel):
    """Is lost in one way after the other, as a file tells, and then returns how often it began."""

    place: Path
    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("place",)

    @infra.apply
    def run(self) -> int:
        with self.began().open("a") as file:
            file.write(f"{os.getpid()} {os.environ.get('SLURM_MEM_PER_NODE', '-')}\n")
        number = len(self.began().read_text().splitlines())
        plan = (self.place / "plan").read_text().split()
        what = plan[number - 1] if number <= len(plan) else "return"
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "exit":
            os._exit(17)
        if what == "raise":
            raise FlakyError(f"attempt {number}")
        while what == "wait" and not (self.place / "gate").exists():
            time.sleep(0.01)
        return number

    def began(self) -> Path:
        return self.place / f"began-{self.x}"

    def times(self) -> int:
        return len(self.began().read_text().splitlines()) if self.began().exists() else 0


@pytest.fixture
def make(slurm_folder: Path, tmp_path: Path) -> tp.Callable[..., Unlucky]:
    def task(plan: str, cluster: str | None, x: int = 1, **fields: tp.Any) -> Unlucky:
        (tmp_path / "plan").write_text(plan)
        infra: Infra = {"folder": slurm_folder, "cluster": cluster, "retry_backoff_s": 0, **fields}
        return Unlucky(place=tmp_path, x=x, infra=infra)

    return task


def record_of(task: Unlucky) -> dict[str, tp.Any]:
    return tp.cast("dict[str, tp.Any]", json.loads((folder_of(task) / "job.json").read_text()))


def folder_of(task: Unlucky) -> Path:
    return tp.cast(Path, task.infra.uid_folder())


Make = tp.Callable[..., Unlucky]


# ------------------------------------------------------------------ tried again


@every_cluster
def test_a_loss_in_retry_on_is_tried_again_until_there_is_an_outcome(make: Make, cluster: str) -> None:
    task = make("kill kill", cluster, retry_on=["killed"])
    job = task.infra.job()
    assert task.run() == 3
    assert task.infra.status() == "completed"
    assert job.result() == 3
    content = record_of(task)
    attempts = content["attempts"]
    assert [each["state"] for each in attempts] == ["killed", "killed"]
    assert len({each["job_id"] for each in attempts} | {content["job_id"]}) == 3
    for each in attempts:
        assert each["cluster"] == cluster
        assert each["reason"]
        assert each["host"]
        assert each["submitted"] <= each["started"] <= each["finished"] <= content["finished"]
    assert task.infra.job().job_id == content["job_id"] == job.job_id


@every_cluster
def test_the_last_of_the_retries_is_the_outcome(make: Make, cluster: str) -> None:
    task = make("kill kill kill", cluster, retry_on=["killed"], retries=1)
    with pytest.raises(JobError, match=r"SIGKILL|137"):
        task.run()
    assert task.times() == 2
    assert task.infra.status() == "failed"
    content = record_of(task)
    assert content["loss"] == "killed"
    assert [each["state"] for each in content["attempts"]] == ["killed"]
    with pytest.raises(JobError):  # it is kept, also for others
        make("kill kill kill", cluster).run()
    assert task.times() == 2
    again = make("kill kill kill kill", cluster, mode="retry", retry_on=["killed"], retries=1)
    assert again.run.__name__ == "run"
    with pytest.raises(JobError):
        again.run()  # attempts are counted anew
    assert task.times() == 4
    assert make("", cluster, mode="retry").run() == 5
    assert "attempts" not in record_of(task)


@every_cluster
@pytest.mark.parametrize("plan", ["kill", "exit"])
def test_other_losses_are_kept_as_failed(make: Make, cluster: str, plan: str) -> None:
    task = make(plan, cluster)
    with pytest.raises(JobError):
        task.run()
    assert task.infra.status() == "failed"
    assert record_of(task)["loss"] == {"kill": "killed", "exit": "exited"}[plan]
    assert task.times() == 1


@every_cluster
def test_who_only_looks_submits_nothing(make: Make, cluster: str) -> None:
    task = make("wait", cluster, retry_on=["killed"])
    job = task.infra.job()
    wait_for(lambda: task.times() == 1, "the job to start")
    os.kill(int(task.began().read_text().split()[0]), signal.SIGKILL)
    looking = make("", cluster, mode="read-only", retry_on=["killed"])
    wait_for(lambda: looking.infra.status() == "not submitted", "the loss to be seen")
    assert task.infra.status() == "not submitted"
    assert job.done()
    exca.why(looking)
    list(looking.infra.iter_cached())
    with pytest.raises(exca.errors.ReadOnlyError):
        looking.run()
    assert record.read(folder_of(task)) is None
    submitted = record.read_submission(folder_of(task))
    assert submitted is not None
    assert (submitted.attempt, submitted.is_lost) == (job.attempt, True)  # type: ignore[attr-defined] # of a task's
    assert task.times() == 1
    assert make("", cluster).run() == 2  # another object asks for it
    assert [each["state"] for each in record_of(task)["attempts"]] == ["killed"]


OTHER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_losses import Unlucky
infra = {{"folder": {folder!r}, "cluster": {cluster!r}, "retry_on": ["killed"], "retry_backoff_s": 0}}
task = Unlucky(place=Path({place!r}), infra=infra)
print(task.infra.job().job_id, flush=True)
"""


@every_cluster
@pytest.mark.parametrize("how", ["job", "array", "wait"])
def test_the_next_caller_that_submits_goes_on(
    make: Make, cluster: str, slurm_folder: Path, tmp_path: Path, how: str
) -> None:
    """The submitter is gone; whoever asks next finds how it ended, and how often it was tried."""
    task = make("wait", cluster, retry_on=["killed"])
    code = OTHER.format(
        tests=str(Path(__file__).parent), folder=str(slurm_folder), cluster=cluster, place=str(tmp_path)
    )
    process = elsewhere.start(code)
    first = process.communicate(timeout=60)[0].strip()
    wait_for(lambda: task.times() == 1, "the job to start")
    job = task.infra.job()
    assert job.job_id == first
    os.kill(int(task.began().read_text().split()[0]), signal.SIGKILL)
    wait_for(job.done, "the job to end")
    make("kill", cluster)
    if how == "job":
        assert task.infra.job().job_id != first
    elif how == "array":
        task = make("kill", cluster)
        with task.infra.job_array() as array:
            array.append(task)
        assert task.infra.job().job_id != first
    else:
        assert job.wait()
        assert job.job_id != first
    assert task.run() == 2
    assert [each["job_id"] for each in record_of(task)["attempts"]] == [first]


@every_cluster
def test_exceptions_that_the_policy_names_are_losses(make: Make, cluster: str) -> None:
    task = make("raise raise", cluster, retry_on=["ConnectionError"])
    assert task.run() == 3
    attempts = record_of(task)["attempts"]
    assert [each["state"] for each in attempts] == ["ConnectionError"] * 2
    assert [each["reason"] for each in attempts] == ["FlakyError: attempt 1", "FlakyError: attempt 2"]
    assert all(each["host"] and each["started"] for each in attempts)


@every_cluster
def test_an_exception_is_kept_after_the_last_retry(make: Make, cluster: str) -> None:
    task = make("raise raise raise", cluster, retry_on=["test_losses.FlakyError"], retries=1)
    with pytest.raises(FlakyError, match="attempt 2"):
        task.run()
    assert task.infra.status() == "failed"
    assert len(record_of(task)["attempts"]) == 1
    with pytest.raises(FlakyError, match="attempt 2"):
        task.run()
    assert task.times() == 2


@every_cluster
def test_a_forced_attempt_that_is_lost_is_tried_again_and_the_result_stays(make: Make, cluster: str) -> None:
    assert make("", cluster).run() == 1
    task = make("return kill", cluster, mode="force", retry_on=["killed"])
    task.infra.job().wait(0)
    wait_for(lambda: task.times() == 2, "the second attempt")
    assert make("return kill", cluster).run() in (1, 3)
    assert task.run() == 3
    assert [each["state"] for each in record_of(task)["attempts"]] == ["killed"]


@every_cluster
def test_clear_job_forgets_the_attempts(make: Make, cluster: str) -> None:
    task = make("kill kill", cluster, retry_on=["killed"], retries=1)
    job = task.infra.job()
    wait_for(job.done, "the job to be lost")
    assert task.infra.status() == "not submitted"
    task.infra.clear_job()
    assert task.run() == 3
    assert len(record_of(task)["attempts"]) == 1


def test_a_caller_without_a_cluster_computes_what_was_lost(make: Make) -> None:
    task = make("wait", "local", retry_on=["killed"])
    job = task.infra.job()
    wait_for(lambda: task.times() == 1, "the job to start")
    os.kill(int(task.began().read_text().split()[0]), signal.SIGKILL)
    wait_for(job.done, "the job to end")
    here = make("", None)
    assert here.run() == 2
    content = record_of(here)
    assert "cluster" not in content
    assert [each["state"] for each in content["attempts"]] == ["killed"]
    assert job.result() == task.run() == 2


def test_each_task_of_an_array_has_attempts_of_its_own(make: Make) -> None:
    tasks = [make("kill", "local", x=x, retry_on=["killed"]) for x in (1, 2, 3)]
    tasks[0].began().write_text("0 -\n")  # its next attempt is the second, which returns
    with tasks[0].infra.job_array() as array:
        array.extend(tasks)
    assert [task.run() for task in tasks] == [2, 2, 2]
    assert ["attempts" in record_of(task) for task in tasks] == [False, True, True]


@pytest.mark.parametrize("cluster", ["local"])
def test_the_next_attempt_waits_for_its_time(make: Make, cluster: str) -> None:
    task = make("kill kill", cluster, retry_on=["killed"], retry_backoff_s=1)
    assert task.run() == 3
    first, second = (exca_time(each["finished"]) for each in record_of(task)["attempts"])
    assert exca_time(record_of(task)["started"]) >= second + 1.9
    assert second >= first + 0.9


def exca_time(text: str) -> float:
    import datetime

    return datetime.datetime.fromisoformat(text).timestamp()


# ------------------------------------------------------------------ on Slurm


@pytest.mark.slurm
def test_a_job_that_never_began_is_a_launch_failure(make: Make, tmp_path: Path) -> None:
    setup = [f"echo x >> {tmp_path}/tried", f"[ $(wc -l < {tmp_path}/tried) -gt 2 ] || exit 3"]
    task = make("", "slurm", slurm_setup=setup)
    assert task.run() == 1
    assert [each["state"] for each in record_of(task)["attempts"]] == ["launch_failure"] * 2
    assert all("host" not in each for each in record_of(task)["attempts"])


@pytest.mark.long
@pytest.mark.slurm
def test_a_preempted_job_that_slurm_does_not_requeue_is_submitted_again(make: Make, tmp_path: Path) -> None:
    node: Infra = {"nodelist": "n4", "exclusive": True}
    options = {"slurm_partition": "preempt", "slurm_additional_parameters": {**node, "no-requeue": True}}
    task = make("wait wait", "slurm", **options)
    job = task.infra.job()
    wait_for(lambda: task.times() == 1, "the job to start")
    other = make("wait wait", "slurm", x=2, slurm_additional_parameters=node)
    other.infra.job()
    wait_for(lambda: job.state == "PREEMPTED", "the job to be preempted")
    assert task.infra.status() == "not submitted"
    assert task.infra.job().job_id != job.job_id or task.infra.job() is job
    (tmp_path / "gate").touch()
    assert (task.run(), other.run()) == (2, 1)
    [attempt] = record_of(task)["attempts"]
    assert attempt["state"] == "preempted"


@pytest.mark.slurm
@pytest.mark.parametrize("silent", [False, True], ids=["refused", "unsure"])
def test_a_later_attempt_waits_for_a_scheduler_that_is_away(make: Make, faults: Faults, silent: bool) -> None:
    """Where it is not even known whether the job was submitted, it is submitted again all the same."""
    task = make("wait kill", "slurm", retry_on=["killed"])
    job = task.infra.job()
    wait_for(lambda: task.times() == 1)
    faults.fail("sbatch")
    if silent:  # from the failing sbatch on
        called = faults.folder / "sbatch.calls"
        faults.put("squeue", f"[ ! -e {called} ] || {{ echo squeue: error: Unable to contact >&2; exit 1; }}")
    os.kill(int(task.began().read_text().split()[0]), signal.SIGKILL)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(job.result)
        wait_for(lambda: faults.calls("sbatch") > 0 or waiting.done())
        assert not waiting.done()
        (task.place / "plan").write_text("return return")
        faults.end("sbatch")
        faults.end("squeue")
        assert waiting.result() == 2


@pytest.mark.slurm
def test_a_first_submission_says_that_the_scheduler_is_away(make: Make, faults: Faults) -> None:
    task = make("return", "slurm")
    faults.fail("sbatch")
    with pytest.raises(SubmissionError, match="Unable to contact slurm controller"):
        task.infra.job()
    assert task.infra.status() == "not submitted"


@pytest.mark.long
@pytest.mark.slurm
def test_a_job_whose_node_failed_is_submitted_again(make: Make, tmp_path: Path) -> None:
    options: Infra = {"nodelist": "n4", "exclusive": True, "no-requeue": True}
    task = make("wait", "slurm", slurm_additional_parameters=options)
    job = task.infra.job()
    wait_for(lambda: task.times() == 1, "the job to start")
    try:
        _set_node("n4", "down")
        wait_for(lambda: job.state == "NODE_FAIL", "the node to fail")
        # its process counts as alive until Slurm has ended it, too
        wait_for(lambda: task.infra.status() == "not submitted", "the loss to be seen")
    finally:
        _set_node("n4", "resume")
        (tmp_path / "gate").touch()
    assert task.run() == 2
    assert [each["state"] for each in record_of(task)["attempts"]] == ["node_fail"]


def _set_node(name: str, state: str) -> None:
    command = ["scontrol", "update", f"nodename={name}", f"state={state}", "reason=test"]
    # one that has come back by itself can't be resumed
    subprocess.run(command, check=state == "down", timeout=60)


@pytest.mark.slurm
@pytest.mark.parametrize("same", [True, False], ids=["this handle", "another"])
def test_what_was_cancelled_is_not_submitted_again(make: Make, faults: Faults, same: bool) -> None:
    """Also where Slurm has forgotten the job, and accounting does not tell how it ended."""
    faults.end("sbatch")
    held: Infra = {"hold": True}
    task = make("return", "slurm", slurm_additional_parameters=held)
    job = task.infra.job()
    (job if same else task.infra.clone_obj().infra.job()).cancel()
    faults.silence("sacct")
    faults.put("squeue", 'case "$*" in *-O*) echo "ARRAY_JOB_ID"; exit 0;; esac')
    assert exca.wait([job]).not_done == []
    assert task.infra.status() == "not submitted"
    assert faults.calls("sbatch") == 1


@pytest.mark.slurm
def test_later_attempts_get_more(make: Make) -> None:
    task = make("kill kill", "slurm", retry_on=["killed"], mem_gb=0.25, retry_scale={"mem_gb": (3, 0.5)})
    assert task.run() == 3
    memory = [line.split()[1] for line in task.began().read_text().splitlines()]
    assert memory == ["256", "512", "512"]
    assert record_of(task)["resources"]["mem_gb"] == 0.5


@pytest.mark.slurm
def test_the_scheduler_holds_back_an_attempt_whose_time_is_to_come(make: Make) -> None:
    task = make("kill", "slurm", retry_on=["killed"], retry_backoff_s=500)
    first = task.infra.job()
    wait_for(first.done, "the job to be lost")
    assert task.infra.status() == "not submitted"
    job = task.infra.job()
    assert job.job_id != ""
    assert task.infra.status() == "running"
    assert "#SBATCH --begin=now+" in job.paths.submission_file.read_text()
    assert "BeginTime" in job.describe()
    job.cancel()
    wait_for(lambda: task.infra.status() == "not submitted", "the job to be cancelled")


# ------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("ending", "began", "kind"),
    [
        (Ending("FAILED", "", signal=9), True, "killed"),
        (Ending("FAILED", "", signal=9), False, "launch_failure"),
        (Ending("FAILED", ""), True, "exited"),
        (Ending("FAILED", "", warned=True), True, "preempted"),
        (Ending("FAILED", "", signal=9, loss="out_of_memory"), True, "out_of_memory"),
        (Ending("OUT_OF_MEMORY", ""), True, "out_of_memory"),
        (Ending("TIMEOUT", "", signal=15), True, "timeout"),
        (Ending("DEADLINE", ""), False, "timeout"),
        (Ending("CANCELLED", "", signal=15), True, "cancelled"),
        (Ending("NODE_FAIL", ""), False, "node_fail"),
        (Ending("BOOT_FAIL", ""), False, "node_fail"),
        (Ending("PREEMPTED", "", signal=15), True, "preempted"),
        (Ending("UNKNOWN", ""), True, "unknown"),
        (Ending("UNKNOWN", ""), False, "launch_failure"),
    ],
)
def test_what_became_of_a_job(ending: Ending, began: bool, kind: str) -> None:
    assert losses.kind_of(ending, began=began) == kind


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"retries": -1}, "greater than or equal to 0"),
        ({"retry_on": "timeout"}, r"write retry_on=\['timeout'\]"),
        ({"retry_on": ["timeuot"]}, r"'timeuot', which names neither.*meant 'timeout'"),
        ({"retry_on": ["timeout", "no such thing"]}, "'no such thing', which names neither"),
        ({"retry_scale": {"cpus_per_task": 2}}, "what can be scaled is mem_gb and timeout_min"),
        ({"mem_gb": 1, "retry_scale": {"mem_gb": 0.5}}, "is 0.5, and a later attempt gets at least as much"),
        ({"mem_gb": 1, "retry_scale": {"mem_gb": float("nan")}}, "give a factor of 1 or more"),
        ({"mem_gb": 1, "retry_scale": {"mem_gb": (2, -1)}}, "has -1 as its bound"),
        ({"mem_gb": 4, "retry_scale": {"mem_gb": (2, 3)}}, "scales up to 3, and mem_gb=4 is more"),
        ({"retry_scale": {"timeout_min": 2}}, "timeout_min is not set"),
        ({"retry_backoff_s": -1}, "greater than or equal to 0"),
        ({"retry_backoff_s": 1e9}, "less than or equal to 600"),
        ({"max_requeues": -1}, "greater than or equal to 0"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(fields: Infra, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        Unlucky(place=tmp_path, infra=given({"folder": tmp_path, **fields}))
    backend = {"backend": "LocalProcess", **fields}
    with pytest.raises(ValueError, match=words):
        exca.steps.backends.ADAPTER.validate_python(backend)


def test_the_policy_is_kept_apart_from_what_0_6_reads(make: Make) -> None:
    task = make("", "local", retries=7, retry_on=["timeout", "OSError"])
    assert task.run() == 1
    folder = folder_of(task)
    assert "retr" not in (folder / "config.yaml").read_text()
    assert "retries: 7" in (folder / "config-new.yaml").read_text()
    assert folder.name == make("", None).infra.uid().rpartition("/")[2]
    [found] = task.infra.iter_cached()
    assert found.infra.retry_on == ("timeout", "OSError")


def test_a_call_whose_task_was_taken_over_waits_for_the_one_that_computes_it(
    make: tp.Callable[..., Unlucky], tmp_path: Path
) -> None:
    """As where a submission was late, and the task was submitted again meanwhile: the first job leaves it alone."""
    task, same = make("wait wait", "local"), make("wait wait", "local")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(task.run)
        wait_for(lambda: task.times() == 1)
        (holder,) = Claims(folder_of(task)).holders([KEY]).values()
        Claims(folder_of(task)).revoke(holder.token)
        job = same.infra.job()
        wait_for(lambda: task.times() == 2)
        os.kill(int(task.began().read_text().split()[0]), signal.SIGKILL)
        time.sleep(1)  # in which the caller finds its job dead, if it gets that far
        assert not answer.done()
        (tmp_path / "gate").touch()
        assert (answer.result(), job.result()) == (2, 2)
