"""Several calls in one job: each has a process, logs and an end of its own."""

import json
import os
import sys
import typing as tp
from pathlib import Path

import pytest

from exca import _files
from exca.claims.owner import process_start
from exca.jobs import backends, entry, pack, paths
from exca.jobs.backends import Request, Submission
from exca.jobs.resources import Resources
from pack_calls import Note
from waiting import wait_for

CLUSTERS = ["local", pytest.param("slurm", marks=pytest.mark.slurm)]
every_cluster = pytest.mark.parametrize("cluster", CLUSTERS)


class Job:
    """A job of several calls, as its parts are seen from outside."""

    def __init__(self, cluster: str, folder: Path, calls: tp.Sequence[tp.Any], **fields: tp.Any) -> None:
        self.folder, self.count = folder, len(calls)
        logs = str(folder / "logs" / "%j")
        fields.setdefault("modules", () if cluster == "slurm" else None)
        call = pack.Pack(logs, [backends.pickled(one, None) for one in calls], **fields)
        resources = Resources(
            folder=folder, cluster=tp.cast(tp.Any, cluster), cpus_per_task=fields.get("cpus")
        )
        (submission,) = backends.submit(cluster, Request([call], resources, logs, "pack"))
        assert submission is not None
        self.submission: Submission = submission

    def paths(self, number: int) -> paths.JobPaths:
        logs = paths.logs_of_part(self.submission.logs, number, self.count)
        return paths.JobPaths(logs, self.submission.job_id)

    def ended(self, number: int) -> pack.Exit:
        def read() -> pack.Exit | None:
            return pack.read_exit(self.paths(number).folder)

        found: pack.Exit = wait_for(read, lambda: f"part {number}: {self.said()}")
        return found

    def exit(self, number: int) -> int:
        return self.ended(number).code

    def said(self) -> str:
        own = paths.JobPaths(self.submission.logs, self.submission.job_id)
        return paths.tail(own.stderr)

    def wait(self) -> None:
        result = paths.JobPaths(self.submission.logs, self.submission.job_id).result_pickle
        wait_for(result.exists, lambda: f"the job to end: {self.said()}")


def note(tmp_path: Path, number: int, end: str = "return", gate: Path | None = None) -> Note:
    return Note(tmp_path / f"note-{number}", gate, end)


def noted(tmp_path: Path, number: int) -> dict[str, tp.Any]:
    wait_for((tmp_path / f"note-{number}").exists, f"part {number} to begin")
    content: dict[str, tp.Any] = json.loads((tmp_path / f"note-{number}").read_text())
    return content


def test_a_part_is_known_by_its_logs() -> None:
    assert paths.part_of(paths.logs_of_part("/a/%j", 3, 25)) == ("/a/%j", 3, 25)
    assert paths.part_of("/a/%j") is None
    assert paths.part_of("/a/%j/task-3-of-25/x") is None


@every_cluster
@pytest.mark.parametrize("modules", [None, ()], ids=["spawned", "forked"])
def test_each_part_ends_in_its_own_way(
    slurm_folder: Path, cluster: str, modules: tuple[str, ...] | None
) -> None:
    ends = ["return", "kill", "exit", "raise", "return"]
    calls = [note(slurm_folder, k, end) for k, end in enumerate(ends)]
    job = Job(cluster, slurm_folder, calls, modules=modules)
    assert [job.exit(k) for k in range(5)] == [0, -9, 17, 1, 0]
    job.wait()
    pids = {noted(slurm_folder, k)["pid"] for k in range(5)}
    assert len(pids) == 5
    assert len({noted(slurm_folder, k)["parent"] for k in range(5)}) == 1, "in one job"
    assert len({noted(slurm_folder, k)["drawn"] for k in range(5)}) == 5
    commands = [noted(slurm_folder, k)["command"] for k in range(5)]
    assert all(("exca.jobs.pack" in command) is (modules is None) for command in commands), commands
    for k in range(5):
        own = job.paths(k)
        assert own.stdout.read_text() == f"noting note-{k}\n"
        assert "of no matter" in own.stderr.read_text() or k != 3
        assert (own.folder / entry.BEGAN).exists()
        ended = pack.read_exit(own.folder)
        assert ended is not None
        assert 1 < (ended.max_rss_mb or 0) < 4000
    assert (
        "5 tasks ended, of which not by themselves: 1 (SIGKILL), 2 (exit code 17), 3 (exit code 1)"
        in job.said()
    )


@every_cluster
def test_as_many_run_at_once_as_are_to(slurm_folder: Path, cluster: str) -> None:
    gate = slurm_folder / "gate"
    job = Job(cluster, slurm_folder, [note(slurm_folder, k, gate=gate) for k in range(3)], concurrent=2)
    assert noted(slurm_folder, 0)["pid"] != noted(slurm_folder, 1)["pid"]
    assert not (slurm_folder / "note-2").exists()
    gate.touch()
    assert [job.exit(k) for k in range(3)] == [0, 0, 0]


