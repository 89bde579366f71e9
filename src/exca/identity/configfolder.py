"""The folder of a configuration: the files in it that say what it is for, and the checks that keep it to one.

``uid.yaml`` holds what differs from the defaults, ``full-uid.yaml`` the defaults as well, and ``config.yaml``
everything, but for fields of infras and backends that release 0.6 does not know and would refuse: where such
are set, they are in ``config-new.yaml``, by their dotted path.

``.identity.json`` is derived from them and may be deleted at any moment. It holds, for each of the first two files,
digests of the configurations that were found to be the same as what it holds, and its size and time: while these are
as they were, a configuration with such a digest needs no YAML and no reading. It counts only if just trusted users can
have written it; else, and where a digest is not there, texts are compared, and then what they mean.

The YAML is what PyYAML writes for the folded configuration (block style, keys in the order given), always in the same
bytes. What needs no thought about quotes and line breaks is laid out here: three texts of a new task take 30 us, which
libyaml would write in 340 us, a third of the time of a first task, and no new process has to import PyYAML (10 ms).
The rest goes through libyaml, and where that breaks lines differently, through PyYAML.
"""

import contextlib
import datetime
import enum
import errno
import functools
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import time
import typing as tp
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath

import orjson
import xxhash

from .. import _files, _trust
from .._callers import warn
from .._log import logger
from ..errors import ChangedDefaultError, FolderNotWritableError, GoneFieldWarning, InconsistentConfigError
from .nesting import absorb
from .uid import NEVER_FOLDED, DottedKeyError, UidMaker, fold, folded_entry, is_ordered, uid_text

if tp.TYPE_CHECKING:
    from ..claims import FirstClaim
    from .classnames import NotedNames


Config = Mapping[str, tp.Any] | Sequence[tp.Any]

UID, FULL, CONFIG, SIDECAR = "uid.yaml", "full-uid.yaml", "config.yaml", ".identity.json"
NEW_FIELDS = "config-new.yaml"
MAX_REMEMBERED = 8  # spellings of one configuration, such as other orders of a dict
MAX_PLACES = 16
# what parsing raises besides errors of YAML, some of it from values that no configuration has
NO_CONFIGURATION = (TypeError, ValueError, LookupError, AttributeError, OverflowError, RecursionError)


def ensure_config_folder(
    folder: Path,
    *,
    uid_config: Config,
    full_uid_config: Callable[[], Config],
    config: Callable[[], tuple[Config, Config]],
    uid_of: Callable[[tp.Any], str] | None = None,
    create: bool = True,
    first_claim: "FirstClaim | None" = None,
    on_miss: Callable[[], Path | None] | None = None,
    names: "NotedNames | None" = None,
) -> Path:
    """Find the folder that belongs to a configuration, and check or write the files that say so.

    Parameters
    ----------
    folder: the folder named after the uid
    uid_config: what differs from the defaults, a mapping or a list of them
    full_uid_config: the same with the defaults
    config: everything that release 0.6 can read, and what it would refuse, by the place where it belongs
    uid_of: the uid of a configuration of the kind of `uid_config`
    create: write the files that are missing; otherwise nothing is written at all
    first_claim: a claim to be made together with the folder, should it be new
    on_miss: called where there is no such folder; gives another one that is the configuration's, if it knows one
    names: the names of classes to be written into a new folder

    Returns
    -------
    `folder`, or, where a different configuration with truly the same uid is there, the one with a longer suffix

    Raises
    ------
    InconsistentConfigError: the folder holds a configuration with another uid
    ChangedDefaultError: a default changed under the results in the folder
    FolderNotWritableError: the files have to be written and cannot be
    """
    status = _status(f"{folder}/{UID}") if first_claim is None else None
    if status is None:  # no process has been here
        other = None if on_miss is None else on_miss()
        if other is not None or not create:
            return other or folder
    full = full_uid_config()
    configs = {UID: uid_config, FULL: full}
    if status is not None and _is_known(str(folder), configs, status):
        return folder
    texts = {UID: _text(uid_config), FULL: _text(full)}
    if status is not None and all(_read(f"{folder}/{name}") == text for name, text in texts.items()):
        if create:
            _remember(str(folder), configs, texts)
        return folder
    write_files = functools.partial(_write_files, configs, texts, config, names)
    if create and status is None and _is_new(str(folder), write_files, first_claim):
        return folder
    return _compared(folder, configs, texts, config=config, uid_of=uid_of or _uid, create=create)


