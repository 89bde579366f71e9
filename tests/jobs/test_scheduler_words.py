"""What is said about jobs on the real cluster: at their submission, while they are pending, and of how they end."""

import os
import shutil
import signal
import subprocess
import typing as tp
from pathlib import Path

import pytest

import elsewhere
from exca.engine import record
from exca.errors import JobError, SubmissionError
from exca.jobs import slurm_queue
from slurm_faults import Faults
from task_models import Double, Failing, Sleeper
from waiting import wait_for

pytestmark = pytest.mark.slurm
Infra: tp.TypeAlias = tp.Any  # a dict, which becomes an infra at run time
HELD: tp.Any = {"slurm_additional_parameters": {"hold": True}}
CALLS = {
    "task": "print(Double(infra=infra).compute())",
    "array": """
task = Double(infra=infra)
with task.infra.job_array() as array:
    array.extend(task.infra.clone_obj(x=x) for x in range(3))
print([t.compute() for t in array])
""",
    "map": "print(list(HalvesOrCalls(infra=infra | dict(max_jobs=2)).process(range(4))))",
    "batch": """
calls = HalvesOrCalls(calls=infra).calls
with calls.batch():
    jobs = [calls.submit(x) for x in range(3)]
print([job.result() for job in jobs])
""",
    "chain": """
del infra["cluster"]
infra = {name.removeprefix("slurm_"): value for name, value in infra.items()}
stages = [Plus(value=k, infra=dict(backend="Slurm", **infra)) for k in (1, 2)]
print(steps.Chain(steps=stages).run(3.0))
""",
}
ANSWERS = {
    "task": "2",
    "array": "[0, 2, 4]",
    "map": "[0.0, 0.5, 1.0, 1.5]",
    "batch": "[0.0, 0.5, 1.0]",
    "chain": "6.0",
}
JOBS = {"task": [1], "array": [3], "map": [2], "batch": [3], "chain": [1, 1]}


