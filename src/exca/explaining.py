"""Why a call is a hit or a miss, and which changes of code are harmless."""

import contextlib
import dataclasses
import os
import typing as tp
from pathlib import Path

import pydantic

from . import _files
from .codedigest.record import diff, read_code
from .engine import earlier, record
from .engine.code import Acceptance, Change, Code
from .engine.code import accept as write_acceptances
from .engine.code import accepted as read_acceptances
from .errors import InfraError
from .identity import configfolder
from .identity.nesting import flatten
from .infra import attribute
from .infra.base import BaseInfra, method_of

if tp.TYPE_CHECKING:
    from .steps import Step

_NEAREST = 3  # configurations that are shown
_MOST = 10_000  # configurations that are compared
_NOTHING: tp.Final = object()
Difference = tuple[str, tp.Any, tp.Any]  # a dotted field, what the other has, and what this one has


@dataclasses.dataclass
class Near:
    """Another configuration of the same method with an outcome.

    Parameters
    ----------
    uid: str
        name of its folder
    state: str
        "completed" or "failed", or "stored" where an earlier release or a map stored it
    differs: list of (str, Any, Any)
        dotted fields that differ: what it has, and what this one has, defaults included
    """

    uid: str
    state: str
    differs: list[Difference]


@dataclasses.dataclass
class Why:
    """Why a call is answered from the cache or computed; its text is for people.

    Parameters
    ----------
    hit: bool
        whether there is an outcome that counts
    address: str
        where it is, or would be, below the folder of the infra
    state: str
        "completed", "failed", "stored" (items), "running" or "missing"
    reason: str
        why it counts or not, in a sentence
    finished, host, user: str
        when, where and by whom it was computed, as far as it is known
    code: str
        the digest of the code that computed it; empty where it is not known
    changes: list of str
        lines of a diff of the normalised code: what computed the outcome, and what would compute it now
    unresolved: list of str
        what cannot be told of the code of today, so that changes of it are not noticed
    nearest: list of Near
        of a miss: configurations of the same method that differ least
    versions: list of str
        of a miss: other versions of the infra that have this very configuration
    set_aside: list of str
        files of this configuration that were found damaged
    """

    hit: bool
    address: str
    state: str
    reason: str
    finished: str = ""
    host: str = ""
    user: str = ""
    code: str = ""
    changes: list[str] = dataclasses.field(default_factory=list)
    unresolved: list[str] = dataclasses.field(default_factory=list)
    nearest: list[Near] = dataclasses.field(default_factory=list)
    versions: list[str] = dataclasses.field(default_factory=list)
    set_aside: list[str] = dataclasses.field(default_factory=list)

    def __bool__(self) -> bool:
        return self.hit

    def __str__(self) -> str:
        lines = [f"{'hit' if self.hit else 'miss'}: {self.address}", f"  {self.state}: {self.reason}"]
        where = ", ".join(
            part for part in (self.finished, f"{self.user}@{self.host}" if self.host else "") if part
        )
        if where:
            lines.append(f"  computed {where}")
        for near in self.nearest:
            differs = ", ".join(f"{name} {old!r} -> {new!r}" for name, old, new in near.differs)
            lines.append(f"  nearest: {near.uid} ({near.state}) differs in {differs}")
        lines += [f"  version {version!r} has this very configuration" for version in self.versions]
        lines += [f"  set aside as damaged: {name}" for name in self.set_aside]
        if self.changes:
            lines += ["  the code changed since:", *(f"    {line}" for line in self.changes)]
        if self.unresolved:
            lines += ["  changes of these are not noticed:", *(f"    {line}" for line in self.unresolved)]
        return "\n".join(lines)


