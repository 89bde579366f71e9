"""Whose pickled files are loaded: unpickling runs code, so a cache must not run a stranger's unasked.

A file is trusted when it belongs to this user or to root, or to a user or group that was named, and is not
writable by everybody. Users and groups are named (by name or number) in the environment variables
``EXCA_TRUSTED_USERS`` and ``EXCA_TRUSTED_GROUPS``, separated by commas, or with `trust`. Where the platform has no
owners of files (Windows), every file is trusted.
"""

import functools
import os
import stat
import typing as tp

from ..errors import UntrustedFileError

_users: set[str] = set()
_groups: set[str] = set()


def trust(*, users: tp.Iterable[str | int] = (), groups: tp.Iterable[str | int] = ()) -> None:
    """Load pickled files of these users and groups too, in this process.

    Parameters
    ----------
    users: names or numbers of users whose files are loaded
    groups: names or numbers of groups whose files are loaded
    """
    _users.update(str(user) for user in users)
    _groups.update(str(group) for group in groups)


def is_trusted(file: str | os.PathLike[str] | os.stat_result) -> bool:
    """Whether pickled content of a file may be loaded.

    Parameters
    ----------
    file: its path, or what `os.stat` said about it

    Raises
    ------
    OSError: there is no such file
    """
    if not hasattr(os, "geteuid"):
        return True
    status = file if isinstance(file, os.stat_result) else os.stat(file)
    if status.st_mode & stat.S_IWOTH:
        return False
    if status.st_uid in (0, os.geteuid()):
        return True
    named = os.environ.get("EXCA_TRUSTED_USERS", ""), os.environ.get("EXCA_TRUSTED_GROUPS", "")
    return status.st_uid in _numbers("user", named[0], frozenset(_users)) or status.st_gid in _numbers(
        "group", named[1], frozenset(_groups)
    )


def require_trusted(path: str | os.PathLike[str]) -> None:
    """Raise UntrustedFileError, which says how to trust it, when pickled content of a file may not be loaded."""
    status = os.stat(path)
    if is_trusted(status):
        return
    if status.st_mode & stat.S_IWOTH:
        raise UntrustedFileError(
            f"Not unpickling {os.fspath(path)}: everybody may write to it, and unpickling runs code. "
            f"If you know what is in it: chmod o-w {os.fspath(path)}"
        )
    owner, group = _name("user", status.st_uid), _name("group", status.st_gid)
    raise UntrustedFileError(
        f"Not unpickling {os.fspath(path)}: it belongs to {owner} (group {group}), and unpickling runs code. "
        f"To trust the files of this user: export EXCA_TRUSTED_USERS={owner} "
        f"(or EXCA_TRUSTED_GROUPS={group} for the group, or exca.cachedict.trust(users=[{owner!r}]))"
    )


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
