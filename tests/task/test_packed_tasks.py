"""Several tasks in one job: each is as it would be by itself, on every backend that submits."""

import functools
import json
import os
import re
import subprocess
import time
import typing as tp
from pathlib import Path

import pydantic
import pytest

import elsewhere
import exca
from exca.claims import Claims
from exca.errors import JobError
from exca.jobs import backends, entry, local, pack, parts
from exca.jobs.backends import Request, Submission
from exca.jobs.resources import Resources
from pack_calls import Note
from slurm_faults import Faults
from task_models import Double, Failing, HalvesOrCalls, Sleeper, given
from waiting import wait_for

CLUSTERS = ["local", pytest.param("slurm", marks=[pytest.mark.slurm, pytest.mark.long])]
every_cluster = pytest.mark.parametrize("cluster", CLUSTERS)
Infra: tp.TypeAlias = tp.Any  # a dict, which becomes an infra at run time


@pytest.fixture
def infra(cluster: str, slurm_folder: Path) -> Infra:
    return {"cluster": cluster, "folder": slurm_folder / "cache", "tasks_per_job": 3}


def sent(task: tp.Any, **values: list[tp.Any]) -> list[tp.Any]:
    """Submit one task for each of some values of a field, as one array."""
    ((name, many),) = values.items()
    with task.infra.job_array() as array:
        array.extend(task.infra.clone_obj({name: value}) for value in many)
    return list(array)


def record(task: tp.Any) -> dict[str, tp.Any]:
    content: dict[str, tp.Any] = json.loads((task.infra.uid_folder() / "job.json").read_text())
    return content


@every_cluster
def test_each_task_has_a_job_of_its_own_to_look_at(infra: Infra, tmp_path: Path) -> None:
    tasks = sent(Double(trace=tmp_path / "trace", infra=infra), x=list(range(7)))
    jobs = [task.infra.job() for task in tasks]
    assert [job.result() for job in jobs] == [0, 2, 4, 6, 8, 10, 12]
    assert len({job.job_id for job in jobs}) == 3
    assert len({job.paths.folder for job in jobs}) == 7
    assert len({line.split()[1] for line in (tmp_path / "trace").read_text().splitlines()}) == 7, "processes"
    for task, job in zip(tasks, jobs, strict=True):
        assert (job.state, task.infra.status()) == ("COMPLETED", "completed")
        kept = record(task)
        assert (kept["job_id"], kept["logs"]) == (
            job.job_id,
            os.path.relpath(job.submission.logs, task.infra.uid_folder()),
        )
        assert kept["used"]["max_rss_mb"] > 1
        assert (task.infra.uid_folder() / "submitit").resolve() == job.paths.folder.resolve()
        wait_for(functools.partial(pack.read_exit, job.paths.folder), "the process to end")
        assert not Claims(task.infra.uid_folder()).holders()


@every_cluster
def test_one_that_fails_leaves_the_others_alone(infra: Infra) -> None:
    kinds = ["kill", "ValueError", "exit", "own", "unpicklable", "none"]
    switch = infra["folder"].parent / "switch"
    tasks = sent(Failing(infra=infra), kind=kinds[:-1])
    words = ["killed by SIGKILL", "the value is wrong", "exit code 17", "own constructor", "cannot store"]
    for task, word in zip(tasks, words, strict=True):
        with pytest.raises(Exception, match=word):
            task.run()
        assert task.infra.status() == "failed"
        assert "about to fail" in task.infra.job().stdout()
    assert "job_id" in record(tasks[0])
    switch.touch()
    again = sent(Failing(switch=switch, infra=given({**infra, "mode": "retry"})), kind=kinds[:-1])
    assert [task.run() for task in again] == ["mended"] * 5


class Hungry(pydantic.BaseModel):
    mb: int
    gate: Path
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        held = bytearray(self.mb << 20)
        held[::4096] = b"x" * len(held[::4096])
        while not self.gate.exists():
            time.sleep(0.01)
        return self.mb


