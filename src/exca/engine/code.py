"""Whether a result was computed by the code that would compute it now.

The digest of the code is recorded with each result, and compared when it is found again; the uid never changes by it.
What a digest was made of is kept once per method and digest, in ``.code`` in the folder of the method. There lie also
the changes that a user accepted as harmless: one file each, which counts where a trusted user wrote it.
"""

import datetime
import os
import sys
import time
import typing as tp
from pathlib import Path

from .. import _files, _trust, settings
from .._callers import warn
from .._log import logger
from ..codedigest import CodeDigest, comparable
from ..codedigest.digest import SCHEME
from ..codedigest.record import FOLDER, Content, changed_parts, read_code, write_code
from ..errors import CodeChangedWarning, OddFileError, OtherClassError, UntrustedFileError
from ..identity import classnames

if tp.TYPE_CHECKING:
    from .method import Method

Policy = tp.Literal["off", "warn", "strict"]
Change = tuple[str, str, str]  # a part, its digest before, and its digest now
MAX_NAMED = 3  # parts in a message
PREFIX = "accepted-"
_PACKAGE = "package "  # in front of a package's name, where a part is one
_told: set[tuple[str, str, str]] = set()
_same: set[tuple[str, str, str]] = set()  # folder and two digests between which all changes are accepted
_named: set[tuple[str, str]] = (
    set()
)  # folders to which the names of classes were added, and the digest of their code
_others: dict[tuple[str, str, str], float] = {}  # those of which they are not, until when that is believed


class Code:
    """The code of a method, by which its results are judged."""

    __slots__ = ("_again", "_method", "now", "policy")

    def __init__(self, now: CodeDigest, policy: Policy, method: "Method", again: str = "") -> None:
        self.now: CodeDigest = now
        self.policy: Policy = policy
        self._method: Method = method
        self._again = again  # how to compute again, for messages

    @property
    def digest(self) -> str:
        """Text to compare."""
        return self.now.digest

    @property
    def folder(self) -> Path:
        """Folder of the method, where what digests were made of is kept."""
        return self._method.home

    def kept(self, sent: CodeDigest | None = None) -> dict[str, tp.Any]:
        """Keep what the digest was made of, and return what a record holds of it.

        In a job, a class that was sent by value has no source: then what was ``sent`` along with it tells.
        """
        now = self.now if sent is None else in_job(type(self._method.obj), self.now, sent)
        try:
            if not os.path.lexists(f"{self.folder}/{FOLDER}/{now.digest}"):
                write_code(self.folder, now)
        except OSError as e:  # no reason not to keep the result
            logger.debug("Cannot write what the code of %s is into %s: %s", self._method.name, self.folder, e)
        return {"scheme": SCHEME, "digest": now.digest, "method": now.method}

    def differs(self, recorded: tp.Any) -> bool:
        """Whether a result has the digest of other code, and not all that changed is accepted."""
        now = self.now.digest
        if recorded is None or recorded == now or not isinstance(recorded, str):
            return False
        return comparable(recorded, now) and not self._is_accepted(recorded)

    def counts(self, recorded: tp.Any, which: str) -> bool:
        """Whether a result counts, by the digest recorded with it; warns where it does though the code differs."""
        told = (self.now.method, recorded, self.now.digest)
        if recorded == self.now.digest or (self.policy == "warn" and told in _told):
            return True
        if not self.differs(recorded):
            if isinstance(recorded, str):
                self._add_names()
            return True
        self._refuse_others()
        if self.policy == "warn":
            _told.add(told)
            self._tell(recorded, which)
            return True
        return False

    def _add_names(self) -> None:
        """Add the names of the classes to those of what they were moved from, once for all entries of a folder."""
        place = (os.fspath(self._method.folder), self.now.digest)
        if place not in _named and self._method.mode != "read-only":
            _named.add(place)
            classnames.NotedNames(self._method.class_names).add_to(place[0])

    def _refuse_others(self) -> None:
        """Raise an OtherClassError where a class of another name, not this one, computed what is there."""
        folder = self._method.folder
        known = classnames.read(os.fspath(folder)) or {}
        for bare, names in self._method.class_names().items():
            strangers = known.get(bare, [])
            if strangers and set(strangers).isdisjoint(names):
                if names[0].endswith((f".{bare}", f":{bare}")):
                    why = f"{bare!r} only. Give one of the two another name, or"
                else:  # the path of a field that is declared as Any
                    why = f"the fields of what is at {bare!r}, not its class. Declare it with a discriminator, or give"
                settings.complain(
                    "other-class",
                    OtherClassError(
                        f"what is in {folder} was computed by {', '.join(strangers)}, and {names[0]}, with other code, "
                        f"has the same address, which holds {why} their infras different versions or folders; put "
                        "classes of scripts into modules. If the two compute the same: exca.accept(obj, why='...')"
                    ),
                    names[0],
                )

    def _tell(self, recorded: str, which: str) -> None:
        again = self._again or f"change the version of {self._method.infra_name!r}"
        warn(
            f"the code of {self._method.name} is not what computed {which}: {self.described(recorded)}. The result "
            f"that is there is returned. exca.why(obj) shows what changed; to compute again, {again}, or set "
            f"code='strict' on {self._method.infra_name!r}; if results are not affected: "
            "exca.accept(obj, why='...')",
            CodeChangedWarning,
        )

    def described(self, recorded: str) -> str:
        """The names of what changed since."""
        changes = self.changes(recorded)
        if changes is None:
            return "the change cannot be shown, since the earlier code is not recorded"
        names = [name for name, _, _ in changes]
        shown = ", ".join(names[:MAX_NAMED])
        return f"{shown}{'' if len(names) <= MAX_NAMED else f' and {len(names) - MAX_NAMED} more'} changed"

    def changes(self, recorded: str) -> list[Change] | None:
        """What changed since a result was computed; None where what its code was is not kept."""
        old = read_code(self.folder, recorded)
        return None if old is None else changes(old.content, self.now.content)

    def _is_accepted(self, recorded: str) -> bool:
        known = (str(self.folder), recorded, self.now.digest)
        if known in _same or time.monotonic() < _others.get(known, 0.0):
            return known in _same
        old = read_code(self.folder, recorded)
        if old is not None and _is_moved(old.content, self.now.content):
            _same.add(known)
            return True
        acceptances = accepted(self.folder)
        found = self.changes(recorded) if acceptances else None
        if found is None or not all(_leads(acceptances, change) for change in found):
            _others[known] = time.monotonic() + 0.5
            return False
        _same.add(known)
        return True


