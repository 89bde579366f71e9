"""Backends by name: those of other packages, those that are not here, and those that cannot be loaded."""

import importlib
import sys
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import pydantic
import pytest

import exca
from exca import _clusters
from exca._clusters import Submission
from exca.claims import Claims, Owner
from exca.errors import SubmissionError, UnknownClusterError
from exca.jobs import backends
from exca.jobs.job import CallJob
from packages import installed
from task_models import Double, given

Install = tp.Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install packages for the time of a test."""

    def add(name: str, cluster: str, value: str, code: str = "") -> None:
        monkeypatch.syspath_prepend(str(installed(tmp_path / name, name, cluster, value, code)))
        importlib.invalidate_caches()
        _clusters._registered.cache_clear()

    before = dict(_clusters._loaded), set(sys.modules)
    yield add
    monkeypatch.undo()
    _clusters._registered.cache_clear()
    _clusters._loaded.clear()
    _clusters._loaded.update(before[0])
    for module in set(sys.modules) - before[1]:
        del sys.modules[module]


@pytest.mark.parametrize("infra", [exca.TaskInfra, exca.MapInfra, exca.SubmitInfra])
def test_a_name_that_no_backend_has_is_refused_with_those_there_are(infra: type[exca.TaskInfra]) -> None:
    words = "there is no cluster 'slrum': known are 'local', 'slurm', 'debug', .*'auto'.* and None for this process"
    with pytest.raises(pydantic.ValidationError, match=words):
        infra(folder="cache", cluster="slrum")


@pytest.mark.parametrize("infra", [exca.TaskInfra, exca.SubmitInfra])
@pytest.mark.parametrize("pool", ["threadpool", "processpool"])
def test_a_pool_is_for_maps(infra: type[exca.TaskInfra], pool: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=f"cluster='{pool}' makes no sense for single calls"):
        infra(folder="cache", cluster=pool)
    exca.MapInfra(folder="cache", cluster=pool)


def test_a_registered_backend_is_taken(tmp_path: Path, install: Install) -> None:
    code = "from exca.jobs.backends import InlineBackend\nBACKEND = InlineBackend()"
    install("exca_here", "here", "exca_here:BACKEND", code)
    task = Double(x=4, infra=given({"folder": tmp_path / "cache", "cluster": "here"}))
    assert "exca_here" not in sys.modules, "it is loaded when it is needed"
    backends.get("here")
    assert "exca_here" in sys.modules
    assert task.infra.status() == "not submitted"


@pytest.mark.parametrize(
    ("value", "code", "words"),
    [
        (
            "exca_odd:BACKEND",
            "import no_such_module",
            "of cluster='odd', which exca_odd 1.2 registers as exca_odd:BACKEND: ModuleNotFoundError: No module named",
        ),
        ("exca_odd:BACKEND", "", "AttributeError: module 'exca_odd' has no attribute 'BACKEND'"),
        ("exca_odd:BACKEND", "BACKEND = 3", "is no backend: 3 has no submit"),
        (
            "exca_odd:Backend",
            "from exca.jobs.backends import Backend",
            "is a class, not an object of it. The entry point has to name an object",
        ),
    ],
)
def test_a_backend_that_cannot_be_loaded_is_told_at_submission(
    tmp_path: Path, install: Install, value: str, code: str, words: str
) -> None:
    install("exca_odd", "odd", value, code)
    task = Double(x=4, infra=given({"folder": tmp_path / "cache", "cluster": "odd"}))
    for submit in (task.compute, task.infra.job):
        with pytest.raises(SubmissionError) as caught:
            submit()
        assert words in str(caught.value)
    assert task.infra.status() == "not submitted"
    assert not list((tmp_path / "cache").rglob("*.claim")), "nothing is claimed"
    assert not list((tmp_path / "cache").rglob("submission.json"))


def test_two_packages_that_bring_the_same_backend_are_named(install: Install) -> None:
    install("exca_one", "odd", "exca_one:BACKEND")
    install("exca_two", "odd", "exca_two:BACKEND")
    with pytest.raises(SubmissionError, match=r"two packages bring a backend called 'odd': exca_two 1\.2"):
        backends.get("odd")


def test_a_package_does_not_replace_a_backend_of_ours(install: Install) -> None:
    install("exca_slurm", "slurm", "exca_slurm:BACKEND", "BACKEND = 3")
    assert backends.get("slurm").decides
    assert "exca_slurm" not in sys.modules
    assert _clusters.names().count("slurm") == 1


def test_a_job_of_a_backend_that_is_not_here_is_neither_dead_nor_robbed(tmp_path: Path) -> None:
    claim, _ = Claims(tmp_path).acquire(["a"])
    assert claim is not None
    claim.transfer_to(Owner.for_job(cluster="elsewhere", job_id="12", folder=str(tmp_path / "logs")))
    again, holders = Claims(tmp_path).acquire(["a"])
    assert again is None
    assert holders["a"].alive()
    assert holders["a"].describe().startswith("Elsewhere job 12 (UNKNOWN: there is no cluster 'elsewhere'")
    assert Claims(tmp_path).sweep() == 0


def test_the_handle_of_a_job_whose_backend_is_not_here_says_that_nothing_is_known(tmp_path: Path) -> None:
    job = CallJob[int](Submission("elsewhere", "12", str(tmp_path / "%j")))
    assert (job.state, job.done()) == ("UNKNOWN", False)
    assert "elsewhere job 12" in job.describe()
    with pytest.raises(UnknownClusterError, match="there is no cluster 'elsewhere'"):
        job.cancel()
    assert backends.tagged("elsewhere", "exca:tag", None, "") is None
