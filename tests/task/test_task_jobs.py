"""Tasks in jobs, on every backend that submits: the same tests for each, Slurm among them."""

import json
import os
import subprocess
import sys
import time
import typing as tp
from pathlib import Path

import pydantic
import pytest

import elsewhere
import exca
import searched
from exca.errors import CacheWriteError, JobError, SubmissionError
from exca.jobs import environment
from task_models import Double, Failing, Limited, Sleeper, given
from waiting import wait_for

CLUSTERS = ["local", pytest.param("slurm", marks=pytest.mark.slurm)]
every_cluster = pytest.mark.parametrize("cluster", CLUSTERS)
Infra: tp.TypeAlias = tp.Any  # a dict, which becomes an infra at run time


@pytest.fixture
def infra(cluster: str, slurm_folder: Path) -> Infra:
    return {"cluster": cluster, "folder": slurm_folder}


@every_cluster
def test_a_job_computes_and_its_result_is_found_again(infra: Infra, cluster: str) -> None:
    task = Double(x=3, infra=infra)
    job = task.infra.job()
    assert task.infra.status() in ("running", "completed")
    assert job.result() == 6
    assert job.done()
    assert job.state == "COMPLETED"
    assert Double(x=3, infra=given({"folder": infra["folder"], "mode": "read-only"})).compute() == 6
    assert Double(x=3, infra=infra).infra.job().job_id == job.job_id
    record = json.loads((task.infra.uid_folder() / "job.json").read_text())  # type: ignore[operator] # has a folder
    assert (record["cluster"], record["job_id"]) == (cluster, job.job_id)
    assert job.paths.folder.is_dir()
    assert job.paths.folder.parent.parent.name == "logs"


@every_cluster
def test_a_job_can_be_looked_at_while_it_runs(infra: Infra, tmp_path: Path) -> None:
    task = Sleeper(gate=tmp_path / "gate", infra=infra)
    job = task.infra.job()
    wait_for(task.started().exists, "the job to start")
    assert task.infra.status() == "running"
    assert not job.done()
    assert not job.wait(0.05)
    assert job.state in ("RUNNING", "COMPLETING")
    wait_for(lambda: "started" in (job.stdout() or ""), "stdout")
    wait_for(lambda: "to stderr" in (job.stderr() or ""), "stderr")
    assert Sleeper(gate=tmp_path / "gate", infra=infra).infra.job().job_id == job.job_id, (
        "found, not sent again"
    )
    (tmp_path / "gate").touch()
    assert job.result() == 1
    assert task.infra.status() == "completed"


def test_a_result_that_cannot_be_written_is_the_error_of_the_job(tmp_path: Path) -> None:
    task = Limited(limit=20_000, infra=given({"cluster": "local", "folder": tmp_path}))
    with pytest.raises(CacheWriteError, match="was not stored"):
        task.build()
    assert (task.infra.status(), task.infra.job().state) == ("failed", "FAILED")


@every_cluster
def test_the_error_of_a_job_has_its_type_and_remote_traceback(infra: Infra) -> None:
    task = Failing(infra=infra)
    with pytest.raises(ValueError, match="the value is wrong") as caught:
        task.run()
    assert "task_models.py" in "\n".join(caught.value.__notes__)
    assert task.infra.status() == "failed"
    job = task.infra.job()
    assert isinstance(job.exception(), ValueError)
    assert "about to fail" in (job.stdout() or "")


@every_cluster
@pytest.mark.parametrize(("kind", "words"), [("kill", "SIGKILL|137"), ("exit", "17")])
def test_a_killed_job_is_failed_and_says_how_it_ended(infra: Infra, kind: str, words: str) -> None:
    task = Failing(kind=kind, infra=infra)
    with pytest.raises(JobError, match=words) as caught:
        task.run()
    job = task.infra.job()
    assert job.job_id in str(caught.value)
    assert "stderr" in str(caught.value)
    assert task.infra.status() == "failed"
    with pytest.raises(JobError, match=words):  # kept, also for others
        Failing(kind=kind, infra=infra).run()


