"""Torture: whatever is killed, stopped, damaged or late, the answers are right and each is computed once.

The short form runs with all tests; the long one is ``make torture``, and prints its report as a table.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import cases
import pytest
from cases import BEAT, ELSEWHERE, Blows, Stage
from score import Score, table

import people
import slurm_cluster

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and forks are POSIX")
ROOT = sys.platform == "linux" and os.geteuid() == 0
TWO_HOSTS = (("", BEAT), (ELSEWHERE, BEAT))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    found = Stage(tmp_path, seed=int.from_bytes(os.urandom(4), "big"))
    yield found
    found.close()


def check(score: Score) -> None:
    """Whatever went wrong is shown with the whole row."""
    assert score.good, "\n\n".join([table([score]), *score.failures])


# ---------------------------------------------------------------- the short form


@pytest.mark.parametrize(
    "blows",
    [
        Blows("processes killed", 8),
        Blows("threads, processes killed", 3, workers=2, threads=4),
        Blows("two hosts, processes killed", 5, hosts=TWO_HOSTS),
        Blows("batches that need each other", 4, threads=2, tasks=0, items=0, steps=0, needing=12),
    ],
    ids=lambda blows: blows.case,
)
def test_killed_at_any_moment(blows: Blows, stage: Stage) -> None:
    check(cases.played(stage, blows))


def test_the_stopped_are_never_robbed(stage: Stage) -> None:
    score = cases.stopped(stage, "same host", runs=1, hold=0.3, hosts=(("", 5.0),))
    check(score)
    check(cases.stopped(stage, "two hosts", runs=1, hold=12 * BEAT, hosts=TWO_HOSTS))
    assert score.stopped == 1


def test_wrong_clocks(stage: Stage) -> None:
    check(cases.wrong_clocks(stage, 3))


def test_damaged_files_never_give_wrong_answers(stage: Stage) -> None:
    score = cases.damaged(stage, 100)
    check(score)
    assert score.answers > 500


def test_derived_files_may_go_at_any_moment(stage: Stage) -> None:
    check(cases.derived_deleted(stage, 1))


@pytest.mark.skipif(not ROOT, reason="a small tmpfs is mounted, which takes root")
def test_a_full_disk(stage: Stage) -> None:
    check(cases.disk_full(stage, 1))


def test_file_systems_that_fail_now_and_then(stage: Stage) -> None:
    score = cases.hiccups(stage, 1)
    if not score.runs:
        pytest.skip(score.note)
    check(score)
    assert score.answers > 100


def test_two_users_of_whom_one_plants_things(stage: Stage) -> None:
    reason = people.missing_because()
    if reason is not None:
        pytest.skip(reason)
    check(cases.two_users(stage, 3))


def test_changes_of_the_other_host_come_late(stage: Stage) -> None:
    score = cases.late(stage, 3, seconds=1.0)
    if not score.runs:
        pytest.skip(score.note)
    check(score)


def test_the_submitter_of_local_jobs_is_killed(stage: Stage) -> None:
    check(cases.submitters_killed(stage, "local", 1))


@pytest.mark.slurm
def test_the_submitter_of_slurm_jobs_is_killed(slurm_folder: Path) -> None:
    stage = Stage(slurm_folder, seed=os.getpid())
    try:
        check(cases.submitters_killed(stage, "slurm", 1))
    finally:
        stage.close()


@pytest.mark.slurm
@pytest.mark.timeout(300)
def test_commands_of_slurm_that_are_late_fail_say_nothing_or_hang(slurm_folder: Path) -> None:
    stage = Stage(slurm_folder, seed=os.getpid())
    try:
        check(cases.scheduler_faults(stage, 1))
    finally:
        stage.close()


# ---------------------------------------------------------------- the long form


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_long(stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hundreds of killed processes and ten thousand damaged reads; the table is printed."""
    scores = [
        cases.played(stage, Blows("processes killed", 100)),
        cases.played(stage, Blows("threads, processes killed", 40, workers=2, threads=4)),
        cases.played(stage, Blows("two hosts, processes killed", 50, hosts=TWO_HOSTS)),
        cases.played(
            stage, Blows("batches that need each other", 40, threads=2, tasks=0, items=0, steps=0, needing=12)
        ),
        cases.wrong_clocks(stage, 20),
        cases.stopped(stage, "stopped, same host", runs=5, hold=1.0, hosts=(("", 5.0),)),
        cases.stopped(stage, "stopped, two hosts", runs=5, hold=20 * BEAT, hosts=TWO_HOSTS),
        cases.stopped(stage, "stopped for a minute", runs=1, hold=60.0, hosts=(("", 5.0), (ELSEWHERE, 5.0))),
        cases.submitters_killed(stage, "local", 10),
        cases.damaged(stage, 10_000),
        cases.derived_deleted(stage, 5),
        cases.late(stage, 30),
        cases.hiccups(stage, 10),
    ]
    if people.missing_because() is None:
        scores.append(cases.two_users(stage, 30))
    if ROOT:
        scores.append(cases.disk_full(stage, 5))
    if slurm_cluster.missing_because() is None:
        scores.append(cases.submitters_killed(stage, "slurm", 3))
        scores.append(cases.scheduler_faults(stage, 5))
    cost = cases.cost_per_item(tmp_path)
    with capsys.disabled():
        killed = sum(score.killed for score in scores)
        print(f"\n\n{table(scores)}\n\n{killed} processes killed.")
        print(f"Claiming and releasing 100,000 items at once costs {1e6 * cost:.3f} us an item.")
    for score in scores:
        check(score)
    assert killed >= 200
