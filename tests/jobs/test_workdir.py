"""The copied working directory: what is copied, where it goes, and what is refused."""

import contextlib
import json
import logging
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pydantic
import pytest

from exca.errors import UncommittedChangesError, WorkDirError
from exca.jobs.workdir import inside
from exca.jobs.workdir_copy import git_commit
from exca.workdir import WorkDir
from trees import tree, write

SRC = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in the current directory: a package, a module, data, and things never wanted."""
    folder = tmp_path / "project"
    write(
        folder,
        pkg__mod_py="VALUE = 1",
        pkg__sub__deep_py="",
        pkg__notes_txt="",
        main_py="VALUE = 1",
        data_txt="",
    )
    (folder / "pkg" / "__pycache__").mkdir()
    (folder / "pkg" / "__pycache__" / "mod.py").write_text("")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return folder


# What is copied, and where it goes


def test_folders_keep_their_place_and_only_matching_files_are_copied(project: Path, tmp_path: Path) -> None:
    folder = WorkDir(copied=["pkg", "main.py"]).prepare(tmp_path / "cache" / "code" / "one")
    assert folder == tmp_path / "cache" / "code" / "one"
    assert tree(folder) == ["main.py", "pkg/mod.py", "pkg/sub/deep.py"]
    assert os.listdir(folder.parent) == ["one"]  # nothing left beside it


def test_dot_is_the_content_of_the_current_directory(project: Path, tmp_path: Path) -> None:
    folder = WorkDir(copied=["."]).prepare(tmp_path / "copy")
    assert tree(folder) == ["main.py", "pkg/mod.py", "pkg/sub/deep.py"]


def test_includes_and_excludes_are_patterns_of_names(project: Path, tmp_path: Path) -> None:
    workdir = WorkDir(copied=["."], includes=["*.py", "note?.txt"], excludes=["sub", "__pycache__", "main*"])
    assert tree(workdir.prepare(tmp_path / "copy")) == ["pkg/mod.py", "pkg/notes.txt"]
    everything = WorkDir(copied=["pkg"], includes=["*"])
    assert tree(everything.prepare(tmp_path / "all")) == ["pkg/mod.py", "pkg/notes.txt", "pkg/sub/deep.py"]


def test_a_named_file_is_copied_whatever_its_name(project: Path, tmp_path: Path) -> None:
    assert tree(WorkDir(copied=["data.txt", "pkg/mod.py"]).prepare(tmp_path / "copy")) == [
        "data.txt",
        "pkg/mod.py",
    ]


def test_what_lies_elsewhere_goes_to_the_top(project: Path, tmp_path: Path) -> None:
    write(tmp_path, other__a_py="", third__b_py="")
    workdir = WorkDir(copied=["pkg/sub", "../other", tmp_path / "third"])
    assert tree(workdir.prepare(tmp_path / "copy")) == ["other/a.py", "pkg/sub/deep.py", "third/b.py"]


def test_names_are_those_of_the_moment_when_the_configuration_is_built(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = WorkDir(copied=["pkg", "."])
    monkeypatch.chdir(tmp_path)
    for same in (workdir, workdir.model_copy(deep=True), pickle.loads(pickle.dumps(workdir))):
        folder = same.prepare(tmp_path / f"copy{id(same)}")
        assert tree(folder) == ["main.py", "pkg/mod.py", "pkg/sub/deep.py"]
    assert workdir == pickle.loads(pickle.dumps(workdir))


def test_executables_stay_executable_and_the_rest_follows_the_umask(project: Path, tmp_path: Path) -> None:
    (project / "main.py").chmod(0o700)
    (project / "pkg" / "mod.py").chmod(0o666)
    before = os.umask(0o027)
    try:
        folder = WorkDir(copied=["."]).prepare(tmp_path / "copy")
    finally:
        os.umask(before)
    assert (folder / "main.py").stat().st_mode & 0o777 == 0o750
    assert (folder / "pkg" / "mod.py").stat().st_mode & 0o777 == 0o640
    assert folder.stat().st_mode & 0o777 == 0o750


def test_thousands_of_files_are_copied_whole(project: Path, tmp_path: Path) -> None:
    for index in range(2000):
        write(project / "big" / f"pkg{index % 20}", **{f"m{index}_py": f"VALUE = {index}"})
    folder = WorkDir(copied=["big"]).prepare(tmp_path / "copy")
    assert len(tree(folder)) == 2000
    assert (folder / "big" / "pkg7" / "m1987.py").read_text() == "VALUE = 1987"


# What is never copied


def test_the_copy_never_copies_itself_nor_earlier_copies_nor_results(project: Path) -> None:
    workdir = WorkDir(copied=["."], includes=["*.py"])
    results = project / "cache" / "project.main.Task.run,0"
    expected = ["main.py", "pkg/mod.py", "pkg/sub/deep.py"]
    for name in ("first", "second"):
        assert tree(workdir.prepare(results / "code" / name)) == expected
    assert tree(workdir.prepare(project / "elsewhere" / "code" / "third")) == expected
    inside_folder = WorkDir(copied=["."], folder=project / "wd")
    assert "wd/main.py" not in tree(inside_folder.prepare(project / "unused"))


def test_environments_are_not_copied(project: Path, tmp_path: Path) -> None:
    write(project, env__lib__numpy__a_py="", env2__b_py="")
    (project / "env" / "pyvenv.cfg").write_text("")
    (project / "env2" / "conda-meta").mkdir()
    assert tree(WorkDir(copied=["."]).prepare(tmp_path / "copy")) == [
        "main.py",
        "pkg/mod.py",
        "pkg/sub/deep.py",
    ]


@pytest.mark.skipif(os.name == "nt", reason="Windows lets only administrators make links")
def test_links_become_copies_and_loops_and_dangling_links_are_left_out(project: Path, tmp_path: Path) -> None:
    write(tmp_path, shared__lib_py="VALUE = 2")
    (project / "linked").symlink_to(tmp_path / "shared")
    (project / "single.py").symlink_to(tmp_path / "shared" / "lib.py")
    (project / "pkg" / "loop").symlink_to(project)
    (project / ".#lock.py").symlink_to("user@host:1234")
    os.mkfifo(project / "pipe.py")
    folder = WorkDir(copied=["."]).prepare(tmp_path / "copy")
    assert tree(folder) == ["linked/lib.py", "main.py", "pkg/mod.py", "pkg/sub/deep.py", "single.py"]
    assert not (folder / "single.py").is_symlink()
    (tmp_path / "shared" / "lib.py").write_text("VALUE = 3")
    assert (folder / "linked" / "lib.py").read_text() == "VALUE = 2"


# Working inside


def test_activate_works_inside_the_copy_and_comes_back(project: Path, tmp_path: Path) -> None:
    workdir = WorkDir(copied=["main.py"], folder=tmp_path / "copy")
    path = list(sys.path)
    with workdir.activate():
        assert Path.cwd() == tmp_path / "copy"
        assert sys.path == [str(tmp_path / "copy"), *path]
    assert Path.cwd() == project
    assert sys.path == path
    with workdir.activate():  # the same code: the copy is used again
        assert tree(Path.cwd()) == ["main.py"]
    with contextlib.suppress(KeyError), WorkDir(copied=["main.py"]).activate(tmp_path / "given"):
        assert Path.cwd() == tmp_path / "given"
        raise KeyError
    assert Path.cwd() == project


def test_a_process_inside_imports_the_copy_after_the_source_was_edited(project: Path, tmp_path: Path) -> None:
    folder = WorkDir(copied=["pkg", "main.py"]).prepare(tmp_path / "copy")
    write(project, pkg__mod_py="VALUE = 2")
    code = "import sys; sys.path.insert(0, sys.argv[1])\nfrom exca.jobs.workdir import inside\n"
    code += "with inside(sys.argv[2]):\n    import pkg.mod; print(pkg.mod.VALUE)"
    env = os.environ | {"PYTHONPATH": str(project)}
    done = subprocess.run([sys.executable, "-c", code, SRC, folder], env=env, capture_output=True, check=True)
    assert done.stdout.strip() == b"1"


def test_the_entry_of_the_user_on_the_path_is_left_alone(tmp_path: Path) -> None:
    path = list(sys.path)
    with inside(tmp_path):
        sys.path.remove(str(tmp_path))
    assert sys.path == path


# What is refused when the configuration is built


@pytest.mark.parametrize("copied", [None, [], ()])
def test_nothing_to_copy_is_refused(copied: list[str] | None) -> None:
    with pytest.raises(WorkDirError, match=r"workdir\.copied"):
        WorkDir.model_validate({} if copied is None else {"copied": copied})
    assert issubclass(WorkDirError, RuntimeError)


def test_no_matching_file_is_refused(project: Path, tmp_path: Path) -> None:
    for field, value in (("includes", ["*.yaml"]), ("includes", []), ("excludes", ["*"])):
        with pytest.raises(WorkDirError, match=f"copies nothing.*{project / 'pkg'}"):
            WorkDir.model_validate({"copied": ["pkg"], field: value})
    workdir = WorkDir(copied=["pkg/sub"])
    (project / "pkg" / "sub" / "deep.py").unlink()
    with pytest.raises(WorkDirError, match="copies nothing"):
        workdir.prepare(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_mistyped_fields_are_refused(project: Path) -> None:
    for field, value in (("copied", "pkg"), ("include", ["*"]), ("excludes", ".git"), ("folder", 12)):
        with pytest.raises(pydantic.ValidationError):
            WorkDir.model_validate({"copied": ["pkg"], field: value})


def test_assignment_is_checked_too(project: Path, tmp_path: Path) -> None:
    workdir = WorkDir(copied=["pkg"])
    workdir.copied = ["main.py"]
    assert tree(workdir.prepare(tmp_path / "copy")) == ["main.py"]
    with pytest.raises(WorkDirError):
        workdir.copied = []


def test_two_sources_of_one_place_are_refused(project: Path, tmp_path: Path) -> None:
    write(tmp_path, other__pkg__new_py="", other__main_py="")
    with pytest.raises(WorkDirError, match=r"both .*project/pkg and .*other/pkg to 'pkg'"):
        WorkDir(copied=["pkg", tmp_path / "other" / "pkg"])
    workdir = WorkDir(copied=[".", tmp_path / "other" / "main.py"])
    with pytest.raises(WorkDirError, match=r"to 'main\.py'"):
        workdir.prepare(tmp_path / "copy")
    assert tree(WorkDir(copied=["pkg", "./pkg", "."]).prepare(tmp_path / "same"))  # the same thing twice


def test_the_parent_of_a_given_folder_must_exist(project: Path, tmp_path: Path) -> None:
    with pytest.raises(pydantic.ValidationError, match="create"):
        WorkDir(copied=["pkg"], folder=tmp_path / "typo" / "copy")


def test_without_a_folder_it_cannot_be_activated(project: Path) -> None:
    with pytest.raises(WorkDirError, match=r"workdir\.folder"), WorkDir(copied=["pkg"]).activate():
        pass


# What is refused when it is copied


def test_a_given_folder_with_another_version_is_refused(project: Path, tmp_path: Path) -> None:
    workdir = WorkDir(copied=["pkg"], folder=tmp_path / "copy")
    workdir.prepare(tmp_path)
    assert workdir.prepare(tmp_path) == tmp_path / "copy"
    write(project, pkg__mod_py="VALUE = 2")
    with pytest.raises(WorkDirError, match="another version"):
        workdir.prepare(tmp_path)
    assert (tmp_path / "copy" / "pkg" / "mod.py").read_text() == "VALUE = 1"
    write(project, pkg__mod_py="VALUE = 1")
    (project / "pkg" / "sub" / "deep.py").unlink()  # the copy would still import it
    with pytest.raises(WorkDirError, match="another version"):
        workdir.prepare(tmp_path)


def test_a_given_folder_may_hold_other_things(project: Path, tmp_path: Path) -> None:
    write(tmp_path / "copy", notes_txt="mine")
    folder = WorkDir(copied=["pkg"], folder=tmp_path / "copy").prepare(tmp_path)
    assert tree(folder) == ["notes.txt", "pkg/mod.py", "pkg/sub/deep.py"]
    (tmp_path / "empty").mkdir()
    assert tree(WorkDir(copied=["main.py"], folder=tmp_path / "empty").prepare(tmp_path)) == ["main.py"]


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "fork"), reason="permissions of another kind")
def test_what_cannot_be_read_or_written_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another user where the tests run as root, whom no permission stops.

    In a folder of its own: each pytest that starts closes the folders of all others to other users.
    """
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        monkeypatch.chdir(shutil.copytree(project, Path(place, "project")))
        _refused(Path(place, "project"), Path(place))
        monkeypatch.chdir(project)


