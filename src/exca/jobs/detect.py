"""What there is on this machine."""

import shutil
import subprocess


def slurm_answers() -> bool:
    """Whether there is a Slurm controller that answers from here."""
    if shutil.which("sbatch") is None:
        return False
    try:
        done = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return " is UP" in done.stdout
