"""Checking one folder: its entries, its record, its configuration files, its claims and its derived files."""

import os
import typing as tp
from pathlib import Path

from .. import _files
from ..cachedict import DumpContext
from ..cachedict.sideindex import FILE_NAME, Table
from ..cachedict.textindex import parse_line
from ..cachedict.verification import Checked, check_entry, named_files, verify_entries
from ..claims import protocol
from ..claims.ledger import Entry, Ledger
from ..claims.liveness import alive
from ..errors import OddFileError
from ..execution import record
from ..infra.configfiles import CONFIG, FULL, SIDECAR, UID
from .report import Damaged, FolderReport

_MAX_CONFIG = 1 << 24  # bytes; to parse more of them takes minutes
ORPHANED = ".orphaned"  # ending of data files that were moved aside
OUT_OF_REACH = (OSError, ImportError)  # nothing can be said about what raises these


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
    _check_index(folder, report)
    kept = _check_record(folder, report)
    report.orphans = [path for path in report.orphans if path not in kept]
    _check_legacy(folder, report)
    _check_configs(folder, report)
    _check_derived(folder, report)


# ---------------------------------------------------------------- entries


def _check_index(folder: Path, report: FolderReport) -> None:
    found = verify_entries(folder)
    report.entries += found.entries
    report.nbytes += found.nbytes
    for checked in found.damaged:
        now = look_again(folder, checked)
        if now is not None:
            (report.unreadable if _is_out_of_reach(folder, checked) else report.damaged).append(now)
    for name, length in found.torn.items():
        size = os.stat(folder / name).st_size
        text = "it ends within a line: its writer was interrupted, or is at it"
        report.damaged.append(Damaged(name, text, offset=size - length))
    moved = [path for path in found.orphans if path.endswith(ORPHANED)]
    report.orphans += [path for path in found.orphans if path not in moved]
    report.set_aside += [*found.set_aside, *moved]
    report.set_aside += [p.name for p in sorted(folder.glob("*.damaged-*"))]


def look_again(folder: Path, checked: Checked) -> Damaged | None:
    """A line that was found damaged, unless it was deleted or replaced while it was looked at."""
    try:
        with open(_files.open_to_read(f"{folder}/{checked.file}"), "rb") as f:
            _files.require_regular(f.fileno())
            f.seek(checked.offset)
            line = f.read(checked.length)
    except OSError:
        return None
    if not line.strip() or (checked.info is not None and parse_line(line) != checked.info):
        return None
    return Damaged(checked.file, str(checked.error), checked.key, checked.offset, checked.length)


def _is_out_of_reach(folder: Path, checked: Checked) -> bool:
    """Whether an entry could not be checked, which says nothing about it."""
    return checked.info is not None and isinstance(problem(folder, checked.info), OUT_OF_REACH)


def problem(folder: Path, info: dict[str, tp.Any]) -> BaseException | None:
    """What is wrong with an entry, if anything is."""
    try:
        check_entry(DumpContext(folder), info)
    except Exception as e:  # of whatever reads it
        return e
    return None


def _check_record(folder: Path, report: FolderReport) -> set[str]:
    """Check the record of a task; return the data files that it names."""
    try:
        data = _files.read_file(f"{folder}/{record.NAME}")
    except FileNotFoundError:
        return set()
    except (OddFileError, IsADirectoryError) as e:
        report.damaged.append(Damaged(record.NAME, str(e.strerror)))
        return set()
    except OSError as e:
        report.unreadable.append(Damaged(record.NAME, str(e)))
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
    found = problem(folder, info)
    if found is None:
        report.entries += 1
        report.nbytes += check_entry(DumpContext(folder), info)
    elif isinstance(found, OUT_OF_REACH):
        report.unreadable.append(Damaged(record.NAME, str(found)))
    else:
        report.damaged.append(Damaged(record.NAME, str(found)))
    return named_files(DumpContext(folder), info)


def _check_legacy(folder: Path, report: FolderReport) -> None:
    """Walk through the pickled job of an earlier release without running anything in it."""
    import pickletools

    path = folder / "job.pkl"
    try:
        with open(_files.open_to_read(str(path)), "rb") as f:
            _files.require_regular(f.fileno())
            for _ in pickletools.genops(f):
                pass
    except FileNotFoundError:
        return
    except (OddFileError, IsADirectoryError) as e:
        report.damaged.append(Damaged(path.name, str(e.strerror)))
        return
    except OSError as e:
        report.unreadable.append(Damaged(path.name, str(e)))
        return
    except (ValueError, IndexError, UnicodeDecodeError) as e:
        report.damaged.append(Damaged(path.name, f"it is no whole pickle: {e}"))
        return
    report.entries += 1
    report.nbytes += path.stat().st_size


# ---------------------------------------------------------------- beside the entries


def _check_configs(folder: Path, report: FolderReport) -> None:
    import yaml

    from ..identity.yamltext import from_text

    for name in (UID, FULL, CONFIG):
        try:
            text = _files.read_file(f"{folder}/{name}")
            if len(text) > _MAX_CONFIG:
                raise ValueError(f"it is larger than {_MAX_CONFIG >> 20} MiB")
            if not isinstance(from_text(text), (dict, list)):
                raise TypeError("it holds no configuration")
        except FileNotFoundError:
            continue
        except (OddFileError, IsADirectoryError) as e:
            report.damaged.append(Damaged(name, str(e.strerror)))
        except OSError as e:
            report.unreadable.append(Damaged(name, str(e)))
        except (yaml.YAMLError, TypeError, ValueError, IndexError) as e:
            report.damaged.append(Damaged(name, " ".join(str(e).split())))


def _check_derived(folder: Path, report: FolderReport) -> None:
    import orjson

    if (folder / FILE_NAME).exists():
        try:
            table = Table.load(str(folder))
            if table is None:
                raise OSError
            table.verify()
        except OSError:
            report.derived.append(FILE_NAME)
    try:
        orjson.loads(_files.read_file(f"{folder}/{SIDECAR}"))
    except FileNotFoundError:
        pass
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
