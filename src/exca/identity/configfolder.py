"""The folder of a configuration: the files in it that say what it is for, and the checks that keep it to one.

``uid.yaml`` holds what differs from the defaults, ``full-uid.yaml`` the defaults as well, and ``config.yaml``
everything, but for fields of infras and backends that release 0.6 does not know and would refuse: where such
are set, they are in ``config-new.yaml``, by their dotted path.

``.identity.json`` is derived from them and may be deleted at any moment. It holds, for each of the first two files,
digests of the configurations that were found to be the same as what it holds, and its size and time: while these are
as they were, a configuration with such a digest needs no YAML and no reading. It counts only if just trusted users can
have written it; else, and where a digest is not there, texts are compared, and then what they mean.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import logging
import os
import shutil
import typing as tp
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import orjson
import xxhash

from .. import _files, _trust
from ..errors import ChangedDefaultError, FolderNotWritableError, InconsistentConfigError
from . import comparing
from .nesting import absorb
from .uid import uid_text
from .yamltext import from_text, to_nested_text, to_text

if tp.TYPE_CHECKING:
    from ..claims import FirstClaim

logger: logging.Logger = logging.getLogger(__name__)

Config = Mapping[str, tp.Any] | list[tp.Any]

UID, FULL, CONFIG, SIDECAR = "uid.yaml", "full-uid.yaml", "config.yaml", ".identity.json"
NEW_FIELDS = "config-new.yaml"
MAX_REMEMBERED = 8  # spellings of one configuration, such as other orders of a dict
MAX_PLACES = 16
# what parsing raises besides errors of YAML, some of it from values that no configuration has
NO_CONFIGURATION = (
    *(TypeError, ValueError, IndexError, KeyError, AttributeError, OverflowError, RecursionError),
)


def ensure_config_folder(
    folder: Path,
    *,
    uid_config: Config,
    full_uid_config: Callable[[], Config],
    config: Callable[[], tuple[Config, Config]],
    uid_of: Callable[[tp.Any], str] | None = None,
    create: bool = True,
    first_claim: "FirstClaim | None" = None,
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
    if status is None and not create:
        return folder  # no process has been here
    full = full_uid_config()
    configs = {UID: uid_config, FULL: full}
    if status is not None and _is_known(str(folder), configs, status):
        return folder
    texts = {UID: _text(uid_config), FULL: _text(full)}
    if status is not None and all(_read(f"{folder}/{name}") == text for name, text in texts.items()):
        if create:
            _remember(str(folder), configs, texts)
        return folder
    if create and status is None and _is_new(str(folder), configs, texts, config, first_claim):
        return folder
    ours = absorb(uid_config, dict)
    for place in itertools.islice(_places(folder, uid_config), MAX_PLACES):
        if create:
            with _explained(f"{place}/{UID}"):
                _files.make_folders(place)
        found = _check_uid(place, ours, texts[UID], uid_of or _uid, create)
        if found is None:
            continue
        compared = {UID: found, FULL: _check_full(place, full, texts[FULL], create)}
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
    text = comparing.canonical(uid_config)
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
    if comparing.same(ours, theirs):
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
    for candidate in (comparing.ordered_like(ours, theirs), theirs):
        with contextlib.suppress(TypeError, ValueError, AttributeError, KeyError):
            if uid_of(candidate) == wanted:
                return True
    return False


def _check_full(place: str, config: Config, text: bytes, create: bool) -> bytes:
    """Check or write full-uid.yaml; return what it holds, or nothing when that is not to be remembered."""
    path = f"{place}/{FULL}"
    full = absorb(config, dict)
    found, known = _found_or_written(path, full, text, create)
    changed = list(comparing.changes(full, known))
    refused = [
        change for change in changed if not any(skip(*change) for skip in comparing.DEFAULT_CHECK_SKIPS)
    ]
    if refused:
        fields = "".join(f"\n  {key}: was {old!r}, is now {new!r}" for key, new, old in refused)
        raise ChangedDefaultError(
            f"defaults changed under the results in {place}:{fields}\n"
            "To compute again, change the version of the infra; to keep the results, let a function in "
            "exca.utils.DEFAULT_CHECK_SKIPS accept the change"
        )
    united = comparing.united(full, known)
    if create and not comparing.same(united, known):
        # fields that came since: from now on, their defaults hold as well
        found = _text(united)
        with contextlib.suppress(OSError):
            _files.write_atomically(path, found)
    # what a skip allowed is asked again next time, when the skip may be gone
    return b"" if changed else found


# --------------------------------------------------------------------------------------------------- files


def _is_new(
    place: str,
    configs: dict[str, Config],
    texts: dict[str, bytes],
    config: Callable[[], tuple[Config, Config]],
    first_claim: "FirstClaim | None",
) -> bool:
    """Make the folder with all its files in one step; False if it was there, or cannot be made so."""
    if first_claim is None and os.path.lexists(place):  # made for the claim on what will be in it
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
        notes = {}
        for file, text in texts.items():
            _files.write_new(f"{draft}/{file}", text)
            digest = _config_digest(configs[file])
            if digest:
                notes[file] = _note([digest], text, os.stat(f"{draft}/{file}"))
        for file, text in _config_files(config):
            _files.write_new(f"{draft}/{file}", text)
        _files.write_new(f"{draft}/{SIDECAR}", orjson.dumps(notes), mode=_files.OWN)
        if first_claim is not None:
            first_claim.write_into(draft)
        if not os.path.lexists(
            place
        ):  # a rename would replace an empty folder, which another process just made
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
        except OSError:  # no hard links here: the last one wins, and everybody reads it
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
            message = (
                "cannot write the configuration files (choose another folder, or ask for the right to write)"
            )
            raise FolderNotWritableError(error.errno, message, folder) from error
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
    same: bool = note["file"] == _digest(_read(path) or b"")  # only copied
    return same


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


def _digest(data: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(data)


def _note(same: list[tp.Any], text: bytes, status: os.stat_result) -> dict[str, tp.Any]:
    return {"same": same, "stat": [status.st_size, status.st_mtime_ns], "file": _digest(text)}


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
                if believed and record[name]["file"] == _digest(text):
                    others = [other for other in record[name]["same"] if other != digest]
            fresh[name] = _note([*others[1 - MAX_REMEMBERED :], digest], text, status)
        if fresh:
            _files.write_atomically(f"{place}/{SIDECAR}", orjson.dumps(fresh), mode=_files.OWN)
