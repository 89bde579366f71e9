"""Checking one folder: its entries, its record, its configuration files, its claims and its derived files."""

import os
import typing as tp
from pathlib import Path

from .. import _files
from ..cachedict.datafiles import DATA_DIR
from ..cachedict.sideindex import FILE_NAME, Table
from ..cachedict.textindex import INFO_SUFFIX, parse_line
from ..cachedict.verification import (
    OUT_OF_REACH,
    Checked,
    Checking,
    check_entry,
    is_folder,
    named_files,
    verify_entries,
)
from ..claims import protocol
from ..claims.ledger import Entry, Ledger
from ..claims.liveness import alive
from ..errors import OddFileError
from ..execution import record
from ..infra.configfiles import CONFIG, FULL, NEW_FIELDS, NO_CONFIGURATION, SIDECAR, UID
from .report import Damaged, FolderReport

_MAX_CONFIG = 1 << 24  # bytes; to parse more of them takes minutes
ORPHANED = ".orphaned"  # ending of data files that were moved aside
_FOLDERS = ("cache", "errors", "logs")  # what is made in the folder of a configuration


def check_folder(folder: Path, report: FolderReport) -> None:
    """Add to a report what is found in a folder of results.

    Parameters
    ----------
    folder: Path
        the folder
    report: FolderReport
        the report on it
    """
    _check_claims(folder, report)  # first: whoever starts later cannot make it look abandoned
    _check_folders(folder, report)
    ctx = Checking(folder)
    _check_index(folder, report, ctx)
    kept = _check_record(folder, report, ctx)
    report.orphans = [path for path in report.orphans if path not in kept]
    _check_legacy(folder, report)
    _check_configs(folder, report)
    _check_derived(folder, report)


# ---------------------------------------------------------------- entries


def _check_folders(folder: Path, report: FolderReport) -> None:
    """Report what is in the place of a folder, where nothing can be written, or of an index file."""
    names = os.listdir(folder)
    for name in (DATA_DIR, *(_FOLDERS if UID in names else ())):
        if name in names and not is_folder(f"{folder}/{name}"):
            report.damaged.append(Damaged(name, "it is no folder"))
    for name in sorted(names):
        if name.endswith(INFO_SUFFIX) and name[0] != ".":
            try:
                _files.open_regular(f"{folder}/{name}").close()
            except FileNotFoundError:
                _check_link(folder, name, report)
            except OddFileError as e:
                report.damaged.append(Damaged(name, str(e.strerror)))
            except OSError:  # of its entries, nothing is known
                report.unreadable.append(Damaged(name, "this user may not read it"))


def _check_index(folder: Path, report: FolderReport, ctx: Checking) -> None:
    found = verify_entries(folder, ctx)
    report.entries += found.entries
    report.nbytes += found.nbytes
    for checked in found.damaged:
        now = look_again(folder, checked)
        if now is not None:
            (report.unreadable if checked.out_of_reach else report.damaged).append(now)
    for name, length in found.torn.items():
        size = os.lstat(folder / name).st_size
        text = "it ends within a line: its writer was interrupted, or is at it"
        report.damaged.append(Damaged(name, text, offset=size - length))
    moved = [path for path in found.orphans if path.endswith(ORPHANED)]
    report.orphans += [path for path in found.orphans if path not in moved]
    report.set_aside += [*found.set_aside, *moved]
    report.set_aside += [p.name for p in sorted(folder.glob("*.damaged-*"))]


def look_again(folder: Path, checked: Checked) -> Damaged | None:
    """A line that was found damaged, unless it was deleted or replaced while it was looked at."""
    try:
        with _files.open_regular(f"{folder}/{checked.file}") as f:
            f.seek(checked.offset)
            line = f.read(checked.length)
    except OSError:
        return None
    if not line.strip() or (checked.info is not None and parse_line(line) != checked.info):
        return None
    return Damaged(checked.file, str(checked.error), checked.key, checked.offset, checked.length)


def problem(folder: Path, info: dict[str, tp.Any]) -> BaseException | None:
    """What is wrong with an entry, if anything is."""
    try:
        check_entry(Checking(folder), info)
    except Exception as e:  # of whatever reads it
        return e
    return None


