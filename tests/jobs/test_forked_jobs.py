"""Tasks of cluster="local" that are forked: each is as good as an interpreter of its own, and there are none."""

import sys
import typing as tp
from pathlib import Path

import psutil
import pytest

import elsewhere
from exca.claims.heartbeat_process import BEAT_DIGITS, BEAT_OFFSET
from exca.errors import JobError, SubmissionError
from exca.jobs import backends, entry, environment, limits, local
from forked_models import Ending, Greedy, Observer, Threads
from task_models import Double, Failing, HalvesOrCalls, Sleeper, given
from waiting import wait_for

Infra: tp.TypeAlias = tp.Any  # a dict, which becomes an infra at run time
BEAT_END = BEAT_OFFSET + BEAT_DIGITS
linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no process is forked")
BOTH = pytest.mark.parametrize("how", [pytest.param("fork", marks=linux), "spawn"])


@pytest.fixture
def infra(tmp_path: Path) -> Infra:
    return {"cluster": "local", "folder": tmp_path / "cache"}


def array(task: tp.Any, count: int, **options: tp.Any) -> list[tp.Any]:
    with task.infra.job_array(**options) as tasks:
        tasks.extend(task.infra.clone_obj(x=x) for x in range(count))
    return list(tasks)


def programs(place: Path) -> dict[int, list[str]]:
    """Command lines of all processes that exca started for a folder, by pid."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "exca.jobs.worker" in words and str(place) in " ".join(words):
            found[process.pid] = words
    return found


# ---------------------------------------------------------------- as good as an interpreter of its own


@linux
@pytest.mark.parametrize("many", [False, True])
def test_a_forked_task_finds_what_a_spawned_one_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "ignore::ResourceWarning")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.chdir(tmp_path)
    seen = {}
    for how in ("fork", "spawn"):
        monkeypatch.setenv("EXCA_LOCAL", how)
        task = Observer(infra=given({"cluster": "local", "folder": tmp_path / how, "gpus_per_node": 1}))
        seen[how] = [one.run() for one in array(task, 2)] if many else [task.run()]
        for found in seen[how]:
            assert found.pop("is a fork") == (how == "fork")
            assert found["environment"].pop("EXCA_LOCAL") == how
            assert found["environment"]["CUDA_VISIBLE_DEVICES"] == "2"
            found["environment"].pop("SUBMITIT_FOLDER")
    for forked, spawned in zip(seen["fork"], seen["spawn"], strict=True):
        assert forked == spawned


@BOTH
def test_each_task_draws_numbers_of_its_own(infra: Infra, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    pytest.importorskip("torch")
    import torch_drawer

    monkeypatch.setenv("EXCA_LOCAL", how)
    drawn = [task.run() for task in array(torch_drawer.TorchDrawer(infra=infra), 3)]
    for name in ("random", "numpy", "torch", "module"):
        assert len({one[name] for one in drawn}) == 3, name


@BOTH
def test_what_a_task_leaves_to_the_end_is_done(
    tmp_path: Path, infra: Infra, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("EXCA_LOCAL", how)
    task = Ending(place=tmp_path, infra=infra)
    assert task.run() == 1
    job = task.infra.job()
    wait_for(lambda: backends.get("local").alive(job.submission) is False, "the process to end")
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == sorted(
        ("left-open", "atexit", "thread", "finalized")
    )
    assert (tmp_path / "left-open").read_text() == "whole"
    assert "printed, not flushed" in (job.stdout() or "")
    assert "to stderr" in (job.stderr() or "")


@BOTH
@pytest.mark.parametrize(
    ("kind", "said"),
    [("kill", "SIGKILL"), ("exit", "exit code 17"), ("ValueError", "the value is wrong")],
)
def test_the_end_of_a_task_is_told(
    infra: Infra, monkeypatch: pytest.MonkeyPatch, how: str, kind: str, said: str
) -> None:
    monkeypatch.setenv("EXCA_LOCAL", how)
    task = Failing(kind=kind, infra=infra)
    with pytest.raises((JobError, ValueError), match=said):
        task.run()
    assert "about to fail" in (task.infra.job().stdout() or "about to fail")


@BOTH
def test_maps_submitted_calls_and_ranks(infra: Infra, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setenv("EXCA_LOCAL", how)
    both = HalvesOrCalls(infra=infra | {"max_jobs": 2, "min_samples_per_job": 1}, calls=infra)
    assert list(both.process(range(4))) == [0, 0.5, 1, 1.5]
    assert both.half(3) == 1.5


def test_a_mode_that_is_not_known_is_refused(infra: Infra, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXCA_LOCAL", "threads")
    task = Double(infra=infra)
    with pytest.raises(SubmissionError, match="EXCA_LOCAL='threads' is neither 'fork'"):
        task.compute()
    assert task.infra.status() == "not submitted"


# ---------------------------------------------------------------- how many processes


@linux
def test_one_interpreter_serves_an_array(tmp_path: Path, infra: Infra) -> None:
    tasks = array(Sleeper(gate=tmp_path / "gate", infra=infra), 2)
    wait_for(lambda: all(task.started().exists() for task in tasks), "both to start")
    supervisor = tasks[0].infra.job().submission.pid
    assert supervisor is not None
    found = programs(tmp_path)
    assert {tuple(words) for words in found.values()} == {tuple(found[supervisor])}, (
        "all others were forked from it"
    )
    started = {int(task.started().read_text()) for task in tasks}
    assert started < set(found)
    children = psutil.Process(supervisor).children(recursive=True)
    assert not any("heartbeat_process" in " ".join(child.cmdline()) for child in children)
    (tmp_path / "gate").touch()
    assert [task.run() for task in tasks] == [0, 1]
    wait_for(lambda: not programs(tmp_path), "all of them to end")


@linux
def test_the_claim_of_a_forked_task_has_beats(
    tmp_path: Path, infra: Infra, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXCA_HEARTBEAT", "0.1")
    task = Sleeper(gate=tmp_path / "gate", infra=infra)
    job = task.infra.job()
    wait_for(task.started().exists, "the task to start")
    pid = int(task.started().read_text())
    supervisor = job.submission.pid
    assert supervisor is not None

    def beats() -> bool:
        first = beat(task)
        wait_for(lambda: beat(task) != first, "a beat")
        return True

    assert beats()
    psutil.Process(pid).suspend()  # a stopped one lives
    assert beats()
    psutil.Process(pid).resume()
    psutil.Process(supervisor).kill()
    assert beats()
    (tmp_path / "gate").touch()
    assert task.run() == 1


def beat(task: Sleeper) -> bytes:
    (claim,) = [p for p in Path(str(task.infra.uid_folder())).iterdir() if p.suffix == ".claim"]
    return claim.read_bytes()[:BEAT_END]


@linux
def test_a_heartbeat_process_that_is_killed_ends_no_task(tmp_path: Path, infra: Infra) -> None:
    task = Sleeper(gate=tmp_path / "gate", infra=infra)
    job = task.infra.job()
    wait_for(task.started().exists, "the task to start")
    assert job.submission.pid is not None
    children = psutil.Process(job.submission.pid).children()
    (heart,) = [child for child in children if child.pid != int(task.started().read_text())]
    heart.kill()
    (tmp_path / "gate").touch()
    assert task.run() == 1
    assert job.state == "COMPLETED"


# ---------------------------------------------------------------- where it is not safe


STARTS_A_THREAD = """
import threading, time
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
"""


@linux
def test_a_module_that_starts_threads_is_imported_in_the_task(tmp_path: Path) -> None:
    (tmp_path / "threads_at_import.py").write_text(STARTS_A_THREAD)
    assert run_module(tmp_path, "import threads_at_import") == "['MainThread', 'Thread-1 (sleep)'] forked"


@linux
def test_an_installed_package_that_starts_threads_is_not_forked_with(installed: Path, tmp_path: Path) -> None:
    (installed / "threads_at_import.py").write_text(STARTS_A_THREAD)
    found = run_module(tmp_path, "import threads_at_import", PYTHONPATH=str(installed))
    assert found == "['MainThread', 'Thread-1 (sleep)'] spawned"


@linux
def test_an_installed_package_that_cannot_be_imported_by_itself(installed: Path, tmp_path: Path) -> None:
    (installed / "never_first.py").write_text("import sys\nsys.modules['its_module']")
    found = run_module(tmp_path, "import never_first", PYTHONPATH=str(installed))
    assert found == "['MainThread'] spawned"


@linux
def test_a_package_that_jobs_do_not_find_is_left_to_them(installed: Path, tmp_path: Path) -> None:
    (installed / "found_by_itself.py").touch()
    code = f"sys.path.append({str(installed)!r}); import found_by_itself"
    assert run_module(tmp_path, code) == "['MainThread'] forked"


@linux
def test_with_a_gpu_in_use_no_process_is_forked(installed: Path, tmp_path: Path) -> None:
    device = Path("/dev/nvidia-of-a-test-of-exca")
    try:
        device.touch()
    except OSError:
        pytest.skip("only root can make a device")
    try:
        (installed / "uses_gpu.py").write_text(f"HANDLE = open({str(device)!r})")
        assert run_module(tmp_path, "import uses_gpu", PYTHONPATH=str(installed)).endswith("spawned")
    finally:
        device.unlink()


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder whose modules count as installed."""
    place = tmp_path / "site-packages"
    place.mkdir()
    return place


