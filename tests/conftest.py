"""What every test gets: a clean environment, and Slurm where a test is marked with it."""

import atexit
import importlib.util
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

import slurm_cluster
from people import commons, people  # noqa: F401  # fixtures are found by being here

pytest_plugins = ["measuring", "slurm_faults", "slurm_limits"]
slurm_cluster.point_commands_at_it()
# how long an example takes is the machine's affair
hypothesis.settings.register_profile(
    "exca", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("exca")
# where the tests run in the background of a shell, they would inherit that Ctrl-C is ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
# what tests find out of code is not kept in the home of whoever runs them; processes of xdist share one folder
_DIGESTS = os.environ.setdefault("EXCA_TEST_DIGESTS", "") or tempfile.mkdtemp(prefix="exca-tests-")
if not os.environ["EXCA_TEST_DIGESTS"]:
    os.environ["EXCA_TEST_DIGESTS"] = _DIGESTS
    atexit.register(shutil.rmtree, _DIGESTS, ignore_errors=True)
# modules about tables among others, left out where no extra brings pandas
if importlib.util.find_spec("pandas") is None:
    collect_ignore = [
        "cachedict/test_odd_files.py",
        "cachedict/test_system_errors.py",
        "functions/test_contents.py",
        "functions/test_digest.py",
        "functions/test_functions_hypothesis.py",
    ]
_REQUIRED = os.environ.get("EXCA_REQUIRE_SLURM", "") not in ("", "0")
_PROPERTY = "slurm"  # carried by the reports of tests so marked, also from the processes of xdist


def pytest_report_header() -> str:
    """Say at the start what becomes of the Slurm tests."""
    reason = slurm_cluster.missing_because()
    if reason is None:
        return f"Slurm tests: on the cluster {slurm_cluster.CLUSTER_NAME!r}"
    verdict = "will fail" if _REQUIRED else "will be skipped"
    return f"Slurm tests {verdict}: {reason}; start the test cluster with scripts/slurm/up.sh"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the reports of Slurm tests, so that the summary can count them."""
    for item in items:
        if item.get_closest_marker("slurm") is not None:
            item.user_properties.append((_PROPERTY, True))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a Slurm test where there is no cluster, or fail it where one is required."""
    if item.get_closest_marker("slurm") is None:
        return
    reason = slurm_cluster.missing_because()
    if reason is None:
        return
    if _REQUIRED:
        pytest.fail(f"EXCA_REQUIRE_SLURM is set, and {reason}", pytrace=False)
    pytest.skip(reason)


def _count_slurm(reporter: pytest.TerminalReporter, outcome: str) -> int:
    reports = reporter.stats.get(outcome, [])
    return sum((_PROPERTY, True) in map(tuple, getattr(report, "user_properties", ())) for report in reports)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end how many Slurm tests ran, or why they did not."""
    counts = {outcome: _count_slurm(terminalreporter, outcome) for outcome in ("passed", "failed", "error")}
    skipped = _count_slurm(terminalreporter, "skipped")
    if not any((skipped, *counts.values())):
        return
    line = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    if skipped:
        reason = slurm_cluster.missing_because() or "see the reasons above"
        line = ", ".join(filter(None, (line, f"{skipped} skipped: {reason}")))
    terminalreporter.write_line(f"Slurm tests: {line}")


@pytest.fixture(autouse=True)
def _without_exca_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the person who runs the tests must not reach them."""
    for name in [name for name in os.environ if name.startswith("EXCA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("EXCA_CACHE_DIR", _DIGESTS)
    monkeypatch.setenv("EXCA_LOCAL_WARM", "0")  # no processes that outlive the test


@pytest.fixture
def slurm_folder(tmp_path: Path) -> Iterator[Path]:
    """Give a folder that Slurm jobs see, too; those that still write there are cancelled at the end."""
    yield tmp_path
    slurm_cluster.cancel_jobs_writing_under(tmp_path)