def _compared(
    folder: Path,
    configs: dict[str, Config],
    texts: dict[str, bytes],
    *,
    config: Callable[[], tuple[Config, Config]],
    uid_of: Callable[[tp.Any], str],
    create: bool,
) -> Path:
    """Find the place of a configuration by what the files mean."""
    ours = absorb(configs[UID], dict)
    for place in itertools.islice(_places(folder, configs[UID]), MAX_PLACES):
        if create:
            with _explained(f"{place}/{UID}"):
                _files.make_folders(place)
        found = _check_uid(place, ours, texts[UID], uid_of, create)
        if found is None:
            continue
        compared = {UID: found, FULL: _check_full(place, configs[FULL], texts[FULL], create)}
        if create:
            if not os.path.lexists(f"{place}/{CONFIG}"):
                for file, text in _config_files(config):
                    _write_first(f"{place}/{file}", text)
            _remember(place, configs, compared)
        return Path(place)
    raise InconsistentConfigError(
        f"{folder} and {MAX_PLACES - 1} folders with longer suffixes hold other configurations with its uid: "
        "use another folder or version for this one"
    )


def _uid(config: tp.Any) -> str:
    return "/".join(map(uid_text, config)) if isinstance(config, list) else uid_text(config)


def _text(config: Config) -> bytes:
    # the list of a pipeline's steps has never been folded
    return (to_nested_text(config) if isinstance(config, list) else to_text(config)).encode()


def _places(folder: Path, uid_config: Config) -> Iterator[str]:
    yield str(folder)
    text = canonical(uid_config)
    for turn in itertools.count():
        suffix = hashlib.blake2b(text + b"%d" % turn if turn else text, digest_size=8).hexdigest()
        yield f"{folder}-{suffix}"


# ------------------------------------------------------------------------------------------ the two checks


def _check_uid(
    place: str, ours: tp.Any, text: bytes, uid_of: Callable[[tp.Any], str], create: bool
) -> bytes | None:
    """Check or write uid.yaml; return what it holds, or None when another configuration has the same uid."""
    path = f"{place}/{UID}"
    found, theirs = _found_or_written(path, ours, text, create)
    if same(ours, theirs):
        return found
    if _has_uid(theirs, ours, uid_of):
        logger.warning("Another configuration with the same uid is in %s: moving to a longer suffix", place)
        return None
    import difflib

    diff = difflib.unified_diff(
        to_text(theirs).splitlines(), to_text(ours).splitlines(), f"in {path}", "asked for", lineterm=""
    )
    raise InconsistentConfigError(
        f"{path} holds a configuration with another uid than its folder: it was edited, the folder was moved, "
        "or other code wrote it.\n" + "\n".join(diff) + "\n"
        f"Put the file back as it was, or change the version of the infra to compute elsewhere than in {place}."
    )


def _has_uid(theirs: tp.Any, ours: tp.Any, uid_of: Callable[[tp.Any], str]) -> bool:
    wanted = uid_of(ours)
    # YAML does not tell which dicts were ordered: those that are ordered in ours, or none
    for candidate in (ordered_like(ours, theirs), theirs):
        with contextlib.suppress(TypeError, ValueError, AttributeError, KeyError):
            if uid_of(candidate) == wanted:
                return True
    return False


def _check_full(place: str, config: Config, text: bytes, create: bool) -> bytes:
    """Check or write full-uid.yaml; return what it holds, or nothing when that is not to be remembered."""
    path = f"{place}/{FULL}"
    full = absorb(config, dict)
    found, known = _found_or_written(path, full, text, create)
    changed = list(changes(full, known))
    refused = [change for change in changed if not any(skip(*change) for skip in DEFAULT_CHECK_SKIPS)]
    if refused:
        fields = "".join(f"\n  {key}: was {old!r}, is now {new!r}" for key, new, old in refused)
        raise ChangedDefaultError(
            f"defaults changed under the results in {place}:{fields}\n"
            "To compute again, change the version of the infra; to keep the results, let a function in "
            "exca.utils.DEFAULT_CHECK_SKIPS accept the change. An object that is given the earlier value finds them"
        )
    _tell_of_gone(place, full, known)
    both = united(full, known)
    if create and not same(both, known):
        # fields that came since: from now on, their defaults hold as well
        found = _text(both)
        with contextlib.suppress(OSError):
            _files.write_atomically(path, found)
    # what a skip allowed is asked again next time, when the skip may be gone
    return b"" if changed else found


def _tell_of_gone(place: str, full: tp.Any, known: tp.Any) -> None:
    """Warn, once in a process for each method, of fields that the configuration no longer has."""
    method = os.path.dirname(place)
    lost = {key: value for key, value in gone(full, known) if (method, key) not in _told}
    if lost:
        _told.update((method, key) for key in lost)
        came = ", ".join(f"{key} ({value!r})" for key, value in gone(known, full))
        warn(
            f"Since the results in {place} were computed, these fields were renamed, removed or left out of the uid: "
            f"{', '.join(f'{key} (was {value!r})' for key, value in lost.items())}"
            + (f"; new are: {came}" if came else "")
            + ". The results are used all the same: if they depend on it, change the version of the infra",
            GoneFieldWarning,
        )


_told: set[tuple[str, str]] = set()  # folders of methods, and fields that were told to be gone

# ---------------------------------------------------------------- the place under an earlier default

_MOST_SINGLE = 16  # places without one value that are looked at
_MOST_TOGETHER = 4  # values of which all combinations are left out
_MOST_BESIDE = 200  # folders beside a place that are read for what were defaults together