def why(obj: tp.Any, *item: tp.Any) -> Why:
    """Tell whether a call would be answered from the cache, and why; computes nothing.

    Parameters
    ----------
    obj: object, infra or step
        an object with an infra (an infra of it, where it has several), or a step or chain
    *item: Any
        the item, of a map or of a step that takes one; without it, a map is asked for its configuration

    Returns
    -------
    Why
        true if it is a hit; printed, it tells when and by which code a result was computed and what has changed since,
        or which configurations are nearest to one that is missing

    Raises
    ------
    InfraError
        if the object has no infra, several, or one without a folder
    """
    subject = _subject_of(obj, item)
    code, folder = subject.code, subject.folder
    found = subject.outcome()
    address = os.fspath(subject.address)
    unresolved = [] if code is None else _unresolved(code)
    aside = _set_aside(folder)
    if found is None:
        return Why(
            *(False, address, "missing", "there is no result for this configuration"),
            unresolved=unresolved,
            nearest=subject.nearest(),
            versions=subject.other_versions(),
            set_aside=aside,
        )
    state, digest = found.get("state", "stored"), str(found.get("code", ""))
    if state == "running":
        return Why(False, address, state, "it is being computed", unresolved=unresolved, set_aside=aside)
    hit, reason = _judged(code, digest, subject.keeps_errors and state == "failed")
    before = found.get(earlier.BEFORE)
    if isinstance(before, dict):
        what = "that has changed since, so it is computed" if found["past"] else "its error is kept"
        hit = not found["past"]
        reason = f"{before.get('task')}, which comes before it, {before.get('why')}; {what}"
    return Why(
        *(hit, address, state, reason),
        finished=str(found.get("finished", "")),
        host=str(found.get("host", "")),
        user=str(found.get("user", "")),
        code=digest,
        changes=_diff(code, digest),
        unresolved=unresolved,
        set_aside=aside,
    )


def accept(obj: tp.Any, *, why: str, part: str | None = None) -> list[Acceptance]:
    """Declare that changes of the code do not affect the results that are there.

    Later comparisons go through it: the results count again as those of the code of today, for all who trust this
    user. It holds for these changes of these functions only, and is taken back by `exca.accepted` and `take_back`.

    Parameters
    ----------
    obj: object, infra or step
        of whose method the results are
    why: str
        the reason, for people
    part: str, optional
        name of the function, class or constant whose change is accepted (as warnings and `exca.why` name it); by
        default all that changed

    Returns
    -------
    list of Acceptance
        what was written down

    Raises
    ------
    ValueError
        if nothing has changed, or it is not known what
    InfraError
        if the object has no infra, several, or one without a folder
    """
    subject = _subject_of(obj, ())
    code = subject.code
    if code is None:
        raise ValueError(
            f"code='off' on the infra of {subject.address}: no code is compared, so none can be accepted"
        )
    found: list[Change] = []
    for digest in sorted(subject.digests()):
        if code.differs(digest):
            changes = code.changes(digest)
            if changes is None:
                raise ValueError(
                    f"{subject.address} has results of other code, and what that was is not kept any more "
                    f"({code.folder}/.code/{digest}): compute again, with another version or code='strict'"
                )
            found += [change for change in changes if part in (None, change[0]) and change not in found]
    if not found:
        what = "no code has changed" if part is None else f"{part!r} has not changed"
        raise ValueError(
            f"{what} since the results of {subject.address} were computed: there is nothing to accept"
        )
    return write_acceptances(code.folder, found, why)


def accepted(obj: tp.Any) -> list[Acceptance]:
    """List the changes of code that were accepted as harmless for the results of a method.

    Parameters
    ----------
    obj: object, infra or step
        of whose method the results are

    Returns
    -------
    list of Acceptance
        each has ``take_back()``, after which the change counts again
    """
    subject = _subject_of(obj, ())
    return read_acceptances(subject.home)


# ------------------------------------------------------------------------------------------------ what is asked for


class _Subject:
    """What a question is about."""

    keeps_errors = True

    def __init__(self, address: str, home: Path, folder: Path, code: Code | None) -> None:
        self.address = address  # below the folder of the infra
        self.home = home  # of the method
        self.folder = folder  # of the configuration
        self.code = code

    def outcome(self) -> dict[str, tp.Any] | None:
        """What there is, as a record has it."""
        raise NotImplementedError

    def digests(self) -> set[str]:
        """Digests of the code of what there is."""
        raise NotImplementedError

    def nearest(self) -> list[Near]:
        """Configurations that differ least."""
        return []

    def other_versions(self) -> list[str]:
        """Versions under which this very configuration has something."""
        return []


