"""The files around the package agree with each other, and the test cluster is what the tests expect."""

import itertools
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import exca

ROOT = Path(__file__).parents[1]


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == exca.__version__
    assert f"\nversion: {exca.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## Unreleased ({exca.__version__})" in (ROOT / "CHANGELOG.md").read_text()


def test_the_lock_holds_exact_versions_and_nothing_of_the_machine_it_was_made_on() -> None:
    for line in (ROOT / "requirements-dev.lock").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), line


def test_every_named_requirement_is_in_the_lock() -> None:
    def normal(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = dict(project["optional-dependencies"])
    del extras["trackers"]  # does not go with all others, so it has an environment of its own (make trackers)
    wanted = itertools.chain(project["dependencies"], *extras.values())
    names = {normal(re.split(r"[^A-Za-z0-9._-]", each)[0]) for each in wanted} - {"exca"}
    locked = {normal(line.split("==")[0]) for line in (ROOT / "requirements-dev.lock").read_text().split()}
    assert names <= locked


@pytest.mark.slurm
@pytest.mark.parametrize("partition", ["debug", "learnfair", "short", "preempt"])
def test_the_cluster_takes_a_job_of_a_whole_large_node(partition: str) -> None:
    """The documentation's example asks for 80 CPUs, 8 GPUs and the feature `volta32gb`."""
    shape = ["--cpus-per-task=80", "--gpus-per-node=8", "--constraint=volta32gb", "--test-only"]
    command = ["sbatch", *shape, f"--partition={partition}", "--wrap=true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.slurm
def test_accounting_answers() -> None:
    done = subprocess.run(["sacct", "--noheader"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.slurm
def test_a_job_sees_the_folder_of_its_test(slurm_folder: Path) -> None:
    script = f"echo $SLURM_JOB_ID > {slurm_folder}/ran"
    command = ["sbatch", "--wait", "--mem=16", f"--output={slurm_folder}/%j.out", f"--wrap={script}"]
    subprocess.run(command, check=True, timeout=100)
    assert (slurm_folder / "ran").read_text().strip().isdigit()