def under_earlier_default(
    uid_config: Config, full: Callable[[], Config], place_of: Callable[[tp.Any], str]
) -> tuple[Path, tp.Any] | None:
    """The place of a configuration when some of its values were defaults, if there is one, and its uid configuration.

    What was computed with a default that has changed since is at an address that does not have the value, in a folder
    whose ``full-uid.yaml`` does. An object that is given this value today is the same configuration.

    Parameters
    ----------
    uid_config: what differs from the defaults of today, for which there is no folder
    full: the same with the defaults
    place_of: the folder of a uid configuration
    """
    leaves = _leaves(uid_config)
    for paths in (*_left_out_together(leaves), *_earlier_together(leaves, uid_config, place_of)):
        candidate = _without(uid_config, paths)
        place = place_of(candidate)
        if not os.path.lexists(f"{place}/{UID}"):
            continue
        try:
            known = _parsed_once(_files.read_file(f"{place}/{FULL}"))
            # of a sweep, each point comes to the place of what it varies: its value there tells at once
            if all(_agree(_at(uid_config, path), _at(known, path), path) for path in paths):
                found, whole = load(Path(f"{place}/{UID}"))[0], absorb(full(), dict)
                if same(absorb(candidate, dict), found) and not any(
                    (*changes(whole, known), *gone(whole, known))
                ):
                    return Path(place), candidate
        except (OSError, ValueError) as error:
            logger.debug("%s is no place of an earlier default: %s", place, error)
    return None


@functools.lru_cache(maxsize=16)
def _parsed_once(text: bytes) -> tp.Any:
    """The configuration in a file, which must not be changed."""
    return _configuration(text)


def _agree(new: tp.Any, old: tp.Any, path: "KeyPath") -> bool:
    return old is not _ABSENT and next(changes(new, old, ".".join(map(str, path))), None) is None


KeyPath = tuple[tp.Any, ...]


def _leaves(config: tp.Any) -> list[KeyPath]:
    """The paths of all values of a configuration, or of those of a pipeline's steps but their names."""
    if isinstance(config, list):
        return [
            (k, *leaf)
            for k, step in enumerate(config)
            for leaf in _leaves(step)
            if leaf[0] != next(iter(step))
        ]
    leaves: list[KeyPath] = []
    for key, value in config.items():
        if value and isinstance(value, Mapping):
            leaves += [(key, *leaf) for leaf in _leaves(value)]
        else:
            leaves.append((key,))
    return leaves


def _left_out_together(leaves: list[KeyPath]) -> Iterable[tuple[KeyPath, ...]]:
    if len(leaves) > _MOST_TOGETHER:
        return [(leaf,) for leaf in leaves[:_MOST_SINGLE]]
    counts = range(1, len(leaves) + 1)
    return itertools.chain.from_iterable(itertools.combinations(leaves, count) for count in counts)


def _earlier_together(
    leaves: list[KeyPath], uid_config: Config, place_of: Callable[[tp.Any], str]
) -> Iterator[tuple[KeyPath, ...]]:
    """Which values to leave out together where these are too many for all combinations.

    Those that were defaults at one time, as the folders beside tell, and those that were at any time.
    """
    if len(leaves) <= _MOST_TOGETHER:
        return
    defaults = _neighbours(os.path.dirname(place_of(uid_config))).defaults()
    found = [
        tuple(p for p in leaves if p in then and _agree(_at(uid_config, p), then[p], p)) for then in defaults
    ]
    for paths in dict.fromkeys([*found, tuple(p for p in leaves if any(p in paths for paths in found))]):
        if len(paths) > 1 or (paths and paths[0] not in leaves[:_MOST_SINGLE]):
            yield paths


