"""What is noted beside the logs of a job when it is warned of its end, and when it begins again."""

import os
from pathlib import Path

import orjson
import pytest

from exca.engine import record
from exca.jobs import before_end
from exca.jobs.paths import JobPaths

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
