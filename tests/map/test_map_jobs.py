"""Maps in threads, processes and jobs: the same tests for each place, Slurm among them."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import typing as tp
from collections.abc import Iterable, Iterator
from pathlib import Path

import pydantic
import pytest

import exca
from exca.claims import Claims
from exca.errors import JobError, ResultError, SubmissionError
from exca.jobs import pools
from map_models import Counted, Halves, Heavy, Infra, Odd, OwnError, computed, halves
from waiting import wait_for

SLURM = pytest.param("slurm", marks=pytest.mark.slurm)
every_cluster = pytest.mark.parametrize("cluster", ["threadpool", "processpool", "debug", "local", SLURM])
other_processes = pytest.mark.parametrize("cluster", ["processpool", "local", SLURM])
every_scheduler = pytest.mark.parametrize("cluster", ["local", SLURM])


@pytest.fixture
def infra(cluster: str, slurm_folder: Path) -> Infra:
    return {"cluster": cluster, "folder": slurm_folder / "cache", "max_jobs": 2}


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace"


@every_cluster
@pytest.mark.parametrize("keep_in_ram", [True, False])
def test_each_missing_item_is_computed_once_elsewhere(
    infra: Infra, cluster: str, trace: Path, keep_in_ram: bool
) -> None:
    infra["keep_in_ram"] = keep_in_ram
    halves({"folder": infra["folder"]}, trace=trace)
    list(halves({"folder": infra["folder"]}, trace=trace).process([2]))
    obj = halves(infra, trace=trace)
    assert list(obj.process(iter([4, 1, 4, 2, 3]))) == [2.0, 0.5, 2.0, 1.0, 1.5]
    assert computed(trace) == [1, 2, 3, 4]
    elsewhere = {line.split()[1] for line in trace.read_text().splitlines()[1:]} - {str(os.getpid())}
    assert bool(elsewhere) == (cluster in ("processpool", "local", "slurm"))
    assert list(obj.process([1, 2])) == [0.5, 1.0]
    assert not Claims(obj.infra.uid_folder() or "").holders()
    assert list(halves({"folder": infra["folder"], "mode": "read-only"}).process([4])) == [2.0]


@pytest.mark.parametrize("cluster", ["threadpool", "processpool"])
@pytest.mark.parametrize("keep_in_ram", [True, False])
def test_pools_need_no_folder(cluster: str, keep_in_ram: bool, trace: Path) -> None:
    infra: Infra = {"cluster": cluster, "keep_in_ram": keep_in_ram}
    obj = halves(infra, trace=trace, fail_at=3)
    with pytest.raises(ValueError, match="cannot halve 3") as caught:
        obj.process([1, 2, 3])
    assert "at item '3'" in "".join(caught.value.__notes__)
    assert list(obj.process([1, 2, 1])) == [0.5, 1.0, 0.5]
    assert computed(trace) == ([1, 2] if keep_in_ram else [1, 1, 2, 2])


@every_cluster
def test_an_error_elsewhere_names_its_item_and_keeps_what_was_done(infra: Infra, trace: Path) -> None:
    obj = halves({**infra, "max_jobs": 1}, trace=trace, fail_at=3)
    with pytest.raises(ValueError, match="cannot halve 3") as caught:
        obj.process([1, 2, 3, 4])
    assert "Halves.process at item '3': 2 of 4 were done before it and are kept" in "".join(
        caught.value.__notes__
    )
    assert list(halves(infra, trace=trace).process([1, 2, 3, 4])) == [0.5, 1.0, 1.5, 2.0]
    assert computed(trace) == [1, 2, 3, 4]


@every_cluster
def test_other_shares_go_on_when_one_fails(infra: Infra, trace: Path) -> None:
    with pytest.raises(ValueError, match="cannot halve 1"):
        halves(infra, trace=trace, fail_at=1).process([1, 2, 3, 4])
    assert computed(trace) == [3, 4]


class Locks(pydantic.BaseModel):
    infra: exca.MapInfra = exca.MapInfra(cluster="processpool")

    @infra.apply(item_uid=str)
    def process(self, items: Iterable[int]) -> Iterator[tp.Any]:
        for _ in items:
            yield threading.Lock()


def test_results_that_cannot_be_sent_back_from_a_pool_are_an_error() -> None:
    with pytest.raises(
        ResultError, match="results of the items from '1' on cannot be sent back from a process"
    ):
        list(Locks().process([1]))


def test_a_failed_share_is_logged(tmp_path: Path, trace: Path, caplog: pytest.LogCaptureFixture) -> None:
    infra = {"cluster": "local", "folder": tmp_path / "cache", "max_jobs": 1}
    with caplog.at_level("WARNING", "exca"), pytest.raises(ValueError, match="3"):
        halves(infra, trace=trace, fail_at=3).process([1, 2, 3])
    [line] = [message for message in caplog.messages if " failed: " in message]
    assert re.match(r"[Ll]ocal job \S+.* failed: .*3", line)


@other_processes
def test_an_error_with_a_constructor_of_its_own_arrives_with_its_type(infra: Infra) -> None:
    with pytest.raises(OwnError, match=r"^number 1: own constructor") as caught:
        halves(infra, fail_at=1, how="own").process([1])
    assert "map_models.py" in "".join(caught.value.__notes__), "with the remote traceback"


@every_cluster
def test_a_wrong_number_of_outputs_elsewhere_is_an_error(infra: Infra) -> None:
    obj = Odd.model_validate({"outputs": 2, "infra": {**infra, "max_jobs": 1}})
    with pytest.raises(RuntimeError, match=r"only 2 output\(s\) for 3 items"):
        obj.process([1, 2, 3])
    assert len(obj.infra.cache_dict) == 0


@every_cluster
@pytest.mark.parametrize("keep_in_ram", [True, False])
def test_force_serves_nothing_that_was_read_a_moment_before(
    infra: Infra, tmp_path: Path, keep_in_ram: bool
) -> None:
    """Entries that are all in memory are compared with the folder now and then only."""
    source = tmp_path / "source"

    class Reads(pydantic.BaseModel):
        infra: exca.MapInfra = exca.MapInfra()

        @infra.apply(item_uid=str)
        def process(self, items: Iterable[int]) -> Iterator[str]:
            for item in items:
                yield f"{source.read_text()} {item}"

    source.write_text("old")
    assert list(Reads.model_validate({"infra": infra}).process([1, 2])) == ["old 1", "old 2"]
    source.write_text("new")
    forced = Reads.model_validate({"infra": {**infra, "mode": "force", "keep_in_ram": keep_in_ram}})
    index = forced.infra.cache_dict._index
    index.asked(1000)
    assert index.in_memory is not None
    index.in_memory.until += 1000
    assert list(forced.process([1, 2])) == ["new 1", "new 2"]


@every_cluster
def test_force_computes_again_and_serves_nothing_old(infra: Infra, trace: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"

    class Reads(pydantic.BaseModel):
        infra: exca.MapInfra = exca.MapInfra()

        @infra.apply(item_uid=str)
        def process(self, items: Iterable[int]) -> Iterator[str]:
            for item in items:
                with open(trace, "a") as f:
                    f.write(f"{item}\n")
                yield f"{source.read_text()} {item}"

    source.write_text("old")
    obj = Reads.model_validate({"infra": infra})
    assert list(obj.process([1, 2])) == ["old 1", "old 2"]
    source.write_text("new")
    forced = Reads.model_validate({"infra": {**infra, "mode": "force"}})
    assert len(forced.infra.cache_dict) == 2
    assert forced.infra.cache_dict["1"] == "old 1"  # in memory from now on
    for _ in range(2):
        assert list(forced.process([1])) == ["new 1"]
    assert list(forced.process([2, 1])) == ["new 2", "new 1"]
    assert list(Reads.model_validate({"infra": infra}).process([1, 2])) == ["new 1", "new 2"]
    assert computed(trace) == [1, 1, 2, 2]


@every_cluster
def test_under_force_a_share_that_was_done_is_not_done_again(infra: Infra, trace: Path) -> None:
    obj = halves({**infra, "mode": "force"}, trace=trace, fail_at=3)
    for _ in range(2):
        with pytest.raises(ValueError, match="cannot halve 3"):
            obj.process([1, 2, 3])
    assert computed(trace) == [1, 2]


@every_cluster
def test_classes_of_functions_go_anywhere(infra: Infra) -> None:
    class Inside(pydantic.BaseModel):
        infra: exca.MapInfra = exca.MapInfra()

        @infra.apply(item_uid=lambda item: f"item {item.x}")
        def process(self, items: Iterable[tp.Any]) -> Iterator[tp.Any]:
            for item in items:
                yield Item(3 * item.x)

    class Item:
        def __init__(self, x: int) -> None:
            self.x = x

    obj = Inside.model_validate({"infra": infra})
    assert [item.x for item in obj.process([Item(1), Item(2)])] == [3, 6]
    assert sorted(obj.infra.cache_dict) == ["item 1", "item 2"]
    if infra["cluster"] in ("threadpool", "processpool"):
        nowhere = Inside.model_validate({"infra": {**infra, "folder": None}})
        assert [item.x for item in nowhere.process([Item(1), Item(2)])] == [3, 6]


SCRIPT = """
import sys, time
from pathlib import Path
import pydantic, exca