class _Neighbours:
    """What the defaults were, as told by a folder of uid folders: of some, evenly spread, where these are many.

    They are read again now and then, so that it takes a twentieth of the time at most.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._again = 0.0  # monotonic time
        self._known: dict[str, dict[KeyPath, tp.Any]] = {}
        self._defaults: list[dict[KeyPath, tp.Any]] = []

    def defaults(self) -> list[dict[KeyPath, tp.Any]]:
        """For each time at which some of the defaults were others, what is known of them."""
        start = time.monotonic()
        if start >= self._again:
            try:
                names = sorted(os.listdir(self._folder))
            except OSError:  # there is none yet
                names = []
            chosen = names[:: len(names) // _MOST_BESIDE + 1]
            self._known = {name: self._known.get(name) or self._load(name) for name in chosen}
            found: list[dict[KeyPath, tp.Any]] = []
            for one in self._known.values():
                _add_defaults(found, one)
            self._defaults = found  # whole, for other threads
            now = time.monotonic()
            self._again = now + 20 * (now - start)
        return self._defaults

    def _load(self, name: str) -> dict[KeyPath, tp.Any]:
        place = Path(self._folder, name)
        try:
            uid, full = load(place / UID)[0], load(place / FULL)[0]
            return {path: _at(full, path) for path in _leaves(full) if _at(uid, path) is _ABSENT}
        except (OSError, *NO_CONFIGURATION):
            return {}  # it holds no configuration


def _add_defaults(found: list[dict[KeyPath, tp.Any]], one: dict[KeyPath, tp.Any]) -> None:
    """Add what is known of the defaults of one folder to those of a time that it can be of."""
    for then in found:
        if all(then.get(path, value) == value for path, value in one.items()):
            then.update(one)
            return
    if one and len(found) < _MOST_SINGLE:
        found.append(dict(one))


_neighbours = functools.lru_cache(maxsize=16)(_Neighbours)


def _without(value: tp.Any, paths: Sequence[KeyPath]) -> tp.Any:
    """A configuration without some of its values, and without what nothing is left of."""
    if () in paths:
        return None
    if isinstance(value, list):
        return [_without(item, [p[1:] for p in paths if p[0] == place]) for place, item in enumerate(value)]
    if not isinstance(value, Mapping) or not paths:
        return value
    kind: type[dict[str, tp.Any]] = type(value) if isinstance(value, OrderedDict) else dict
    out = kind()
    for key, item in value.items():
        below = [path[1:] for path in paths if path[0] == key]
        rest = _without(item, below) if below else item
        if not below or (() not in below and rest):
            out[key] = rest
    return out


_ABSENT: tp.Final = object()


def _at(config: tp.Any, path: KeyPath) -> tp.Any:
    for part in path:
        items = dict(enumerate(config)) if isinstance(config, list) else config
        if not isinstance(items, Mapping) or part not in items:
            return _ABSENT
        config = items[part]
    return config


# --------------------------------------------------------------------------------------------------- files


def _is_new(place: str, write_files: Callable[[str], None], first_claim: "FirstClaim | None") -> bool:
    """Make the folder with all its files in one step; False if it was there, or cannot be made so."""
    if first_claim is None and os.path.lexists(place):  # by the claim on what will be in it
        return False
    parent, name = os.path.split(place)
    draft = f"{parent}/{_files.temporary_name(name)}"
    try:
        try:
            os.mkdir(draft, _files.SHARED_FOLDER)
        except FileNotFoundError:
            _files.make_folders(parent)
            os.mkdir(draft, _files.SHARED_FOLDER)
    except OSError:
        return False
    made = False
    try:
        write_files(draft)
        if first_claim is not None:
            first_claim.write_into(draft)
        # a rename would replace an empty folder, which another process just made
        if not os.path.lexists(place):
            os.rename(draft, place)
            made = True
    except OSError as error:
        logger.debug("cannot make %s in one step: %s", place, error)
    finally:
        if first_claim is not None:
            (first_claim.confirm if made else first_claim.abandon)()
        if not made:
            shutil.rmtree(draft, ignore_errors=True)
    return made


def _write_files(
    configs: dict[str, Config],
    texts: dict[str, bytes],
    config: Callable[[], tuple[Config, Config]],
    names: "NotedNames | None",
    draft: str,
) -> None:
    notes = {}
    for file, text in texts.items():
        _files.write_new(f"{draft}/{file}", text)
        digest = _config_digest(configs[file])
        if digest:
            notes[file] = _note([digest], text, os.stat(f"{draft}/{file}"))
    for file, text in _config_files(config):
        _files.write_new(f"{draft}/{file}", text)
    if names is not None:
        names.write_into(draft)
    _files.write_new(f"{draft}/{SIDECAR}", orjson.dumps(notes), mode=_files.OWN)


def _config_files(config: Callable[[], tuple[Config, Config]]) -> Iterator[tuple[str, bytes]]:
    readable, new_fields = config()
    if new_fields:  # first, since the other file shows that both are there
        yield NEW_FIELDS, to_text(new_fields).encode()
    yield CONFIG, to_nested_text(readable).encode()


def read_config(folder: Path) -> tuple[tp.Any, bool]:
    """The whole configuration in a uid folder, and whether only trusted users can have written it.

    Raises
    ------
    ValueError: a file is damaged
    OSError: a file cannot be read
    """
    config, trusted = load(folder / CONFIG)
    try:
        new_fields, also_trusted = load(folder / NEW_FIELDS)
    except FileNotFoundError:
        return config, trusted
    try:
        _merge(config, new_fields)
    except NO_CONFIGURATION as error:
        raise ValueError(f"{folder / NEW_FIELDS} is damaged: it fits no configuration: {error!r}") from error
    return config, trusted and also_trusted


def _merge(holder: tp.Any, new: tp.Any) -> None:
    for key, value in new.items():
        place = int(key) if isinstance(holder, list) else key
        if isinstance(holder, list) or isinstance(holder.get(place), dict | list):
            _merge(holder[place], value)
        else:
            holder[place] = value


def load(path: Path) -> tuple[tp.Any, bool]:
    """A configuration file, and whether only trusted users can have written it.

    Raises
    ------
    ValueError: it is damaged
    OSError: it cannot be read
    """
    text, status = _files.read_judged(str(path))
    try:
        return _configuration(text), _trust.is_trusted(status)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _configuration(text: bytes) -> tp.Any:
    import yaml

    try:
        config = from_text(text)
        if isinstance(config, dict | list):
            return absorb(config, dict)
    except (yaml.YAMLError, *NO_CONFIGURATION) as error:
        raise ValueError(" ".join(str(error).split())) from error
    raise ValueError(f"it holds {type(config).__name__}")


def _found_or_written(path: str, config: tp.Any, text: bytes, create: bool) -> tuple[bytes, tp.Any]:
    """The text and the configuration in a file, which is written when it is missing or damaged."""
    found = _read(path)
    if found is None:
        found = _write_first(path, text) if create else text
    if found == text:
        return found, config
    theirs = _parsed(path, found)
    if theirs is not None:
        return found, theirs
    if create:
        with _explained(path):
            _files.write_atomically(path, text)
    return text, config


def _parsed(path: str, text: bytes) -> tp.Any:
    """The configuration in a file, or None when the file is damaged."""
    try:
        return _configuration(text)
    except ValueError as error:
        logger.warning("%s is damaged and counts for no configuration: %s", path, error)
        return None


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _read(path: str) -> bytes | None:
    try:
        return _files.read_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write_first(path: str, data: bytes) -> bytes:
    """Write a file unless another process was faster; return what it holds now."""
    with _explained(path):
        folder, name = os.path.split(path)
        partial = f"{folder}/{_files.temporary_name(name)}"
        _files.write_new(partial, data)
        try:
            os.link(partial, path)  # the one step that fails for all but the first
        except FileExistsError:
            return _read(path) or data
        except OSError:  # no hard links here: the last one wins, and all processes read it
            os.replace(partial, path)
            return _read(path) or data
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial)
    return data


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        folder = os.path.dirname(path)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            what = (
                "cannot write the configuration files (choose another folder, or ask for the right to write)"
            )
            raise FolderNotWritableError(error.errno, what, folder) from error
        error.add_note(f"while writing {path}")
        raise


# ------------------------------------------------------------------------------------------------- digests


def _is_known(place: str, configs: dict[str, Config], uid_status: os.stat_result) -> bool:
    """Whether configurations are known to be what the files in a folder hold."""
    record, sidecar = _remembered(place)
    if sidecar is None or not _trust.is_trusted(sidecar):
        return False
    try:
        return all(
            _config_digest(config) in record[name]["same"]
            and _is_as_noted(record[name], f"{place}/{name}", uid_status if name == UID else None)
            for name, config in configs.items()
        )
    except (KeyError, TypeError, ValueError, OSError):  # damaged, or a file is not there
        return False


def _is_as_noted(note: tp.Any, path: str, status: os.stat_result | None) -> bool:
    status = status or os.lstat(path)
    if note["stat"] == [status.st_size, status.st_mtime_ns]:
        return True
    return bool(note["file"] == xxhash.xxh3_128_hexdigest(_read(path) or b""))  # only copied


def _remembered(place: str) -> tuple[tp.Any, os.stat_result | None]:
    """What the sidecar holds, and whose it is."""
    try:
        data, status = _files.read_judged(f"{place}/{SIDECAR}")
    except OSError:
        return {}, None
    try:
        return orjson.loads(data), status
    except ValueError:
        return {}, status


def _config_digest(config: Config) -> str:
    """A digest that no two configurations with different YAML share; "" for what only YAML can write."""
    try:
        data = orjson.dumps(config)
        if b"null" in data:  # that may have been a nan
            data = json.dumps(config).encode()
    except (TypeError, ValueError, RecursionError):
        return ""
    return xxhash.xxh3_128_hexdigest(data)


def _note(same: list[tp.Any], text: bytes, status: os.stat_result) -> dict[str, tp.Any]:
    stat = [status.st_size, status.st_mtime_ns]
    return {"same": same, "stat": stat, "file": xxhash.xxh3_128_hexdigest(text)}


def _remember(place: str, configs: dict[str, Config], compared: dict[str, bytes]) -> None:
    """Note which configurations are what the files hold, so that YAML is made and parsed for them only once."""
    record, sidecar = _remembered(place)
    believed = sidecar is not None and _trust.is_trusted(sidecar)
    if sidecar is not None and not believed and sidecar.st_uid != os.geteuid():
        return  # two users would replace each other's for ever
    fresh = {}
    with contextlib.suppress(OSError):  # a folder that only others can write to is as good
        for name, text in compared.items():
            digest = _config_digest(configs[name])
            if not text or not digest:
                continue
            found, status = _files.read_judged(f"{place}/{name}")
            if found != text:  # another process was faster
                continue
            others: list[tp.Any] = []
            with contextlib.suppress(KeyError, TypeError):  # damaged
                if believed and record[name]["file"] == xxhash.xxh3_128_hexdigest(text):
                    others = [other for other in record[name]["same"] if other != digest]
            fresh[name] = _note([*others[1 - MAX_REMEMBERED :], digest], text, status)
        if fresh:
            _files.write_atomically(f"{place}/{SIDECAR}", orjson.dumps(fresh), mode=_files.OWN)


# ---------------------------------------------------------------- are two configurations the same one

#: Callables `(key, new, old) -> bool` that allow a default to have changed under a cached result.
DEFAULT_CHECK_SKIPS: list[Callable[[str, tp.Any, tp.Any], bool]] = []


def same(ours: tp.Any, theirs: tp.Any) -> bool:
    """Tell whether two nested configurations are the same one, whatever the order of their dicts.

    Parameters: `ours` in which an OrderedDict asks for its order; `theirs` as YAML brings it back, in plain dicts.
    """
    if isinstance(ours, Mapping):
        if not isinstance(theirs, Mapping) or len(ours) != len(theirs):
            return False
        if isinstance(ours, OrderedDict) and list(ours) != list(theirs):
            return False
        return all(key in theirs and same(value, theirs[key]) for key, value in ours.items())
    if isinstance(ours, (list, tuple)):
        if not isinstance(theirs, (list, tuple)) or len(ours) != len(theirs):
            return False
        return all(map(same, ours, theirs))
    ours, theirs = _leaf(ours), _leaf(theirs)
    if isinstance(ours, bool) is not isinstance(theirs, bool):
        return False
    return bool(ours == theirs) or (ours != ours and theirs != theirs)


def changes(new: tp.Any, old: tp.Any, key: str = "") -> Iterator[tuple[str, tp.Any, tp.Any]]:
    """Yield (dotted key, new value, old value) of what two nested configurations hold both, and differently.

    Fields that only one of them has are no change: code grows and shrinks around its results.
    """
    if isinstance(new, Mapping) and isinstance(old, Mapping):
        if isinstance(new, OrderedDict) and [k for k in new if k in old] != [k for k in old if k in new]:
            yield key, new, old
            return
        for name, value in new.items():
            if name in old:
                yield from changes(value, old[name], f"{key}.{name}" if key else name)
    elif isinstance(new, (list, tuple)) and isinstance(old, (list, tuple)) and len(new) == len(old):
        for index, (value, previous) in enumerate(zip(new, old, strict=True)):
            yield from changes(value, previous, f"{key}.{index}" if key else str(index))
    elif not same(new, old):
        yield key, new, old


def gone(new: tp.Any, old: tp.Any, key: str = "") -> Iterator[tuple[str, tp.Any]]:
    """Yield (dotted key, value) of what only the old one of two nested configurations holds."""
    if isinstance(new, Mapping) and isinstance(old, Mapping):
        for name, value in old.items():
            path = f"{key}.{name}" if key else name
            if name in new:
                yield from gone(new[name], value, path)
            else:
                yield path, value
    elif isinstance(new, (list, tuple)) and isinstance(old, (list, tuple)) and len(new) == len(old):
        for index, (value, previous) in enumerate(zip(new, old, strict=True)):
            yield from gone(value, previous, f"{key}.{index}" if key else str(index))


def united(new: tp.Any, old: tp.Any) -> tp.Any:
    """Return `old` with the fields that only `new` has: everything that is known to hold."""
    if isinstance(new, Mapping) and isinstance(old, Mapping):
        both = {key: united(new[key], value) if key in new else value for key, value in old.items()}
        return both | {key: value for key, value in new.items() if key not in old}
    if isinstance(new, (list, tuple)) and isinstance(old, (list, tuple)) and len(new) == len(old):
        return list(map(united, new, old))
    return old


def ordered_like(ours: tp.Any, theirs: tp.Any) -> tp.Any:
    """Return `theirs` with OrderedDicts where `ours` has them, which YAML does not tell."""
    if isinstance(theirs, Mapping):
        like = ours if isinstance(ours, Mapping) else {}
        kind: type[dict[str, tp.Any]] = type(ours) if isinstance(ours, OrderedDict) else dict
        return kind((key, ordered_like(like.get(key), value)) for key, value in theirs.items())
    if isinstance(theirs, list):
        likes = list(ours) if isinstance(ours, (list, tuple)) else []
        likes += [None] * (len(theirs) - len(likes))
        return [ordered_like(like, value) for like, value in zip(likes, theirs, strict=False)]
    return theirs


def canonical(config: Config) -> bytes:
    """Return bytes that tell configurations apart, the same in every process and whatever the order of dicts."""
    return json.dumps(_tagged(absorb(config, dict)), separators=(",", ":")).encode()


def _tagged(value: tp.Any) -> tp.Any:
    if isinstance(value, OrderedDict):
        return {"ordered": [[key, _tagged(sub)] for key, sub in value.items()]}
    if isinstance(value, Mapping):
        return {"dict": sorted([key, _tagged(sub)] for key, sub in value.items())}
    if isinstance(value, (list, tuple)):
        return [_tagged(sub) for sub in value]
    leaf = _leaf(value)
    if isinstance(leaf, float) and leaf.is_integer():
        return int(leaf)
    return [_tagged(sub) for sub in leaf] if isinstance(leaf, list) else leaf


def _leaf(value: tp.Any) -> tp.Any:
    """Return a value in the form in which YAML and JSON know it."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value.value if isinstance(value, enum.Enum) else value
    if isinstance(value, enum.Enum):
        return _leaf(value.value)
    if isinstance(value, (set, frozenset)):
        return sorted(map(_leaf, value), key=lambda item: UidMaker(item).hash)
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    maker = UidMaker(value)  # an array, or the TypeError that explains what is wrong
    return f"{maker.string} {maker.hash}"