class _InfraSubject(_Subject):
    """A configuration with an infra."""

    def __init__(self, infra: BaseInfra) -> None:
        method = method_of(infra)
        folder = infra.uid_folder()
        assert folder is not None, "asked before"
        super().__init__(infra.uid(), method.home, folder, method.code)
        self.infra, self.method = infra, method

    def nearest(self) -> list[Near]:
        own = flatten(self.method.config)
        found = []
        with contextlib.suppress(OSError), os.scandir(self.home) as entries:
            for number, entry in enumerate(entries):
                if number >= _MOST:
                    break
                place = Path(entry.path)
                if entry.name.startswith(".") or place == self.folder or not _has_outcome(place):
                    continue
                state, config = _state_and_config(place)
                if config is not None:
                    other = flatten(config)
                    found.append(Near(entry.name, state, list(_differences(other, own))))
        nearest = sorted(found, key=lambda near: (len(near.differs), near.uid))[:_NEAREST]
        return [self._with_defaults(near, own) for near in nearest]

    def _with_defaults(self, near: Near, own: dict[str, tp.Any]) -> Near:
        """The same, with the defaults that one of the two configurations leaves out."""
        uid_config, theirs = {}, {}
        with contextlib.suppress(Exception):  # of a damaged file
            uid_config, theirs = (
                flatten(configfolder.load(self.home / near.uid / name)[0])
                for name in (configfolder.UID, configfolder.FULL)
            )
        ours = flatten(self.method.full_config())
        differs = [
            (
                name,
                theirs.get(name, old) if name not in uid_config else old,
                ours.get(name, new) if name not in own else new,
            )
            for name, old, new in near.differs
        ]
        return dataclasses.replace(near, differs=[each for each in differs if each[1] != each[2]])

    def other_versions(self) -> list[str]:
        prefix, name = self.home.name.rpartition(",")[0] + ",", self.method.infra_name
        found = []
        with contextlib.suppress(OSError):
            for other in sorted(os.listdir(self.home.parent)):
                version = other.removeprefix(prefix)
                if version in (other, self.infra.version):
                    continue
                # of validators: such an object cannot be, so has no result
                with contextlib.suppress(Exception):
                    infra = getattr(self.infra.clone_obj({f"{name}.version": version}), name)
                    if _has_outcome(infra.uid_folder()):
                        found.append(version)
        return found


class _TaskSubject(_InfraSubject):
    def outcome(self) -> dict[str, tp.Any] | None:
        found = record.latest(self.folder)
        if found is None:
            running = tp.cast(tp.Any, self.infra).status() == "running"
            return {"state": "running"} if running else None
        past = earlier.BEFORE in found.content and earlier.is_past(found)
        return {**found.content, "state": found.state, "code": found.code or "", "past": past}

    def digests(self) -> set[str]:
        found = record.latest(self.folder)
        return set() if found is None or found.code is None else {found.code}


class _CacheSubject(_Subject):
    """Items in a cache, of a map or of a stage."""

    keeps_errors = False

    def __init__(self, subject: _Subject, cache: tp.Any, key: str | None) -> None:
        super().__init__(subject.address, subject.home, subject.folder, subject.code)
        self.subject, self.cache, self.key = subject, cache, key

    def outcome(self) -> dict[str, tp.Any] | None:
        if self.key is None:
            codes = self.digests()
            own = "" if self.code is None else self.code.digest
            other = sorted(codes - {own})
            return {"state": "stored", "code": other[0] if other else own} if len(self.cache) else None
        digest = self.cache.code_of(self.key)
        return None if digest is None else {"state": "stored", "code": digest}

    def digests(self) -> set[str]:
        return tp.cast("set[str]", self.cache.codes())

    def nearest(self) -> list[Near]:
        return [] if len(self.cache) else self.subject.nearest()

    def other_versions(self) -> list[str]:
        return self.subject.other_versions()