class FromScript(pydantic.BaseModel):
    gate: Path
    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def process(self, items):
        for item in items:
            with open({trace!r}, "a") as f:
                f.write(f"{{item}} x\\n")
            while not self.gate.exists():
                time.sleep(0.02)
            yield Result(item)

class Result:
    def __init__(self, item):
        self.item = item

print("running", flush=True)
obj = FromScript(gate={gate!r}, infra=dict(folder={folder!r}, cluster={cluster!r}, max_jobs=2))
print([result.item for result in obj.process([1, 2, 3])], flush=True)
"""


def run_script(folder: Path, cluster: str | None, trace: Path, **changes: tp.Any) -> "subprocess.Popen[str]":
    script = folder / "script.py"
    values = {"gate": str(folder / "gate"), "folder": str(folder / "cache"), "trace": str(trace)}
    # Made aside and renamed: another interpreter may be about to read the script of the same name.
    draft = folder / "script.draft"
    draft.write_text(SCRIPT.format(**{**values, **changes}, cluster=cluster))
    draft.replace(script)
    return subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("cluster", [None, "threadpool", "processpool", "debug", "local", SLURM])
def test_a_script_needs_no_guard_and_runs_once(slurm_folder: Path, cluster: str | None, trace: Path) -> None:
    """Classes of ``__main__`` go anywhere, and no process runs the script again."""
    (slurm_folder / "gate").touch()
    out, err = run_script(slurm_folder, cluster, trace).communicate(timeout=60)
    assert out == "running\n[1, 2, 3]\n", err
    assert computed(trace) == [1, 2, 3]


def test_a_process_pool_without_folder_takes_classes_of_a_script(tmp_path: Path, trace: Path) -> None:
    (tmp_path / "gate").touch()
    text = SCRIPT.replace("folder={folder!r}, ", "")
    (tmp_path / "script.py").write_text(
        text.format(gate=str(tmp_path / "gate"), trace=str(trace), cluster="processpool")
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "running\n[1, 2, 3]\n", done.stderr


# ------------------------------------------------------------------ cut into shares


@every_scheduler
def test_items_are_cut_by_max_jobs_and_min_samples_per_job(infra: Infra, trace: Path) -> None:
    obj = halves({**infra, "max_jobs": 3, "min_samples_per_job": 4}, trace=trace)
    assert list(obj.process(range(9))) == [item / 2 for item in range(9)]
    assert len({line.split()[1] for line in trace.read_text().splitlines()}) == 2, (
        "9 items make 2 shares of 4"
    )
    assert list(obj.process(range(9, 22))) == [item / 2 for item in range(9, 22)]
    assert len({line.split()[1] for line in trace.read_text().splitlines()[9:]}) == 3
    logs = [p for p in (obj.infra._logs_folder().parent).iterdir() if p.is_dir() and p.name[0] != "."]
    assert len({p.name.split("_")[0] for p in logs}) == 2, "one array a call"


def test_no_limit_on_jobs_is_one_job_an_item(tmp_path: Path, trace: Path) -> None:
    obj = halves({"cluster": "local", "folder": tmp_path / "cache", "max_jobs": None}, trace=trace)
    assert list(obj.process([1, 2, 3])) == [0.5, 1.0, 1.5]
    assert len({line.split()[1] for line in trace.read_text().splitlines()}) == 3


def test_pools_have_as_many_workers_as_make_sense() -> None:
    cpus = os.cpu_count() or 1
    assert pools.worker_count("processpool", None) == cpus
    assert pools.worker_count("processpool", 1) == 1
    assert pools.worker_count("threadpool", 1000) == 4 * cpus


@pytest.mark.slurm
def test_auto_goes_to_slurm_where_it_answers(slurm_folder: Path) -> None:
    obj = halves({"cluster": "auto", "folder": slurm_folder, "max_jobs": 1})
    assert list(obj.process([1, 2])) == [0.5, 1.0]
    assert next(obj.infra._logs_folder().parent.glob("*/*_submission.sh")).exists()


@every_scheduler
def test_an_object_is_pickled_once_a_submission(infra: Infra, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    obj = Heavy.model_validate({"infra": {**infra, "max_jobs": 4}})
    obj._large = Counted(counter)
    assert list(obj.process(range(8))) == [True] * 8
    assert counter.read_text() == "x"
    assert not list(obj.infra._logs_folder().parent.glob("*.shared.pkl")), "removed once all jobs ended"


@other_processes
def test_an_object_that_does_not_pickle_is_told_before_anything_is_submitted(infra: Infra) -> None:
    import threading

    class Locked(pydantic.BaseModel):
        infra: exca.MapInfra = exca.MapInfra()
        _lock: tp.Any = pydantic.PrivateAttr(default_factory=threading.Lock)

        @infra.apply(item_uid=str)
        def process(self, items: Iterable[int]) -> Iterator[int]:
            yield from items

    obj = Locked.model_validate({"infra": infra})
    with pytest.raises(SubmissionError, match=r"cannot send .*lock"):
        obj.process([1, 2])
    assert not Claims(obj.infra.uid_folder() or "").holders()


@other_processes
def test_an_item_that_does_not_pickle_is_told(infra: Infra) -> None:
    class Kept:
        def __str__(self) -> str:  # what tells items apart
            return "kept"

        def __reduce__(self) -> str:
            raise TypeError("cannot pickle this item")

    items: list[tp.Any] = [1, Kept()]
    obj = halves(infra)
    with pytest.raises(SubmissionError, match=r"cannot send .* item\(s\).*cannot pickle this item"):
        obj.process(items)
    assert not Claims(obj.infra.uid_folder() or "").holders()


@every_scheduler
def test_a_code_folder_is_made_once_a_submission(
    infra: Infra, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "something.py").touch()
    monkeypatch.chdir(tmp_path / "source")
    obj = halves({**infra, "workdir": {"copied": ["."]}})
    assert list(obj.process([1, 2, 3])) == [0.5, 1.0, 1.5]
    folder = obj.infra.uid_folder()
    assert folder is not None
    assert len(list((folder.parent / "code").iterdir())) == 1
    assert (folder / "code" / "something.py").exists()


# ------------------------------------------------------------------ killed


@every_scheduler
def test_a_killed_job_is_told_and_what_it_computed_is_kept(
    infra: Infra, cluster: str, tmp_path: Path, trace: Path
) -> None:
    obj = halves({**infra, "max_jobs": 1}, trace=trace, fail_at=3, how="kill")
    words = {"local": "SIGKILL", "slurm": "Slurm says .*(0:9|137)"}[cluster]
    with pytest.raises(JobError, match=rf"(?s){words}.*last words") as caught:
        obj.process([1, 2, 3, 4])
    assert "4 item(s), from '1' to '4'" in "".join(caught.value.__notes__)
    assert list(halves(infra, trace=trace).process([1, 2, 3, 4])) == [0.5, 1.0, 1.5, 2.0]
    assert computed(trace)[-2:] == [3, 4]
    assert len(computed(trace)) <= 6, "what was not yet flushed may be lost"


def test_a_killed_process_of_a_pool_is_told(tmp_path: Path) -> None:
    infra: Infra = {"folder": tmp_path, "cluster": "processpool"}
    with pytest.raises(JobError, match="was killed"):
        halves(infra, fail_at=1, how="kill").process([1, 2, 3, 4])
    assert list(halves(infra).process([1, 2, 3, 4])) == [0.5, 1.0, 1.5, 2.0]


def in_queue(job_id: str) -> str:
    command = ["squeue", "--noheader", "--jobs", job_id]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout


@every_scheduler
def test_a_job_killed_from_outside_leaves_what_it_computed(
    infra: Infra, cluster: str, slurm_folder: Path, trace: Path
) -> None:
    """A whole script waits for two jobs; one of them is ended from outside, then the script is asked again."""
    first = run_script(slurm_folder, cluster, trace)
    lines = wait_for(lambda: len(computed(trace)) == 2 and computed(trace), "both jobs to start")
    logs = slurm_folder / "cache" / "__main__.FromScript.process,0" / "logs"
    job = next(p for p in logs.glob("*/*_1") if p.is_dir())
    if cluster == "slurm":
        subprocess.run(["scancel", job.name], check=True, timeout=60)
        wait_for(lambda: not in_queue(job.name), "the job to end")
    else:
        os.kill(json.loads((job / "pid").read_text())["pid"], signal.SIGKILL)
    (slurm_folder / "gate").touch()
    _, err = first.communicate(timeout=60)
    assert first.returncode == 1
    assert "JobError" in err
    assert job.name in err
    out, _ = run_script(slurm_folder, cluster, trace).communicate(timeout=60)
    assert out == "running\n[1, 2, 3]\n"
    assert lines == [1, 3]
    assert computed(trace) == [1, 2, 3, 3], "only the share of the killed job is computed again"


@every_scheduler
def test_when_the_submitting_interpreter_dies_a_later_one_waits_for_its_jobs(
    infra: Infra, cluster: str, slurm_folder: Path, trace: Path
) -> None:
    first = run_script(slurm_folder, cluster, trace)
    wait_for(lambda: len(computed(trace)) == 2, "both jobs to start")
    first.kill()
    first.communicate(timeout=60)
    later = [run_script(slurm_folder, cluster, trace) for _ in range(2)]
    for process in later:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
    (slurm_folder / "gate").touch()
    assert [process.communicate(timeout=60)[0] for process in later] == ["[1, 2, 3]\n"] * 2
    assert computed(trace) == [1, 2, 3]


def test_processes_of_a_pool_end_with_their_parent(tmp_path: Path, trace: Path) -> None:
    import psutil

    first = run_script(tmp_path, "processpool", trace)
    wait_for(lambda: len(computed(trace)) == 2, "both processes to start")
    children = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.communicate(timeout=60)
    wait_for(lambda: all(not c.is_running() or c.status() == "zombie" for c in children), "them to end")
    (tmp_path / "gate").touch()
    assert run_script(tmp_path, "processpool", trace).communicate(timeout=60)[0] == "running\n[1, 2, 3]\n"


@pytest.mark.parametrize("cluster", [None, "threadpool", "processpool", "local", SLURM])
def test_scripts_that_ask_for_the_same_items_compute_each_once(
    slurm_folder: Path, cluster: str | None, trace: Path
) -> None:
    scripts = [run_script(slurm_folder, cluster, trace) for _ in range(3)]
    wait_for(lambda: computed(trace), "one to start")
    (slurm_folder / "gate").touch()
    for script in scripts:
        out, err = script.communicate(timeout=60)
        assert out == "running\n[1, 2, 3]\n", err
    assert computed(trace) == [1, 2, 3]


@every_scheduler
def test_a_job_that_is_run_again_goes_on_where_it_stopped(infra: Infra, trace: Path) -> None:
    """As a preempted one that is requeued."""
    from exca.engine.items import ItemWorker

    obj: Halves = halves(infra, trace=trace)
    list(obj.process([1, 2]))
    ItemWorker(obj.infra._method, None).compute(["1", "2", "3"], [1, 2, 3])
    assert computed(trace) == [1, 2, 3]
    assert list(halves({"folder": infra["folder"], "mode": "read-only"}).process([3])) == [1.5]
