"""Looking through a cache folder: each configuration in it as a row, whatever wrote it and whoever does now."""

import datetime
import os
import stat
import time
import typing as tp
from collections.abc import Iterator
from pathlib import Path

from .. import _files
from ..errors import OddFileError, UnknownVersionError
from . import index
from .rows import Row, flat

_RECORD, _LEGACY, _UID = "job.json", "job.pkl", "uid.yaml"
_MARKS = frozenset((_RECORD, _LEGACY, _UID, "full-uid.yaml"))
_INDEX, _CLAIM = "-info.jsonl", ".claim"  # endings
_ITEMS = "cache"  # folder of a step's results in that of its address
# folders of the cache's own, in which no configuration is looked for
_APART = frozenset(("code", "logs", "data", "cache", "errors", "chains", "submitit", "__pycache__"))
_FACTS = (
    *(
        "seconds",
        "started",
        "finished",
        "submitted",
        "host",
        "user",
        "pid",
        "cluster",
        "job_id",
        "python",
        "exca",
    ),
    *("attempt", "ended"),
)
_VALUE = 200  # characters of a result that is shown
_ERROR = 300
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
    top = _files.name_root(os.path.abspath(root))
    if not os.path.isdir(top):
        raise NotADirectoryError(f"there is no folder {top}: check the path")
    above, name = os.path.split(top)
    itself = _look(top, os.path.basename(above), name)
    if itself is not None:
        itself.top = os.path.dirname(above)
        itself.when = itself.when or os.stat(top).st_mtime
    found: list[Row] = []
    if itself is None or itself.nested:
        _walk(top, "", found, keep)
    for row in found:
        row.top = top
        if not row.method:  # the folder of a method was named
            row.method, row.top = name, above
    return found if itself is None else [itself, *found]


def _walk(  # noqa: C901 # one look at each entry
    top: str, inside: str, found: list[Row], keep: bool, *, within: bool = False
) -> None:
    """Add the rows of all folders in one, and those below; `within` one that the cache made itself."""
    folder = f"{top}/{inside}" if inside else top
    known = index.load(folder, inside) if keep else {}
    kept: dict[str, Row] = {}
    deeper: list[str] = []
    apart: list[str] = []
    before, new, now = len(found), 0, time.time_ns()
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        name = entry.name
        if name[0] == ".":
            continue
        if name in _APART:  # a user's folder may have such a name, too
            apart.append(name)
            continue
        status = _status(entry)
        if status is None:
            continue
        row = _as_kept(known.get(name), status, folder, inside)
        if row is None:
            if not stat.S_ISDIR(status.st_mode):
                continue
            row = _look(f"{folder}/{name}", inside, name, status)
            if row is None:
                deeper.append(name)
                continue
            new += now - status.st_mtime_ns > _SETTLED
        found.append(row)
        if now - status.st_mtime_ns > _SETTLED:
            kept[name] = row
        if row.nested:
            deeper.append(name)
    if keep and len(kept) >= index.WORTH and (new or len(kept) != len(known)):
        index.save(folder, kept)
    within = within or len(found) > before
    for name in deeper if within else [*deeper, *apart]:
        _walk(top, f"{inside}/{name}" if inside else name, found, keep, within=within)


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except OSError:  # removed meanwhile
        return None


def _as_kept(row: Row | None, status: os.stat_result, folder: str, method: str) -> Row | None:
    """A row that was kept, if its folder is as it was."""
    if row is None or row.changed != status.st_mtime_ns or row.inode != status.st_ino:
        return None
    if row.state == "running":  # whether the owner of the claim still lives is asked each time
        return _look(f"{folder}/{row.uid}", method, row.uid) or row
    return row


def _look(path: str, method: str, uid: str, status: os.stat_result | None = None) -> Row | None:
    """What one folder holds; None where it is none of a configuration's."""
    try:
        names = os.listdir(path)
    except OSError:
        return None
    present = frozenset(names)
    caches = [n for n in names if n.endswith(_INDEX)]
    if not (present & _MARKS or caches):
        return None
    row = Row(method, uid)
    _outcome(path, present, row)
    if _ITEMS in present or caches:
        row.state = "stored" if row.state == "empty" else row.state
        row.facts["kind"] = "items"
        row.facts["items"] = _count(path if caches else f"{path}/{_ITEMS}")
    if not row.config:
        row.config.update(_config(path))
    if any(n.endswith(_CLAIM) and n[0] != "." for n in names):
        _claims(path, row)
    nested = [
        n for n in names if n not in _APART and n[0] != "." and "." not in n and os.path.isdir(f"{path}/{n}")
    ]
    row.nested = bool(nested)  # stages of a pipeline, each below the one before
    if status is not None:
        row.changed, row.inode = status.st_mtime_ns, status.st_ino
        row.when = row.when or status.st_mtime
    return row


def look_again(row: Row) -> Row | None:
    """What the folder of a row holds now."""
    return _look(row.folder, row.method, row.uid)


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
    elif _LEGACY in present:
        row.state = "stored"
        row.facts["kind"] = "task"


def _facts_of(content: dict[str, tp.Any], row: Row) -> None:
    facts = row.facts
    row.state, facts["kind"] = content["state"], "task"
    facts.update((name, content[name]) for name in _FACTS if content.get(name) is not None)
    row.when = _seconds(content.get("finished"))
    config = content.get("config")
    if isinstance(config, dict):
        row.config.update(flat(config))
    for name in ("used", "resources", "git", "code"):
        part = content.get(name)
        if isinstance(part, dict):
            facts.update((f"{name}.{key}", value) for key, value in part.items())
    attempts = content.get("attempts")
    if isinstance(attempts, list):
        facts["attempts"] = len(attempts) + 1
    result = content.get("result")
    if isinstance(result, dict):
        value = result.get("content")
        if isinstance(value, (int, float, str, bool)) and len(str(value)) <= _VALUE:
            facts["value"] = value
        elif isinstance(value, dict):  # a result with names: its numbers can be compared
            facts.update(
                (f"value.{name}", part)
                for name, part in flat(value).items()
                if isinstance(part, (int, float, str, bool)) and len(str(part)) <= _VALUE
            )
    error = content.get("error")
    if isinstance(error, dict):
        text = f"{error.get('type', '')}: {error.get('message', '')}"
        facts["error"] = " ".join(text.split())[:_ERROR]


def _seconds(text: object) -> float:
    """A time of a record in seconds since the epoch; 0 where it is none."""
    try:
        return datetime.datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0


def _config(path: str) -> dict[str, tp.Any]:
    """The configuration as ``uid.yaml`` has it, where no record does."""
    from ..identity import configfolder

    try:
        config, _ = configfolder.load(Path(path) / _UID)
    except Exception:  # of whatever reads YAML that may be anything
        return {}
    return flat(config) if isinstance(config, dict) and config else {}


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
        holders = Claims(path).holders()
    except (OSError, UnknownVersionError):
        return
    living = [holder for holder in holders.values() if holder.alive()]
    if living:
        row.state = "running"
        owner = living[0].owner
        row.facts["owner"] = owner.describe()
        row.facts["user"] = owner.user
        if owner.job_id:
            row.facts["job_id"], row.facts["cluster"] = owner.job_id, owner.cluster
    elif holders and row.state == "empty":
        row.state = "interrupted"


def walk_files(path: str) -> Iterator[os.stat_result]:
    """Yield the status of each file below a folder; no link is followed."""
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                yield os.lstat(f"{folder}/{name}")
            except OSError:
                continue