MODULE = """
import os, sys, threading
{first}
import pydantic
import exca
class Model(pydantic.BaseModel):
    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()
    @infra.apply
    def run(self) -> str:
        own = open("/proc/self/cmdline").read()
        return str(sorted(t.name for t in threading.enumerate())) + (" forked" if "forks" in own else " spawned")
"""


def run_module(place: Path, first: str, **env: str) -> str:
    """Return what a task of a new module finds, which begins with some statements."""
    (place / "its_module.py").write_text(MODULE.format(first=first))
    program = f"""
sys.path.insert(0, {str(place)!r})
import its_module
print(its_module.Model(infra=dict(cluster="local", folder={str(place / "cache")!r})).run())
"""
    return elsewhere.printed(program, **env)


# ---------------------------------------------------------------- limits


def test_threads_follow_the_cpus_asked_for(infra: Infra, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment.THREADS:
        monkeypatch.delenv(name, raising=False)
    assert Threads(infra=infra | {"cpus_per_task": 3}).run() == dict.fromkeys(environment.THREADS, "3")
    assert Threads(x=2, infra=infra).run() == {}
    monkeypatch.setenv("MKL_NUM_THREADS", "2")
    own = {**dict.fromkeys(environment.THREADS, "3"), "MKL_NUM_THREADS": "2"}
    assert Threads(x=3, infra=infra | {"cpus_per_task": 3}).run() == own
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # by which the others go
    own = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "2"}
    assert Threads(x=4, infra=infra | {"cpus_per_task": 3}).run() == own


