"""Slurm as it is on a bad day: late, failing or silent commands, limits, preemption, submitters that die."""

import os
import signal
import subprocess
import threading
import time
import typing as tp
from pathlib import Path

import pydantic
import pytest

import elsewhere
import exca
from exca._clusters import JobState
from exca.engine import record
from exca.errors import JobError, SchedulerError
from exca.jobs import backends, silence, slurm_queue
from exca.jobs.paths import JobPaths
from slurm_faults import Faults
from task_models import Double, Sleeper
from waiting import wait_for

pytestmark = pytest.mark.slurm
Infra: tp.TypeAlias = tp.Any  # a dict, which becomes an infra at run time


@pytest.fixture
def infra(slurm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Infra:
    monkeypatch.setattr(slurm_queue, "_slurm", slurm_queue._Slurm())  # nothing is remembered from other tests
    return {"cluster": "slurm", "folder": slurm_folder}


def folder_of(task: tp.Any) -> Path:
    return tp.cast(Path, task.infra.uid_folder())


def shown(job_id: str) -> str:
    command = ["scontrol", "show", "job", job_id]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def script_of(job: tp.Any) -> str:
    return tp.cast(str, job.paths.submission_file.read_text())


HELD: tp.Any = {"slurm_additional_parameters": {"hold": True}}


# ------------------------------------------------------------------ what is submitted


def test_without_a_time_limit_the_partition_has_its_own(infra: Infra) -> None:
    job = Double(infra=infra | HELD).infra.job()
    assert "--time" not in script_of(job)
    assert "TimeLimit=00:10:00" in shown(job.job_id)  # DefaultTime of the partition
    limited = Double(x=2, infra=infra | HELD | {"timeout_min": 7}).infra.job()
    assert "#SBATCH --time=7\n" in script_of(limited)


def test_an_sbatch_that_answers_late_fails_nothing(infra: Infra, faults: Faults) -> None:
    real = subprocess.run(
        ["which", "-a", "sbatch"], capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    # the jobs are over before the submitter hears of them
    over = '[ -z "$(squeue -h -j ${answer%%;*} -t PD,R,CG 2> /dev/null)" ] && break; sleep 0.1'
    faults.put(
        "sbatch",
        f'answer=$({real} "$@")',
        f"for k in $(seq 600); do {over}; done",
        'echo "$answer"',
        "exit 0",
    )
    task = Double(infra=infra)
    with task.infra.job_array() as array:
        array.extend(task.infra.clone_obj(x=x) for x in range(3))
    assert [t.compute() for t in array] == [0, 2, 4]
    assert {t.infra.job().state for t in array} == {"COMPLETED"}
    for one in array:
        assert one.infra.job().paths.stdout.exists()


def test_each_set_of_resources_is_an_array_of_its_own(infra: Infra) -> None:
    task = Double(infra=infra | HELD | {"cpus_per_task": 1})
    other: Infra = {"folder": infra["folder"]}
    with task.infra.job_array() as array:
        array.extend(task.infra.clone_obj({"x": x, "infra.cpus_per_task": 1 + x % 2}) for x in range(4))
        array.append(Double(x=9, infra=other))  # what it leaves out, the array says
    jobs = [t.infra.job() for t in array]
    bases = [job.job_id.partition("_")[0] for job in jobs]
    assert len(set(bases)) == 2
    assert bases[0] == bases[2] == bases[4] != bases[1] == bases[3]
    assert "CPUs/Task=1" in shown(bases[0])
    assert "CPUs/Task=2" in shown(bases[1])


# ------------------------------------------------------------------ who died, and what cannot be asked


def test_a_submitter_killed_before_sbatch_answers_is_succeeded_by_its_array(
    infra: Infra,
    faults: Faults,
    tmp_path: Path,
) -> None:
    real = subprocess.run(
        ["which", "-a", "sbatch"], capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    faults.put(
        "sbatch", f'{real} "$@" > {tmp_path}/answer; touch {tmp_path}/answered', "kill -9 $PPID", "exit 1"
    )
    gate = tmp_path / "gate"
    program = f"""
from task_models import Sleeper
task = Sleeper(gate={str(gate)!r}, infra=dict(folder={str(infra["folder"])!r}, cluster="slurm"))
with task.infra.job_array() as array:
    array.extend(task.infra.clone_obj(x=x) for x in (1, 2))
"""
    done = elsewhere.run(program)
    assert done.returncode == -signal.SIGKILL
    base = (tmp_path / "answer").read_text().strip()
    faults.end("sbatch")
    tasks = [Sleeper(gate=gate, x=x, infra=infra) for x in (1, 2)]
    assert [t.infra.job().job_id for t in tasks] == [f"{base}_0", f"{base}_1"]
    for task in tasks:
        wait_for(task.started().exists, "the job to start")
    assert [t.infra.status() for t in tasks] == ["running", "running"]
    gate.touch()
    assert [t.run() for t in tasks] == [1, 2]
    assert faults.calls("sbatch") == 1
    assert all(len(t.started().read_text().split()) == 1 for t in tasks)


@pytest.mark.parametrize(
    "answer", ["exit 1", "exit 0", "exec sleep 600", "echo of no use >&2; exit 2", "kill $$"]
)
@pytest.mark.parametrize("tasks", [1, 3])
def test_an_sbatch_that_submits_and_does_not_say_so_has_submitted(
    infra: Infra, faults: Faults, monkeypatch: pytest.MonkeyPatch, answer: str, tasks: int
) -> None:
    from exca.jobs import slurm

    monkeypatch.setattr(slurm, "SBATCH_TIMEOUT", 3.0)
    faults.put("sbatch", f'{faults.real("sbatch")} "$@" > {faults.folder}/answer', answer)
    trace = faults.folder / "trace"
    task = Double(infra=infra, trace=trace)
    with task.infra.job_array() as array:
        array.extend(task.infra.clone_obj(x=x) for x in range(tasks))
    base = (faults.folder / "answer").read_text().strip()
    assert {t.infra.job().job_id.partition("_")[0] for t in array} == {base}
    assert [t.compute() for t in array] == [2 * x for x in range(tasks)]
    assert faults.calls("sbatch") == 1
    assert len(trace.read_text().splitlines()) == tasks


def test_the_last_job_of_several_arrays_is_found_where_sbatch_does_not_say_so(
    infra: Infra, faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exca.jobs import arrays

    monkeypatch.setattr(arrays, "SMALL", 1)
    monkeypatch.setattr(slurm_queue, "max_array_size", lambda: 2)
    faults.put("sbatch", f'{faults.real("sbatch")} "$@" >> {tmp_path}/answers', "exit 1")
    task = Double(infra=infra, trace=tmp_path / "trace")
    with task.infra.job_array() as array:
        array.extend(task.infra.clone_obj(x=x) for x in range(3))
    first, second = (tmp_path / "answers").read_text().split()
    assert [t.infra.job().job_id for t in array] == [f"{first}_0", f"{first}_1", second]
    assert [t.compute() for t in array] == [0, 2, 4]
    assert len((tmp_path / "trace").read_text().splitlines()) == 3


@pytest.mark.parametrize("fault", ["fail", pytest.param("silence", marks=pytest.mark.long)])
def test_a_scheduler_that_cannot_be_asked_says_nothing_about_the_end(
    infra: Infra,
    faults: Faults,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    monkeypatch.setattr(slurm_queue, "REMEMBER", 0.0)
    monkeypatch.setattr(silence, "SAY_AFTER", 0.0)
    caplog.set_level("INFO", logger="exca")
    gate = infra["folder"] / "gate"
    task = Sleeper(gate=gate, infra=infra)
    job = task.infra.job()
    wait_for(task.started().exists, "the job to start")
    getattr(faults, fault)("squeue")
    getattr(faults, fault)("sacct")
    # its process is gone, as it is while a preempted job waits for its requeue
    subprocess.run(["scontrol", "requeuehold", job.job_id], check=True, timeout=60)
    wait_for(lambda: not _lives(int(task.started().read_text().split()[0])), "the process to end")
    looking = Sleeper(gate=gate, infra=infra)
    for _ in range(3):
        assert looking.infra.status() == "running"
        assert not job.done()
    assert record.read(folder_of(task)) is None, "nothing is published"
    assert [r.levelname for r in caplog.records if "Slurm has given no answer for" in r.message] == [
        "WARNING"
    ]
    monkeypatch.setenv("EXCA_SCHEDULER_PATIENCE", "0")
    with pytest.raises(SchedulerError, match=r"no answer for .*EXCA_SCHEDULER_PATIENCE"):
        looking.run()
    assert record.read(folder_of(task)) is None, "nothing is published"
    monkeypatch.delenv("EXCA_SCHEDULER_PATIENCE")
    faults.end("squeue")
    faults.end("sacct")
    wait_for(lambda: not job.done() and "Slurm answers again" in caplog.text, "an answer")
    gate.touch()
    subprocess.run(["scontrol", "release", job.job_id], check=True, timeout=60)
    assert looking.run() == 1
    assert job.result() == 1


class Lists:
    """Slurm's lists of jobs, which can be made to leave all of them out."""

    def __init__(self, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(slurm_queue, "REMEMBER", 0.0)
        monkeypatch.setattr(slurm_queue, "WANTED", 0.0)
        self.faults = faults
        faults.put("squeue", f"if [ -e {faults.folder}/empty ]; then echo JOBID; exit 0; fi")
        faults.put("sacct", f"if [ -e {faults.folder}/late ]; then cat {faults.folder}/late; exit 0; fi")

    def leave_out(self, *accounting: str) -> None:
        """Let squeue list nothing, and accounting these lines."""
        (self.faults.folder / "late").write_text("".join(f"{line}\n" for line in ("JobID|...", *accounting)))
        (self.faults.folder / "empty").touch()

    def put_in(self, *commands: str) -> None:
        """Let them be right again."""
        for name in commands or ("empty", "late"):
            (self.faults.folder / name).unlink()


@pytest.fixture
def lists(infra: Infra, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> Lists:
    return Lists(faults, monkeypatch)


@pytest.mark.parametrize("accounting", ["nothing", "PENDING"])
def test_a_job_that_no_list_has_for_a_moment_is_not_submitted_again(
    infra: Infra, lists: Lists, tmp_path: Path, accounting: str
) -> None:
    task = Sleeper(gate=tmp_path / "gate", infra=infra | HELD)
    job = task.infra.job()
    line = f"{job.job_id}|{job.job_id}|{accounting}|0:0|1G|None"
    lists.leave_out(*([] if accounting == "nothing" else [line]))
    looking = Sleeper(gate=tmp_path / "gate", infra=infra | HELD)
    assert not job.done()
    assert looking.infra.status() == "running"
    assert looking.infra.job().job_id == job.job_id
    assert "may be late" in looking.infra.job()._backend.states([job.submission])[0].reason
    assert not job.wait(2)
    lists.put_in()
    (tmp_path / "gate").touch()
    subprocess.run(["scontrol", "release", job.job_id], check=True, timeout=60)
    assert looking.run() == 1
    assert job.result() == 1
    assert lists.faults.calls("sbatch") == 0
    assert "attempts" not in record.read(folder_of(task)).content  # type: ignore[union-attr] # it is there


def test_a_job_that_no_list_has_for_long_is_gone(
    infra: Infra, lists: Lists, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exca.jobs import slurm

    job = Sleeper(gate=tmp_path / "gate", infra=infra | HELD | {"retries": 0}).infra.job()
    lists.leave_out()
    assert not job.done()
    monkeypatch.setattr(slurm, "GONE_AFTER", 0.5)
    wait_for(job.done, "the job to count as gone")
    with pytest.raises(JobError, match="it runs no more, and how it ended is not known"):
        job.result()


def test_accounting_that_is_late_tells_the_end_all_the_same(
    infra: Infra, lists: Lists, tmp_path: Path
) -> None:
    task = Sleeper(gate=tmp_path / "gate", infra=infra | {"retries": 0})
    job = task.infra.job()
    wait_for(task.started().exists, "the job to start")
    lists.leave_out(f"{job.job_id}|{job.job_id}|RUNNING|0:0|1G|None")
    os.kill(int(task.started().read_text().split()[0]), signal.SIGKILL)
    wait_for(lambda: "JobState=FAILED" in shown(job.job_id), "the job to end")
    assert not job.wait(1)
    assert task.infra.status() == "running"
    lists.put_in("late")
    wait_for(job.done, "accounting to tell")
    with pytest.raises(JobError, match="killed by SIGKILL"):
        job.result()


@pytest.mark.parametrize("kind", ["script", "wrapped"])
def test_an_id_that_slurm_gave_to_a_later_job_is_not_taken_for_the_job(
    infra: Infra, slurm_folder: Path, kind: str
) -> None:
    task = Sleeper(gate=slurm_folder / "gate", infra=infra | HELD)
    job = task.infra.job()
    script = slurm_folder / "another.sh"
    script.write_text("#!/bin/sh\ntrue\n")
    command = ["sbatch", "--parsable", "--hold", f"--output={slurm_folder}/%j.out"]
    command.append(str(script) if kind == "script" else "--wrap=true")
    another = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    # as it is when the controller has lost its state, and counts anew: the id of the record, and where it leads to
    logs = JobPaths(job.submission.logs, another)
    logs.folder.symlink_to(os.readlink(job.paths.folder))
    reused = job.submission._replace(job_id=another)
    backend = backends.get("slurm")
    ours, theirs = backend.states([job.submission, reused])
    assert (ours.alive, theirs.alive) == (True, False)
    assert f"the job with id {another} is another one by now" in theirs.reason
    assert "another one by now" in backend.ending(reused).text
    backend.cancel([reused])
    assert "JobState=PENDING" in shown(another)
    backend.cancel([job.submission])
    wait_for(lambda: "JobState=CANCELLED" in shown(job.job_id), "the job to be cancelled")


def test_a_share_that_no_list_has_goes_on(infra: Infra, lists: Lists, tmp_path: Path) -> None:
    task = Sleepers(gate=tmp_path / "gate", infra=infra | {"max_jobs": 1})
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.extend(task.run([1, 2])))
    thread.start()
    wait_for((tmp_path / "gate-began").exists, "the job to start", 110)
    lists.leave_out()
    calls = lists.faults.calls("squeue")
    wait_for(lambda: lists.faults.calls("squeue") > calls + 2, "Slurm to be asked some times")
    (tmp_path / "gate").touch()
    thread.join(60)
    assert found == [10, 20]
    assert (tmp_path / "gate-began").read_text() == "1"


class Sleepers(pydantic.BaseModel):
    """A map that waits for a file."""

    gate: Path
    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def run(self, items: tp.Iterable[int]) -> tp.Iterator[int]:
        with self.gate.with_name("gate-began").open("a") as file:
            file.write("1")
        while not self.gate.exists():
            time.sleep(0.01)
        for item in items:
            yield 10 * item


def _lives(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text().replace(")", " ")
    except OSError:
        return False


@pytest.mark.long
def test_a_failure_that_the_requeued_job_contradicts_is_replaced(infra: Infra, tmp_path: Path) -> None:
    task = Sleeper(gate=tmp_path / "gate", infra=infra)
    job = tp.cast(tp.Any, task.infra.job())
    wait_for(task.started().exists, "the job to start")
    subprocess.run(["scontrol", "requeuehold", job.job_id], check=True, timeout=60)
    wait_for(lambda: not _lives(int(task.started().read_text().split()[0])), "the process to end")
    # somebody was told that it had ended
    error = {"type": "", "message": "it ended", "traceback": "", "pickle": None}
    from exca.claims import Claims

    Claims(job.folder).revoke(job.attempt)
    where = {"ended": "NODE_FAIL", **job.submission.to_json()}
    record.publish_death(job.folder, job.attempt, error, where, None)
    looking = Sleeper(gate=tmp_path / "gate", infra=infra)
    assert looking.infra.status() == "failed"
    (tmp_path / "gate").touch()
    publishing, _ = Claims(job.folder).acquire([record.KEY, record.end_of(job.attempt)])
    assert publishing is not None
    subprocess.run(["scontrol", "release", job.job_id], check=True, timeout=60)
    wait_for(
        lambda: "waiting for" in (job.stderr() or "").lower(), "the job to find the failure being published"
    )
    publishing.release()
    wait_for(lambda: looking.infra.status() == "completed", "the requeued job to publish")
    assert looking.run() == 1
    assert "replacing the record" in (job.stderr() or "")


def test_a_submitter_killed_between_two_arrays_is_succeeded_by_both(
    infra: Infra, faults: Faults, tmp_path: Path
) -> None:
    """The second array is submitted, and its answer is never read."""
    lines = [f'{faults.real("sbatch")} "$@" | tee -a {tmp_path}/answers > {tmp_path}/answer']
    lines += [f"[ $(wc -l < {tmp_path}/answers) = 1 ] || kill -9 $PPID", f"cat {tmp_path}/answer", "exit 0"]
    faults.put("sbatch", *lines)
    trace = tmp_path / "trace"
    program = f"""
from task_models import Double
from exca.jobs import slurm_queue
from exca.jobs import arrays
arrays.SMALL, slurm_queue.max_array_size = 1, lambda: 2
hold = dict(slurm_additional_parameters=dict(hold=True))
task = Double(trace={str(trace)!r}, infra=dict(folder={str(infra["folder"])!r}, cluster="slurm", **hold))
with task.infra.job_array() as array:
    array.extend(task.infra.clone_obj(x=x) for x in range(5))
"""
    done = elsewhere.run(program)
    assert done.returncode == -signal.SIGKILL
    first, second = (tmp_path / "answers").read_text().split()
    faults.end("sbatch")
    tasks = [Double(x=x, trace=trace, infra=infra) for x in range(5)]
    ids = [task.infra.job().job_id for task in tasks[:4]]
    assert ids == [f"{first}_0", f"{first}_1", f"{second}_0", f"{second}_1"]
    for job_id in (first, second):
        subprocess.run(["scontrol", "release", job_id], check=True, timeout=60)
    assert [task.compute() for task in tasks] == [0, 2, 4, 6, 8]
    assert faults.calls("sbatch") == 3, "only what was never submitted is submitted now"
    assert len(trace.read_text().splitlines()) == 5


# ------------------------------------------------------------------ accounting


def test_a_cancelled_array_costs_one_question(
    infra: Infra,
    faults: Faults,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What squeue has forgotten, accounting lists as one range: ``565_[0-199%64]``."""
    monkeypatch.setattr(slurm_queue, "REMEMBER", 60.0)
    task = Double(infra=infra | HELD)
    with task.infra.job_array(max_workers=64) as array:
        array.extend(task.infra.clone_obj(x=x) for x in range(200))
    base = array[0].infra.job().job_id.partition("_")[0]
    subprocess.run(["scancel", base], check=True, timeout=60)
    # squeue keeps jobs for a minute: it is to have forgotten them
    faults.put("squeue", "echo JOBID", "exit 0")
    wait_for(
        lambda: [row.job.state for row in slurm_queue._sacct({base})] == ["CANCELLED"] * 200,
        "accounting to know",
    )
    faults.end("sacct")
    monkeypatch.setattr(slurm_queue, "_slurm", slurm_queue._Slurm())
    ids = [f"{base}_{k}" for k in range(200)]
    states = [slurm_queue.job_states([i])[i] for i in ids]
    assert {s.state for s in states} == {"CANCELLED"}
    assert {s.alive for s in states} == {False}
    assert faults.calls("sacct") == 1


def test_accounting_tells_all_ranges_of_an_array(infra: Infra, tmp_path: Path) -> None:
    """By itself it cuts such a list short after 64 characters, and so in the middle of a number."""
    command = ["sbatch", "--parsable", "--hold", "--array=0-99", "--output=/dev/null", "--wrap=true"]
    sent = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    base = sent.stdout.strip()
    some = [k for k in range(100) if k % 7 in (0, 2, 3) or k % 11 == 0]  # which leaves many ranges
    subprocess.run(["scancel", *(f"{base}_{k}" for k in some)], check=True, timeout=60)
    subprocess.run(["scancel", base], check=True, timeout=60)
    wanted = {f"{base}_{k}" for k in range(100) if k not in some}
    wait_for(
        lambda: (
            {row.job.job_id for row in slurm_queue._sacct({base}) if row.job.state == "CANCELLED"} == wanted
        ),
        lambda: f"accounting to know all tasks: {slurm_queue._sacct({base})}",
    )


@pytest.mark.parametrize(
    ("listed", "numbers"),
    [
        ("565_[0-3%64]", [0, 1, 2, 3]),
        ("565_[0,2-3]", [0, 2, 3]),
        ("565_[1-7:3]", [1, 4, 7]),
        ("565_[8]", [8]),
    ],
)
def test_ranges_of_tasks(listed: str, numbers: list[int]) -> None:
    rows = slurm_queue._each_task(JobState(listed, "CANCELLED", alive=False))
    assert [row.job_id for row in rows] == [f"565_{n}" for n in numbers]


def test_the_end_of_a_pending_array_is_asked_for_once(
    infra: Infra, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statuses of its tasks, once squeue has forgotten them; while accounting hangs, too."""
    monkeypatch.setattr(slurm_queue, "ACCOUNTING_TIMEOUT", 2.0)
    task = Double(infra=infra | HELD)
    with task.infra.job_array() as array:
        array.extend(task.infra.clone_obj(x=x) for x in range(30))
    base = array[0].infra.job().job_id.partition("_")[0]
    subprocess.run(["scancel", base], check=True, timeout=60)
    wait_for(
        lambda: [row.job.state for row in slurm_queue._sacct({base})] == ["CANCELLED"] * 30,
        "accounting to know",
    )
    faults.put("squeue", "echo JOBID", "exit 0")
    ids = [t.infra.job().job_id for t in array]
    for lines, word in ((["exec sleep 600"], "UNKNOWN"), ([], "CANCELLED")):
        monkeypatch.setattr(slurm_queue, "_slurm", slurm_queue._Slurm())
        faults.put("sacct", *lines)
        before = faults.calls("sacct")
        assert {slurm_queue.job_states([job_id])[job_id].state for job_id in ids} == {word}
        assert faults.calls("sacct") == before + 1
    assert {t.infra.status() for t in array} == {"not submitted"}
    assert faults.calls("sacct") == 2


def test_accounting_that_hangs_costs_one_wait_and_is_asked_again_later(
    infra: Infra,
    faults: Faults,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slurm_queue, "ACCOUNTING_TIMEOUT", 0.5)
    monkeypatch.setattr(slurm_queue, "REMEMBER", 0.0)
    faults.put("squeue", "echo JOBID", "exit 0")
    faults.put("sacct", "exec sleep 600")
    for _ in range(4):
        (state,) = slurm_queue.job_states(["999999"]).values()
        assert (state.state, state.alive) == ("UNKNOWN", False)
        assert "accounting gave no answer" in state.reason
    assert faults.calls("sacct") == 1
    monkeypatch.setattr(slurm_queue, "ACCOUNTING_AGAIN", 0.0)
    monkeypatch.setattr(slurm_queue, "_slurm", slurm_queue._Slurm())
    faults.put("sacct", "echo header", "echo '999999|999999|TIMEOUT|0:0|1G|None'", "exit 0")
    (state,) = slurm_queue.job_states(["999999"]).values()
    assert state.state == "TIMEOUT"


# ------------------------------------------------------------------ signals and ranks


class Ranks(pydantic.BaseModel):
    """One rank raises, the first waits for it for ever."""

    wrong: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        if int(os.environ["SLURM_PROCID"]) == self.wrong:
            raise LookupError(f"rank {self.wrong} has lost its way")
        time.sleep(600)
        return 0


def test_a_rank_that_raises_ends_the_job_and_is_the_error(infra: Infra) -> None:
    task = Ranks(infra=infra | {"tasks_per_node": 2, "slurm_use_srun": True})
    with pytest.raises(LookupError, match="rank 1 has lost its way") as caught:
        task.run()
    notes = "\n".join(caught.value.__notes__)
    assert "test_scheduler_faults.py" in notes
    assert "process 1 of 2" in notes
    job = task.infra.job()
    assert "rank 1 has lost its way" in (job.paths.folder / f"{job.job_id}_1_log.err").read_text()


@pytest.mark.parametrize("srun", [True, False])
def test_the_warning_of_a_preemption_is_no_error(infra: Infra, tmp_path: Path, srun: bool) -> None:
    task = Sleeper(gate=tmp_path / "gate", infra=infra | {"slurm_use_srun": srun})
    job = task.infra.job()
    wait_for(task.started().exists, "the job to start")
    for _ in range(2):
        where = [] if srun else ["--batch"]
        subprocess.run(["scancel", *where, "--signal=USR2", job.job_id], check=True, timeout=60)
    wait_for(lambda: "SIGUSR2" in (job.stderr() or ""), "the signal to come")
    assert task.infra.status() == "running"
    (tmp_path / "gate").touch()
    assert task.run() == 1


@pytest.mark.long
def test_a_job_that_the_warning_ended_before_its_python_was_up_leaves_no_error(infra: Infra) -> None:
    setup = ["trap - USR2", "kill -USR2 $$"]
    task = Double(infra=infra | {"slurm_setup": setup})
    with pytest.raises(JobError, match=r"ended before it began.*warning of a preemption"):
        task.compute()
    assert task.infra.status() == "not submitted"
    assert record.read(folder_of(task)) is None


# ------------------------------------------------------------------ words


def ending(state: str, exit_code: str = "", reason: str = "", memory: str = "") -> str:
    from exca.jobs.backends import Submission
    from exca.jobs.slurm import ending_of

    job = JobState("12", state, reason, exit_code, memory, alive=False)
    return ending_of(job, Submission("slurm", "12", "/cache/logs/%j")).text


@pytest.mark.parametrize("code", ["0:53", "15:53"])
def test_a_file_that_slurm_could_not_open(code: str) -> None:
    text = ending("FAILED", code)
    assert "could not open a file of the job" in text
    assert "/cache/logs" in text


@pytest.mark.parametrize(
    "told",
    [
        ("OUT_OF_MEMORY", "0:125", "OutOfMemory", "512M"),
        ("FAILED", "137:0", "JobLaunchFailure", "512M"),
        ("FAILED", "0:9", "NonZeroExitCode", "512M"),
    ],
)
def test_a_memory_kill_names_the_memory(told: tuple[str, str, str, str]) -> None:
    text = ending(*told)
    assert "512M were asked for" in text
    assert "raise mem_gb" in text


def test_other_ways_to_end() -> None:
    assert "raise timeout_min" in ending("TIMEOUT", "0:0")
    assert "it was cancelled" in ending("CANCELLED by 1000", "0:15")
    assert "its node failed" in ending("NODE_FAIL")
    assert ending("FAILED", "3:0") == "Slurm says FAILED (exit code 3:0)."
    assert "killed by SIGSEGV" in ending("FAILED", "139:0")


def test_why_a_job_is_pending_is_in_its_description(
    infra: Infra, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from exca.jobs import job as jobs

    job = Double(infra=infra | HELD).infra.job()
    assert "pending: JobHeldUser" in job.describe()
    monkeypatch.setattr(jobs, "SAY_WHY", 0.0)
    with caplog.at_level("INFO", logger="exca"):
        assert not job.wait(2)
    [line] = [r.message for r in caplog.records if "Still waiting" in r.message]
    assert "pending: JobHeldUser" in line


# ------------------------------------------------------------------ ending jobs


@pytest.mark.parametrize("job_id", ["-u root", "12;13", "12,13", "12_", "١٢", "--state=PENDING", ""])
def test_what_is_no_job_id_is_neither_asked_about_nor_cancelled(
    faults: Faults,
    job_id: str,
) -> None:
    for command in ("squeue", "sacct", "scancel"):
        faults.end(command)
    assert slurm_queue.job_states([job_id])[job_id].alive is False
    with pytest.raises(ValueError, match="no id of a Slurm job"):
        slurm_queue.cancel(["12", job_id])
    assert [faults.calls(c) for c in ("squeue", "sacct", "scancel")] == [0, 0, 0]


def test_a_pending_job_that_is_cancelled_is_as_if_never_submitted(infra: Infra) -> None:
    task = Double(infra=infra | HELD)
    job = task.infra.job()
    job.cancel()
    wait_for(lambda: job.state == "CANCELLED", "the job to be cancelled")
    assert task.infra.status() == "not submitted"
    assert Double(infra=infra).compute() == 2
