"""What a job has used: memory, CPU time, waiting time, and GPU memory where that is known."""

import contextlib
import os
import subprocess
import sys
import typing as tp

DEVICE = "/dev/nvidiactl"  # there is an NVIDIA driver where this is
_TIMEOUT = 10.0  # seconds for nvidia-smi to answer


def used(waited: float | None = None) -> dict[str, tp.Any]:
    """What this process and those it waited for have used, and how long it waited in the queue.

    Memory is in MiB, of the largest process; GPU memory is the largest on one device.
    """
    found: dict[str, tp.Any] = {}
    if waited is not None:
        found["waited_seconds"] = round(waited, 3)
    try:
        import resource
    except ImportError:  # no POSIX
        return found
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    found["max_rss_mb"] = round(max(_peak() or own.ru_maxrss, children.ru_maxrss) / unit, 1)
    found["cpu_seconds"] = round(own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime, 3)
    gpu = _gpu_memory()
    if gpu:
        found["gpu_max_memory_mb"] = round(gpu, 1)
    return found


def _peak() -> int | None:
    """Peak memory of this process, KiB; getrusage counts what its parent had when it started this one (Linux)."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return None


def _gpu_memory() -> float | None:
    """The most GPU memory that this process has held on a device, MiB; None where it has none, or nothing tells.

    torch knows the peak of what it allocated. Of other processes the driver tells what they hold now, at their end.
    """
    torch: tp.Any = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    try:
        if cuda is not None and cuda.is_available() and cuda.is_initialized():
            peaks = [cuda.max_memory_reserved(k) for k in range(cuda.device_count())]
            return float(max(peaks, default=0)) / (1 << 20) or None
    except Exception:  # of whatever library goes by this name: a result counts more than what it cost
        return None
    if not os.path.exists(DEVICE):
        return None
    from ..jobs.forking import has_open

    return _held_by(os.getpid()) if has_open("/dev/nvidia") else None


def _held_by(pid: int) -> float | None:
    """GPU memory that a process holds, by the driver, MiB."""
    command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_TIMEOUT, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    held = [0.0]
    for line in done.stdout.splitlines():
        owner, _, memory = line.partition(",")
        with contextlib.suppress(ValueError):
            if int(owner) == pid:
                held.append(float(memory))
    return max(held) or None
