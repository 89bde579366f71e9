"""Limits that the real scheduler enforces: a QOS of one test, made as an administrator of a site makes one."""

import os
import pwd
import subprocess
import uuid
from collections.abc import Iterator

import pytest

import slurm_cluster
from waiting import wait_for


class Qos:
    """A QOS of the test cluster that limits none but the jobs that ask for it.

    Parameters
    ----------
    name: str
        a name that no other QOS has
    """

    def __init__(self, name: str) -> None:
        self.name = name
        _manage("add", "qos", f"name={name}")
        who = pwd.getpwuid(os.geteuid()).pw_name
        _manage(
            "modify", "user", f"name={who}", f"cluster={slurm_cluster.CLUSTER_NAME}", "set", f"qos+={name}"
        )

    def limit(self, *limits: str) -> None:
        """Set limits, as ``MaxSubmitJobsPerUser=3`` (-1 for none), and wait until they hold."""
        _manage("modify", "qos", f"name={self.name}", "set", *limits)

    def jobs(self) -> list[str]:
        """Ids of the jobs and of the tasks of arrays that are waiting or running in it."""
        command = ["squeue", "--noheader", "--array", f"--qos={self.name}", "--format=%i"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()

    def close(self) -> None:
        """Cancel what is left in it, and remove it."""
        subprocess.run(["scancel", f"--qos={self.name}"], check=True, timeout=60)
        wait_for(lambda: not self.jobs(), "the jobs of the test to end")
        _manage("delete", "qos", f"name={self.name}")


def _manage(*words: str) -> None:
    """Change what accounting holds; the controller knows of it when this returns."""
    command = ["sacctmgr", "--immediate", "--quiet", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"


@pytest.fixture
def qos() -> Iterator[Qos]:
    """A QOS without limits to begin with."""
    found = Qos(f"test-{uuid.uuid4().hex[:12]}")
    yield found
    found.close()
