"""Pipelines on a real Slurm cluster."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import elsewhere
from exca import steps
from pipeline_steps import Noted, noted
from waiting import wait_for

pytestmark = pytest.mark.slurm

FIVE_STAGES = """
import logging
logging.basicConfig(level=logging.INFO)
from pathlib import Path
from pipeline_steps import Noted
from exca import steps

here = Path({folder!r})
backends = [
    dict(backend="Slurm", cpus_per_task=1, max_jobs=2),
    dict(backend="Cached"),
    dict(backend="Slurm", gpus_per_node=1, max_jobs=3),
    dict(backend="LocalProcess", max_jobs=2),
    dict(backend="ThreadPool"),
]
parts = [
    Noted(notes=here / "notes", name=f"s{{k}}-", gate=here / f"gate{{k}}" if k in (0, 2, 3) else None,
          infra=dict(folder=here / "cache", **backend))
    for k, backend in enumerate(backends)
]
print(list(steps.Chain(steps=parts).run_many([0, 10, 20])), flush=True)
"""


def test_a_pipeline_killed_three_times_computes_each_item_of_each_stage_once(tmp_path: Path) -> None:
    script = elsewhere.KNOWING + FIVE_STAGES.format(folder=str(tmp_path))
    notes, err = tmp_path / "notes", tmp_path / "stderr"

    def told() -> str:
        logs = "\n".join(path.read_text() for path in tmp_path.rglob("*_log.err"))
        return f"{noted(notes)}\n{err.read_text()}\n{logs}"

    def waiting(stage: int) -> int:
        return sum(text.startswith(f"s{stage}-") for text in noted(notes))

    for stage in (0, 2, 3):
        with (
            open(err, "a") as stderr,
            subprocess.Popen([sys.executable, "-c", script], stderr=stderr) as asking,
        ):
            try:  # two jobs run at once, wherever: they wait at the gate
                wait_for(lambda: waiting(stage) >= 2 or asking.poll(), told)  # noqa: B023 - called right here
                assert asking.poll() is None, told()
            finally:
                asking.kill()
        (tmp_path / f"gate{stage}").touch()
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout == "[5.0, 15.0, 25.0]\n", done.stderr + told()
    assert noted(notes) == sorted(f"s{stage}-{10 * item + stage}" for item in range(3) for stage in range(5))


def test_resources_reach_the_scheduler_and_the_job_is_found(tmp_path: Path) -> None:
    infra = {
        "backend": "Slurm",
        "folder": tmp_path / "cache",
        "job_name": "exca-steps",
        "cpus_per_task": 2,
        "mem_gb": 0.5,
        "timeout_min": 7,
        "partition": "debug",
        "additional_parameters": {"nice": 7},
    }
    gate = tmp_path / "gate"
    step = Noted(notes=tmp_path / "notes", gate=gate, infra=infra)
    with subprocess.Popen(
        [sys.executable, "-c", "import pickle, sys; step = pickle.load(sys.stdin.buffer); step.run(1)"],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as asking:
        import pickle

        assert asking.stdin is not None
        asking.stdin.write(pickle.dumps(step))
        asking.stdin.close()
        wait_for(lambda: noted(tmp_path / "notes"), lambda: "the job did not start")
        handle = step.lookup(1)
        assert handle.status == "running"
        job = handle.job()
        assert job is not None
        shown = subprocess.run(
            ["scontrol", "show", "job", job.job_id], capture_output=True, text=True, check=True
        ).stdout
        for text in ("JobName=exca-steps", "CPUs/Task=2", "TimeLimit=00:07:00", "Partition=debug", "Nice=7"):
            assert text in shown
        gate.touch()
        assert asking.wait(60) == 0
    assert handle.result() == 2
    job = handle.job()
    assert job is not None
    assert job.cluster == "slurm"
    assert (job.paths.folder / "items.json").exists()


def test_a_cancelled_job_is_told_with_what_slurm_said_and_computed_again(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    step = Noted(
        notes=tmp_path / "notes", gate=gate, infra={"backend": "Slurm", "folder": tmp_path / "cache"}
    )
    import threading

    errors: list[BaseException] = []

    def ask() -> None:
        try:
            step.run(1)
        except RuntimeError as error:
            errors.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_for(lambda: noted(tmp_path / "notes"), lambda: "the job did not start")
    job = step.lookup(1).job()
    assert job is not None
    subprocess.run(["scancel", job.job_id], check=True)
    asking.join(90)
    assert "CANCELLED" in str(errors[0])
    gate.touch()
    assert step.run(1) == 2


def test_variants_go_to_slurm_as_one_array(tmp_path: Path) -> None:
    variants = [Noted(notes=tmp_path / "notes", name=f"v{k}-") for k in range(3)]
    sweep = steps.helpers.Parallel(
        steps=variants, infra={"backend": "Slurm", "folder": tmp_path / "cache", "max_jobs": 3}
    )
    list(sweep.run_many([1, 2]))
    assert len(noted(tmp_path / "notes")) == 6
    jobs = [variant.lookup(1).job() for variant in sweep.steps]
    assert len({job.job_id.split("_")[0] for job in jobs if job is not None}) == 1