def _read(folder: Path, name: str, report: FolderReport) -> bytes | None:
    """What is in a file; None, and reported, where it is none."""
    try:
        return _files.read_file(f"{folder}/{name}")
    except FileNotFoundError:
        _check_link(folder, name, report)
    except OddFileError as e:
        report.damaged.append(Damaged(name, str(e.strerror)))
    except OSError as e:
        report.unreadable.append(Damaged(name, str(e)))
    return None


def _check_link(folder: Path, name: str, report: FolderReport) -> None:
    if os.path.islink(folder / name):
        report.damaged.append(Damaged(name, "it is a link that leads nowhere"))


def _check_record(folder: Path, report: FolderReport, ctx: Checking) -> set[str]:
    """Check the record of a task; return the data files that it names."""
    data = _read(folder, record.NAME, report)
    if data is None:
        return set()
    content = record.parse(data)
    if content is None:
        report.damaged.append(Damaged(record.NAME, "the record is damaged"))
        return set()
    report.nbytes += len(data)
    info = content.get("result")
    if info is None:
        report.entries += 1
        return set()
    try:
        report.nbytes += check_entry(ctx, info)
        report.entries += 1
    except OUT_OF_REACH as e:
        report.unreadable.append(Damaged(record.NAME, str(e)))
    except Exception as e:  # of whatever reads it
        report.damaged.append(Damaged(record.NAME, str(e) or type(e).__name__))
    return named_files(ctx, info)


def _check_legacy(folder: Path, report: FolderReport) -> None:
    """Walk through the pickled job of an earlier release without running anything in it."""
    import pickletools

    name = record.LEGACY_NAME
    try:
        with _files.open_regular(f"{folder}/{name}") as f:
            size = os.fstat(f.fileno()).st_size
            for _ in pickletools.genops(f):
                pass
    except FileNotFoundError:
        _check_link(folder, name, report)
        return
    except OddFileError as e:
        report.damaged.append(Damaged(name, str(e.strerror)))
        return
    except OSError as e:
        report.unreadable.append(Damaged(name, str(e)))
        return
    except (ValueError, IndexError, MemoryError, OverflowError) as e:
        report.damaged.append(Damaged(name, f"it is no whole pickle: {e}"))
        return
    report.entries += 1
    report.nbytes += size


# ---------------------------------------------------------------- beside the entries


def _check_configs(folder: Path, report: FolderReport) -> None:
    import yaml

    from ..identity.yamltext import from_text

    for name in (UID, FULL, CONFIG, NEW_FIELDS):
        text = _read(folder, name, report)
        if text is None:
            continue
        try:
            if len(text) > _MAX_CONFIG:
                raise ValueError(f"it is larger than {_MAX_CONFIG >> 20} MiB")
            if not isinstance(from_text(text), (dict, list)):
                raise TypeError("it holds no configuration")
        except (yaml.YAMLError, *NO_CONFIGURATION) as e:
            report.damaged.append(Damaged(name, " ".join(str(e).split())))


def _check_derived(folder: Path, report: FolderReport) -> None:
    import orjson

    if os.path.lexists(folder / FILE_NAME):
        try:
            table = Table.load(str(folder))
            if table is None:
                raise OSError
            table.verify()
        except OSError:
            report.derived.append(FILE_NAME)
    try:
        if os.path.lexists(folder / SIDECAR):
            orjson.loads(_files.read_file(f"{folder}/{SIDECAR}"))
    except (OSError, ValueError):
        report.derived.append(SIDECAR)


def _check_claims(folder: Path, report: FolderReport) -> None:
    ledger = Ledger(folder)
    names, drafts = ledger.listing()
    entries = protocol.look(ledger, names)
    dead = {entry.name for entry in entries if not alive(ledger, entry)}
    report.live_claims += len(entries) - len(dead)
    report.stale_claims += sorted(dead)
    report.leftovers += sorted(draft for draft in drafts if _is_abandoned(ledger, draft))


def _is_abandoned(ledger: Ledger, draft: str) -> bool:
    return not alive(ledger, Entry(draft, None, 0.0, 5.0, owned=False))
