"""What an earlier process found is found again, by the status of the files, in a folder that is the user's own."""

import os
from pathlib import Path

import pytest

from projects import Project
from waiting import wait_for

MODEL = "import helper\nclass Model:\n    def run(self):\n        return helper.f(1)\n"
HELPER = "def f(x):\n    return x + 2\n"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EXCA_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def kept(project: Project, cache: Path) -> Project:
    """A project whose digest is kept, which it is once its files have not changed for a while."""
    project.write({"model.py": MODEL, "helper.py": HELPER})
    wait_for(lambda: project.elsewhere().found, "the digest to be kept")
    return project


def test_a_later_process_finds_it(kept: Project, cache: Path) -> None:
    found = kept.elsewhere()
    assert found.found
    assert found.digest == kept.digest().digest
    assert sorted(found.sources) == ["helper.f", "model.Model.run"]
    assert (cache / "code").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (cache / "code").iterdir())


def test_a_changed_file_is_noticed_by_the_next_process(kept: Project) -> None:
    before = kept.elsewhere()
    kept.write({"helper.py": HELPER.replace("2", "3")})
    after = kept.elsewhere()
    assert not after.found
    assert after.digest != before.digest
    kept.write({"helper.py": HELPER})
    assert kept.elsewhere().digest == before.digest


def test_a_file_that_keeps_its_size_and_time_is_noticed(kept: Project) -> None:
    before = kept.elsewhere()
    path = kept.folder / "helper.py"
    status = path.stat()
    path.write_text(HELPER.replace("2", "3"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert kept.elsewhere().digest != before.digest


def test_a_file_that_changed_after_this_process_began_is_not_taken_for_what_it_imported(
    kept: Project,
) -> None:
    """Another process has found the digest of the new file; this one still runs the old."""
    kept.digest()
    kept.write({"helper.py": HELPER.replace("2", "3")})
    other = wait_for(lambda: (found := kept.elsewhere()).found and found, "the new digest to be kept")
    from exca.codedigest import digest_of, finding

    cls = kept.load("Model")
    delattr(cls, finding._KNOWN)
    assert digest_of(cls, vars(cls)["run"]).digest != other.digest


def test_what_it_was_made_of_is_found_again_where_it_was_removed(kept: Project, cache: Path) -> None:
    digest = kept.elsewhere().digest
    (cache / "code" / digest).unlink()
    assert kept.elsewhere().found
    (cache / "code" / digest).write_text("{}")
    found = kept.elsewhere()
    assert found.found
    assert sorted(found.sources) == ["helper.f", "model.Model.run"]


def test_a_module_that_was_missing_and_came_to_be_there(project: Project, cache: Path) -> None:
    """An optional package that is not installed is no reason to look at everything in each process."""
    text = "try:\n    import optional_one\nexcept ImportError:\n    optional_one = None\n" + MODEL
    project.write({"model.py": text.replace("helper.f(1)", "helper.f(optional_one.K)"), "helper.py": HELPER})
    before = wait_for(lambda: (found := project.elsewhere()).found and found, "the digest to be kept")
    assert "optional_one is not found" in str(before.unresolved)
    project.write({"optional_one.py": "K = 1\n"})
    after = project.elsewhere()
    assert not after.found
    assert "optional_one.K" in after.parts


@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "folder", "fifo", "link", "shared"])
def test_an_odd_entry_is_passed_over(kept: Project, cache: Path, damage: str) -> None:
    digest = kept.elsewhere().digest
    [path] = [each for each in (cache / "code").iterdir() if each.name != digest]
    text = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "fifo":
        os.mkfifo(path)
    elif damage == "link":
        (cache / "elsewhere").write_bytes(text)
        path.symlink_to(cache / "elsewhere")
    else:
        path.write_bytes(
            {"empty": b"", "cut": text[:-5], "garbage": b"\xff\0\n" * 99, "shared": text}[damage]
        )
        path.chmod(0o666 if damage == "shared" else 0o600)
    found = kept.elsewhere()
    assert found.digest == digest
    assert not found.found


@pytest.mark.parametrize("kind", ["shared", "foreign", "file", "link", "relative", "missing parent"])
def test_a_folder_that_is_not_safe_is_not_used(
    project: Project, cache: Path, kind: str, tmp_path: Path
) -> None:
    project.write({"model.py": MODEL, "helper.py": HELPER})
    named = str(cache)
    if kind in ("shared", "foreign"):
        (cache / "code").mkdir(parents=True, mode=0o700)
        if kind == "shared":
            (cache / "code").chmod(0o770)
        elif os.geteuid() == 0:
            os.chown(cache / "code", 64_999, 64_999)
        else:
            pytest.skip("only root can give files away")
    elif kind == "file":
        cache.write_text("")
    elif kind == "link":
        cache.mkdir()
        (tmp_path / "target").mkdir(mode=0o700)
        (cache / "code").symlink_to(tmp_path / "target")
    elif kind == "relative":
        named = "cache"
    else:
        named = "/proc/nothing/cache"
    assert not any(project.elsewhere(EXCA_CACHE_DIR=named).found for _ in range(2))
    assert not [path for path in cache.rglob("*") if path.is_file()] if cache.is_dir() else True


def test_the_folder_of_the_platform(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exca import _usercache

    monkeypatch.delenv("EXCA_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert _usercache.folder("code") is None
    (tmp_path / ".cache/exca/code").mkdir(parents=True, mode=0o700)
    assert _usercache.folder("code") == f"{tmp_path}/.cache/exca/code"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which is to be ignored
    assert _usercache.folder("code") == f"{tmp_path}/.cache/exca/code"
    (tmp_path / "xdg/exca/code").mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert _usercache.folder("code") == f"{tmp_path}/xdg/exca/code"


def test_the_folder_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from exca.codedigest import usercache

    monkeypatch.setenv("EXCA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(usercache, "_MOST", 20)
    for number in range(50):
        usercache.keep(f"key{number}", (f"digest{number}", "m"), b"{}", files=(), loaded=(), folders=())
        assert usercache.look_up(f"key{number}") == (f"digest{number}", "m", (), [])
    assert len(list((tmp_path / "code").iterdir())) <= 22


def test_importing_exca_does_not_import_it() -> None:
    import subprocess
    import sys

    code = "import sys, exca, exca.task, exca.map; print([m for m in sys.modules if 'codedigest' in m])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
