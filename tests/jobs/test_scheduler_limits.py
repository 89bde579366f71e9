"""Limits that Slurm enforces: what fits is sent, the rest as room comes, and a refusal advises what it is about."""

import json
import signal
import subprocess
import threading
import typing as tp
from pathlib import Path

import pytest

import elsewhere
from exca.errors import JobError, SubmissionError
from exca.jobs import slurm_queue
from slurm_faults import Faults
from slurm_limits import Qos
from task_models import Double, HalvesOrCalls, Sleeper
from waiting import wait_for

pytestmark = pytest.mark.slurm
Infra: tp.TypeAlias = tp.Any  # a dict, which becomes an infra at run time
HELD: tp.Any = {"slurm_additional_parameters": {"hold": True}}


@pytest.fixture
def infra(slurm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Infra:
    monkeypatch.setattr(slurm_queue, "_slurm", slurm_queue._Slurm())  # nothing is remembered from other tests
    return {"cluster": "slurm", "folder": slurm_folder}


def another_interpreter(code: str) -> "subprocess.Popen[str]":
    """Start one that knows the classes of the tests and asks for room often."""
    program = f"""
from task_models import HalvesOrCalls, Sleeper
import exca.engine.unsent
exca.engine.unsent.EVERY = 0.2
{code}
"""
    return elsewhere.start(program)


def listed(logs: Path) -> list[str]:
    """Uid folders of the tasks that wait for room."""
    try:
        content = json.loads((logs / "unsent.json").read_text())
    except FileNotFoundError:
        return []
    return [folder for batch in content["batches"] for folder in batch["tasks"]]


def sent_pickles(logs: Path) -> int:
    return len(list(logs.glob(".sent-*/*/submitted.pkl")))


def test_more_tasks_than_a_qos_allows_are_sent_as_room_comes(
    infra: Infra, qos: Qos, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    qos.limit("MaxSubmitJobsPerUser=3")
    gate = tmp_path / "gate"
    infra = infra | {"slurm_qos": qos.name}
    task = Sleeper(gate=gate, infra=infra)
    with caplog.at_level("INFO", logger="exca"), task.infra.job_array() as array:
        array.extend(task.infra.clone_obj(x=x) for x in range(1, 7))
    assert [t.infra.status() for t in array] == ["running"] * 3 + ["not submitted"] * 3
    assert len(qos.jobs()) == 3
    [line] = [r.message for r in caplog.records if "Submitted" in r.message]
    assert "Submitted 3 job(s)" in line
    assert "3 more are sent as room comes" in line
    logs = array[0].infra.job().paths.folder.parent
    assert listed(logs) == [str(t.infra.uid_folder()) for t in array[3:]]
    assert array[5].infra.job().state == "UNSUBMITTED"
    assert not array[5].infra.job().done()
    assert sent_pickles(logs) == 3, "refused arrays leave nothing behind"
    gate.touch()
    # another interpreter, which knows only the last, sends the others while it waits
    other = another_interpreter(
        f"infra = dict(folder={str(infra['folder'])!r}, cluster='slurm', slurm_qos={qos.name!r})\n"
        f"print(Sleeper(gate={str(gate)!r}, x=6, infra=infra).run())"
    )
    out, err = other.communicate(timeout=110)
    assert out == "6\n", err
    assert [t.run() for t in array] == list(range(1, 7))
    assert all(len(t.started().read_text().split()) == 1 for t in array), "each was computed once"
    assert not (logs / "unsent.json").exists()
    assert sent_pickles(logs) == 6


def test_a_later_call_of_another_interpreter_sends_what_waits(infra: Infra, qos: Qos, tmp_path: Path) -> None:
    qos.limit("MaxSubmitJobsPerUser=2")
    gate = tmp_path / "gate"
    infra = infra | {"slurm_qos": qos.name}
    task = Sleeper(gate=gate, infra=infra)
    with task.infra.job_array() as array:
        array.extend(task.infra.clone_obj(x=x) for x in range(1, 4))
    logs = array[0].infra.job().paths.folder.parent
    assert listed(logs) == [str(array[2].infra.uid_folder())]
    qos.limit("MaxSubmitJobsPerUser=3")
    other = another_interpreter(
        f"infra = dict(folder={str(infra['folder'])!r}, cluster='slurm', slurm_qos={qos.name!r})\n"
        f"print(Sleeper(gate={str(gate)!r}, x=4, infra=infra).infra.job().state)"
    )
    out, err = other.communicate(timeout=110)
    assert out == "UNSUBMITTED\n", err  # those that waited already come first
    assert len(qos.jobs()) == 3
    assert array[2].infra.status() == "running"
    last = task.infra.clone_obj(x=4)
    assert listed(logs) == [str(last.infra.uid_folder())]
    qos.limit("MaxSubmitJobsPerUser=-1")
    gate.touch()
    assert last.run() == 4
    assert [t.run() for t in array] == [1, 2, 3]
    assert all(len(t.started().read_text().split()) == 1 for t in [*array, last])


def test_a_cancelled_task_without_room_is_not_sent(infra: Infra, qos: Qos) -> None:
    qos.limit("MaxSubmitJobsPerUser=0")
    task = Double(infra=infra | {"slurm_qos": qos.name})
    job = task.infra.job()
    assert job.state == "UNSUBMITTED"
    assert not job.wait(0.01)
    job.cancel()
    assert not list(Path(infra["folder"]).rglob("unsent.json"))
    qos.limit("MaxSubmitJobsPerUser=1")
    assert task.compute() == 2


def test_a_map_and_a_batch_are_sent_as_room_comes(
    infra: Infra, qos: Qos, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exca import submit
    from exca.engine import runner

    monkeypatch.setattr(runner, "_ROOM_EVERY", 0.1)
    monkeypatch.setattr(submit, "_ROOM_EVERY", 0.1)
    qos.limit("MaxSubmitJobsPerUser=2")
    infra = infra | {"slurm_qos": qos.name}
    obj = HalvesOrCalls(infra=infra | {"max_jobs": None}, calls=infra)
    assert list(obj.process(range(5))) == [0, 0.5, 1, 1.5, 2]
    with obj.calls.batch():
        jobs = [obj.calls.submit(x) for x in range(5)]
    assert [job.result() for job in jobs] == [0, 0.5, 1, 1.5, 2]
    assert len({job.job_id.partition("_")[0] for job in jobs}) > 1


def test_what_was_taken_before_a_refusal_goes_on(
    infra: Infra, qos: Qos, faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    """A first array is taken, a second is refused for good, as where an account is withdrawn in between."""
    qos.limit("MaxSubmitJobsPerUser=2")
    faults.put(
        "sbatch",
        f"if [ $(wc -l < {faults.folder}/sbatch.calls) -gt 2 ]; then",
        "echo 'sbatch: error: Batch job submission failed: Invalid account' >&2; exit 1; fi",
    )
    task = Double(infra=infra | {"slurm_qos": qos.name})
    with task.infra.job_array() as array:
        array.extend(task.infra.clone_obj(x=x) for x in range(4))
    assert "Invalid account" in caplog.text
    assert "2 of 4 were submitted before" in caplog.text
    assert [one.compute() for one in array[:2]] == [0, 2]
    assert faults.calls("sbatch") >= 3


# ------------------------------------------------------------------ giving up


def test_a_call_that_waits_for_room_can_be_cancelled(
    infra: Infra, qos: Qos, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exca import submit

    monkeypatch.setattr(submit, "_ROOM_EVERY", 0.1)
    qos.limit("MaxSubmitJobsPerUser=0")
    obj = HalvesOrCalls(calls=infra | {"slurm_qos": qos.name})
    with obj.calls.batch():
        jobs = [obj.calls.submit(x) for x in range(5)]
    errors: list[BaseException | None] = []
    waiting = threading.Thread(target=lambda: errors.append(jobs[1].exception()))
    waiting.start()
    for number in (1, 3, 3):
        jobs[number].cancel()
    waiting.join(60)
    assert [str(e) for e in errors] == [str(jobs[1].exception())]
    assert [job.state for job in jobs] == ["UNSUBMITTED", "CANCELLED"] * 2 + ["UNSUBMITTED"]
    assert [job.done() for job in jobs] == [False, True] * 2 + [False]
    assert jobs[3].wait()
    with pytest.raises(JobError, match="cancelled before there was room"):
        jobs[3].result()
    qos.limit("MaxSubmitJobsPerUser=-1")
    assert [jobs[k].result() for k in (0, 2, 4)] == [0, 1, 2]
    assert sent_pickles(jobs[0].paths.folder.parent) == 3


CALLS = {
    "call": "HalvesOrCalls(calls=infra).calls.submit(3).result()",
    "method": "HalvesOrCalls(calls=infra).half(3)",
    "task": "Sleeper(gate='gate', infra=infra).run()",
    "array": """
task = Sleeper(gate='gate', infra=infra)
with task.infra.job_array() as array:
    array.extend(task.infra.clone_obj(x=x) for x in (1, 2))
""",
    "map": "list(HalvesOrCalls(infra=infra).process(range(3)))",
}


def interrupted(kind: str, infra: Infra, ready: tp.Callable[[], tp.Any]) -> str:
    """Interrupt another interpreter once something is so; what it said to stderr."""
    fields = infra | {"folder": str(infra["folder"])}
    other = another_interpreter(f"infra = {fields!r}\n{CALLS[kind]}")
    wait_for(ready, "the moment of the interruption")
    other.send_signal(signal.SIGINT)
    _, err = other.communicate(timeout=60)
    assert other.returncode == -signal.SIGINT, err
    return err


@pytest.mark.parametrize("kind", ["call", "method", "task"])
def test_ctrl_c_while_waiting_for_room_leaves_nothing_queued(
    infra: Infra, qos: Qos, faults: Faults, kind: str
) -> None:
    qos.limit("MaxSubmitJobsPerUser=0")
    faults.end("sbatch")
    folder = Path(infra["folder"])
    infra = infra | {"slurm_qos": qos.name}
    err = interrupted(
        kind, infra, lambda: faults.calls("sbatch") == 2
    )  # the first try, and one while waiting
    if kind == "task":  # others find it on the list, and send it
        assert "cancel() takes it off the list" in err
        assert list(folder.rglob("unsent.json"))
    assert "Interrupted while waiting for room" in err
    assert not qos.jobs()
    assert not list(folder.rglob("*submitted.pkl"))


@pytest.mark.parametrize("kind", CALLS)
def test_ctrl_c_while_sbatch_is_at_it_leaves_nothing_queued(
    infra: Infra, qos: Qos, faults: Faults, kind: str
) -> None:
    faults.put("sbatch", f'{faults.real("sbatch")} "$@"', "exec sleep 600")
    interrupted(kind, infra | {"slurm_qos": qos.name} | HELD, qos.jobs)
    assert not qos.jobs()
    assert not list(Path(infra["folder"]).rglob("*submitted.pkl"))


def test_ctrl_c_while_sbatch_is_at_it_and_squeue_is_late_leaves_nothing_queued(
    infra: Infra, qos: Qos, faults: Faults
) -> None:
    faults.put("sbatch", f'{faults.real("sbatch")} "$@"', "exec sleep 600")
    first = f"[ $(wc -l < {faults.folder}/squeue.calls) -eq 1 ]"
    faults.put("squeue", f"if {first}; then echo JOBID; exit 0; fi")
    infra = infra | {"slurm_qos": qos.name} | HELD
    interrupted("task", infra, lambda: "PENDING" in real_queue(faults, qos))
    assert faults.calls("squeue") >= 2
    assert "PENDING" not in real_queue(faults, qos)


def real_queue(faults: Faults, qos: Qos) -> str:
    """What Slurm itself lists of the jobs of a QOS."""
    command = [faults.real("squeue"), "--noheader", f"--qos={qos.name}", "--format=%i %T"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


# ------------------------------------------------------------------ arrays


def test_arrays_are_no_longer_than_slurm_takes(infra: Infra, monkeypatch: pytest.MonkeyPatch) -> None:
    from exca.jobs import arrays

    real = slurm_queue.max_array_size()
    found = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=True).stdout
    assert f"MaxArraySize            = {real}\n" in found
    monkeypatch.setattr(slurm_queue, "max_array_size", lambda: 3)
    monkeypatch.setattr(arrays, "SMALL", 2)
    task = Double(infra=infra)
    with task.infra.job_array(max_workers=4) as array:
        array.extend(task.infra.clone_obj(x=x) for x in range(7))
    ids = [t.infra.job().job_id for t in array]
    assert [i.partition("_")[2] for i in ids] == ["0", "1", "2", "0", "1", "2", ""]
    assert [t.compute() for t in array] == [2 * x for x in range(7)]


@pytest.mark.parametrize(("asked", "sizes"), [(True, [256, 4]), (False, [130, 130])])
def test_more_tasks_than_the_array_of_a_site_are_several_arrays(
    infra: Infra, monkeypatch: pytest.MonkeyPatch, asked: bool, sizes: list[int]
) -> None:
    from exca.jobs import arrays

    assert slurm_queue.max_array_size() == 256
    if asked:
        monkeypatch.setattr(arrays, "SMALL", 2)
    task = Double(infra=infra | HELD)
    with task.infra.job_array() as array:
        array.extend(task.infra.clone_obj(x=x) for x in range(260))
    jobs = [t.infra.job() for t in array]
    bases = [job.job_id.partition("_")[0] for job in jobs]
    assert [bases.count(base) for base in dict.fromkeys(bases)] == sizes
    assert sent_pickles(jobs[0].paths.folder.parent) == 260
    assert not listed(jobs[0].paths.folder.parent)


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({"slurm_partition": "nowhere"}, "slurm_partition against `sinfo`"),
        ({"slurm_account": "nobody"}, "slurm_account against `sacctmgr show associations`"),
        ({"slurm_qos": "nowhere"}, "slurm_qos against `sacctmgr show qos`"),
        ({"cpus_per_task": 5000}, "lower mem_gb, cpus_per_task"),
        ({"slurm_constraint": "never"}, "slurm_constraint against"),
        ({"slurm_additional_parameters": {"no_such_option": 1}}, "slurm_additional_parameters against"),
        ({"slurm_partition": "short", "timeout_min": 5}, "lower timeout_min"),
    ],
)
def test_a_refusal_advises_what_it_is_about(infra: Infra, fields: tp.Any, advice: str) -> None:
    task = Double(infra=infra | fields)
    with pytest.raises(SubmissionError, match="Slurm refused") as caught:
        task.compute()
    assert advice in str(caught.value)
    assert task.infra.status() == "not submitted"
    halves = HalvesOrCalls(infra=infra | fields, calls=infra | fields)
    with pytest.raises(SubmissionError, match="Slurm refused"):
        list(halves.process(range(3)))
    with pytest.raises(SubmissionError, match="Slurm refused"):
        halves.calls.submit(1)
    assert not list(Path(infra["folder"]).rglob("*.pkl")), "no orphan pickles"


@pytest.mark.parametrize(
    ("limit", "fields", "advice"),
    [
        ("MaxWallDurationPerJob=5", {"timeout_min": 60}, "lower timeout_min"),
        ("MaxTRESPerJob=cpu=2", {"cpus_per_task": 3}, "lower mem_gb, cpus_per_task"),
        ("MaxTRESPerUser=cpu=2", {"cpus_per_task": 3}, "lower mem_gb, cpus_per_task"),
        ("MaxTRESPerUser=gres/gpu=1", {"gpus_per_node": 2}, "lower mem_gb, cpus_per_task"),
        ("MinTRESPerJob=cpu=2", {"cpus_per_task": 1}, "a limit of the site"),
        ("GrpTRES=cpu=2", {"cpus_per_task": 3}, "lower mem_gb, cpus_per_task"),
    ],
)
def test_what_no_room_will_ever_fit_is_refused_and_does_not_wait(
    infra: Infra, qos: Qos, limit: str, fields: Infra, advice: str
) -> None:
    qos.limit(limit, "Flags=DenyOnLimit")
    task = Double(infra=infra | {"slurm_qos": qos.name, **fields})
    with pytest.raises(SubmissionError, match="Slurm refused") as caught:
        task.compute()
    assert advice in str(caught.value)
    assert not list(Path(infra["folder"]).rglob("unsent.json"))
    assert not list(Path(infra["folder"]).rglob("*.pkl")), "no orphan pickles"
