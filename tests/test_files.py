"""The file layer: whole or not at all, with the rights that were asked for, and no link of a stranger's followed."""

import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from exca import _files
from exca.errors import OddFileError, UntrustedFileError
from exca.verifying import leftovers

STRANGER = 64_321  # no user of this machine
needs_nofollow = pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="as on Windows, links are followed")
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file to another user"
)


@pytest.fixture
def umask() -> Iterator[None]:
    """A umask that takes nothing away, so that rights are those that were asked for."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("size", [0, 1, _files._BLOCK - 1, _files._BLOCK, _files._BLOCK + 1, 3 << 20])
def test_a_file_comes_back_whole(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    _files.write_atomically(tmp_path / "file", content, durable=True)
    assert _files.read_file(str(tmp_path / "file")) == content
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("rights", [_files.SHARED, _files.OWN, _files.PRIVATE])
def test_rights_are_those_that_were_asked_for(tmp_path: Path, rights: int) -> None:
    """A file that replaces another has its own rights, not those of the one before."""
    path = tmp_path / "file"
    path.write_bytes(b"before")
    path.chmod(0o640)
    _files.write_atomically(path, b"after", mode=rights)
    assert (mode(path), path.read_bytes()) == (rights, b"after")


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the disk takes half of it: neither a piece nor a draft stays."""
    path = tmp_path / "file"
    path.write_bytes(b"before")
    write = os.write
    room = [3]

    def full(fd: int, data: memoryview) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = write(fd, data[: room[0]])
        room[0] -= done
        return done

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        _files.write_atomically(path, b"afterwards")
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]


def test_a_write_in_pieces_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    _files.write_atomically(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_a_disk_that_takes_nothing_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda fd, data: 0)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        _files.write_new(str(tmp_path / "file"), b"content")


def test_a_new_file_replaces_nothing(tmp_path: Path) -> None:
    """Neither a file nor, through a link, what the link leads to."""
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "file").write_bytes(b"before")
    for name in ("link", "file"):
        with pytest.raises(FileExistsError):
            _files.write_new(str(tmp_path / name), b"after")
    assert not (tmp_path / "target").exists()
    assert (tmp_path / "file").read_bytes() == b"before"


def test_temporary_names_are_known_as_such() -> None:
    """They are never the same twice, and whoever tidies up recognises them with the process that wrote them."""
    names = {
        _files.temporary_name(name) for name in ("job.json", ".hidden", "x=1-0123abcd") for _ in range(9)
    }
    assert len(names) == 27
    for name in names:
        assert leftovers.is_temporary(name)
        assert re.findall(r"-(\d+)-[0-9a-f]{8}\.tmp$", name) == [str(os.getpid())]


def test_a_log_with_a_second_name_is_not_appended_to(tmp_path: Path) -> None:
    """What is appended would go into the other file, too, which may be anything."""
    (tmp_path / "other").touch()
    os.link(tmp_path / "other", tmp_path / "log")
    with pytest.raises(OddFileError, match="a file with a second name"):
        _files.append_text(tmp_path / "log")


def test_links_of_this_user_are_followed(tmp_path: Path) -> None:
    """Also one that leads to another, relative to its own folder."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_bytes(b"content")
    (tmp_path / "data" / "second").symlink_to("file")
    (tmp_path / "first").symlink_to("data/second")
    assert _files.read_file(str(tmp_path / "first")) == b"content"


def test_a_circle_of_links_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        _files.read_file(str(tmp_path / "a"))


@needs_root
@needs_nofollow
def test_links_of_others_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    os.lchown(tmp_path / "link", STRANGER, STRANGER)
    with pytest.raises(
        UntrustedFileError,
        match=f"Not following the link 'link', which belongs to user {STRANGER}: replace it",
    ):
        _files.read_file(str(tmp_path / "link"))


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    """A FIFO would keep its reader waiting for ever."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        _files.read_file(str(tmp_path / "fifo"))
    with pytest.raises(OddFileError, match="not a regular file"):
        _files.read_file(str(tmp_path))


def test_what_is_too_large_to_be_read_at_once_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", _files.MAX_FILE + 1)
    with pytest.raises(OddFileError, match="a file of more than 1024 MiB"):
        _files.read_file(str(tmp_path / "sparse"))
