"""Finds out whether the project's own test cluster (scripts/slurm/up.sh) answers.

Tests run jobs of odd shapes, some of which are killed, so they go to that cluster only and never to
another Slurm which this machine may belong to.
"""

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

CLUSTER_NAME = "exca"
_STATE = Path(os.environ.get("EXCA_SLURM_STATE", "/tmp/exca-slurm"))


def point_commands_at_it() -> None:
    """Make Slurm's commands find the test cluster where the machine's default is another one."""
    configuration = _STATE / "etc" / "slurm.conf"
    if "SLURM_CONF" not in os.environ and configuration.exists():
        os.environ["SLURM_CONF"] = str(configuration)


def _ask(*command: str) -> str:
    """Run a command of Slurm's, and return what it prints; fail with its last words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        raise RuntimeError("no answer in 20 s") from None
    if done.returncode != 0:
        raise RuntimeError((done.stderr or done.stdout or "no message").strip().splitlines()[-1])
    return done.stdout


@functools.cache
def missing_because() -> str | None:
    """Say why jobs cannot be sent to the test cluster.

    Returns:
        None when it answers, otherwise the reason in one line.
    """
    if shutil.which("sbatch") is None:
        return "Slurm is not installed"
    try:
        found = re.search(r"^ClusterName\s*=\s*(\S+)", _ask("scontrol", "show", "config"), re.MULTILINE)
        name = found.group(1) if found else "unknown"
        if name != CLUSTER_NAME:
            return f"the Slurm that answers here is the cluster {name!r}, not the test cluster"
        states = _ask("sinfo", "--noheader", "--Node", "--partition=debug", "--format=%T").split()
    except RuntimeError as error:
        return f"Slurm's controller does not answer ({error})"
    if not set(states) & {"idle", "mixed", "allocated", "completing"}:
        return f"no node of the test cluster is up ({', '.join(states)})"
    return None


def cancel_jobs_writing_under(folder: Path) -> None:
    """Cancel what a test left behind in the queue.

    Parameters:
        folder: jobs whose standard output goes to a file inside it are cancelled.
    """
    if missing_because() is not None:
        return  # nothing was sent to a cluster that does not answer
    command = ["squeue", "--noheader", "--Format=JobID:30,STDOUT:2000"]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    rows = (line.split(maxsplit=1) for line in listed.splitlines())
    left = sorted({row[0] for row in rows if len(row) > 1 and row[1].startswith(f"{folder}/")})
    if left:
        subprocess.run(["scancel", *left], timeout=60, check=True)
