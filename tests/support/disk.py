"""A model of a disk: it takes the system calls that strace recorded, and tells what a power failure would leave.

Nothing is on the disk but what was synced: the bytes of a file by a sync of the file, and its name by a sync of its
folder. (File systems keep more than that; none promises more.)
"""

import os
import re
import typing as tp
from collections.abc import Iterator
from pathlib import Path

CALLS = (
    *("openat", "write", "pwrite64", "writev", "ftruncate", "lseek", "close", "fsync", "fdatasync"),
    *(
        "rename",
        "renameat",
        "renameat2",
        "link",
        "linkat",
        "unlink",
        "unlinkat",
        "mkdir",
        "mkdirat",
        "rmdir",
        "symlink",
        "symlinkat",
    ),
)
_LINE = re.compile(r"^(\w+)\((.*)\)\s+= (-?\d+)")
_TOKEN = re.compile(r'(?:AT_FDCWD|\d+)<[^>]*>|"[^"]*"|[^,\s]+')


class Call(tp.NamedTuple):
    """A system call that went well.

    Parameters
    ----------
    name
        of the call
    args
        its arguments: paths (absolute) and bytes decoded, numbers of descriptors as int, all else as text
    result
        what it returned
    """

    name: str
    args: list[tp.Any]
    result: int


def calls(log: str, cwd: Path) -> Iterator[Call]:
    """Read what strace wrote, run with ``-y -xx``."""
    for line in log.splitlines():
        match = _LINE.match(line)
        if match is None or int(match[3]) < 0:
            continue
        name, at, args = match[1], str(cwd), list[tp.Any]()
        takes_data = name in ("write", "pwrite64", "writev")
        for token in _TOKEN.findall(match[2]):
            if token.startswith('"'):
                data = _decoded(token[1:-1])
                args.append(data if takes_data else os.path.join(at, os.fsdecode(data)))
                at = str(cwd)
            elif "<" in token:
                number, _, place = token[:-1].partition("<")
                at = os.fsdecode(_decoded(place))
                if number != "AT_FDCWD" and not name.endswith("at") and name != "renameat2":
                    args.append(int(number))
            else:
                args.append(token)
        yield Call(name, args, int(match[3]))