@every_cluster
def test_a_job_killed_from_outside_is_seen_by_who_only_looks(infra: Infra, tmp_path: Path) -> None:
    task = Sleeper(gate=tmp_path / "gate", infra=infra)
    task.infra.job()
    wait_for(task.started().exists, "the job to start")
    looking = Sleeper(gate=tmp_path / "gate", infra=infra)
    assert looking.infra.status() == "running"
    os.kill(int(task.started().read_text()), 9)
    wait_for(lambda: looking.infra.status() == "failed", "the failure to be seen")
    with pytest.raises(JobError):
        looking.run()
    (tmp_path / "gate").touch()
    retried = Sleeper(gate=tmp_path / "gate", infra=given({**infra, "mode": "retry"}))
    assert retried.run() == 1
    assert looking.infra.status() == "completed"


@every_cluster
def test_a_cancelled_job_is_failed(infra: Infra, tmp_path: Path) -> None:
    task = Sleeper(gate=tmp_path / "gate", infra=infra)
    job = task.infra.job()
    wait_for(task.started().exists, "the job to start")
    job.cancel()
    wait_for(lambda: task.infra.status() == "failed", "the job to end")
    with pytest.raises(JobError, match=r"was cancelled"):
        job.result()


@every_cluster
def test_clear_job_cancels_what_runs(infra: Infra, tmp_path: Path) -> None:
    task = Sleeper(gate=tmp_path / "gate", infra=infra)
    task.infra.job()
    wait_for(task.started().exists, "the job to start")
    pid = int(task.started().read_text())
    task.infra.clear_job()
    assert task.infra.status() == "not submitted"
    wait_for(lambda: _ended(pid), "the process to end")


def _ended(pid: int) -> bool:
    try:
        return " Z " in Path(f"/proc/{pid}/stat").read_text().replace(")", " ")
    except OSError:
        return True


@every_cluster
def test_an_array_is_one_submission_of_what_is_missing(infra: Infra, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    task = Double(trace=trace, infra=infra)
    Double(x=1, trace=trace, infra=given({"folder": infra["folder"]})).compute()
    with task.infra.job_array(max_workers=2) as array:
        array.extend(task.infra.clone_obj(x=x) for x in range(4))
    ids = {t.infra.job().job_id.split("_")[0] for t in array if t.x != 1}
    assert len(ids) == 1
    assert [t.compute() for t in array] == [0, 2, 4, 6]
    assert len(trace.read_text().splitlines()) == 4
    assert {t.infra.status() for t in array} == {"completed"}


@every_cluster
def test_one_job_of_an_array_can_be_cancelled(infra: Infra, tmp_path: Path) -> None:
    task = Sleeper(gate=tmp_path / "gate", infra=infra)
    with task.infra.job_array() as array:
        array.extend(task.infra.clone_obj(x=x) for x in range(2))
    for one in array:
        wait_for(one.started().exists, "the jobs to start")
    array[0].infra.job().cancel()
    wait_for(lambda: array[0].infra.status() == "failed", "the cancelled job to end")
    assert array[1].infra.status() == "running"
    (tmp_path / "gate").touch()
    assert array[1].run() == 1


SCRIPT = """
import sys, time
sys.path.insert(0, {models!r})
from pathlib import Path
import pydantic, exca

class FromScript(pydantic.BaseModel):
    gate: Path
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        with open(f"{{self.gate}}.started", "a") as f:
            f.write("x")
        while not self.gate.exists():
            time.sleep(0.02)
        return 12

if __name__ == "__main__":
    task = FromScript(gate={gate!r}, infra=dict(folder={folder!r}, cluster={cluster!r}))
    print(task.infra.status(), flush=True)
    print(task.infra.job().job_id, flush=True)
    if {wait!r}:
        print(task.run(), flush=True)
"""


@every_cluster
def test_an_interpreter_that_starts_later_finds_the_running_job(cluster: str, slurm_folder: Path) -> None:
    """The class lives in ``__main__``; the submitting interpreter is gone when the result is asked for."""
    gate = slurm_folder / "gate"
    script = slurm_folder / "script.py"

    def run(wait: bool) -> "subprocess.Popen[str]":
        folder = str(slurm_folder / "cache")
        script.write_text(
            SCRIPT.format(
                models=str(Path(__file__).parent), gate=str(gate), folder=folder, cluster=cluster, wait=wait
            )
        )
        return subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)

    first, _ = run(wait=False).communicate(timeout=60)
    wait_for(Path(f"{gate}.started").exists, "the job to start")
    second = run(wait=True)
    assert second.stdout is not None
    assert second.stdout.readline() == "running\n"
    assert second.stdout.readline() == first.splitlines()[1] + "\n"
    gate.touch()
    out, _ = second.communicate(timeout=60)
    assert out == "12\n"
    assert Path(f"{gate}.started").read_text() == "x", "computed once"


