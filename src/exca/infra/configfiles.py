"""The configuration files in a uid folder, and the checks that keep a folder to one configuration.

``uid.yaml`` holds what differs from the defaults, ``full-uid.yaml`` the defaults as well, and ``config.yaml``
everything, but for fields of infras and backends that release 0.6 does not know and would refuse: where such
are set, they are in ``config-new.yaml``, by their dotted path. A file that holds the very text that would be
written needs no parsing. Where the texts differ and say the same (a dict in another order, a field that came
since), a derived ``.identity.json`` remembers so by their digests; it may be deleted at any moment.
"""

import contextlib
import errno
import hashlib
import itertools
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
from ..identity import comparing
from ..identity.nesting import absorb
from ..identity.uid import uid_text
from ..identity.yamltext import from_text, to_nested_text, to_text

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
    TypeError,
    ValueError,
    IndexError,
    KeyError,
    AttributeError,
    OverflowError,
    RecursionError,
)


def settle(
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
    `folder`, or, where a different configuration with truly the same uid lies there, the one with a longer suffix

    Raises
    ------
    InconsistentConfigError: the folder holds a configuration with another uid
    ChangedDefaultError: a default changed under the results in the folder
    FolderNotWritableError: the files have to be written and cannot be
    """
    there = _read(f"{folder}/{UID}")
    if there is None and not create:
        return folder  # no process has been here
    full = full_uid_config()
    texts = {UID: _text(uid_config), FULL: _text(full)}
    if _is_known(str(folder), texts, there) or (create and _is_new(str(folder), texts, config, first_claim)):
        return folder
    ours = absorb(uid_config, dict)
    for place in itertools.islice(_places(folder, uid_config), MAX_PLACES):
        if create:
            _make_folder(place)
        found = _settle_uid(place, ours, texts[UID], uid_of or _uid, create)
        if found is None:
            continue
        compared = {UID: found, FULL: _settle_full(place, absorb(full, dict), texts[FULL], create)}
        if create:
            if not os.path.lexists(f"{place}/{CONFIG}"):
                for file, text in _config_files(config):
                    _write_first(f"{place}/{file}", text)
            _remember(place, compared, texts)
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


def _settle_uid(
    place: str, ours: tp.Any, text: bytes, uid_of: Callable[[tp.Any], str], create: bool
) -> bytes | None:
    """Check or write uid.yaml; return what it holds, or None when another configuration has the same uid."""
    path = f"{place}/{UID}"
    found, theirs = _found_or_written(path, ours, text, create)
    if comparing.same(ours, theirs):
        return found
    if _has_uid(theirs, ours, uid_of):
        logger.warning("Another configuration with the same uid lies in %s: moving to a longer suffix", place)
        return None
    import difflib

    diff = difflib.unified_diff(
        to_text(theirs).splitlines(), to_text(ours).splitlines(), f"in {path}", "asked for", lineterm=""
    )
    raise InconsistentConfigError(
        f"{path} holds a configuration with another uid than its folder: it was edited, the folder was moved, "
        "or other code wrote it.\n" + "\n".join(diff) + "\n"
        f"Put the file back as it was, or remove the folder {place} to compute again."
    )


def _has_uid(theirs: tp.Any, ours: tp.Any, uid_of: Callable[[tp.Any], str]) -> bool:
    wanted = uid_of(ours)
    # YAML does not tell which dicts were ordered: those that are ordered in ours, or none
    for candidate in (comparing.ordered_like(ours, theirs), theirs):
        with contextlib.suppress(TypeError, ValueError, AttributeError, KeyError):
            if uid_of(candidate) == wanted:
                return True
    return False


def _settle_full(place: str, full: tp.Any, text: bytes, create: bool) -> bytes:
    """Check or write full-uid.yaml; return what it holds, or nothing when that is not to be remembered."""
    path = f"{place}/{FULL}"
    found, known = _found_or_written(path, full, text, create)
    changed = list(comparing.changes(full, known))
    refused = [
        change for change in changed if not any(skip(*change) for skip in comparing.DEFAULT_CHECK_SKIPS)
    ]
    if refused:
        fields = "".join(f"\n  {key}: was {old!r}, is now {new!r}" for key, new, old in refused)
        raise ChangedDefaultError(
            f"defaults changed under the results in {place}:{fields}\n"
            f"To compute again, change the version of the infra; to keep the results, remove {path}"
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
    texts: dict[str, bytes],
    config: Callable[[], tuple[Config, Config]],
    first_claim: "FirstClaim | None",
) -> bool:
    """Make the folder with all its files in one step; tell whether we were the ones who did so."""
    parent, name = os.path.split(place)
    draft = f"{parent}/{_files.temporary_name(name)}"
    try:
        os.mkdir(draft, _files.SHARED_FOLDER)
    except OSError:
        return False
    made = False
    try:
        for file, text in texts.items():
            _files.write_new(f"{draft}/{file}", text)
        for file, text in _config_files(config):
            _files.write_new(f"{draft}/{file}", text)
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
    """Read the whole configuration in a uid folder.

    Parameters
    ----------
    folder: the folder

    Returns
    -------
    The configuration, and whether only trusted users can have written it

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
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
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
    """Read a configuration file, and tell whether nobody but trusted users can have written it.

    Parameters
    ----------
    path: the file

    Raises
    ------
    ValueError: it is damaged
    OSError: it cannot be read
    """
    import yaml

    text, status = _files.read_judged(str(path))
    try:
        config = from_text(text)
        if isinstance(config, dict | list):
            return absorb(config, dict), _trust.is_trusted(status)
    except (yaml.YAMLError, *NO_CONFIGURATION) as error:
        raise ValueError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    raise ValueError(f"{path} is damaged: it holds {type(config).__name__}")


def _make_folder(place: str) -> None:
    with _explained(f"{place}/{UID}"):
        _files.make_folders(place)


def _found_or_written(path: str, config: tp.Any, text: bytes, create: bool) -> tuple[bytes, tp.Any]:
    """Return the text and the configuration in a file, which is written when it is missing or damaged."""
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
    """Return the configuration in a file, or None when the file is damaged."""
    import yaml

    try:
        config = from_text(text)
        if isinstance(config, (dict, list)):
            return absorb(config, dict)
        problem = f"it holds {type(config).__name__}"
    except (yaml.YAMLError, *NO_CONFIGURATION) as error:
        problem = " ".join(str(error).split())
    logger.warning("%s is damaged and stands for no configuration: %s", path, problem)
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


# ------------------------------------------------------------------------------------------------- sidecar


def _is_known(folder: str, texts: dict[str, bytes], uid_file: bytes | None) -> bool:
    """Tell whether the files in a folder hold these texts, or what the sidecar says is the same."""
    record: tp.Any = None
    for name, text in texts.items():
        found = uid_file if name == UID else _read(f"{folder}/{name}")
        if found != text:
            if found is None:
                return False
            record = _remembered(folder) if record is None else record
            if _digest(text) not in _spellings(record, name, found):
                return False
    return True


def _digest(text: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(text)


def _remembered(folder: str) -> tp.Any:
    try:
        return orjson.loads(_read(f"{folder}/{SIDECAR}") or b"{}")
    except (OSError, ValueError):
        return {}


def _spellings(record: tp.Any, name: str, found: bytes) -> list[tp.Any]:
    """Return the digests of the texts that were found to say the same as a file."""
    known = record.get(name) if isinstance(record, dict) else None
    if not isinstance(known, dict) or known.get("file") != _digest(found):
        return []
    same = known.get("same")
    return same if isinstance(same, list) else []


def _remember(place: str, compared: dict[str, bytes], texts: dict[str, bytes]) -> None:
    """Note which texts say the same as files that hold others, so that YAML is parsed for them only once."""
    different = {name: found for name, found in compared.items() if found and found != texts[name]}
    if not different:
        return
    record = _remembered(place)
    fresh = {}
    for name, found in different.items():
        digest = _digest(texts[name])
        others = [spelling for spelling in _spellings(record, name, found) if spelling != digest]
        fresh[name] = {"file": _digest(found), "same": [*others[1 - MAX_REMEMBERED :], digest]}
    with contextlib.suppress(OSError):  # a folder that only others can write to is as good
        _files.write_atomically(f"{place}/{SIDECAR}", orjson.dumps(fresh))
