"""Whose files may run something: unpickling and importing run code, so a cache must not do so for a stranger unasked.

A file is trusted when it belongs to this user or to root, or to a user or group that was named, and can be written by
none but these: not by everybody, and not by a group unless that was named or is the owner's own (of the same name,
with no other member). Users and groups are named (by name or number) in the environment variables
``EXCA_TRUSTED_USERS`` and ``EXCA_TRUSTED_GROUPS``, separated by commas, or with `trust`. Where the platform has no
owners of files (Windows), every file is trusted.

What is data (numbers, arrays, tables, JSON, text) is read from other users' files, too.
"""

import contextlib
import contextvars
import functools
import logging
import os
import stat
import typing as tp

from . import _files
from .errors import UntrustedFileError

logger = logging.getLogger("exca")

_HAS_OWNERS = hasattr(os, "geteuid")
_users: set[str] = set()
_groups: set[str] = set()


def trust(*, users: tp.Iterable[str | int] = (), groups: tp.Iterable[str | int] = ()) -> None:
    """Load pickled files of these users and groups too, in this process.

    Parameters
    ----------
    users: iterable of str or int
        names or numbers of users whose files are loaded
    groups: iterable of str or int
        names or numbers of groups whose files are loaded
    """
    _users.update(str(user) for user in users)
    _groups.update(str(group) for group in groups)


def is_trusted(file: str | os.PathLike[str] | int | os.stat_result) -> bool:
    """Whether what a file says may run something.

    Parameters
    ----------
    file: path, int or os.stat_result
        its path, a descriptor, or what ``os.fstat`` gave for the descriptor that is read

    Raises
    ------
    OSError
        there is no such file
    """
    status = file if isinstance(file, os.stat_result) else os.stat(file)
    return _problem(status) is None


def require_trusted(
    file: str | os.PathLike[str] | int | os.stat_result, path: str | os.PathLike[str] = ""
) -> None:
    """Raise when what a file says may not run anything.

    Parameters
    ----------
    file: path, int or os.stat_result
        its path, a descriptor, or what ``os.fstat`` gave for the descriptor that is read
    path: path
        its path, for the error

    Raises
    ------
    UntrustedFileError
        it is not trusted; says how to trust it
    """
    status = file if isinstance(file, os.stat_result) else os.stat(file)
    problem = _problem(status)
    if problem is None:
        return
    name = os.fspath(path) or (os.fspath(file) if isinstance(file, (str, os.PathLike)) else "a file")
    owner, group = _name("user", status.st_uid), _name("group", status.st_gid)
    if problem == "everybody":
        raise UntrustedFileError(
            f"Not unpickling {name}: everybody may write to it, and unpickling runs code. "
            f"If you know what is in it: chmod o-w {name}"
        )
    if problem == "group":
        raise UntrustedFileError(
            f"Not unpickling {name}: its group {group} may write to it, and unpickling runs code. "
            f"To trust this group: export EXCA_TRUSTED_GROUPS={group} (or exca.cachedict.trust(groups=[{group!r}])); "
            f"to keep the group from writing: chmod g-w {name}"
        )
    raise UntrustedFileError(
        f"Not unpickling {name}: it belongs to {owner} (group {group}), and unpickling runs code. "
        f"To trust the files of this user: export EXCA_TRUSTED_USERS={owner} "
        f"(or EXCA_TRUSTED_GROUPS={group} for the group, or exca.cachedict.trust(users=[{owner!r}]))"
    )