@every_cluster
def test_classes_of_functions_can_be_sent(infra: Infra) -> None:
    class Inside(pydantic.BaseModel):
        x: int = 2
        infra: exca.TaskInfra = exca.TaskInfra()

        @infra.apply
        def f(self) -> int:
            return 5 * self.x

    assert Inside(x=3, infra=infra).f() == 15


@every_cluster
def test_an_object_that_does_not_pickle_is_told_before_anything_is_submitted(infra: Infra) -> None:
    class Locked(pydantic.BaseModel):
        infra: exca.TaskInfra = exca.TaskInfra()
        _lock: tp.Any = pydantic.PrivateAttr(default_factory=__import__("threading").Lock)

        @infra.apply
        def f(self) -> int:
            return 1

    task = Locked(infra=infra)
    with pytest.raises(SubmissionError, match=r"cannot send .*Locked.*lock"):
        task.f()
    assert task.infra.status() == "not submitted"


@every_cluster
def test_an_object_that_is_too_large_is_told(infra: Infra) -> None:
    task = Double(label="x" * 5000, infra=given({**infra, "max_pickle_size_gb": 1e-6}))
    with pytest.raises(SubmissionError, match="max_pickle_size_gb"):
        task.compute()
    with pytest.raises(RuntimeError, match="max_pickle_size_gb"):  # submitit's
        task.infra.executor().submit(len, "x" * 5000)


@every_cluster
def test_the_folder_of_a_task_links_to_the_logs_of_its_last_job(infra: Infra, tmp_path: Path) -> None:
    switch = tmp_path / "switch"
    logs = []
    for mode in ("cached", "retry"):
        task = Failing(switch=switch, infra=given({**infra, "mode": mode}))
        job = task.infra.job()
        with pytest.raises(ValueError, match="the value is wrong"):
            job.result()
        folder = task.infra.uid_folder()
        assert folder is not None
        link = folder / "submitit"
        assert not os.path.isabs(os.readlink(link))  # the cache may be moved
        assert link.resolve() == job.paths.folder.resolve()
        assert "about to fail" in (link / f"{job.job_id}_0_log.out").read_text()
        logs.append(os.readlink(link))
        assert not list(folder.glob("*.tmp"))
    assert len(set(logs)) == 2


@every_cluster
def test_logs_elsewhere_are_linked_by_their_path(infra: Infra, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "named").symlink_to("real")  # from which a relative link out of the cache would go astray
    infra = {**infra, "folder": tmp_path / "named" / "cache", "logs": tmp_path / "logs" / "%j"}
    task = Double(x=3, infra=infra)
    job = task.infra.job()
    assert job.result() == 6
    folder = task.infra.uid_folder()
    assert folder is not None
    link = folder / "submitit"
    assert os.readlink(link) == str(tmp_path / "logs" / job.job_id)
    assert job.paths.stdout.name in os.listdir(link)


@every_cluster
def test_a_job_can_submit_jobs(infra: Infra) -> None:
    class Outer(pydantic.BaseModel):
        inner: Double
        infra: exca.TaskInfra = exca.TaskInfra()

        @infra.apply
        def f(self) -> int:
            return self.inner.compute() + 1

    outer = Outer(inner=given({"x": 3, "infra": infra}), infra=infra)
    assert outer.f() == 7
    assert outer.inner.infra.status() == "completed"
    assert outer.inner.infra.job().job_id != outer.infra.job().job_id


