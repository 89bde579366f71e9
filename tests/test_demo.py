"""The demo computes its study once, and the second time answers from the folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

STUDY = Path(__file__).parents[1] / "examples" / "digits" / "study.py"
EXPERIMENTS = 12
SUMMARY = re.compile(
    r"^12 experiments in [\d.]+ s: (\d+) from the cache, (\d+) computed, (\d+) failed", re.MULTILINE
)
ROW = re.compile(
    r"^│ (svm|forest) \S+ +│ (0|4) +│ (completed|from cache) +│ \d+\.\d\d +│ (\d\d\.\d)% ", re.MULTILINE
)


def run_study(folder: Path, **environment: str) -> str:
    """Run the demo as its user does, from a folder that is not the demo's, and return what it printed."""
    for package in ("sklearn", "rich"):
        pytest.importorskip(package, reason=f"the demo needs {package}: pip install scikit-learn rich")
    ran = subprocess.run(
        [sys.executable, str(STUDY), "--folder", str(folder)],
        cwd=folder.parent,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def counts(printed: str) -> tuple[int, ...]:
    """Return how many experiments came from the cache, were computed, and failed."""
    found = SUMMARY.search(printed)
    assert found is not None, printed
    return tuple(map(int, found.groups()))


def stamps(folder: Path) -> dict[str, int]:
    """Return the time of the last change (ns) of every result file; a job may still be closing its logs."""
    files = (path for path in folder.rglob("*") if path.is_file() and "logs" not in path.parts)
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def check_two_runs(folder: Path, cluster: str) -> None:
    first = run_study(folder, CLUSTER=cluster)
    assert counts(first) == (0, EXPERIMENTS, 0)
    lines = re.findall(r"^(?:svm|forest) .*, completed, .*%$", first, re.MULTILINE)
    assert len(lines) == EXPERIMENTS, "each experiment is told when it ends"
    rows = ROW.findall(first)
    assert [row[2] for row in rows] == ["completed"] * EXPERIMENTS
    # a Gaussian kernel at its default penalty reads clean digits nearly always
    assert max(float(row[3]) for row in rows if row[:2] == ("svm", "0")) > 95
    before = stamps(folder)
    second = run_study(folder, CLUSTER=cluster)
    assert counts(second) == (EXPERIMENTS, 0, 0)
    assert [(*row[:2], row[3]) for row in ROW.findall(second)] == [(*row[:2], row[3]) for row in rows]
    assert stamps(folder) == before, "the second run wrote something"
    page = folder.with_suffix(".html")
    assert f"{page}: {EXPERIMENTS} runs" in second
    assert "accuracy against data.noise" in page.read_text(encoding="utf-8")


@pytest.mark.timeout(180)
def test_second_run_answers_from_the_cache(tmp_path: Path) -> None:
    """Local processes compute all experiments; the second run shows the same and writes nothing."""
    check_two_runs(tmp_path / "cache", "local")


@pytest.mark.slurm
@pytest.mark.long
@pytest.mark.timeout(180)
def test_study_on_slurm(slurm_folder: Path) -> None:
    """The same study runs as a Slurm array, and is not computed again."""
    check_two_runs(slurm_folder / "cache", "slurm")


def test_experiments_are_validated_before_anything_is_computed(tmp_path: Path) -> None:
    """A cluster that does not exist is refused while the configuration is built, and nothing is written."""
    pytest.importorskip("rich", reason="the demo needs rich: pip install scikit-learn rich")
    folder = tmp_path / "cache"
    command = [sys.executable, str(STUDY), "--folder", str(folder), "--cluster", "cloud"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert ran.returncode != 0
    assert "infra.cluster" in ran.stderr
    assert not folder.exists()
