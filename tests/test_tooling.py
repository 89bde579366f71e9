"""The files around the package agree with each other, and the test cluster is what the tests expect."""

import importlib.metadata
import itertools
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

import exca

ROOT = Path(__file__).parents[1]
PROJECT = ROOT / "pyproject.toml"


def test_the_version_is_the_same_everywhere() -> None:
    """The package holds it; the distribution takes it from there, and a release writes it into the others."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "src/exca/__init__.py"
    assert f"\nversion: {exca.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    start = project["tool"]["towncrier"]["start_string"]
    latest = (ROOT / "CHANGELOG.md").read_text().split(start)[1].strip()
    assert re.match(rf"## {re.escape(exca.__version__)} \(\d{{4}}-\d\d-\d\d\)\n", latest)


def fault_of_fragment(name: str, text: str) -> str | None:
    """What is wrong with a line of the next changelog, which lies in a file of its own."""
    kinds = [each["directory"] for each in tomllib.loads(PROJECT.read_text())["tool"]["towncrier"]["type"]]
    if re.fullmatch(rf"\+[a-z0-9-]+\.({'|'.join(kinds)})\.md", name) is None:
        return f"its name is not +WORDS.KIND.md, where KIND is one of {', '.join(kinds)}"
    if not text.endswith("\n") or "\n" in text.strip("\n") or not text.strip():
        return "it is not one line with a line end"
    return "it begins with a dash or a heading" if text.startswith(("-", "*", "#", " ")) else None


def test_each_line_of_the_next_changelog_is_well_formed() -> None:
    for path in (ROOT / "changes").iterdir():
        if path.name != "README.md":
            assert fault_of_fragment(path.name, path.read_text()) is None, path.name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("+faster-maps.added.md", ""),
        ("+faster-maps.added.md", "Maps are faster."),
        ("+faster-maps.added.md", "- Maps are faster.\n"),
        ("+faster-maps.added.md", "Maps are faster.\n\nMuch.\n"),
        ("+faster-maps.feature.md", "Maps are faster.\n"),
        ("faster-maps.added.md", "Maps are faster.\n"),
        ("+faster-maps.added.rst", "Maps are faster.\n"),
    ],
)
def test_a_line_of_another_form_is_found(name: str, text: str) -> None:
    assert fault_of_fragment(name, text) is not None
    assert fault_of_fragment("+faster-maps.added.md", "Maps are faster.\n") is None


def test_the_lock_holds_exact_versions_and_nothing_of_the_machine_it_was_made_on() -> None:
    for line in (ROOT / "requirements-dev.lock").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), line


def test_what_is_locked_goes_with_the_oldest_python() -> None:
    """The lock may be made with a later patch release than a machine has: Debian 12 has 3.11.2."""
    locked = dict(line.split("==") for line in (ROOT / "requirements-dev.lock").read_text().split())
    for name, version in locked.items():
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        needed = found.metadata["Requires-Python"] or ""
        assert found.version.split("+")[0] != version or SpecifierSet(needed).contains("3.11.0"), (
            f"{name} {version} needs Python {needed}: lock an earlier version"
        )


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