@every_cluster
def test_code_edited_after_submission_does_not_reach_the_job(
    infra: Infra, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    code = """
import time
import typing as tp
from pathlib import Path
import exca, pydantic

class Edited(pydantic.BaseModel):
    gate: Path
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> tp.Any:
        while not self.gate.exists():
            time.sleep(0.02)
        import edited_later
        return edited_later.VALUE, edited_later.__file__
"""
    (source / "edited_main.py").write_text(code)
    (source / "edited_later.py").write_text("VALUE = 'old'\n")
    monkeypatch.chdir(source)
    monkeypatch.syspath_prepend(str(source))
    import edited_main  # type: ignore[import-not-found] # written above

    gate = tmp_path / "gate"
    task = edited_main.Edited(gate=gate, infra=given({**infra, "workdir": {"copied": ["."]}}))
    job = task.infra.job()
    (source / "edited_later.py").write_text("VALUE = 'new'\n")
    gate.touch()
    value, file = job.result()
    assert value == "old"
    link = task.infra.uid_folder() / "code"
    assert link.is_symlink()
    assert Path(file).resolve().parent == link.resolve()


# ------------------------------------------------------------------ local only


def test_several_processes_of_a_job_each_give_a_result(tmp_path: Path) -> None:
    class Ranks(pydantic.BaseModel):
        infra: exca.TaskInfra = exca.TaskInfra()

        @infra.apply
        def f(self) -> tuple[int, int]:
            import submitit

            env = submitit.JobEnvironment()
            return env.global_rank, env.num_tasks

    ranks = Ranks(infra=given({"folder": tmp_path, "cluster": "local", "tasks_per_node": 2}))
    assert ranks.f() == (0, 2)
    assert ranks.infra.job().results() == [(0, 2), (1, 2)]


def test_a_time_limit_ends_a_local_job(tmp_path: Path) -> None:
    from exca import _files
    from exca.jobs import paths

    job_paths = paths.JobPaths(str(tmp_path / "%j"), "one")
    job_paths.folder.mkdir()
    import cloudpickle

    job_paths.submitted_pickle.write_bytes(cloudpickle.dumps(lambda: time.sleep(60)))
    command = [sys.executable, "-m", "exca.jobs.worker", job_paths.pattern, "one", "0", "1", "1", "0.2"]
    command.append(_files.digest(job_paths.submitted_pickle.read_bytes()))
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 124
    assert "timeout_min" in done.stderr


def test_gpus_of_a_local_job_are_the_first_visible_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gpus(pydantic.BaseModel):
        infra: exca.TaskInfra = exca.TaskInfra()

        @infra.apply
        def f(self) -> str:
            return os.environ["CUDA_VISIBLE_DEVICES"]

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    infra: Infra = {"folder": tmp_path, "cluster": "local", "gpus_per_node": 2}
    assert Gpus(infra=infra).f() == "4,5"


def test_outside_of_a_job_there_is_no_rank() -> None:
    assert environment.current_job("logs")[1] == 0


# ------------------------------------------------------------------ Slurm only


class Environment(pydantic.BaseModel):
    """Returns what Slurm and the setup tell a job."""

    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def f(self) -> dict[str, str]:
        return dict(os.environ)


@pytest.mark.slurm
def test_resources_reach_the_scheduler(slurm_folder: Path) -> None:
    resources: Infra = {
        "job_name": "my-job",
        "timeout_min": 7,
        "cpus_per_task": 2,
        "gpus_per_node": 1,
        "mem_gb": 0.5,
        "slurm_partition": "debug",
        "slurm_constraint": "gpu",
        "slurm_account": "root",
        "slurm_additional_parameters": {"nice": 7},
        "slurm_setup": ["export EXCA_TEST_SETUP=done"],
    }
    task = Environment(infra=given({"cluster": "slurm", "folder": slurm_folder, **resources}))
    job = task.infra.job()
    shown = subprocess.run(
        ["scontrol", "show", "job", job.job_id], capture_output=True, text=True, check=True
    ).stdout
    for expected in (
        "JobName=my-job",
        "TimeLimit=00:07:00",
        "CPUs/Task=2",
        "Features=gpu",
        "Partition=debug",
        "Nice=7",
    ):
        assert expected in shown, shown
    assert "Account=root" in shown
    assert "512M" in shown
    assert "gpu:1" in shown or "gres/gpu=1" in shown
    out = job.result()
    assert out["EXCA_TEST_SETUP"] == "done"
    assert out["SLURM_CPUS_PER_TASK"] == "2"


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("notify", "expected"),
    [
        ("me@example.org", ["MailUser=me@example.org", "MailType=END,FAIL"]),
        (
            ["FAIL", "TIME_LIMIT_80", "me@example.org"],
            ["MailUser=me@example.org", "MailType=FAIL,TIME_LIMIT_80"],
        ),
        ("BEGIN", ["MailType=BEGIN"]),
    ],
)
def test_mail_options_reach_the_scheduler(slurm_folder: Path, notify: tp.Any, expected: list[str]) -> None:
    held: Infra = {"cluster": "slurm", "folder": slurm_folder, "slurm_additional_parameters": {"hold": True}}
    job = Environment(infra=given({**held, "notify": notify})).infra.job()
    command = ["scontrol", "show", "job", job.job_id]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert set(expected) <= set(shown), shown
    job.cancel()


