"""What a job has used goes into its record."""

import os
import typing as tp
from pathlib import Path

import orjson
import pydantic
import pytest

import exca
from exca.engine import usage


class Greedy(pydantic.BaseModel):
    """Takes memory and CPU time."""

    megabytes: int = 80
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        taken = bytearray(os.urandom(1 << 20)) * self.megabytes
        return sum(k * k for k in range(300_000)) * 0 + len(taken)


@pytest.mark.parametrize("cluster", ["local", pytest.param("slurm", marks=pytest.mark.slurm)])
def test_the_record_of_a_job_has_what_it_used(slurm_folder: Path, cluster: str) -> None:
    infra: tp.Any = {"folder": slurm_folder / "cache", "cluster": cluster}
    task = Greedy(infra=infra)
    assert task.run() == 80 << 20
    folder = task.infra.uid_folder()
    assert folder is not None
    record = orjson.loads((folder / "job.json").read_bytes())
    assert 80 < record["used"]["max_rss_mb"] < 1000
    assert record["used"]["cpu_seconds"] > 0
    assert record["used"]["waited_seconds"] >= 0
    small = Greedy(megabytes=1, infra=infra)
    with small.infra.job_array() as array:
        array += [small, task]
    array.wait()
    assert "Memory: 0." in array.summary()


def test_gpu_memory_of_this_process_is_what_the_driver_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for nvidia-smi, whose words are those of its documentation."""
    command = tmp_path / "nvidia-smi"
    command.write_text(
        f"#!/bin/sh\necho '1, 4000'\necho '{os.getpid()}, 1234'\necho '{os.getpid()}, [N/A]'\n"
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert usage._held_by(os.getpid()) == 1234
    assert usage._held_by(2) is None
    command.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert usage._held_by(os.getpid()) is None


def test_without_a_gpu_nothing_is_asked() -> None:
    if os.path.exists(usage.DEVICE):
        pytest.skip("there is an NVIDIA driver here")
    assert "gpu_max_memory_mb" not in usage.used()


def test_a_gpu_is_measured_where_there_is_one() -> None:
    if not os.path.exists(usage.DEVICE):
        pytest.skip(f"there is no NVIDIA driver here ({usage.DEVICE})")
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch can use no GPU here")
    held = torch.zeros(64 << 20, dtype=torch.uint8, device="cuda")
    assert usage.used()["gpu_max_memory_mb"] >= held.numel() / (1 << 20)
