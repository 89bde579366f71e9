"""What the numbers were measured on, as far as it matters to them, without the machine's name or paths."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

PACKAGES = (
    "exca",
    "pydantic",
    "numpy",
    "joblib",
    "diskcache",
    "lmdb",
    "loky",
    "submitit",
    "distributed",
    "hydra-core",
)


def processor() -> str:
    """Return the model of the processor (Linux), or what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def memory() -> float | None:
    """Return the machine's memory in GB (Linux)."""
    try:
        first = Path("/proc/meminfo").read_text().split()
    except OSError:
        return None
    return round(int(first[1]) / 1e6, 1)


def file_system(folder: Path) -> str:
    """Return the type of the file system that the rows wrote to."""
    command = ["stat", "-f", "-c", "%T", str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return ran.stdout.strip() or "unknown"


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def described(folder: Path) -> dict[str, object]:
    """Return the machine as JSON has it; `folder` is what the rows write to."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "memory (GB)": memory(),
        "file system": file_system(folder),
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "load when it began": [round(load, 1) for load in os.getloadavg()]
        if hasattr(os, "getloadavg")
        else None,
        "versions": versions(),
    }