@pytest.mark.parametrize(
    ("notify", "words"),
    [
        (
            "SOMETIMES",
            "notify holds 'SOMETIMES', which is neither an address nor an event of Slurm's: .*TIME_LIMIT",
        ),
        ("me@example.org,you@example.org", "at most one address"),
        (["me@example.org\n#SBATCH --uid=0"], "neither an address"),
        (
            ["a@example.org", "b@example.org"],
            "the addresses a@example.org and b@example.org: Slurm writes to one",
        ),
    ],
)
def test_mail_options_that_make_no_sense_are_told(notify: tp.Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        exca.TaskInfra(notify=notify)
    with pytest.raises(ValueError, match=words):
        exca.steps.backends.Slurm(notify=notify)


@pytest.mark.slurm
def test_the_name_of_a_job_tells_its_configuration(slurm_folder: Path) -> None:
    infra: Infra = {"cluster": "slurm", "folder": slurm_folder}
    single = Double(x=3, infra=infra)
    assert single.infra.executor()._executor.parameters["job_name"] == "Double.compute,1/x=3-3f9baebb"
    jobs = [single.infra.job()]
    with single.infra.job_array() as array:
        array.append(single.infra.clone_obj(x=4))
    with single.infra.job_array() as pair:
        pair.extend(single.infra.clone_obj(x=x) for x in (5, 6))
    jobs += [task.infra.job() for task in (*array, *pair)]
    names = []
    for job in jobs:
        command = ["scontrol", "show", "job", "-o", job.job_id]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        names.append(shown.partition("JobName=")[2].split()[0])
    of_array = "Double.compute,1"  # which one name has to do for
    assert names == ["Double.compute,1/x=3-3f9baebb", "Double.compute,1/x=4-5c75faa0", of_array, of_array]


@pytest.mark.slurm
def test_an_array_runs_at_most_max_workers_at_once(slurm_folder: Path) -> None:
    task = Environment(infra=given({"cluster": "slurm", "folder": slurm_folder}))
    with task.infra.job_array(max_workers=1) as array:
        array.extend(task.infra.clone_obj(x=x) for x in (1, 2))
    base = array[0].infra.job().job_id.split("_")[0]
    shown = subprocess.run(
        ["scontrol", "show", "job", base], capture_output=True, text=True, check=True
    ).stdout
    assert "ArrayTaskThrottle=1" in shown
    assert [t.f()["SLURM_ARRAY_TASK_ID"] for t in array] == ["0", "1"]


@pytest.mark.slurm
def test_a_refused_submission_says_so_and_leaves_nothing_claimed(slurm_folder: Path) -> None:
    infra: Infra = {"cluster": "slurm", "folder": slurm_folder, "slurm_partition": "nowhere"}
    task = Double(infra=infra)
    with pytest.raises(SubmissionError, match=r"nowhere|partition"):
        task.compute()
    assert task.infra.status() == "not submitted"


@pytest.mark.slurm
def test_scancel_of_a_pending_job_is_seen(slurm_folder: Path, tmp_path: Path) -> None:
    infra: Infra = {
        "cluster": "slurm",
        "folder": slurm_folder,
        "slurm_additional_parameters": {"begin": "now+1hour"},
    }
    task = Sleeper(gate=tmp_path / "gate", infra=infra)
    job = task.infra.job()
    assert job.state == "PENDING"
    subprocess.run(["scancel", job.job_id], check=True)
    with pytest.raises(JobError, match="CANCELLED"):
        task.run()


@pytest.mark.slurm
def test_auto_takes_slurm_where_it_answers(slurm_folder: Path) -> None:
    task = Double(infra=given({"cluster": "auto", "folder": slurm_folder}))
    assert task.infra.job().cluster == "slurm"
    assert task.compute() == 2


def test_auto_takes_local_where_there_is_no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    task = Double(infra=given({"cluster": "auto", "folder": tmp_path}))
    assert task.infra.job().cluster == "local"
    assert task.compute() == 2


@pytest.mark.slurm
def test_several_tasks_of_a_slurm_job_each_give_a_result(slurm_folder: Path) -> None:
    class Ranks(pydantic.BaseModel):
        infra: exca.TaskInfra = exca.TaskInfra()

        @infra.apply
        def f(self) -> int:
            return int(os.environ["SLURM_PROCID"])

    infra: Infra = {
        "cluster": "slurm",
        "folder": slurm_folder,
        "nodes": 2,
        "tasks_per_node": 2,
        "slurm_use_srun": True,
    }
    ranks = Ranks(infra=infra)
    assert ranks.f() == 0
    assert ranks.infra.job().results() == [0, 1, 2, 3]


# submitit's debug executor leaves its log files to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_debug_cluster_runs_in_this_process(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    task = Double(trace=trace, infra=given({"cluster": "debug", "folder": tmp_path}))
    assert task.compute() == 2
    assert trace.read_text().split()[1] == str(os.getpid())
    assert task.infra.status() == "completed"


DIES = """
import os
import exca.engine.runner
exca.engine.runner.transfer_to = lambda *args: os.kill(os.getpid(), 9)
from task_models import Sleeper
task = Sleeper(gate={gate!r}, infra=dict(folder={folder!r}, cluster={cluster!r}))
with task.infra.job_array() as array:
    array.extend(task.infra.clone_obj(x=x) for x in (1, 2))
"""


@every_cluster
def test_a_submitter_that_dies_before_it_says_which_job_it_is_is_succeeded(
    infra: Infra, tmp_path: Path, cluster: str
) -> None:
    gate, folder = str(tmp_path / "gate"), str(infra["folder"])
    program = DIES.format(gate=gate, folder=folder, cluster=cluster)
    done = elsewhere.run(program)
    assert done.returncode == -9
    tasks = [Sleeper(gate=tmp_path / "gate", x=x, infra=infra) for x in (1, 2)]
    for task in tasks:
        wait_for(task.started().exists, "the job to start")
    bases = {task.infra.job().job_id.partition("_")[0] for task in tasks}
    assert len(bases) == 1
    assert "" not in bases
    assert [task.infra.job().state for task in tasks] == ["RUNNING", "RUNNING"]
    (tmp_path / "gate").touch()
    assert [task.run() for task in tasks] == [1, 2]
    assert all(len(task.started().read_text().split()) == 1 for task in tasks), "computed once"


@pytest.mark.parametrize("asked", ["wait", "result", "done"])
def test_a_process_that_is_killed_leaves_no_outcome(tmp_path: Path, asked: str) -> None:
    """The caller that waits for it computes."""
    fields = {
        "file": tmp_path / "computed",
        "gate": tmp_path / "gate",
        "infra": {"folder": tmp_path / "cache"},
    }
    obj = searched.Task.model_validate(fields)
    code = f"import searched; from pathlib import PosixPath; searched.Task.model_validate({fields!r}).run()"
    environment = {**os.environ, "PYTHONPATH": str(Path(searched.__file__).parent)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as other:
        wait_for((tmp_path / "computed").exists, "the other process")
        job = obj.infra.job()
        assert not job.done()
        other.kill()
    (tmp_path / "gate").touch()
    if asked == "done":
        wait_for(job.done)
        assert obj.infra.status() == "not submitted"
        return
    if asked == "wait":
        assert job.wait()
        assert obj.infra.status() == "completed"
    assert job.result()["text"] == "x"
    assert obj.infra.status() == "completed"
