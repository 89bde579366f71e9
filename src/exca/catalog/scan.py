"""Looking through a cache folder: a row per configuration, whichever release wrote it, and while others write."""

import contextlib
import datetime
import gc
import os
import stat
import time
import typing as tp
from collections.abc import Iterable, Iterator
from pathlib import Path

from .. import _files
from ..errors import OddFileError, UnknownVersionError
from . import index
from .results import shown
from .rows import HASH, Row, flat

_RECORD, _LEGACY, _UID = "job.json", "job.pkl", "uid.yaml"
_MARKS = frozenset((_RECORD, _LEGACY, _UID, "full-uid.yaml"))
_INDEX, _CLAIM = "-info.jsonl", ".claim"  # endings
_ITEMS = "cache"  # folder of a step's results in that of its address
# folders of the cache's own, in which no configuration is looked for
_APART = frozenset(("code", "logs", "data", "cache", "errors", "chains", "submitit", "__pycache__"))
# facts of a record that are taken, and their types: another user may have written others
_FACTS: dict[str, type | tuple[type, ...]] = {
    "seconds": (int, float),
    **dict.fromkeys(("started", "finished", "submitted", "host", "user"), str),
    "pid": int,
    **dict.fromkeys(("cluster", "job_id", "python", "exca", "attempt", "ended"), str),
}
_SCALARS = (int, float, str, bool)
_ERROR = 300
_DEEPEST = 200  # folders in one another
_SETTLED = 2_000_000_000  # ns: a folder that changed later may change again without getting another time


def rows(root: str | os.PathLike[str], *, keep: bool = True) -> list[Row]:
    """Return a row per configuration below a folder; nothing is imported, and no pickle is loaded.

    Parameters
    ----------
    root: path
        a cache folder, one of a method, or any above
    keep: bool
        whether what was found is kept for the next time (a derived index in each method's folder, or in the user's
        own cache directory where this one may not be written)

    Returns
    -------
    list of Row
        in the order of their addresses

    Raises
    ------
    NotADirectoryError
        if there is no such folder
    """
    top = named_folder(root)
    base = _base_of(top)
    inside = "" if base == top else os.path.relpath(top, base)
    above, _, name = inside.rpartition("/")
    itself = _look(top, above, name) if name else None
    if itself is not None:
        itself.when = itself.when or os.stat(top).st_mtime
    found = [] if itself is None else [itself]
    below: list[Row] = []
    with _without_collections():
        _walk(top, "", below, keep)
    for row in below if inside else ():
        row.method = f"{inside}/{row.method}" if row.method else inside
    found += below
    for row in found:
        row.top = base
    return found


def _base_of(folder: str) -> str:
    """The cache folder that a folder is of: itself, or above that of a method, of a configuration, or of a stage."""
    above = folder
    while _MARKS & _names_in(above):
        above = os.path.dirname(above)
    full, comma, _ = os.path.basename(above).partition(",")
    if comma and "." in full:  # of a method and its version
        above = os.path.dirname(above)
    return _files.name_root(above)