@every_cluster
def test_a_cancelled_part_ends_alone(slurm_folder: Path, cluster: str) -> None:
    gate = slurm_folder / "gate"
    job = Job(cluster, slurm_folder, [note(slurm_folder, k, gate=gate) for k in range(4)], concurrent=2)
    noted(slurm_folder, 0)
    noted(slurm_folder, 1)
    for number in (0, 2):
        _files.make_folders(str(job.paths(number).folder))
        (job.paths(number).folder / entry.CANCELLED).touch()
    assert job.exit(0) < 0
    noted(slurm_folder, 3)
    gate.touch()
    job.wait()
    assert [job.exit(k) for k in (1, 3)] == [0, 0]
    assert not (slurm_folder / "note-2").exists(), "it never began"


@every_cluster
def test_what_a_part_leaves_behind_ends_with_it(slurm_folder: Path, cluster: str) -> None:
    job = Job(cluster, slurm_folder, [note(slurm_folder, 0, "orphan"), note(slurm_folder, 1)])
    assert [job.exit(0), job.exit(1)] == [-9, 0]
    left = noted(slurm_folder, 0)["left"]
    wait_for(lambda: process_start(left) is None, "what was left to end")


@pytest.mark.parametrize("ended", [False, True])
def test_parts_end_with_the_process_that_looks_after_them(tmp_path: Path, ended: bool) -> None:
    job = Job("local", tmp_path, [note(tmp_path, 0, gate=tmp_path / "gate")])
    part = noted(tmp_path, 0)
    os.kill(part["parent"], 9)
    wait_for(lambda: process_start(part["pid"]) is None, "the part to end")
    assert pack.read_exit(job.paths(0).folder) is None, "how it ended is not its own doing"


@pytest.mark.parametrize(
    ("gpus", "concurrent", "expected"),
    [
        (0.5, 2, ["4", "4"]),
        (0.5, 4, ["4", "4", "5", "5"]),
        (0.33, 3, ["4", "4", "4"]),
        (1.0, 3, ["4", "5", "6"]),
        (2.0, 2, ["4,5", "6,7"]),
    ],
)
def test_gpus_are_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: float, concurrent: int, expected: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    gate = tmp_path / "gate"
    calls = [note(tmp_path, k, gate=gate) for k in range(concurrent)]
    Job("local", tmp_path, calls, concurrent=concurrent, gpus=gpus)
    found = [noted(tmp_path, k)["env"]["CUDA_VISIBLE_DEVICES"] for k in range(concurrent)]
    gate.touch()
    assert sorted(found) == expected


def test_fewer_gpus_than_were_asked_for_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    job = Job("local", tmp_path, [note(tmp_path, k) for k in range(2)], concurrent=2, gpus=1.0)
    job.wait()
    assert r"need 2 GPU(s), and this job sees 1 (CUDA_VISIBLE_DEVICES=4): ask for more" in job.said()
    assert not (tmp_path / "note-0").exists()


def test_threads_follow_the_cpus_of_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    Job("local", tmp_path, [note(tmp_path, 0)], cpus=3)
    env = noted(tmp_path, 0)["env"]
    assert (env["OMP_NUM_THREADS"], env["OPENBLAS_NUM_THREADS"]) == ("3", "3")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    Job("local", tmp_path, [note(tmp_path, 1)], cpus=3)
    env = noted(tmp_path, 1)["env"]
    assert env["OMP_NUM_THREADS"] == "7"
    assert "OPENBLAS_NUM_THREADS" not in env


def test_one_that_takes_more_memory_than_its_part_is_ended(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    calls = [note(tmp_path, 0, "grow", gate), note(tmp_path, 1, gate=gate)]
    job = Job("local", tmp_path, calls, concurrent=2, mem_gb=0.3)
    noted(tmp_path, 0)
    noted(tmp_path, 1)
    found = job.ended(0)
    assert (found.code, found.word) == (-9, "OUT_OF_MEMORY")
    assert "more than its limit of 0.3 GiB (mem_gb), ending the job" in job.paths(0).stderr.read_text()
    gate.touch()
    assert job.exit(1) == 0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to CPUs")
@pytest.mark.parametrize(
    ("given", "machine", "cpus", "expected"),
    [
        (range(8), 64, 2, [[0, 1], [2, 3], [4, 5], [6, 7]]),
        (
            range(4, 20),
            64,
            2,
            [[4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15], [16, 17, 18, 19]],
        ),  # two threads each
        (range(8), 8, 2, [[], [], [], []]),  # the whole machine, which other jobs may use, too
        (range(8), 64, 4, [[], [], [], []]),  # fewer than were asked for
        (range(8), 64, None, [[], [], [], []]),
    ],
)
def test_cpus_that_a_job_has_for_itself_are_divided(
    monkeypatch: pytest.MonkeyPatch, given: range, machine: int, cpus: int | None, expected: list[list[int]]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(given))
    monkeypatch.setattr(os, "cpu_count", lambda: machine)
    call = pack.Pack("/logs/%j", [], 4, cpus)
    assert [pack.cpus_of(call, slot) for slot in range(4)] == expected


def test_a_part_runs_where_python_was_built_without_ctypes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only that it would not end with its job then: Slurm ends it all the same."""
    monkeypatch.setitem(sys.modules, "ctypes", None)
    pack._end_with(os.getppid())