def open_trusted(path: str | os.PathLike[str]) -> int:
    """Open a file that may run something, and judge it by what was opened.

    Raises UntrustedFileError where it is not trusted, or there is a link of another user's on the way.
    """
    fd = _files.open_file(os.fspath(path))
    try:
        require_trusted(_files.require_regular(fd, os.fspath(path)), path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_trusted(path: str | os.PathLike[str]) -> bytes:
    """Read a file whole on whose word something is done. Raises as `open_trusted` does."""
    fd = open_trusted(path)
    try:
        return _files.read_all(fd)
    finally:
        os.close(fd)


def load_pickle(path: str | os.PathLike[str], unpickler: "type[tp.Any] | None" = None) -> tp.Any:
    """Unpickle a trusted file, with ``pickle.Unpickler`` or a class like it. Raises as `open_trusted` does."""
    import pickle

    with open(open_trusted(path), "rb") as file:
        return (unpickler or pickle.Unpickler)(file).load()


def may_remove(status: os.stat_result, around: os.stat_result) -> bool:
    """Whether files in a folder (``around``) may be removed or set aside because a file (``status``) names them.

    A group that may write to the folder can remove them itself, so its word takes nothing.
    """
    problem = _problem(status)
    if problem == "group":
        return bool(around.st_mode & stat.S_IWGRP) and around.st_gid == status.st_gid
    return problem is None


def may_move(path: str | os.PathLike[str]) -> bool:
    """Whether what has a name may be moved or removed: no other user put it there. A link is judged itself.

    Raises OSError where there is nothing of this name.
    """
    return may_remove(os.lstat(path), os.lstat(os.path.dirname(os.fspath(path))))


def user_of(status: os.stat_result) -> str:
    """Name of the owner of a file, or the number where it has no name."""
    return _name("user", status.st_uid)


def this_user() -> str:
    """Name of the user as whom this process acts, as `user_of` tells it."""
    return _name("user", os.geteuid()) if _HAS_OWNERS else ""


importing: "contextvars.ContextVar[bool]" = contextvars.ContextVar("importing", default=True)


@contextlib.contextmanager
def imports(allowed: bool) -> tp.Iterator[None]:
    """Context in which a stored value may, or may not, have the module of its class imported."""
    token = importing.set(allowed)
    try:
        yield
    finally:
        importing.reset(token)


def skip(path: str | os.PathLike[str], reason: object) -> None:
    """Report, once in a process, that a file is passed over: nothing is done with it, and nothing on its behalf."""
    name = os.fspath(path)
    if name not in _skipped and len(_skipped) < _MAX_SKIPPED:
        _skipped.add(name)
        logger.warning("Skipped %s, which counts as not there: %s", name, reason)


_skipped: set[str] = set()
_MAX_SKIPPED = 10_000


def _problem(status: os.stat_result) -> tp.Literal["everybody", "owner", "group"] | None:
    """Which untrusted users may write to a file, or whether one has written it."""
    mode = 0 if stat.S_ISLNK(status.st_mode) else status.st_mode  # the rights of a link mean nothing
    if not _HAS_OWNERS or (not mode & 0o022 and (status.st_uid == 0 or status.st_uid == os.geteuid())):
        return None
    if mode & stat.S_IWOTH:
        return "everybody"
    groups = _numbers("group", os.environ.get("EXCA_TRUSTED_GROUPS", ""), frozenset(_groups))
    if status.st_gid in groups:
        return None
    if status.st_uid not in (0, os.geteuid()) and status.st_uid not in _numbers(
        "user", os.environ.get("EXCA_TRUSTED_USERS", ""), frozenset(_users)
    ):
        return "owner"
    if mode & stat.S_IWGRP and not _is_own_group(status.st_uid, status.st_gid):
        return "group"
    return None


@functools.lru_cache(maxsize=256)
def _is_own_group(user: int, group: int) -> bool:
    """Whether a user is the only member of a group: of the same name (or number, without one), and no other member."""
    name = _name("user", user)
    if _name("group", group) != name:
        return False
    try:
        import grp

        return set(grp.getgrgid(group).gr_mem) <= {name}
    except (KeyError, ImportError):
        return True


@functools.lru_cache(maxsize=32)
def _numbers(kind: str, text: str, more: frozenset[str]) -> frozenset[int]:
    names = {name.strip() for name in text.split(",") if name.strip()} | more
    return frozenset(number for name in names if (number := _number(kind, name)) is not None)


def _number(kind: str, name: str) -> int | None:
    if name.isdigit():
        return int(name)
    try:
        if kind == "user":
            import pwd

            return pwd.getpwnam(name).pw_uid
        import grp

        return grp.getgrnam(name).gr_gid
    except (KeyError, ImportError):
        return None


def _name(kind: str, number: int) -> str:
    try:
        if kind == "user":
            import pwd

            return pwd.getpwuid(number).pw_name
        import grp

        return grp.getgrgid(number).gr_name
    except (KeyError, ImportError):
        return str(number)
