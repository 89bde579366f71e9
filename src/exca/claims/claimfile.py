"""The claim files of one folder: their format, and the few operations on them.

``<folder>/<token>.<revision>.<random>.claim`` holds two lines of JSON: the owner, and the keys.
The first bytes have fixed places, so that one write into the file changes them; ``sum`` is the XXH3-64 of all
bytes behind it, since others wait for what is taken for the owner::

    {"state": "asked", "beat": "0000000000", "sum": "<hex>", "since": 1.7e9, "every": 5.0, "owner": {...}}
    ["key 1", "key 2"]

Where some of the keys have waited for results of others for a second, ``waits`` in the first line tells which, and for
what (`exca.claims.chain`).

A token is ``<host>-<pid>-<start time>-<random>``: even of a file that cannot be read its maker is known.
"""

import contextlib
import errno
import functools
import json
import os
import secrets
import time
import typing as tp
from pathlib import Path

import orjson
import xxhash

from .. import _files, _trust
from ..errors import OddFileError, UnknownVersionError, UntrustedFileError
from .heartbeat_process import BEAT_DIGITS, BEAT_OFFSET
from .owner import Owner, Process, heart, period

VERSION = 1  # of the format; files of this one do not say so
SUFFIX, DRAFT_SUFFIX = ".claim", ".claim.tmp"
STATE_OFFSET = 10
ASKED, OWNED = b"asked", b"owned"
_PREFIX = b'{"state":"%s","beat":"%s",'
_SUM = b'"sum":"%016x",'
_SUM_AT = len(_PREFIX % (ASKED, b"0" * BEAT_DIGITS))
_SUM_END = _SUM_AT + len(_SUM % 0)
assert len((_PREFIX % (ASKED, b""))[:-2]) == BEAT_OFFSET
MAX_REMEMBERED, MAX_REMEMBERED_BYTES = 2000, 5000
# what odd values in the place of others lead to
_DAMAGED = (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError)


class Announcement(tp.NamedTuple):
    """A submission that is about to happen."""

    cluster: str
    tag: str  # in the job's comment, by which it is found again
    # number of the array's task that will do the work; None for a job that is no array
    task: int | None = None
    logs: str | None = None  # folder of the job's logs, with ``%j`` for its id, where its backend looks there


class Wait(tp.NamedTuple):
    """Keys of a claim that wait for other keys while they are computed."""

    keys: list[str]
    folder: str  # of what they wait for
    wanted: list[str]


class _Content(tp.NamedTuple):
    name: str  # of the file
    owner: Owner | None  # None when the file cannot be read: damaged, or not allowed
    since: float  # Unix time of the claim, in seconds
    every: float  # seconds between two heartbeats
    owned: bool  # False while the claimant still looks whether another process was there first
    announced: Announcement | None = None  # the submission that may be under way
    body: bytes | None = None  # the line of keys; None when it cannot be read
    private: bool = False  # whether this user may not read the file
    # whether it may have a job cancelled or a process ended: only if none but this user, or a trusted one, wrote it
    trusted: bool = True
    waits: tuple[Wait, ...] = ()  # which of the keys wait for what, where that has lasted


class ClaimEntry(_Content):
    """What is in one claim file."""

    @property
    def token(self) -> str:
        """The token of the claim that the file belongs to."""
        return token_of(self.name)

    @property
    def rank(self) -> str:
        """What decides between two that ask at the same time: the greater one gets it."""
        return self.token.rpartition("-")[2]

    @functools.cached_property
    def keys(self) -> tuple[str, ...] | None:
        """The keys; None when they cannot be read: then it may be all."""
        if self.body is None:
            return None
        keys = load_json(self.body)
        return tuple(keys) if _are_keys(keys) else None

    def maker(self) -> Process | None:
        """The process that made the file, by its name."""
        host, pid, start, _ = (self.token + "---").split("-", 3)
        return Process(host, f"host {host}", int(pid), start) if pid.isdigit() else None

    def maker_is(self, process: Process) -> bool:
        """Whether this process made the file, by its name."""
        return self.name.startswith(f"{process.host}-{process.pid}-{process.start}-")


def new_token() -> str:
    """A token that no claim ever had."""
    me = Process.current()
    return f"{me.host}-{me.pid}-{me.start}-{os.urandom(6).hex()}"


def fresh_entry(keys: tp.Sequence[str], owner: Owner, *, owned: bool = False) -> ClaimEntry:
    """An entry of a new token that asks for the keys, or owns them already."""
    return ClaimEntry(name_of(new_token(), 0), owner, time.time(), period(), owned, None, dump_json(keys))