def _names_in(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()


def named_folder(folder: str | os.PathLike[str]) -> str:
    """The whole path of a folder that a user named. Raises NotADirectoryError where there is none."""
    top = _files.name_root(os.path.abspath(folder))
    if not os.path.isdir(top):
        raise NotADirectoryError(f"there is no folder {top}: check the path")
    return top


def rows_below(top: str, inside: str) -> list[Row]:
    """The rows in one folder below a named one, their methods told from there; nothing is kept."""
    found: list[Row] = []
    _walk(f"{top}/{inside}", "", found, keep=False)
    for row in found:
        row.top = f"{top}/{inside}"
    return found


def _walk(top: str, inside: str, found: list[Row], keep: bool, *, within: bool = False) -> None:
    """Add the rows of all folders in one, and those below; `within` one that the cache made itself."""
    folder = f"{top}/{inside}" if inside else top
    known = index.load(folder, inside) if keep else {}
    young: set[str] = set()  # what may change again without getting another time
    deeper: list[str] = []
    apart: list[str] = []
    before, new, now = len(found), 0, time.time_ns()
    for name, status in _entries(folder):
        if name in _APART:  # a user's folder may have such a name, too
            apart.append(name)
            continue
        row = known.get(name)
        if row is not None and (
            row.inode != status.st_ino or row.changed != status.st_mtime_ns or row.state == "running"
        ):
            row = _as_kept(row, status, folder, inside)
        if row is None:
            if not stat.S_ISDIR(status.st_mode):
                continue
            row = _look(f"{folder}/{name}", inside, name, status)
            if row is None:
                deeper.append(name)
                continue
            new += now - status.st_mtime_ns > _SETTLED
            if now - status.st_mtime_ns <= _SETTLED:
                young.add(name)
        found.append(row)
        if row.nested:
            deeper.append(name)
    count = len(found) - before - len(young)
    if keep and count >= index.WORTH and (new or count != len(known)):
        index.save(folder, {row.uid: row for row in found[before:] if row.uid not in young})
    within = within or len(found) > before
    if inside.count("/") > _DEEPEST:
        return
    for name in deeper if within else [*deeper, *apart]:
        _walk(top, f"{inside}/{name}" if inside else name, found, keep, within=within)


def _entries(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield name and status of what is in a folder, in the order of names; no link is followed."""
    # a third faster than whole paths
    relative = os.stat in os.supports_dir_fd and os.listdir in os.supports_fd
    fd = None
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY) if relative else None
        names = sorted(os.listdir(folder if fd is None else fd))
        for name in names:
            if name[0] != ".":
                try:
                    status = os.stat(
                        name if relative else f"{folder}/{name}", dir_fd=fd, follow_symlinks=False
                    )
                except OSError:  # removed meanwhile
                    continue
                yield name, status
    except OSError:
        return
    finally:
        if fd is not None:
            os.close(fd)


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Without looks for garbage in circles, of which many rows leave none, and which take a tenth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _as_kept(row: Row, status: os.stat_result, folder: str, method: str) -> Row | None:
    """A row that was kept, if its folder is as it was."""
    if row.inode != status.st_ino:
        return None
    if row.changed != status.st_mtime_ns and (
        row.state != "stored" or row.changed != _stamp(f"{folder}/{row.uid}", status)
    ):
        return None
    if row.state == "running":  # whether the owner of the claim still lives is asked each time
        return _look(f"{folder}/{row.uid}", method, row.uid) or row
    return row


def _look(path: str, method: str, uid: str, status: os.stat_result | None = None) -> Row | None:
    """What one folder holds; None where it is none of a configuration's."""
    row, names = _look_once(path, method, uid, status)
    while row is not None and row.state in ("empty", "interrupted") and any(map(_is_claim, names)):
        before = names
        row, names = _look_once(path, method, uid, status)
        if names == before:
            break  # else a claim has changed hands while it was looked for, or the outcome has come
    return row


def _is_claim(name: str) -> bool:
    return name.endswith(_CLAIM) and name[0] != "."


def _look_once(
    path: str, method: str, uid: str, status: os.stat_result | None
) -> tuple[Row | None, list[str]]:
    try:
        names = sorted(os.listdir(path))
    except OSError:
        return None, []
    present = frozenset(names)
    caches = [n for n in names if n.endswith(_INDEX)]
    if not (present & _MARKS or caches):
        return None, names
    row = Row(method, uid)
    _outcome(path, present, row)
    holds_items = _ITEMS in present or bool(caches)
    # before the items are counted: what comes later is seen the next time
    changed = status and (_stamp(path, status) if holds_items else status.st_mtime_ns)
    if holds_items:
        row.state = "stored" if row.state == "empty" else row.state
        row.facts["kind"] = "items"
        row.facts["items"] = _count(path if caches else f"{path}/{_ITEMS}")
    if not row.config:
        row.config.update(_config(path))
    if _ITEMS in present or any(map(_is_claim, names)):
        _claims(path, row)
    row.nested = bool(stages(path, names))
    if status is not None:
        row.changed, row.inode = changed or 0, status.st_ino
        row.when = row.when or status.st_mtime
    return row, names


def stages(path: str, names: Iterable[str]) -> frozenset[str]:
    """Of the names in a configuration's folder, those of the stages of a pipeline that follow it."""
    return frozenset(
        n
        for n in names
        if n not in _APART
        and n[0] != "."
        and ("." not in n or HASH.search(n))
        and os.path.isdir(f"{path}/{n}")
    )


def claim_folders(path: str) -> list[str]:
    """Where the claims on what is in a configuration's folder are: there, and beside the items of a step."""
    items = f"{path}/{_ITEMS}"
    return [path, items] if os.path.isdir(items) else [path]


def _stamp(path: str, status: os.stat_result) -> int:
    """A number that is another one when something was stored in a folder: also in a file that was there before."""
    import xxhash

    seen = [(status.st_mtime_ns, 0, "")]
    for folder in claim_folders(path):
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.endswith((_INDEX, _CLAIM)):
                        file = entry.stat(follow_symlinks=False)
                        seen.append((file.st_mtime_ns, file.st_size, entry.name))
        except OSError:
            continue
    return xxhash.xxh3_64_intdigest(repr(sorted(seen)).encode(errors="surrogateescape")) >> 1


def look_again(row: Row) -> Row | None:
    """What the folder of a row holds now."""
    return _look(row.folder, row.method, row.uid)


def look_at(top: str, address: str) -> Row | None:
    """The row at an address below a folder that was named; None where there is none."""
    method, _, uid = address.rpartition("/")
    row = _look(f"{top}/{address}", method, uid)
    if row is not None:
        row.top = top
    return row


def is_regular(status: os.stat_result) -> bool:
    """Whether a file is one, and no link, folder, FIFO or device."""
    return stat.S_ISREG(status.st_mode)


def _outcome(path: str, present: frozenset[str], row: Row) -> None:
    if _RECORD in present:
        from ..engine import record

        try:
            content = record.parse(_files.read_file(f"{path}/{_RECORD}"), f"{path}/{_RECORD}")
        except UnknownVersionError:
            row.state = "unknown"
            return
        except (OSError, OddFileError) as e:
            row.state, row.facts["error"] = "damaged", str(e)[:_ERROR]
            return
        if content is None:
            row.state = "damaged"
            return
        _facts_of(content, row)
        if row.state == "failed" and str(row.facts.get("ended")).startswith("CANCELLED"):
            from ..engine.current import PRUNED

            row.state = "pruned" if PRUNED in present else row.state
    elif _LEGACY in present:
        row.state = "stored"
        row.facts["kind"] = "task"


def _facts_of(content: dict[str, tp.Any], row: Row) -> None:
    facts = row.facts
    row.state, facts["kind"] = content["state"], "task"
    for name, kind in _FACTS.items():
        value: tp.Any = content.get(name)
        if isinstance(value, kind):
            facts[name] = _cut(value)
    row.when = seconds_of(content.get("finished"))
    config = content.get("config")
    if isinstance(config, dict):
        row.config.update(flat(config))
    for name in ("used", "resources", "git", "code"):
        part = content.get(name)
        if isinstance(part, dict):
            facts.update(
                (f"{name}.{key}", _cut(value)) for key, value in part.items() if isinstance(value, _SCALARS)
            )
    attempts = content.get("attempts")
    if isinstance(attempts, list):
        facts["attempts"] = len(attempts) + 1
    result = content.get("result")
    if isinstance(result, dict):
        facts.update(shown(result))
    error = content.get("error")
    if isinstance(error, dict):
        text = f"{error.get('type') or ''}: {error.get('message', '')}"
        facts["error"] = " ".join(text.removeprefix(": ").split())[:_ERROR]


def _cut(fact: tp.Any) -> tp.Any:
    return fact[:_ERROR] if isinstance(fact, str) else fact


def seconds_of(text: object) -> float:
    """A time of a record in seconds since the epoch; 0 where it is none."""
    try:
        return datetime.datetime.fromisoformat(str(text)).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0


def _config(path: str) -> dict[str, tp.Any]:
    """The configuration as ``uid.yaml`` has it, where no record does."""
    from ..identity import configfolder

    try:
        config, _ = configfolder.load(Path(path) / _UID)
    except Exception:  # of whatever reads YAML that may be anything
        return {}
    return flat(config)


def _count(path: str) -> int | None:
    """How many items a folder holds."""
    from ..cachedict import CacheDict

    try:
        return len(CacheDict[tp.Any](folder=path))
    except Exception:  # of whatever reads it
        return None


def _claims(path: str, row: Row) -> None:
    """Whether what has a claim is being computed, or its owner has died."""
    from ..claims import Claims

    try:
        holders = [h for folder in claim_folders(path) for h in Claims(folder).holders().values()]
    except (OSError, UnknownVersionError):
        return
    ended = row.facts.get("attempt")  # its outcome is there, and its claim about to go
    living = [holder for holder in holders if holder.token != ended and holder.alive()]
    if living:
        row.state = "running"
        owner = living[0].owner
        row.facts["owner"] = owner.describe()
        row.facts["user"] = owner.user
        if owner.job_id:
            row.facts["job_id"], row.facts["cluster"] = owner.job_id, owner.cluster
    elif holders and row.state == "empty":
        row.state = "interrupted"


def walk_files(path: str, *, whole: bool = False) -> Iterator[tuple[str, os.stat_result]]:
    """Yield path and status of each file of a configuration, of stages below it if ``whole``; no link is followed."""
    for folder, subfolders, names in os.walk(path):
        if folder == path and not whole:
            later = stages(path, subfolders)
            subfolders[:] = [name for name in subfolders if name not in later]
        for name in sorted(names):
            try:
                yield f"{folder}/{name}", os.lstat(f"{folder}/{name}")
            except OSError:
                continue


def size_of(path: str, *, whole: bool = False) -> int:
    """How many bytes the files of `walk_files` have."""
    return sum(status.st_size for _, status in walk_files(path, whole=whole))