def _subject_of(obj: tp.Any, item: tuple[tp.Any, ...]) -> _Subject:
    from .map import MapInfra
    from .steps import Step
    from .task import TaskInfra

    if isinstance(obj, Step):
        return _step_subject(obj, item)
    infra = obj if isinstance(obj, BaseInfra) else _only_infra(obj)
    if infra.folder is None:
        raise InfraError(f"{infra!r} has no folder: nothing is cached")
    if isinstance(infra, MapInfra):
        key = next(infra.item_uid.of_all([item[0]]).__iter__()) if item else None
        return _CacheSubject(_InfraSubject(infra), infra.cache_dict, key)
    if not isinstance(infra, TaskInfra):
        raise InfraError(f"a {type(infra).__name__} keeps no results, so there is no why")
    return _TaskSubject(infra)


def _step_subject(step: "Step", item: tuple[tp.Any, ...]) -> _Subject:
    from .steps.addresses import NO_INPUT, key_of
    from .steps.pipeline import pipeline_of

    pipeline = pipeline_of(step)
    if not pipeline.stages:
        raise InfraError(f"{type(step).__name__} has no infra, so nothing of it is kept")
    stage = pipeline.stages[-1]
    store = stage.store
    store.judge()
    asks = item or not step.needs_input()
    key = key_of(step, item[0] if item else NO_INPUT) if asks else None
    subject = _Subject(stage.address, store.base, store.folder, stage.code)
    return _CacheSubject(subject, store.results, key)


def _only_infra(obj: tp.Any) -> BaseInfra:
    known = attribute.infra_attributes(type(obj)) if isinstance(obj, pydantic.BaseModel) else ()
    names = [n for n in known if getattr(obj, n, None) is not None]
    if not names:
        raise InfraError(f"{obj!r} has no infra: give an object with one, an infra of an object, or a step")
    if len(names) > 1:
        raise InfraError(
            f"{type(obj).__qualname__} has several infras ({', '.join(names)}): give the infra that is meant, as in "
            f"exca.why(obj.{names[0]})"
        )
    return tp.cast(BaseInfra, getattr(obj, names[0]))


# ------------------------------------------------------------------------------------------------------- the answer


def _judged(code: Code | None, digest: str, failed: bool) -> tuple[bool, str]:
    what = "its error is kept" if failed else "its result is there"
    if code is None:
        return True, f"{what}; code is not compared (code='off')"
    if not digest:
        return True, f"{what}; the code that computed it is not known"
    if digest == code.digest:
        return True, f"{what}, computed by the code of today"
    if not code.differs(digest):
        return True, f"{what}; all that changed in the code was accepted, or cannot be compared"
    changed = code.described(digest)
    if code.policy == "strict":
        return False, f"{what}, but does not count with code='strict': {changed}"
    return True, f"{what}, computed by other code: {changed}"


def _diff(code: Code | None, digest: str) -> list[str]:
    if code is None or not digest or digest == code.digest:
        return []
    old = read_code(code.folder, digest)
    return [] if old is None else diff(old.content, code.now.content)


def _unresolved(code: Code) -> list[str]:
    found = code.now.content.unresolved
    return [f"{name}: {'; '.join(reasons)}" for name, reasons in found.items()]


def _has_outcome(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return any(n in record.OUTCOMES or n.endswith("-info.jsonl") for n in os.listdir(folder))
    return False


def _set_aside(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if ".damaged" in name)
    except OSError:
        return []


def _state_and_config(folder: Path) -> tuple[str, tp.Any]:
    with contextlib.suppress(Exception):
        content = record.parse(_files.read_file(f"{folder}/{record.NAME}"), f"{folder}/{record.NAME}")
        if content is not None and isinstance(content.get("config"), dict):
            return content["state"], content["config"]
    with contextlib.suppress(Exception):
        return "stored", configfolder.load(folder / configfolder.UID)[0]
    return "", None


def _differences(other: dict[str, tp.Any], own: dict[str, tp.Any]) -> tp.Iterator[Difference]:
    for name in sorted({*other, *own}):
        old, new = other.get(name, _NOTHING), own.get(name, _NOTHING)
        if old != new:
            yield name, None if old is _NOTHING else old, None if new is _NOTHING else new
