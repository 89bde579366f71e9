"""The Python of a job's environment, and the environment of a job that submits jobs."""

import os
import subprocess
import sys
import threading
import venv
from pathlib import Path

import pytest

from exca.jobs.environment import clean_environment, cleaned, python_of

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the layout of an environment is that of POSIX")


@pytest.fixture(autouse=True)
def no_conda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home without conda, and nothing of the conda in which the tests may run."""
    for name in ("CONDA_EXE", "CONDA_PREFIX", "CONDA_ENVS_PATH", "CONDA_ENVS_DIRS", "MAMBA_ROOT_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


def environment(folder: Path) -> Path:
    """Make a real environment, as venv does, which has the layout of conda's."""
    venv.create(folder, symlinks=True)
    return folder / "bin" / "python"


def test_the_folder_of_an_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = environment(tmp_path / "conda" / "envs" / "study")
    assert python_of(tmp_path / "conda" / "envs" / "study") == python
    assert python_of(str(python)) == python
    monkeypatch.chdir(tmp_path / "conda")
    assert python_of("envs/study") == python
    assert python_of("./envs/study") == python
    done = subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, check=True)
    assert done.stdout.decode().strip() == str(tmp_path / "conda" / "envs" / "study")


def test_the_name_of_an_environment_is_looked_up_where_conda_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_conda: Path
) -> None:
    root = tmp_path / "conda"
    python = environment(root / "envs" / "study")
    base = environment(root)
    listed = environment(tmp_path / "projects" / "listed")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="study"):
        python_of("study")
    monkeypatch.setenv("CONDA_EXE", str(root / "bin" / "conda"))
    assert python_of("study") == python
    assert python_of("base") == base
    monkeypatch.delenv("CONDA_EXE")
    for prefix in (root, root / "envs" / "other"):
        monkeypatch.setenv("CONDA_PREFIX", str(prefix))
        assert python_of("study") == python
    monkeypatch.delenv("CONDA_PREFIX")
    monkeypatch.setenv("CONDA_ENVS_PATH", os.pathsep.join([str(tmp_path / "none"), str(root / "envs")]))
    assert python_of("study") == python
    (no_conda / ".conda").mkdir()
    (no_conda / ".conda" / "environments.txt").write_text(f"{root}\n{tmp_path / 'projects' / 'listed'}\n")
    assert python_of("listed") == listed


def test_a_folder_of_the_same_name_that_is_no_environment_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = environment(tmp_path / "conda" / "envs" / "study")
    (tmp_path / "work" / "study").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("CONDA_EXE", str(tmp_path / "conda" / "bin" / "conda"))
    assert python_of("study") == python


def test_what_is_no_environment_says_where_was_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_conda: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONDA_EXE", "/some/conda/bin/conda")
    with pytest.raises(ValueError, match="'typo'") as caught:
        python_of("typo")
    for place in (tmp_path / "typo", Path("/some/conda/envs/typo"), no_conda / ".conda" / "envs" / "typo"):
        assert f"{place / 'bin' / 'python'}\n" in str(caught.value)
    (tmp_path / "broken" / "bin").mkdir(parents=True)
    (tmp_path / "broken" / "bin" / "python").write_text("not to be run")
    with pytest.raises(ValueError, match="can be run"):
        python_of(tmp_path / "broken")
    (tmp_path / "broken" / "bin" / "python").unlink()
    (tmp_path / "broken" / "bin" / "python").symlink_to("/nowhere/python")
    with pytest.raises(ValueError, match="can be run"):
        python_of(tmp_path / "broken")


OF_THE_JOB = {
    "SLURM_JOB_ID": "12",
    "SLURM_MEM_PER_NODE": "100",
    "SLURM_CPUS_PER_TASK": "3",
    "SRUN_DEBUG": "3",
    "SUBMITIT_EXECUTOR": "slurm",
    "SBATCH_MEM_BIND": "none",
    "PMIX_RANK": "0",
}
OF_THE_USER = {
    "SLURM_CONF": "/etc/slurm.conf",
    "SBATCH_ACCOUNT": "lab",
    "SBATCH_PARTITION": "long",
    "HOME": "/home",
}


def test_in_a_job_what_describes_it_goes_and_the_defaults_of_the_user_stay() -> None:
    assert cleaned(OF_THE_JOB | OF_THE_USER) == OF_THE_USER


def test_outside_a_job_everything_stays() -> None:
    outside = OF_THE_USER | {"SLURM_CPUS_PER_TASK": "3"}
    assert cleaned(outside) == outside


def test_the_environment_is_cleaned_for_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (OF_THE_JOB | OF_THE_USER).items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with clean_environment():
        assert not OF_THE_JOB.keys() & os.environ.keys()
        assert OF_THE_USER.items() <= os.environ.items()
        os.environ["SLURM_CPUS_PER_TASK"] = "9"
    assert os.environ["SLURM_CPUS_PER_TASK"] == "9"
    assert dict(os.environ) == before | {"SLURM_CPUS_PER_TASK": "9"}


def test_the_last_of_several_threads_puts_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in OF_THE_JOB.items():
        monkeypatch.setenv(name, value)
    first_left = threading.Event()
    both_inside = threading.Barrier(2)
    seen: list[bool] = []

    def last() -> None:
        with clean_environment():
            both_inside.wait(30)
            first_left.wait(30)
            seen.append("SLURM_JOB_ID" in os.environ)

    thread = threading.Thread(target=last)
    thread.start()
    with clean_environment():
        both_inside.wait(30)
    first_left.set()
    thread.join(30)
    assert seen == [False]
    assert os.environ["SLURM_JOB_ID"] == "12"


@pytest.mark.slurm
def test_a_slurm_job_submits_a_job_of_other_resources(tmp_path: Path) -> None:
    """What the outer job asked for would otherwise be asked for again by the inner one."""
    script = tmp_path / "outer.py"
    script.write_text(
        "import subprocess, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).resolve().parents[2] / 'src')!r})\n"
        "from exca.jobs.environment import clean_environment\n"
        "with clean_environment():\n"
        "    inner = ['sbatch', '--wait', '--mem-per-cpu=50', '--output=inner.txt', '--wrap', 'env']\n"
        "    subprocess.run(inner, check=True)\n"
    )
    python = os.path.realpath(sys.executable)
    outer = ["sbatch", "--wait", "--mem=200", "--cpus-per-task=2", "--output=outer.txt", "--wrap"]
    subprocess.run([*outer, f"{python} {script}"], check=False, cwd=tmp_path, timeout=100)
    inner = (tmp_path / "inner.txt").read_text().splitlines()
    assert "SLURM_MEM_PER_CPU=50" in inner, (tmp_path / "outer.txt").read_text()
    assert "SLURM_CPUS_PER_TASK=2" not in inner
    assert not any(line.startswith("SLURM_MEM_PER_NODE=") for line in inner)