def _is_moved(old: Content, new: Content) -> bool:
    """Whether the code is the same under other names: of a class that was moved or copied."""
    versions = [{name: each.packages.get(name) for name in each.compared} for each in (old, new)]
    return sorted(old.parts.values()) == sorted(new.parts.values()) and versions[0] == versions[1]


def in_job(cls: type, now: CodeDigest, sent: CodeDigest | None) -> CodeDigest:
    """The digest of what runs in a job: the one that was sent along, where the class was sent by value.

    Such a class, of a script, a notebook or a function, does not find in the job what it found where it was made.
    """
    found: tp.Any = sys.modules.get(cls.__module__)
    for name in cls.__qualname__.split("."):
        found = getattr(found, name, None)
    return now if sent is None or (found is cls and comparable(sent.digest, now.digest)) else sent


def cannot_tell(name: str, error: Exception) -> None:
    """Warn, once per method, that changes of its code are not noticed."""
    if (name, "", "") not in _told:
        _told.add((name, "", ""))
        warn(
            f"cannot tell what the code of {name} is, so changes of it are not noticed: {error!r}. Please report this; "
            "code='off' on the infra silences it",
            CodeChangedWarning,
        )


def changes(old: Content, new: Content) -> list[Change]:
    """The parts, and the packages that are compared, of which two digests were made differently."""
    found = [(name, old.parts.get(name, ""), new.parts.get(name, "")) for name in changed_parts(old, new)]
    for name in sorted({*old.compared, *new.compared}):
        versions = [
            each.packages.get(name, "") if name in each.compared else "not compared" for each in (old, new)
        ]
        if versions[0] != versions[1]:
            found.append((_PACKAGE + name, versions[0], versions[1]))
    return found


# ------------------------------------------------------------------------------------------------- acceptances


class Acceptance(tp.NamedTuple):
    """A change of code that a user declared harmless for the results of a method.

    Parameters
    ----------
    part: str
        the function, class or constant that changed
    before, now: str
        its digests
    why: str
        the reason given
    user, host: str
        by whom and where it was accepted
    when: str
        the time, with its time zone
    file: Path
        where it is kept: without this file the change counts again
    """

    part: str
    before: str
    now: str
    why: str
    user: str
    host: str
    when: str
    file: Path

    def take_back(self) -> None:
        """Have the change count again."""
        _files.remove(str(self.file))
        _same.clear()
        _others.clear()


def accept(folder: Path, found: tp.Iterable[Change], why: str) -> list[Acceptance]:
    """Write down that changes are harmless."""
    import orjson

    place = f"{folder}/{FOLDER}"
    _files.make_folders(place)
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    written = []
    for part, before, after in found:
        file = Path(f"{place}/{PREFIX}{os.urandom(4).hex()}.json")
        content = {"part": part, "before": before, "now": after, "why": why}
        content |= {"user": _files.user_name(), "host": _files.host_name(), "when": now}
        _files.write_atomically(file, orjson.dumps(content), mode=_files.OWN)
        _others.clear()
        written.append(Acceptance(**content, file=file))
    return written


def accepted(folder: Path) -> list[Acceptance]:
    """The changes that trusted users accepted for the results of a method."""
    import orjson

    try:
        names = sorted(os.listdir(f"{folder}/{FOLDER}"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = []
    for name in names:
        if not name.startswith(PREFIX):
            continue
        file = Path(f"{folder}/{FOLDER}/{name}")
        try:
            data, status = _files.read_judged(str(file))
            content = orjson.loads(data)
            if not _trust.is_trusted(status):
                _trust.skip(
                    str(file), "another user may have written it: what it accepts does not count for you"
                )
            elif all(isinstance(content[name], str) for name in Acceptance._fields[:-1]):
                found.append(Acceptance(**content, file=file))
        except FileNotFoundError:
            continue  # taken back this moment
        except (OSError, OddFileError, UntrustedFileError, ValueError, KeyError, TypeError) as e:
            _trust.skip(str(file), e)
    return found


def _leads(acceptances: list[Acceptance], change: Change) -> bool:
    """Whether accepted changes lead from one digest of a part to another, in either direction."""
    part, before, now = change
    reached, rest = {before}, [before]
    while rest:
        here = rest.pop()
        for each in acceptances:
            if each.part != part or here not in (each.before, each.now):
                continue
            for there in (each.before, each.now):
                if there not in reached:
                    reached.add(there)
                    rest.append(there)
    return now in reached