@pytest.fixture
def infra(slurm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Infra:
    monkeypatch.setattr(slurm_queue, "_slurm", slurm_queue._Slurm())  # nothing is remembered from other tests
    return {"cluster": "slurm", "folder": slurm_folder}


def another_interpreter(infra: Infra, code: str, **env: str) -> "subprocess.Popen[str]":
    """Start one in which no logging is set up."""
    program = f"""
from task_models import Double, HalvesOrCalls
from pipeline_steps import Plus
from exca import steps
infra = {infra | {"folder": str(infra["folder"])}!r}
{code}
"""
    return elsewhere.start(program, **env)


# ------------------------------------------------------------------ at the submission


@pytest.mark.parametrize("kind", CALLS)
def test_a_submission_is_one_line_and_not_on_stdout(infra: Infra, kind: str) -> None:
    out, err = another_interpreter(infra, CALLS[kind]).communicate(timeout=110)
    assert out == f"{ANSWERS[kind]}\n", err
    lines = err.splitlines()
    assert len(lines) == len(JOBS[kind]), err
    for line, jobs in zip(lines, JOBS[kind], strict=True):
        assert line.startswith(f"exca INFO: Submitted {jobs} job(s) of ")
        assert " to slurm: " in line
        assert f"logs in {infra['folder']}" in line
    out, err = another_interpreter(infra, CALLS[kind]).communicate(
        timeout=110
    )  # hits are silent; a call has none
    assert (out, len(err.splitlines())) == (f"{ANSWERS[kind]}\n", int(kind == "batch"))


def test_a_variable_silences_submissions(infra: Infra) -> None:
    out, err = another_interpreter(infra, CALLS["array"], EXCA_LOG="warning").communicate(timeout=110)
    assert (out, err) == ("[0, 2, 4]\n", "")


# ------------------------------------------------------------------ while they wait


@pytest.mark.parametrize("kind", CALLS)
def test_why_jobs_are_pending_is_said_and_that_they_go_on_when_interrupted(infra: Infra, kind: str) -> None:
    held = infra | HELD
    code = "from exca.engine import runner\nfrom exca.jobs import job\njob.SAY_WHY = runner.SAY_WHY = 1.0"
    other = another_interpreter(held, f"{code}\n{CALLS[kind]}")
    assert other.stderr is not None
    lines: list[str] = []
    while "Still waiting" not in (lines or [""])[-1]:
        lines.append(other.stderr.readline())
        assert lines[-1], lines
    assert "pending: JobHeldUser" in lines[-1]
    other.send_signal(signal.SIGINT)
    _, err = other.communicate(timeout=60)
    [said] = [line for line in err.splitlines() if "Interrupted while waiting" in line]
    assert "without this interpreter" in said
    base = lines[0].partition(" to slurm: ")[2].split()[1].rstrip(",")
    assert f"scancel {base}" in said
    listed = subprocess.run(
        ["squeue", "-h", "-j", base, "-o", "%T"], capture_output=True, text=True, check=True, timeout=60
    )
    assert set(listed.stdout.split()) == {"PENDING"}, "the jobs go on"


# ------------------------------------------------------------------ how they end


def test_a_kill_names_the_memory_that_was_asked_for(infra: Infra) -> None:
    task = Failing(kind="kill", infra=infra | {"mem_gb": 0.5})
    with pytest.raises(JobError, match=r"512M were asked for.*raise mem_gb"):
        task.run()
    found = record.read(tp.cast(Path, task.infra.uid_folder()))
    assert found is not None
    assert found.content["ended"] == "FAILED"


def test_a_memory_kill_under_another_reason_is_named(infra: Infra, faults: Faults, tmp_path: Path) -> None:
    """As accounting tells of a job whose memory kill Slurm took for a launch that failed."""
    task = Sleeper(gate=tmp_path / "gate", infra=infra)
    job = task.infra.job()
    wait_for(task.started().exists, "the job to start")
    faults.put("squeue", "echo JOBID", "exit 0")
    row = f"{job.job_id}|{job.job_id}|FAILED|137:0|512M|JobLaunchFailure"
    faults.put("sacct", "echo header", f"echo '{row}'", "exit 0")
    os.kill(int(task.started().read_text()), signal.SIGKILL)
    with pytest.raises(JobError, match=r"JobLaunchFailure.*512M were asked for.*raise mem_gb"):
        Sleeper(gate=tmp_path / "gate", infra=infra).run()


def test_logs_that_slurm_could_not_open_are_named(infra: Infra) -> None:
    task = Double(infra=infra | HELD | {"retries": 0})
    job = task.infra.job()
    logs = job.paths.folder.parent
    sent = job.paths.folder.resolve()
    shutil.rmtree(sent)
    sent.touch()  # a folder that is missing is made by later releases of Slurm
    subprocess.run(["scontrol", "release", job.job_id], check=True, timeout=60)
    with pytest.raises(
        JobError, match=r"exit code \d+:53\): Slurm could not open a file of the job"
    ) as caught:
        task.compute()
    assert str(logs) in str(caught.value)


# ------------------------------------------------------------------ signals


@pytest.mark.parametrize("srun", [True, False])
def test_a_warning_that_comes_before_python_is_up_is_no_error(
    infra: Infra, tmp_path: Path, srun: bool
) -> None:
    """Python is held up before it has loaded anything of ours, and gets the signal there."""
    up, go = tmp_path / "up", tmp_path / "go"
    early = tmp_path / "early"
    early.mkdir()
    (early / "sitecustomize.py").write_text(
        f"import os, time\nopen({str(up)!r}, 'w').close()\nwhile not os.path.exists({str(go)!r}): time.sleep(0.02)\n"
    )
    setup = [f"export PYTHONPATH={early}:$PYTHONPATH"]
    task = Double(infra=infra | {"slurm_use_srun": srun, "slurm_setup": setup})
    job = task.infra.job()
    wait_for(up.exists, "Python to start")
    where = [] if srun else ["--batch"]
    subprocess.run(["scancel", *where, "--signal=USR2", job.job_id], check=True, timeout=60)
    go.touch()
    assert task.compute() == 2
    assert job.state == "COMPLETED"


@pytest.mark.long
@pytest.mark.timeout(180)
def test_a_preempted_job_is_not_failed_while_slurm_cannot_be_asked(
    infra: Infra, faults: Faults, tmp_path: Path
) -> None:
    """Preempted for real: warned, ended after its grace, requeued, and run again."""
    node: tp.Any = {"cpus_per_task": 4, "slurm_additional_parameters": {"nodelist": "n4"}}
    task = Sleeper(gate=tmp_path / "gate", infra=infra | node | {"slurm_partition": "preempt"})
    job = task.infra.job()
    wait_for(task.started().exists, "the job to start")
    first = int(task.started().read_text())
    other = Sleeper(gate=tmp_path / "other", x=2, infra=infra | node)
    other.infra.job()
    wait_for(other.started().exists, "the job that preempts it", 100)
    faults.fail("squeue")
    faults.fail("sacct")
    wait_for(lambda: not os.path.exists(f"/proc/{first}"), "the preempted process to end")
    looking = Sleeper(gate=tmp_path / "gate", infra=infra)
    assert (looking.infra.status(), job.done()) == ("running", False)
    assert record.read(tp.cast(Path, task.infra.uid_folder())) is None
    faults.end("squeue")
    faults.end("sacct")
    (tmp_path / "other").touch()
    (tmp_path / "gate").touch()
    assert looking.run() == 1
    assert job.result() == 1
    assert len(task.started().read_text().split()) == 2, "it was requeued"


def test_why_a_command_gave_no_answer(faults: Faults) -> None:
    faults.fail("squeue")
    with pytest.raises(OSError, match="squeue failed: squeue: error: Unable to contact slurm controller"):
        slurm_queue._run(["squeue"])
    faults.silence("squeue")
    with pytest.raises(OSError, match="squeue answered nothing at all"):
        slurm_queue._run(["squeue"])
    faults.put("squeue", "sleep 60")
    with pytest.raises(TimeoutError, match="squeue gave no answer within 0 s"):
        slurm_queue._run(["squeue"], timeout=0.1)


def test_without_sbatch_nothing_is_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    task = Double.model_validate({"infra": {"cluster": "slurm", "folder": tmp_path / "cache"}})
    with pytest.raises(
        SubmissionError, match=r"cannot submit Double\.compute.*: there is no sbatch on the PATH"
    ):
        task.infra.job()
    assert task.infra.status() == "not submitted"


def test_an_sbatch_that_cannot_be_run_submits_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "srun").symlink_to(str(shutil.which("srun")))
    (tmp_path / "sbatch").write_bytes(b"\x7fELF, or rather not")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    task = Double.model_validate({"infra": {"cluster": "slurm", "folder": tmp_path / "cache"}})
    with pytest.raises(SubmissionError, match=r"cannot submit Double\.compute.*: .*Exec format error"):
        task.infra.job()
    assert task.infra.status() == "not submitted"