def token_of(name: str) -> str:
    """The token in the name of a claim file."""
    return name.lstrip(".").partition(".")[0]


def revision_of(name: str) -> tuple[int, str]:
    """The order of the revisions of a claim."""
    _, revision, salt, _ = (name + "...").split(".", 3)
    return (int(revision) if revision.isdigit() else 0, salt)


def name_of(token: str, revision: int) -> str:
    """A name for the next file of a claim."""
    return f"{token}.{revision}.{secrets.token_hex(3)}{SUFFIX}"


def dump_json(value: tp.Any) -> bytes:
    """JSON in one line, of any str (also with lone surrogates)."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()


def load_json(data: bytes) -> tp.Any:
    """The value of JSON text, None when it is none."""
    try:
        return orjson.loads(data)
    except ValueError:
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            return None


class ClaimFolder:
    """The claim files of one folder, whose keys are claimed."""

    def __init__(self, folder: Path | str) -> None:
        self.folder: Path = folder if isinstance(folder, Path) else Path(folder)
        text = os.fspath(folder)
        self._base = text if os.path.isabs(text) else os.path.abspath(text)

    def path(self, name: str) -> str:
        """Where the file of this name is."""
        return f"{self._base}/{name}"

    def names(self) -> list[str]:
        """All claim files there are now."""
        return self.listing()[0]

    def listing(self) -> tuple[list[str], list[str]]:
        """All claim files, and all drafts of such (their maker is at it, or died), in one look."""
        try:
            found = os.listdir(self._base)
        except OSError as e:
            if e.errno in _files.GONE:
                return [], []
            raise
        names = [n for n in found if n.endswith(SUFFIX) and n[0] != "."]
        return names, [n for n in found if n.endswith(DRAFT_SUFFIX)]

    def read(self, name: str) -> ClaimEntry | None:
        """What is in the file now; None when it is gone.

        A decided file of this name stays as it is (but for its beat), so a small one is read once.
        """
        path = self.path(name)
        entry = _decided.get(path)
        if entry is None:
            entry = self._read(name)
            if entry is not None and entry.owned and entry.body and len(entry.body) < MAX_REMEMBERED_BYTES:
                if len(_decided) >= MAX_REMEMBERED:
                    _decided.clear()
                _decided[path] = entry
        return entry

    def _read(self, name: str) -> ClaimEntry | None:
        path = self.path(name)
        try:
            data, status = _files.read_judged(path)
        except UntrustedFileError as e:
            _trust.skip(path, e)
            return None
        except PermissionError:
            return ClaimEntry(name, None, 0.0, 5.0, owned=True, private=True)
        except OddFileError as e:  # no claimant makes such
            _trust.skip(path, e)
            return None
        except OSError as e:
            if e.errno in _files.GONE:
                return None
            raise
        entry = _parse(name, data, path)
        return entry if _trust.is_trusted(status) else entry._replace(trusted=False)

    def beat(self, name: str) -> tp.Hashable:
        """A value that changes with every heartbeat; None when the file is gone."""
        try:
            fd = _files.open_file(self.path(name))  # opening makes an NFS client look at the server
        except PermissionError:
            return self._mtime(name)
        except OSError:
            return None
        try:
            return os.read(fd, BEAT_OFFSET + BEAT_DIGITS)[BEAT_OFFSET:]
        except OSError:
            return None
        finally:
            os.close(fd)

    def _mtime(self, name: str) -> int | None:
        try:
            return os.lstat(self.path(name)).st_mtime_ns
        except OSError:
            return None

    def write_unseen(self, entry: ClaimEntry, draft: str) -> None:
        """Make the file in a draft of the folder, which only this process sees, with a process to beat for it."""
        assert entry.owner is not None
        assert entry.owner.process is not None
        heart.watch(self.path(entry.name), entry.owner.process)
        _files.write_new(f"{draft}/{entry.name}", _render(entry), mode=_files.OWN)

    def place(self, entry: ClaimEntry) -> None:
        """Make the file, with a process to beat for it."""
        process, me = None if entry.owner is None else entry.owner.process, Process.current()
        path = self.path(entry.name)
        if process is not None and process.host == me.host:  # without one, the scheduler is asked
            heart.watch(path, process, remember=process == me)
        try:
            self.replace(entry)
        except BaseException:
            heart.forget(path)
            raise

    def drop(self, name: str) -> None:
        """Take a file of ours away; what can't be removed now is given up all the same, and removed later."""
        path = self.path(name)
        if self.remove(name):
            heart.forget(path)
        else:
            heart.discard(path)

    def replace(self, entry: ClaimEntry) -> None:
        """Put the file in its place: it appears whole, in one step."""
        data = _render(entry)
        me = Process.current()  # not always the one whose token it is
        draft = f"{self._base}/.{me.host}-{me.pid}-{me.start}.{entry.name}.tmp"
        for _ in range(100):
            try:
                _files.write_new(draft, data, mode=_files.OWN)
                os.replace(draft, self.path(entry.name))
                return
            except OSError as e:
                if e.errno not in _files.GONE:
                    with contextlib.suppress(OSError):
                        os.unlink(draft)
                    e.add_note(f"exca: could not claim in {self.folder}: check that it can be written to")
                    raise
                _files.make_folders(self._base)
        raise FileNotFoundError(errno.ENOENT, "is being removed again and again", self._base)

    def decide(self, name: str) -> bool:
        """Turn asked into owned; False when the file is gone."""
        try:
            fd = _files.open_file(self.path(name), _files.UPDATE)
        except OSError as e:
            if e.errno in _files.GONE:
                return False
            raise
        try:
            _files.require_ours(fd)
            os.lseek(fd, STATE_OFFSET, os.SEEK_SET)
            _files.write_all(fd, OWNED)
        finally:
            os.close(fd)
        return True

    def remove(self, name: str) -> bool:
        """Remove the file, and tell whether it is gone: it may have to stay for a moment, or for ever."""
        try:
            os.unlink(self.path(name))
        except OSError as e:
            return e.errno in _files.GONE
        return True

    def exists(self, name: str) -> bool:
        """Whether the file is there, asked in the way in which an NFS client asks its server."""
        try:
            os.close(os.open(self.path(name), _files.READ))
        except OSError as e:
            return e.errno not in _files.GONE
        return True