@BOTH
def test_a_job_beyond_its_memory_is_ended_and_the_others_go_on(
    tmp_path: Path, infra: Infra, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("EXCA_LOCAL", how)
    base = Greedy(place=tmp_path, infra=infra | {"mem_gb": 0.5})
    with base.infra.job_array() as tasks:
        tasks.extend([base.infra.clone_obj(mib=700), base.infra.clone_obj(x=2)])
    greedy, modest = tasks
    with pytest.raises(JobError, match="raise mem_gb") as caught:
        greedy.run()
    assert "more than its limit of 0.5 GiB" in str(caught.value)
    assert greedy.infra.job().state == "OUT_OF_MEMORY"
    wait_for((tmp_path / "holds-2").exists, "the other to hold its memory")
    (tmp_path / "gate").touch()
    assert modest.run() == 50
    assert "limit" not in (modest.infra.job().stderr() or "")


@linux
def test_memory_close_to_its_limit_is_told_once(tmp_path: Path, infra: Infra) -> None:
    task = Greedy(place=tmp_path, mib=890, infra=infra | {"mem_gb": 1})
    job = task.infra.job()
    wait_for(lambda: "close to its limit of 1 GiB" in (job.stderr() or ""), "the warning")
    (tmp_path / "gate").touch()
    assert task.run() == 890
    assert (job.stderr() or "").count("close to its limit") == 1


@linux
def test_memory_that_processes_share_counts_once(tmp_path: Path, infra: Infra) -> None:
    task = Greedy(place=tmp_path, mib=300, children=3, infra=infra | {"mem_gb": 1})
    job = task.infra.job()
    wait_for((tmp_path / "holds-1").exists, "it to hold its memory")
    (pid,) = [child.pid for child in psutil.Process(job.submission.pid).children() if child.children()]
    assert len(limits.tree([pid])) == 4
    assert 300 << 20 <= limits.resident([pid], 1 << 20) < 600 << 20
    assert limits.resident([pid], 1 << 40) > 900 << 20, "a sum is enough where it is far from the limit"
    (tmp_path / "gate").touch()
    assert task.run() == 300


@BOTH
def test_a_time_limit_ends_the_whole_tree(
    tmp_path: Path, infra: Infra, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("EXCA_LOCAL", how)
    monkeypatch.setattr(local, "_MINUTE", 3)
    task = Greedy(place=tmp_path, mib=1, children=2, infra=infra | {"timeout_min": 1})
    with pytest.raises(JobError, match="raise timeout_min"):
        task.run()
    assert task.infra.job().state == "TIMEOUT"
    began = entry.noted_process(task.infra.job().paths.folder / entry.BEGAN)
    assert began is not None
    wait_for(lambda: not limits.tree([began.pid]), "its children to end")


@linux
def test_how_a_task_ended_is_told_though_its_supervisor_is_stopped(tmp_path: Path, infra: Infra) -> None:
    task = Sleeper(gate=tmp_path / "gate", infra=infra)
    job = task.infra.job()
    wait_for(task.started().exists, "the task to start")
    assert job.submission.pid is not None
    supervisor = psutil.Process(job.submission.pid)
    supervisor.suspend()
    psutil.Process(int(task.started().read_text())).kill()
    assert job.exception() is not None
    assert job.state == "FAILED"
    supervisor.resume()