@pytest.mark.parametrize("at_once", [None, 2])
def test_one_that_needs_too_much_memory_leaves_the_others_alone(tmp_path: Path, at_once: int | None) -> None:
    infra = given({"cluster": "local", "folder": tmp_path / "cache", "tasks_per_job": 3})
    task = Hungry(mb=1, gate=tmp_path / "gate", infra=infra)
    task.infra.mem_gb, task.infra.concurrent_per_job = 0.3, at_once
    hungry, *others = sent(task, mb=[1000, 1, 2])
    with pytest.raises(JobError, match=r"task 0 of the 3 in .*needed more memory than it had: raise mem_gb"):
        hungry.run()
    assert record(hungry)["loss"] == "out_of_memory"
    task.gate.touch()
    assert [one.run() for one in others] == [1, 2]
    assert len({one.infra.job().job_id for one in (hungry, *others)}) == 1
    assert all("attempts" not in record(one) for one in others)


@every_cluster
def test_a_task_whose_process_was_killed_is_failed_while_its_job_goes_on(
    infra: Infra, tmp_path: Path
) -> None:
    first, second = sent(
        Sleeper(gate=tmp_path / "gate", infra=given({**infra, "concurrent_per_job": 2})), x=[1, 2]
    )
    for one in (first, second):
        wait_for(one.started().exists, "the tasks to begin")
    os.kill(int(first.started().read_text()), 9)
    looking = Sleeper(gate=first.gate, x=1, infra=infra)
    wait_for(lambda: looking.infra.status() == "failed", "the failure to be seen")
    with pytest.raises(JobError, match=r"task 0 of the 2 in .* ended without a result.*killed by SIGKILL"):
        looking.run()
    assert second.infra.status() == "running"
    assert second.infra.job().state == "RUNNING"
    first.gate.touch()
    assert second.run() == 2


@every_cluster
def test_one_task_of_a_job_is_cancelled(infra: Infra, tmp_path: Path) -> None:
    tasks = sent(Sleeper(gate=tmp_path / "gate", infra=infra), x=[0, 1, 2])
    wait_for(tasks[0].started().exists, "the first to begin")
    wait_for(lambda: tasks[1].infra.job().state == "PENDING", "the second to wait for the first")
    assert "other tasks of the 3 in its job" in tasks[1].infra.job().describe()
    tasks[1].infra.job().cancel()
    assert tasks[1].infra.status() == "not submitted"
    tasks[0].infra.job().cancel()
    wait_for(lambda: tasks[0].infra.status() == "failed", "the first to end")
    with pytest.raises(JobError, match="It was cancelled"):
        tasks[0].run()
    wait_for(tasks[2].started().exists, "the third to begin")
    assert not tasks[1].started().exists()
    tasks[2].infra.clear_job()
    assert tasks[2].infra.status() == "not submitted"
    pid = int(tasks[2].started().read_text())
    wait_for(
        lambda: not Path(f"/proc/{pid}").exists() or " Z" in Path(f"/proc/{pid}/stat").read_text(), "its end"
    )
    tasks[2].gate.touch()
    assert [task.run() for task in tasks[1:]] == [1, 2], "computed by the next call"


@pytest.mark.slurm
def test_a_job_of_which_no_task_is_left_is_cancelled(slurm_folder: Path) -> None:
    infra = {"cluster": "slurm", "folder": slurm_folder, "tasks_per_job": 2}
    options = {"slurm_additional_parameters": {"hold": True}}
    tasks = sent(Double(infra=given({**infra, **options})), x=[1, 2])
    jobs = [task.infra.job() for task in tasks]
    assert {job.state for job in jobs} == {"PENDING"}
    jobs[0].cancel()
    assert jobs[1].state == "PENDING"
    assert "PENDING" in _squeue(jobs[0].job_id)
    jobs[1].cancel()
    wait_for(lambda: "PENDING" not in _squeue(jobs[0].job_id), "the job to be cancelled")
    assert [task.infra.status() for task in tasks] == ["not submitted"] * 2


