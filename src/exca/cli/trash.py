"""The trash of a cache folder, ``.trash/<date>-<random>/<address>``: what is moved there and brought back.

Others may write to the folder, so all is named relative to open folders (`exca._files`): no link of another user's is
followed, what was looked at is what is moved, and what another user put into the trash is left to that user.
"""

import os
import time
from collections.abc import Callable

from .. import _files, _trust
from ..catalog import scan
from ..catalog.rows import Row
from ..claims import Claims

FOLDER = ".trash"


def new_place() -> str:
    """A name in the trash for what one command moves."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(2).hex()}"


def discard(row: Row, place: str, *, user: str | None = None) -> None:
    """Move the folder of a row into the trash; stages of a pipeline below it stay where they are.

    Raises
    ------
    OSError
        if it is being computed, belongs to a user other than this one or ``user``, or may not be moved
    """
    owner = _trust.user_of(_files.status_of(row.folder))
    if not _may_act_for(owner) and owner != user:
        raise PermissionError(f"it belongs to {owner}: with `--user {owner}`, what is of that user is moved")
    require_unclaimed(row.folder)
    target = f"{row.top}/{FOLDER}/{place}/{row.address}"
    _files.make_folders(f"{row.top}/{FOLDER}")
    _files.make_folders(os.path.dirname(target), _files.OWN_FOLDER)
    # a claim may come between the look and the move
    move(row.folder, target, _files.OWN_FOLDER, check=require_unclaimed)


def restore(row: Row, target: str) -> None:
    """Move the folder of a row in the trash to where it was. Raises FileExistsError where something is there again."""
    _files.make_folders(os.path.dirname(target))
    move(row.folder, target, _files.SHARED_FOLDER)


def places(top: str) -> list[str]:
    """The names of what is in the trash of a folder, the earliest first; of folders alone."""
    try:
        names = _files.list_folder(f"{top}/{FOLDER}")
    except FileNotFoundError:
        return []
    return [name for name in names if _files.is_folder(f"{top}/{FOLDER}/{name}")]


def require_ours(top: str, place: str) -> None:
    """Raise PermissionError where another user may have put into the trash what is there."""
    path = f"{top}/{FOLDER}/{place}"
    status = _files.status_of(path)
    owner = _trust.user_of(status)
    if not _may_act_for(owner) or status.st_mode & 0o022:
        raise PermissionError(
            f"{path} was put there by {owner}, or others may write to it: left to that user"
        )


def _may_act_for(owner: str) -> bool:
    return not hasattr(os, "geteuid") or os.geteuid() == 0 or owner == _trust.this_user()


def move(folder: str, target: str, rights: int, check: Callable[[str], None] = lambda _: None) -> None:
    """Move a folder without the stages of a pipeline below it, and back where the check of what was moved fails."""
    names = _files.list_folder(folder)
    stages = scan.stages(folder, names)
    if not stages and not os.path.lexists(target):
        before = _files.status_of(folder)
        _files.move_to(folder, target)
        try:
            after = _files.status_of(target)
            if (after.st_dev, after.st_ino) != (before.st_dev, before.st_ino):
                raise PermissionError("another process put something else in its place meanwhile")
            check(target)
        except OSError:
            _files.move_to(target, folder)
            raise
        return
    _files.make_folders(target, rights)
    own = [name for name in names if name not in stages]
    taken = set(own) & set(_files.list_folder(target))
    if taken:
        raise FileExistsError(f"something is there again: {target}")
    for name in own:
        _files.move_to(f"{folder}/{name}", f"{target}/{name}")
    try:
        check(target)
    except OSError:
        for name in own:
            _files.move_to(f"{target}/{name}", f"{folder}/{name}")
        raise


def require_unclaimed(folder: str) -> None:
    """Raise OSError where what is in a folder is being computed."""
    for place in scan.claim_folders(folder):
        for holder in Claims(place).holders().values():
            if holder.alive():
                raise OSError(f"it is being computed by {holder.describe()}: cancel that first")
