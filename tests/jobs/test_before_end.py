"""What is noted beside the logs of a job when it is warned of its end, and when it begins again."""

import os
import signal
import subprocess
import sys
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from exca.claims.owner import Process
from exca.engine import record
from exca.jobs import before_end, entry, limits, pack
from exca.jobs.paths import JobPaths
from waiting import wait_for

LINE = orjson.dumps({"state": "preempted", "reason": "of another user", "started": 1.0, "host": "h"}) + b"\n"


@pytest.fixture
def job(tmp_path: Path) -> JobPaths:
    """Give a job that has run before."""
    (tmp_path / "12").mkdir()
    return JobPaths(str(tmp_path / "%j"), "12")


def of_another_user(path: Path, content: bytes) -> Path:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root gives files away")
    path.write_bytes(content)
    os.chown(path, 54321, 54321)
    return path


def test_no_word_of_another_user_goes_into_the_record(job: JobPaths) -> None:
    of_another_user(job.folder / before_end.REQUEUES, LINE)
    assert record.requeues(job.folder, "attempt", {}) == []
    before_end.note_requeue(job, None, 2.0)
    assert [each["state"] for each in record.requeues(job.folder, "attempt", {})] == ["requeued"]


def test_no_word_of_another_user_tells_why_a_job_was_requeued(job: JobPaths) -> None:
    leaving = of_another_user(job.folder / before_end.LEAVING, b'{"state": "timeout", "reason": "theirs"}')
    before_end.note_requeue(job, None, 2.0)
    assert [each["state"] for each in before_end.requeues_of(job.folder)] == ["requeued"]
    assert leaving.exists(), "it is left alone"


def test_no_word_of_another_user_tells_that_a_state_was_saved(job: JobPaths) -> None:
    assert not before_end.has_saved(of_another_user(job.folder / before_end.WARNED, b"saved"))
    (job.folder / "own").write_bytes(b"saved")
    assert before_end.has_saved(job.folder / "own")


@pytest.mark.parametrize("content", [b"{}", b"[]", b"3", b'{"state": 3}', b'"text"', b""])
def test_a_job_begins_again_whatever_it_left(job: JobPaths, content: bytes) -> None:
    """One that can't tell why it left has to be computed all the same."""
    (job.folder / before_end.LEAVING).write_bytes(content)
    before_end.note_requeue(job, None, 2.0)
    assert len(before_end.requeues_of(job.folder)) == 1


def test_a_time_that_can_be_none_is_left_out(job: JobPaths) -> None:
    (job.folder / before_end.REQUEUES).write_bytes(b'{"state": "requeued", "reason": "", "started": 1e300}\n')
    (each,) = record.requeues(job.folder, "attempt", {})
    assert "started" not in each


# ---------------------------------------------------------------- warnings


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process hear warnings as a job of Slurm does."""
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    numbers = (signal.SIGTERM, signal.SIGCONT, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in numbers]
    before_end.listen()
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("listening")
def test_a_warning_that_came_before_the_computation_began_is_made_up_for(job: JobPaths) -> None:
    """A job that is shorter than the time ahead of its end is warned while Python starts."""
    saved: list[str] = []
    todo: dict[str, tp.Any] = {"delay": 90.0, "resumable": lambda: False, "most": 0}
    os.kill(os.getpid(), signal.SIGUSR2)
    with before_end.saving(job.folder, save=lambda: saved.append("state"), **todo):
        wait_for(lambda: saved, "the state to be saved")
    assert before_end.has_saved(job.folder / before_end.WARNED)
    with before_end.saving(job.folder, save=lambda: saved.append("again"), **todo):
        pass
    assert saved == ["state"], "no warning came for this one"


# ---------------------------------------------------------------- clocks that differ


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("59", 59), ("0:59", 59), ("10:00", 600), ("1:02:03", 3723), ("2-00:00:01", 172801), ("1-00:00", 86400)],
)
def test_how_long_a_job_may_run_is_read_as_slurm_writes_it(text: str, seconds: float) -> None:
    assert before_end._seconds(text) == seconds


@pytest.mark.parametrize("text", ["UNLIMITED", "INVALID", "NOT_SET", ""])
def test_what_is_no_time_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        before_end._seconds(text)


def test_a_part_that_has_begun_is_warned_whatever_the_time_of_its_files(job: JobPaths) -> None:
    """A file server whose clock is late gives its files times from before the part was started."""
    mark = job.folder / entry.BEGAN
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        child = pack._Child(0, 0, process.pid, process, job.folder, limits.Limits(0, 0, job.stderr))
        assert not child.listens()
        entry.note_process(mark)
        assert not child.listens(), "it is of an earlier run of the part"
        entry.note_process(mark, Process.of(process.pid))
        os.utime(mark, (1.0, 1.0))
        assert child.listens()
        process.communicate(b"\n")
        assert not child.listens()


def test_the_end_of_a_run_is_told_by_the_clock_of_its_host(job: JobPaths) -> None:
    """That of the file server, which is a day ahead, would have the words of Slurm be about an earlier run."""
    mark = job.folder / entry.BEGAN
    entry.note_process(mark)
    began = entry.noted_time(mark)
    os.utime(mark, (began + 86400, began + 86400))
    assert entry.noted_time(mark) == began
    at = record.iso(began + 3).partition(".")[0]
    job.stderr.write_text(f"slurmstepd: error: *** JOB 12 ON n1 CANCELLED AT {at} DUE TO PREEMPTION ***\n")
    before_end.note_requeue(job, None, entry.noted_time(mark))
    assert [each["state"] for each in before_end.requeues_of(job.folder)] == ["preempted"]


def test_a_note_of_an_earlier_release_has_the_time_of_its_file(job: JobPaths) -> None:
    mark = job.folder / entry.BEGAN
    mark.write_bytes(b'{"host": "h", "hostname": "h", "pid": 1, "start": "1"}')
    os.utime(mark, (5.0, 5.0))
    assert entry.noted_time(mark) == 5.0
