"""Whose pickles are loaded."""

import os
import pathlib
import pickle
import typing as tp

import pytest

from exca import _trust, cachedict
from exca.cachedict import CacheDict
from exca.errors import UntrustedFileError

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the platform has no owners of files")
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files to others"
)


@pytest.fixture(autouse=True)
def forget_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_trust, "_users", set())
    monkeypatch.setattr(_trust, "_groups", set())
    monkeypatch.delenv("EXCA_TRUSTED_USERS", raising=False)
    monkeypatch.delenv("EXCA_TRUSTED_GROUPS", raising=False)


def strangers(
    folder: pathlib.Path, uid: int = 54321, gid: int = 54322
) -> tuple[CacheDict[tp.Any], pathlib.Path]:
    """A cache with a pickled entry, whose files belong to somebody else."""
    with CacheDict[tp.Any](folder, cache_type="Pickle").write() as cd:
        cd["a"] = {1, 2}
    for path in folder.rglob("*"):
        os.chown(path, uid, gid)
    [data] = list((folder / "data").iterdir())
    return cd, data


def test_own_files_are_trusted(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(1))
    assert cachedict.is_trusted(path)
    assert cachedict.is_trusted(os.stat(path))
    cachedict.require_trusted(path)


def test_what_everybody_may_write_is_not(tmp_path: pathlib.Path) -> None:
    with CacheDict[tp.Any](tmp_path, cache_type="Pickle").write() as cd:
        cd["a"] = {1, 2}
    [data] = (tmp_path / "data").iterdir()
    data.chmod(0o666)
    with pytest.raises(PermissionError, match="chmod o-w"):
        cd["a"]
    assert "a" in cd
    data.chmod(0o644)
    assert cd["a"] == {1, 2}


@needs_root
def test_a_strangers_files_are_not(tmp_path: pathlib.Path) -> None:
    cd, data = strangers(tmp_path)
    assert not cachedict.is_trusted(data)
    with pytest.raises(UntrustedFileError, match="EXCA_TRUSTED_USERS=54321"):
        cd["a"]
    assert "a" in cd


@needs_root
@pytest.mark.parametrize("how", ["user", "group", "call", "call group"])
def test_named_users_and_groups_are(
    how: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cd, _ = strangers(tmp_path)
    match how:
        case "user":
            monkeypatch.setenv("EXCA_TRUSTED_USERS", "nobody, 54321")
        case "group":
            monkeypatch.setenv("EXCA_TRUSTED_GROUPS", "54322")
        case "call":
            cachedict.trust(users=[54321])
        case _:
            cachedict.trust(groups=["54322"])
    assert cd["a"] == {1, 2}


@needs_root
def test_users_are_named_by_name(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    nobody = pwd.getpwnam("nobody")
    cd, _ = strangers(tmp_path, uid=nobody.pw_uid)
    with pytest.raises(UntrustedFileError, match="EXCA_TRUSTED_USERS=nobody"):
        cd["a"]
    monkeypatch.setenv("EXCA_TRUSTED_USERS", "nobody")
    assert cd["a"] == {1, 2}