def _decoded(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


class File:
    """The bytes of a file, now and when it was last synced."""

    def __init__(self) -> None:
        self.now = bytearray()
        self.synced = b""


class Folder:
    """What is in a folder, now and when it was last synced."""

    def __init__(self) -> None:
        self.now: dict[str, File | Folder | str] = {}
        self.synced: dict[str, File | Folder | str] = {}


class _Open:
    def __init__(self, node: File | Folder, append: bool) -> None:
        self.node, self.append, self.position = node, append, 0


class Disk:
    """A folder on a disk, empty and synced at first.

    Parameters
    ----------
    base
        the folder; calls elsewhere are ignored
    """

    def __init__(self, base: Path) -> None:
        self.base = str(base)
        self.root = Folder()
        self._open: dict[int, _Open] = {}

    # -- taking calls

    def take(self, call: Call) -> bool:
        """Do what a call did; returns whether it was about something in the folder."""
        return bool(getattr(self, f"_{call.name}")(call.result, *call.args))

    def _find(self, path: str) -> tuple[Folder, str] | None:
        relative = os.path.relpath(path, self.base)
        if relative.startswith(".."):
            return None
        *above, name = relative.split("/")
        folder: File | Folder | str = self.root
        for part in above:
            assert isinstance(folder, Folder), path
            folder = folder.now[part]
        assert isinstance(folder, Folder), path
        return folder, name

    def _openat(self, fd: int, path: str, flags: str, mode: str = "") -> bool:
        self._open.pop(fd, None)
        found = self._find(path)
        if found is None:
            return False
        folder, name = found
        node: File | Folder | str | None = self.root if name == "." else folder.now.get(name)
        if node is None:
            assert "O_CREAT" in flags, path
            node = folder.now[name] = File()
        assert not isinstance(node, str), f"{path} is a link"
        if isinstance(node, File) and "O_TRUNC" in flags:
            node.now.clear()
        self._open[fd] = _Open(node, "O_APPEND" in flags)
        return "O_CREAT" in flags

    def _close(self, _: int, fd: int) -> bool:
        self._open.pop(fd, None)
        return False

    def _file(self, fd: int) -> tuple[_Open, File] | None:
        handle = self._open.get(fd)
        if handle is None:
            return None
        assert isinstance(handle.node, File)
        return handle, handle.node

    def _write(self, count: int, fd: int, data: bytes, *_: str) -> bool:
        found = self._file(fd)
        if found is None:
            return False
        handle, file = found
        start = len(file.now) if handle.append else handle.position
        self._put(file, data[:count], start)
        handle.position = start + count
        return True

    def _pwrite64(self, count: int, fd: int, data: bytes, _: str, offset: str) -> bool:
        found = self._file(fd)
        if found is not None:
            self._put(found[1], data[:count], int(offset))
        return found is not None

    def _writev(self, count: int, fd: int, *_: tp.Any) -> bool:
        assert fd not in self._open, "not modelled"
        return False

    def _put(self, file: File, data: bytes, start: int) -> None:
        file.now.extend(bytes(max(0, start - len(file.now))))
        file.now[start : start + len(data)] = data

    def _ftruncate(self, _: int, fd: int, length: str) -> bool:
        found = self._file(fd)
        if found is not None:
            del found[1].now[int(length) :]
            self._put(found[1], b"", int(length))
        return found is not None

    def _lseek(self, position: int, fd: int, *_: str) -> bool:
        if fd in self._open:
            self._open[fd].position = position
        return False

    def _fsync(self, _: int, fd: int) -> bool:
        handle = self._open.get(fd)
        if handle is None:
            return False
        if isinstance(handle.node, File):
            handle.node.synced = bytes(handle.node.now)
        else:
            handle.node.synced = dict(handle.node.now)
        return True

    _fdatasync = _fsync

    def _rename(self, _: int, old: str, new: str, *__: str) -> bool:
        source, target = self._find(old), self._find(new)
        if source is None:
            return False
        assert target is not None
        target[0].now[target[1]] = source[0].now.pop(source[1])
        return True

    _renameat = _renameat2 = _rename

    def _link(self, _: int, old: str, new: str, *__: str) -> bool:
        source, target = self._find(old), self._find(new)
        if source is None:
            return False
        assert target is not None
        target[0].now[target[1]] = source[0].now[source[1]]
        return True

    _linkat = _link

    def _unlink(self, _: int, path: str, *__: str) -> bool:
        found = self._find(path)
        if found is not None:
            del found[0].now[found[1]]
        return found is not None

    _unlinkat = _rmdir = _unlink

    def _mkdir(self, _: int, path: str, *__: str) -> bool:
        found = self._find(path)
        if found is not None:
            found[0].now[found[1]] = Folder()
        return found is not None

    _mkdirat = _mkdir

    def _symlink(self, _: int, target: str, path: str) -> bool:
        found = self._find(path)
        if found is not None:
            found[0].now[found[1]] = target
        return found is not None

    _symlinkat = _symlink

    # -- what is left

    def leave(self, place: Path, *, names: bool, content: bool) -> None:
        """Write out what a power failure at this moment would leave.

        Parameters
        ----------
        place
            a new folder
        names, content
            whether names, and bytes, that were not synced happened to reach the disk all the same
        """
        self._leave(self.root, place, names, content)

    def _leave(self, folder: Folder, place: Path, names: bool, content: bool) -> None:
        place.mkdir()
        for name, node in (folder.now if names else folder.synced).items():
            if isinstance(node, Folder):
                self._leave(node, place / name, names, content)
            elif isinstance(node, File):
                (place / name).write_bytes(node.now if content else node.synced)
            else:
                (place / name).symlink_to(node)