_decided: dict[str, ClaimEntry] = {}


def _render(entry: ClaimEntry) -> bytes:
    assert entry.owner is not None
    assert entry.body is not None
    head: dict[str, tp.Any] = {"since": entry.since, "every": entry.every, "owner": entry.owner.to_json()}
    if entry.announced is not None:
        head["announced"] = entry.announced._asdict()
        if entry.announced.logs is None:
            del head["announced"]["logs"]
    if entry.waits:
        head["waits"] = list(map(list, entry.waits))
    prefix = _PREFIX % (OWNED if entry.owned else ASKED, b"0" * BEAT_DIGITS)
    rest = dump_json(head)[1:] + b"\n" + entry.body + b"\n"
    return prefix + _SUM % xxhash.xxh3_64_intdigest(rest) + rest


def _checked_announcement(announced: Announcement) -> Announcement:
    task, logs = announced.task, announced.logs
    if not (
        type(announced.cluster) is type(announced.tag) is str
        and (task is None or type(task) is int)
        and (logs is None or type(logs) is str)
    ):
        raise ValueError(f"{announced} announces nothing")
    return announced


def _checked_wait(wait: Wait) -> Wait:
    if type(wait.folder) is not str or not (_are_keys(wait.keys) and _are_keys(wait.wanted)):
        raise ValueError(f"{wait} waits for nothing")
    return wait


def _are_keys(value: tp.Any) -> bool:
    return isinstance(value, list) and all(type(key) is str for key in value)


def _parse(name: str, data: bytes, path: str) -> ClaimEntry:
    line, _, rest = data.partition(b"\n")
    head = load_json(line)
    version = head.get("version") if isinstance(head, dict) else None
    if type(version) is int and version > VERSION:
        raise UnknownVersionError(
            f"{path} is a claim of version {version}, and this release of exca knows those up to {VERSION}: a later "
            "release computes here, or has. It is left alone: update exca, or wait until it is gone and call again"
        )
    try:
        announced = head.get("announced")
        owner = Owner.from_json(head["owner"])
        if data[_SUM_AT:_SUM_END] != _SUM % xxhash.xxh3_64_intdigest(data[_SUM_END:]):
            # damaged: of a job its backend may still know, of a process the name is a better witness
            return ClaimEntry(name, owner if owner.scheduled else None, 0.0, 5.0, True)
        return ClaimEntry(
            name,
            owner,
            float(head["since"]),
            float(head["every"]),
            head["state"] == OWNED.decode(),
            None if announced is None else _checked_announcement(Announcement(**announced)),
            rest[:-1] if rest.endswith(b"]\n") else None,
            waits=tuple(_checked_wait(Wait(*wait)) for wait in head.get("waits", ())),
        )
    except _DAMAGED:  # the name still tells its maker
        return ClaimEntry(name, None, 0.0, 5.0, True)