def _squeue(job_id: str) -> str:
    command = ["squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%T"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@every_cluster
def test_tasks_are_found_by_an_interpreter_that_starts_later(infra: Infra, tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from task_models import Sleeper
infra = dict(cluster={infra["cluster"]!r}, folder={str(infra["folder"])!r}, tasks_per_job=2)
task = Sleeper(gate=Path({str(tmp_path / "gate")!r}), infra=infra)
with task.infra.job_array() as array:
    array.extend(task.infra.clone_obj(x=x) for x in range(3))
print(*(one.infra.job().paths.folder for one in array))
"""
    folders = elsewhere.printed(program).split()
    tasks = [Sleeper(gate=tmp_path / "gate", x=x, infra=infra) for x in range(3)]
    assert [task.infra.status() for task in tasks] == ["running"] * 3
    assert [str(task.infra.job().paths.folder) for task in tasks] == folders
    (tmp_path / "gate").touch()
    assert [task.run() for task in tasks] == [0, 1, 2]
    assert all(len(task.started().read_text().split()) == 1 for task in tasks), "computed once"


@every_cluster
def test_shares_of_a_map_are_packed(infra: Infra, cluster: str) -> None:
    maps = HalvesOrCalls(infra=given({**infra, "max_jobs": 5}))
    assert list(maps.process(range(10))) == [x / 2 for x in range(10)]
    folder = maps.infra.uid_folder()
    assert folder is not None
    logs = [
        path for path in folder.parent.glob("logs/*/*/task-*-of-*") if not path.parent.name.startswith(".")
    ]
    assert sorted(path.name for path in logs) == [
        *("task-0-of-2", "task-0-of-3", "task-1-of-2", "task-1-of-3", "task-2-of-3")
    ]


@every_cluster
def test_calls_of_a_batch_are_packed(infra: Infra) -> None:
    calls = HalvesOrCalls(calls=infra)
    with calls.calls.batch():
        jobs = [calls.calls.submit(x) for x in range(5)]
    assert [job.result() for job in jobs] == [0, 0.5, 1, 1.5, 2]
    assert len({job.job_id for job in jobs}) == 2


@every_cluster
def test_jobs_of_a_submission_are_found_by_its_tag(cluster: str, slurm_folder: Path) -> None:
    logs, tag = str(slurm_folder / "logs" / "%j"), f"exca:{slurm_folder.name}-{os.getpid()}"
    gate = slurm_folder / "gate"
    calls: list[tp.Any] = [Note(slurm_folder / f"note-{k}", gate) for k in range(5)]
    resources = Resources(folder=slurm_folder, cluster=cluster, tasks_per_job=2)
    request = Request(calls, resources, logs, "tagged", tag=tag)
    places = parts.places(request, cluster, 5)
    assert [task for task, _ in places] == [0, 0, 1, 1, 2]
    assert [own and Path(own).name for _, own in places] == [
        *("task-0-of-2", "task-1-of-2", "task-0-of-2", "task-1-of-2", "task-0-of-1")
    ]
    submitted = backends.submit(cluster, request)
    found = [backends.tagged(cluster, tag, task, str(own)) for task, own in places]
    assert [_place(one) for one in found] == [_place(one) for one in submitted]
    gate.touch()


def _place(submission: Submission | None) -> tuple[str, str]:
    assert submission is not None
    return submission.job_id, submission.logs


@pytest.mark.slurm
def test_a_job_asks_for_as_much_as_runs_at_once(slurm_folder: Path) -> None:
    infra = {"cluster": "slurm", "folder": slurm_folder, "tasks_per_job": 4, "concurrent_per_job": 4}
    infra |= {"cpus_per_task": 3, "mem_gb": 0.5, "gpus_per_task": 0.5, "timeout_min": 7}
    tasks = sent(Surroundings(infra=given(infra)), x=list(range(6)))
    found = [task.look() for task in tasks]
    (full, last) = dict.fromkeys(task.infra.job().job_id for task in tasks)
    for job_id in (full, last):
        shown = subprocess.run(
            ["scontrol", "show", "job", job_id], capture_output=True, text=True, check=True
        ).stdout
        assert re.search(r"NumCPUs=12\b", shown)
        assert re.search(r"mem=2G\b", shown)
        assert re.search(r"gres/gpu=2\b|gpu:2\b", shown)
        assert re.search(r"TimeLimit=00:07:00", shown)
    assert sorted(gpus for gpus, _, _ in found[:4]) == ["0", "0", "1", "1"] or (
        len({gpus for gpus, _, _ in found[:4]}) == 2
    )
    assert {threads for _, threads, _ in found} == {"3"}
    assert {cpus for _, _, cpus in found} == {"3"}


class Surroundings(pydantic.BaseModel):
    """Returns what a task is given of its job."""

    x: int = 0
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def look(self) -> tuple[str, str, str]:
        time.sleep(1)  # so that all of them run at the same time
        return tuple(  # type: ignore[return-value] # three of them
            os.environ.get(name, "")
            for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK")
        )


def test_a_single_task_is_a_job_of_its_own(tmp_path: Path) -> None:
    infra = {"cluster": "local", "folder": tmp_path, "tasks_per_job": 4, "concurrent_per_job": 2}
    task = Double(x=4, infra=given(infra))
    assert task.compute() == 8
    assert "task-" not in task.infra.job().submission.logs


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"concurrent_per_job": 2},
            r"concurrent_per_job=2 is more than tasks_per_job=1: .*raise tasks_per_job",
        ),
        ({"tasks_per_job": 0}, "greater than 0"),
        ({"gpus_per_task": 0}, "greater than 0"),
        ({"tasks_per_job": 4, "nodes": 2}, r"tasks_per_job=4 with nodes=2: .* one process each, on one node"),
        (
            {"tasks_per_job": 4, "tasks_per_node": 2, "slurm_use_srun": True},
            r"tasks_per_job=4 with tasks_per_node=2: .* leave out one of the two",
        ),
        ({"gpus_per_task": 1.5}, r"gpus_per_task=1.5 divides no GPU: take a whole number, or 1/2"),
        ({"gpus_per_task": 0.4}, r"gpus_per_task=0.4 divides no GPU"),
        (
            {"gpus_per_task": 0.5, "tasks_per_job": 3, "concurrent_per_job": 3},
            r"concurrent_per_job=3 takes 1.5 GPU\(s\) per job.* run a multiple of 2 tasks at once",
        ),
        (
            {"gpus_per_task": 2, "gpus_per_node": 3},
            r"gpus_per_node=3 does not divide: 1 task\(s\) at once with gpus_per_task=2 take 2",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["infra", "step"])
def test_what_does_not_divide_is_told_when_it_is_configured(
    tmp_path: Path, kind: str, fields: dict[str, tp.Any], words: str
) -> None:
    if kind == "infra":
        with pytest.raises(ValueError, match=words):
            Double(infra=given({"cluster": "slurm", "folder": tmp_path, **fields})).infra.status()
        return
    named = {name.removeprefix("slurm_"): value for name, value in fields.items()}
    with pytest.raises(ValueError, match=words):
        exca.steps.backends.Slurm(**named)


def test_members_of_an_array_that_do_not_go_together_submit_nothing(tmp_path: Path) -> None:
    infra = {"cluster": "local", "folder": tmp_path}
    through = Double(infra=given({**infra, "gpus_per_node": 3}))
    first = Double(x=1, infra=given(infra))
    second = Double(x=2, infra=given({**infra, "gpus_per_task": 1}))
    with (
        pytest.raises(ValueError, match="gpus_per_node=3 does not divide"),
        through.infra.job_array() as array,
    ):
        array.extend([first, second])
    assert [task.infra.status() for task in (first, second)] == ["not submitted"] * 2
    assert not list(tmp_path.rglob("logs"))


class Gated(pydantic.BaseModel):
    """Leaves a line where it starts, and waits for a gate of its own."""

    place: Path
    x: int = 0
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        with (self.place / f"{self.x}.started").open("a") as file:
            file.write(f"{os.getpid()}\n")
        while not (self.place / str(self.x)).exists():
            time.sleep(0.02)
        return self.x

    def starts(self) -> list[str]:
        """The processes that ran it, in order."""
        try:
            return (self.place / f"{self.x}.started").read_text().split()
        except FileNotFoundError:
            return []


@pytest.mark.slurm
def test_a_requeued_job_runs_again_only_what_has_not_ended(slurm_folder: Path) -> None:
    infra = {
        "cluster": "slurm",
        "folder": slurm_folder / "cache",
        "tasks_per_job": 5,
        "concurrent_per_job": 2,
    }
    tasks: list[Gated] = sent(Gated(place=slurm_folder, infra=given(infra)), x=[0, 1, 2, 3, 4])
    for number in (0, 1):
        wait_for(tasks[number].starts, "it to begin")
    (slurm_folder / "0").touch()
    assert tasks[0].run() == 0
    wait_for(tasks[2].starts, "the third to begin")
    os.kill(int(tasks[1].starts()[0]), 9)
    wait_for(lambda: tasks[1].infra.status() == "failed", "the end of the second")
    wait_for(tasks[3].starts, "the fourth to begin")
    job_id = tasks[0].infra.job().job_id
    subprocess.run(["scontrol", "requeue", job_id], check=True)
    wait_for(lambda: len(tasks[2].starts()) == 2, "the third to begin again", 100)
    assert [task.infra.status() for task in tasks[2:]] == ["running"] * 3
    for number in (2, 3, 4):
        (slurm_folder / str(number)).touch()
    assert [task.run() for task in tasks if task.x != 1] == [0, 2, 3, 4]
    assert [len(task.starts()) for task in tasks] == [1, 1, 2, 2, 1]
    assert {task.infra.job().job_id for task in tasks} == {job_id}


@pytest.mark.slurm
@pytest.mark.parametrize("together", [True, False])
def test_the_scheduler_is_left_in_peace(slurm_folder: Path, faults: Faults, together: bool) -> None:
    """Few questions to Slurm while many tasks are submitted, watched and collected, from within the jobs, too."""
    for command in ("sbatch", "squeue", "sacct", "scontrol", "scancel"):
        faults.end(command)
    infra = {
        "cluster": "slurm",
        "folder": slurm_folder / "cache",
        "tasks_per_job": 10,
        "concurrent_per_job": 2,
    }
    start = time.monotonic()
    tasks = sent(Double(infra=given(infra)), x=list(range(40)))
    if together:
        done, left = exca.wait([task.infra.job() for task in tasks])
        assert (len(done), len(left)) == (40, 0)
    assert [task.compute() for task in tasks] == [2 * x for x in range(40)]
    waited = time.monotonic() - start
    assert faults.calls("sbatch") == 1
    assert faults.calls("squeue") <= waited / 2 + 1
    assert [faults.calls(command) for command in ("sacct", "scontrol", "scancel")] == [0, 0, 0]


def attempts(task: tp.Any) -> list[tuple[str, bool]]:
    """How the attempts before the outcome were lost, and whether each counts."""
    return [(each["state"], each.get("counts", True)) for each in record(task).get("attempts", ())]


def test_what_another_interpreter_submitted_is_sent_again_together(tmp_path: Path) -> None:
    infra: Infra = {"cluster": "local", "folder": tmp_path / "cache", "tasks_per_job": 3}
    task = Gated(
        place=tmp_path, infra=infra | {"retry_on": ["killed", "launch_failure"], "retry_backoff_s": 0}
    )
    before = sent(task, x=[0, 1, 2])[0].infra.job()
    with task.infra.job_array() as again:  # as another interpreter does it
        again.extend(task.infra.clone_obj(x=x) for x in range(3))
    wait_for(task.starts, "the first to begin")
    assert {job.job_id for job in again.jobs()} == {before.job_id}
    job, part = (
        entry.noted_process(folder / entry.BEGAN)
        for folder in (before.paths.folder.parent, before.paths.folder)
    )
    assert job is not None
    assert part is not None
    os.kill(job.pid, 9)
    wait_for(lambda: not (job.alive() or part.alive()), "both processes to end")
    wait_for(lambda: backends.alive(parts._job_of(before.submission)) is False, "the end to be noted")
    for x in range(3):
        (tmp_path / str(x)).touch()
    assert again.wait(100)
    assert [one.run() for one in again] == [0, 1, 2]
    (after,) = {one.infra.job().job_id for one in again}
    assert after != before.job_id


def test_what_is_left_of_a_job_at_its_limit_is_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_MINUTE", 6)
    infra: Infra = {"cluster": "local", "folder": tmp_path / "cache", "tasks_per_job": 4, "timeout_min": 1}
    tasks: list[Gated] = sent(
        Gated(place=tmp_path, infra=given({**infra, "retry_backoff_s": 0})), x=[0, 1, 2, 3]
    )
    jobs = [task.infra.job() for task in tasks]
    first = {job.job_id for job in jobs}
    (tmp_path / "0").touch()
    wait_for(tasks[1].starts, "the second to begin")
    wait_for(lambda: jobs[1].state == "TIMEOUT", "the limit")
    assert [task.infra.status() for task in tasks] == ["completed", *["not submitted"] * 3]
    for number in (1, 2, 3):
        (tmp_path / str(number)).touch()
    monkeypatch.setattr(local, "_MINUTE", 60)
    done, _ = exca.wait(jobs)
    assert [task.run() for task in tasks] == [0, 1, 2, 3]
    assert len(done) == 4
    again = {job.job_id for job in jobs[1:]}
    assert len(again) == 1, "sent together"
    assert not again & first
    assert [attempts(task) for task in tasks] == [
        *([], [("preempted", True)], [("launch_failure", False)], [("launch_failure", False)])
    ]


def test_a_task_that_takes_all_the_time_of_its_job_has_reached_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_MINUTE", 4)
    infra: Infra = {"cluster": "local", "folder": tmp_path / "cache", "tasks_per_job": 2, "timeout_min": 1}
    tasks: list[Gated] = sent(Gated(place=tmp_path, infra=given(infra)), x=[0, 1])
    (tmp_path / "1").touch()
    with pytest.raises(
        JobError, match=r"It ended with its job of 2 tasks .* it had begun: .*raise timeout_min"
    ):
        tasks[0].run()
    assert record(tasks[0])["loss"] == "timeout"
    assert tasks[1].infra.status() == "not submitted"
    assert tasks[1].run() == 1
    assert attempts(tasks[1]) == [("launch_failure", False)]


def test_what_has_not_begun_is_no_failure_where_nothing_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_MINUTE", 4)
    infra: Infra = {
        "cluster": "local",
        "folder": tmp_path / "cache",
        "tasks_per_job": 2,
        "timeout_min": 1,
        "retries": 0,
    }
    tasks: list[Gated] = sent(Gated(place=tmp_path, infra=given(infra)), x=[0, 1])
    job = tasks[1].infra.job()
    wait_for(tasks[0].starts, "the first to begin")
    with pytest.raises(JobError, match=r"ended before it began.*ask again"):
        job.result()
    assert [task.infra.status() for task in tasks] == ["failed", "not submitted"]
    (tmp_path / "1").touch()
    assert tasks[1].run() == 1