def _refused(project: Path, tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import os, sys
        sys.path.insert(0, sys.argv[1])
        from exca.workdir import WorkDir
        workdir = WorkDir(copied=["."])
        if os.getuid() == 0:
            os.setuid(65534)
        for folder in sys.argv[2:]:
            try:
                workdir.prepare(folder)
            except RuntimeError as error:
                print(type(error).__name__, error)
        """
    )
    (project / "pkg" / "mod.py").chmod(0)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed").chmod(0o555)

    def run(*folders: Path) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, SRC, *folders],
            cwd=project,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert f"Permission denied: {project / 'pkg' / 'mod.py'}" in run(tmp_path / "open" / "copy")
    assert os.listdir(tmp_path / "open") == []  # no half of a copy
    (project / "pkg" / "mod.py").chmod(0o644)
    assert "WorkDirError" in (said := run(tmp_path / "closed" / "copy"))
    assert "Permission denied" in said
    (project / "pkg" / "sub").chmod(0)
    assert f"{project / 'pkg' / 'sub'} cannot be read" in run(tmp_path / "open" / "copy")
    (project / "pkg" / "sub").chmod(0o755)


def test_two_processes_may_copy_to_one_folder(project: Path, tmp_path: Path) -> None:
    for index in range(200):
        write(project / "big", **{f"m{index}_py": f"VALUE = {index}"})
    code = "import sys; sys.path.insert(0, sys.argv[1])\nfrom exca.workdir import WorkDir\n"
    code += "workdir = WorkDir(copied=['.']); input(); print(workdir.prepare(sys.argv[2]))"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, SRC, tmp_path / "copy"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in started:
        out, err = process.communicate(timeout=50)
        assert out.strip() == str(tmp_path / "copy"), err
    assert len(tree(tmp_path / "copy")) == 203
    assert not list(tmp_path.glob(".*.tmp"))


# Commits


def git(folder: Path, *args: str) -> str:
    name = ("-c", "user.name=someone", "-c", "user.email=someone@example.org")
    return subprocess.run(
        ["git", *name, *args], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture
def repository(project: Path) -> Path:
    git(project, "init", "-q")
    (project / ".gitignore").write_text("generated.py\n")
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "first")
    return project


def test_the_commit_is_recorded(repository: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(repository, generated_py="", untracked_txt="")  # ignored, and not copied
    commit = git(repository, "rev-parse", "HEAD").strip()
    with caplog.at_level(logging.INFO, "exca"):
        folder = WorkDir(copied=["pkg", "main.py"], log_commit=True).prepare(tmp_path / "copy")
    assert (folder / "git-hashes.log").read_text() == f"project: {commit}\n"
    assert f"The commit of project is {commit}" in caplog.text


def test_a_repository_is_looked_at_without_a_lock(repository: Path, tmp_path: Path) -> None:
    """Git would refresh its index, and the user's own commands fail while it does."""
    index = repository / ".git" / "index"
    before = index.read_bytes()
    os.utime(repository / "main.py", (1e9, 1e9))
    assert git_commit(str(repository)) == {
        "commit": git(repository, "rev-parse", "HEAD").strip(),
        "dirty": False,
    }
    WorkDir(copied=["pkg"], log_commit=True).prepare(tmp_path / "copy")
    assert index.read_bytes() == before
    git(repository, "status")
    assert index.read_bytes() != before, "what git does by itself"


@pytest.mark.parametrize("change", ["edited", "staged", "deleted", "untracked"])
def test_uncommitted_changes_are_refused(repository: Path, tmp_path: Path, change: str) -> None:
    workdir = WorkDir(copied=["pkg"], log_commit=True)
    write(repository, main_py="VALUE = 2")  # not among the copied
    workdir.prepare(tmp_path / "clean")
    if change == "deleted":
        (repository / "pkg" / "mod.py").unlink()
    else:
        name = "pkg__new_py" if change == "untracked" else "pkg__mod_py"
        write(repository, **{name: "VALUE = 2"})
    if change == "staged":
        git(repository, "add", "-A")
    with pytest.raises(UncommittedChangesError, match=r"pkg/(mod|new)\.py"):
        workdir.prepare(tmp_path / "copy")
    with pytest.raises(RuntimeError, match="not committed"):
        WorkDir(copied=["pkg"], log_commit=True, excludes=["nothing"])
    assert not (tmp_path / "copy").exists()
    WorkDir(copied=["pkg"]).prepare(tmp_path / "copy")


def test_repositories_of_one_name_are_told_apart(repository: Path, tmp_path: Path) -> None:
    other = tmp_path / "b" / "project"
    write(other, lib__a_py="")
    git(other, "init", "-q")
    with pytest.raises(WorkDirError, match="no commit"):
        WorkDir(copied=[other / "lib"], log_commit=True)
    git(other, "add", "-A")
    git(other, "commit", "-q", "-m", "other")
    folder = WorkDir(copied=["pkg", other / "lib"], log_commit=True).prepare(tmp_path / "copy")
    lines = (folder / "git-hashes.log").read_text().splitlines()
    assert sorted(line.split(":")[0] for line in lines) == sorted(["project", str(other)])


def test_what_lies_in_no_repository_is_told(
    project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with caplog.at_level(logging.WARNING, "exca"):
        WorkDir(copied=["pkg"], log_commit=True).prepare(tmp_path / "copy")
    assert "no git repository" in caplog.text
    monkeypatch.setenv("PATH", "")
    with pytest.raises(WorkDirError, match="needs git"):
        WorkDir(copied=["main.py"], log_commit=True)


# In jobs


STUDY = """
import typing as tp
import pydantic
import exca
import pkg.mod

class Study(pydantic.BaseModel):
    wait_for: str
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> tuple[int, str, str]:
        import os, pathlib, time
        while not pathlib.Path(self.wait_for).exists():
            time.sleep(0.02)
        import pkg.late
        return pkg.mod.VALUE + pkg.late.VALUE, os.getcwd(), pkg.mod.__file__

if __name__ == "__main__":
    import json, pathlib, sys
    from study import Study
    cluster, folder = sys.argv[1:]
    go = pathlib.Path(folder, "go")
    infra = {"folder": folder, "cluster": cluster, "workdir": {"copied": ["study.py", "pkg"]}}
    study = Study(wait_for=str(go), infra=infra)
    job = study.infra.job()
    for name in ("mod", "late"):  # the source is edited after the submission
        pathlib.Path("pkg", f"{name}.py").write_text("VALUE = 1000")
    go.touch()
    code = study.infra.uid_folder() / "code"
    print(json.dumps([*job.result(), str(code.resolve())]))
"""


@pytest.mark.parametrize("cluster", ["local", pytest.param("slurm", marks=pytest.mark.slurm)])
def test_jobs_run_the_code_of_their_submission(project: Path, tmp_path: Path, cluster: str) -> None:
    """Also what they import late, long after the source was edited."""
    write(project, pkg__late_py="VALUE = 10", study_py=STUDY)
    (tmp_path / "cache").mkdir()
    done = subprocess.run(
        [sys.executable, "study.py", cluster, tmp_path / "cache"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    value, cwd, file, code = json.loads(done.stdout)
    assert value == 11
    assert cwd == code
    assert file == str(Path(code, "pkg", "mod.py"))
    assert Path(code).parent == tmp_path / "cache" / "study.Study.run,0" / "code"
    assert re.fullmatch(r"\d{4}-?\d\d-?\d\d.*-[0-9a-f]+", Path(code).name)