# ---------------------------------------------------------------- the text

# Strings that YAML writes as they are, whatever is around them: too short to be wrapped, no space,
# no character with a meaning, and nothing that a reader of YAML 1.1 takes for a bool, a number or a date.
_is_plain = re.compile(r"[a-zA-Z_/][a-zA-Z0-9_/.\-]{0,100}").fullmatch
# Strings that it puts in quotes: numbers, dates, and what begins with a character that has a meaning there.
_is_quoted = re.compile(r"0|[1-9][0-9]{0,30}|[0-9]{4}-[0-9]{2}-[0-9]{2}|[{\[%@][!-&(-~]{0,100}|").fullmatch
_WORDS = frozenset(
    form
    for word in ("yes", "no", "on", "off", "true", "false", "null")
    for form in (word, word.capitalize(), word.upper())
)
_WIDTH = 78  # characters, below those from which on lines are broken


class _UnusualError(Exception):
    """A value that libyaml has to write."""


def to_text(config: Config) -> str:
    """A mapping, nested or with dotted keys, or a list of them as YAML; levels with a single key are folded.

    Raises: TypeError for a value that has no YAML form.
    """
    try:
        return _document(config, folded=True)
    except DottedKeyError:
        return _document(absorb(config, dict), folded=True)


def to_nested_text(config: Config) -> str:
    """A nested mapping, or a list of them, as YAML with every level on lines of its own.

    Raises: TypeError for a value that has no YAML form.
    """
    return _document(config, folded=False)


def from_text(text: str | bytes) -> tp.Any:
    """Read YAML text (safe types only).

    Raises: yaml.YAMLError when it is no YAML, or its references multiply what is in it without end.
    """
    import yaml

    config = _loaded(text)
    refers = "&" in text if isinstance(text, str) else b"&" in text
    if refers and _size(config, {}) > _MOST_VALUES:
        raise yaml.YAMLError(f"its references make more than {_MOST_VALUES} values of what it holds")
    return config


_MOST_VALUES = 10_000_000


def _size(value: tp.Any, known: dict[int, float]) -> float:
    """How many values a configuration has once each reference is written out; endless for one to itself."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = math.inf
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(value)]


def _loaded(text: str | bytes) -> tp.Any:
    import yaml

    if not hasattr(yaml, "CSafeLoader"):
        return yaml.load(text, Loader=yaml.SafeLoader)
    try:
        with contextlib.suppress(_UnusualError):
            return _from_events(yaml.CSafeLoader(text))
        return yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError:
        # libyaml refuses some texts that PyYAML itself writes, such as a lone surrogate
        return yaml.load(text, Loader=yaml.SafeLoader)


def _document(config: Config, *, folded: bool) -> str:
    try:
        return _block(config, "", folded) if config else f"{_empty(config)}\n"
    except _UnusualError:
        return _yaml_text(fold(config) if folded else config)


def _block(value: tp.Any, indent: str, folded: bool) -> str:
    """Write a filled dict or list; every line but the first begins with the indentation."""
    if type(value) is list:
        return indent.join([f"-{_entry(sub, ' ', indent + '  ', folded)}" for sub in value])
    if not isinstance(value, dict):
        raise _UnusualError
    lines = []
    ordered = folded and is_ordered(value)
    for key, sub in value.items():
        if folded:
            if type(sub) not in NEVER_FOLDED:
                key, sub = folded_entry(value, key, sub, ordered)
            elif "." in key and not ordered:
                raise DottedKeyError(key)
        write = _SCALARS.get(type(sub))
        if write is not None:
            lines.append(f"{_name(key)}: {write(sub)}\n")
        else:
            below = indent if type(sub) is list else indent + "  "
            lines.append(f"{_name(key)}:" + _entry(sub, f"\n{below}", below, folded))
    return indent.join(lines)


def _entry(value: tp.Any, start: str, indent: str, folded: bool) -> str:
    write = _SCALARS.get(type(value))
    if write is not None or not value:
        return f" {(write or _empty)(value)}\n"
    return f"{start}{_block(value, indent, folded)}"


def _empty(value: tp.Any) -> str:
    if type(value) is not list and not isinstance(value, dict):
        raise _UnusualError
    return "[]" if type(value) is list else "{}"


@functools.lru_cache(maxsize=4096)
def _name(text: str) -> str:
    """A text that may be a key, or anything else, without quotes."""
    if not _is_plain(text) or text in _WORDS:
        raise _UnusualError
    return text


@functools.lru_cache(maxsize=4096)
def _string(text: str) -> str:
    return f"'{text}'" if _is_quoted(text) else _name(text)


def _float(value: float) -> str:
    if value - value != 0:  # infinite or nan
        raise _UnusualError
    text = repr(value)
    return text.replace("e", ".0e", 1) if "e" in text and "." not in text else text


_SCALARS: tp.Final[dict[type, Callable[[tp.Any], str]]] = {
    str: _string,
    int: str,
    float: _float,
    bool: {True: "true", False: "false"}.__getitem__,
    type(None): {None: "null"}.__getitem__,
}


# ---------------------------------------------------------------- by libyaml


def _yaml_text(folded: tp.Any) -> str:
    import yaml

    plain = _plain(folded)
    how: dict[str, tp.Any] = {"sort_keys": False, "default_flow_style": False}
    try:
        if hasattr(yaml, "CSafeDumper"):
            with contextlib.suppress(UnicodeEncodeError):  # a lone surrogate, which libyaml does not write
                text: str = yaml.dump(plain, Dumper=_dumper(yaml.CSafeDumper), **how)
                if not _may_differ(text):
                    return text
        return tp.cast(str, yaml.dump(plain, Dumper=_dumper(yaml.SafeDumper), **how))
    except yaml.representer.RepresenterError as error:
        value = error.args[1] if len(error.args) > 1 else folded
        raise TypeError(
            f"{value!r} of type {type(value).__qualname__} has no YAML form: use str, numbers, None, Path, enum, date, "
            "bytes, list, tuple, set or dict"
        ) from None


def _from_events(parser: tp.Any) -> tp.Any:
    """The value of a text, straight from what libyaml finds in it: in a third of the time that its nodes take."""
    from yaml import events

    get = parser.get_event
    scalar, mapping, sequence = events.ScalarEvent, events.MappingStartEvent, events.SequenceStartEvent

    def value_of(event: tp.Any) -> tp.Any:
        kind = type(event)
        if kind not in (scalar, mapping, sequence) or event.tag is not None or event.anchor is not None:
            raise _UnusualError
        if kind is scalar:
            return _plain_scalar(event.value) if event.implicit[0] else event.value
        if kind is sequence:
            items = []
            while type(event := get()) is not events.SequenceEndEvent:
                items.append(value_of(event))
            return items
        found = {}
        while type(event := get()) is not events.MappingEndEvent:
            if type(event) is not scalar:
                raise _UnusualError
            key = value_of(event)
            found[key] = value_of(get())
        return found

    if type(get()) is not events.StreamStartEvent or type(get()) is not events.DocumentStartEvent:
        raise _UnusualError
    found = value_of(get())
    if type(get()) is not events.DocumentEndEvent or type(get()) is not events.StreamEndEvent:
        raise _UnusualError
    return found


@functools.lru_cache(maxsize=4096)
def _plain_scalar(text: str) -> tp.Any:
    """The value of a text without quotes."""
    import yaml

    loader = yaml.SafeLoader("")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call] # PyYAML has no types here
    if tag.rpartition(":")[2] not in ("str", "int", "float", "bool", "null"):
        raise _UnusualError
    return loader.construct_object(yaml.ScalarNode(tag, text))


def _may_differ(text: str) -> bool:
    """Whether PyYAML may write otherwise what libyaml wrote: an empty key, and where breaks are in double quotes."""
    return "'':" in text or ('"' in text and ("? " in text or max(map(len, text.split("\n"))) > _WIDTH))


class _Set(dict[tp.Any, None]):
    """The items of a set, in the order to write them."""


@functools.cache
def _dumper(base: tp.Any) -> type[tp.Any]:
    class Dumper(base):  # type: ignore[misc]  # the class is only known here
        def ignore_aliases(self, data: tp.Any) -> bool:
            return True  # an object used twice is written twice

    Dumper.add_representer(_Set, lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:set", data))
    return Dumper


def _plain(value: tp.Any) -> tp.Any:
    """Convert to the types that PyYAML writes."""
    if value is None or type(value) in (str, bool, int, float, bytes):
        return value
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if isinstance(value, Mapping):
        return {key: _plain(sub) for key, sub in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(sub) for sub in value]
    if isinstance(value, (set, frozenset)):
        makers = [(UidMaker(sub), sub) for sub in value]  # in an order that no hash seed changes
        makers.sort(key=lambda made: (made[0].string, made[0].hash))
        return _Set.fromkeys(_plain(sub) for _, sub in makers)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value
    item = getattr(value, "item", None)  # a number or bool of numpy's
    if item is not None and getattr(value, "shape", None) == ():
        return _plain(item())
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    return value
