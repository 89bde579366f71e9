"""The commands export and import: chosen entries as one archive with checksums, and back.

What is imported belongs to the user who does so, and later calls trust it. So without ``--trust`` nothing is taken that
could run code, whoever made the archive: no pickles, and no ``config.yaml``, from which objects and jobs are made.
"""

import argparse
import errno
import hashlib
import io
import lzma
import os
import shutil
import tarfile
import typing as tp
import zlib
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

import pydantic

from .. import _files
from ..catalog import scan
from ..catalog.rows import Row, amount
from ..errors import ArchiveError, NoSuchTaskError
from ..identity.configfolder import CONFIG, FULL, NEW_FIELDS, UID
from . import trash
from .commandline import FAILED
from .output import Output
from .tasks import selection

MANIFEST = "exca-archive.json"
VERSION = 1
_LARGEST = 1 << 28  # bytes of a manifest
_BLOCK = 1 << 20
_LEFT = (".claim", ".tmp", "submission.json")  # endings of what is about work under way
_OBJECTS = (CONFIG, NEW_FIELDS)  # objects are made of them, and jobs with the commands that they hold
_DATA = (UID, FULL, "classes.json")  # files that are only compared or shown
# handlers of values in whose files nothing can run, read from any user
_PLAIN = frozenset(
    (
        *(
            "Json",
            "Auto",
            "AutoPickle",
            "MemmapArray",
            "MemmapArrayFile",
            "ContiguousMemmapArray",
            "TorchTensor",
        ),
        *("PandasDataFrame", "ParquetPandasDataFrame"),
    )
)


class _File(pydantic.BaseModel):
    size: pydantic.NonNegativeInt
    sha256: str


class Manifest(pydantic.BaseModel):
    """What an archive holds: the addresses of entries, and their files."""

    version: int
    entries: list[str]
    files: dict[str, _File]


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # there is no room for a file


def export(options: argparse.Namespace) -> int:
    """Write chosen entries to an archive, or to a tracker."""
    if options.to is not None:
        from .trackers import track

        return track(options)
    if options.output is None:
        raise ValueError("name the archive that is to be written: -o results.tar.gz")
    rows = [row for row in selection(options).rows() if row.state not in ("running", "empty", "interrupted")]
    if not rows:
        raise NoSuchTaskError(
            "nothing that is done fits, so nothing is exported: `exca ls` shows what there is"
        )
    draft = f"{options.output}.{os.getpid()}.tmp"
    manifest = Manifest(version=VERSION, entries=[row.address for row in rows], files={})
    try:
        with tarfile.open(draft, "x:gz", compresslevel=1) as archive:
            for row in rows:
                _add(archive, row, manifest.files)
            text = manifest.model_dump_json().encode()
            about = tarfile.TarInfo(MANIFEST)
            about.size = len(text)
            archive.addfile(about, io.BytesIO(text))
        os.replace(draft, options.output)
    except OSError as e:
        if e.errno not in _FULL:
            raise
        raise RuntimeError(
            f"{options.output} was not written: {e.strerror}. Make room, or name a file elsewhere (-o)"
        ) from e
    finally:
        if os.path.lexists(draft):
            os.unlink(draft)
    size = amount(sum(file.size for file in manifest.files.values()))
    Output().write([f"wrote {len(rows)} entries, {size}, to {options.output}"])
    return 0


def _add(archive: tarfile.TarFile, row: Row, files: dict[str, _File]) -> None:
    for path, status in scan.walk_files(row.folder):
        inside = path.removeprefix(f"{row.folder}/")
        hidden = any(part.startswith(".") for part in inside.split("/"))
        if hidden or path.endswith(_LEFT) or not scan.is_regular(status):
            continue
        with _files.open_regular(path) as file:
            about = tarfile.TarInfo(f"{row.address}/{inside}")
            about.size, about.mtime = os.fstat(file.fileno()).st_size, int(status.st_mtime)
            read = _Digested(file)
            archive.addfile(about, tp.cast(tp.IO[bytes], read))
        files[about.name] = _File(size=about.size, sha256=read.digest.hexdigest())


class _Digested:
    """A file whose digest is known once it was read."""

    def __init__(self, file: tp.BinaryIO) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.digest.update(data)
        return data


def bring_in(options: argparse.Namespace) -> int:
    """Unpack an archive into a cache folder; what is there stays as it is."""
    os.makedirs(options.folder, exist_ok=True)
    top = scan.named_folder(options.folder)
    draft = f"{top}/{_files.temporary_name('import')}"
    try:
        with tarfile.open(options.archive, "r:*") as archive:
            entries = _entries(archive)
            there = [entry for entry in entries if scan.look_at(top, entry) is not None]
            wanted = {entry: files for entry, files in entries.items() if entry not in there}
            _require_room(top, wanted)
            _files.make_folders(draft, _files.PRIVATE_FOLDER)
            for number, files in enumerate(wanted.values()):
                for inside, (member, expected) in files.items():
                    if options.trust or os.path.basename(inside) not in _OBJECTS:
                        _unpack(archive, member, expected, f"{draft}/{number}/{inside}")
        refused = {}
        for number, entry in enumerate(wanted):
            reason = None if options.trust else _what_may_run(f"{draft}/{number}")
            if reason is not None:
                refused[entry] = reason
                continue
            try:
                _files.make_folders(os.path.dirname(f"{top}/{entry}"))
                trash.move(f"{draft}/{number}", f"{top}/{entry}", _files.SHARED_FOLDER)
            except FileExistsError:
                there.append(entry)
    except ArchiveError:
        raise
    except (tarfile.TarError, EOFError, KeyError, ValueError, zlib.error, lzma.LZMAError) as e:
        text = f"{options.archive} is no archive of `exca export`, or is damaged: {e}"
        raise ArchiveError(text) from e
    finally:
        _files.remove_tree(draft)
    _tell(len(wanted) - len(refused), there, refused)
    return FAILED if refused or (options.strict and there) else 0


def _tell(count: int, there: list[str], refused: dict[str, str]) -> None:
    lines = [f"brought in {count} entries" + (f", left {len(there)} that are there already" if there else "")]
    lines += [f"  left {entry}: {reason}" for entry, reason in list(refused.items())[:10]]
    if refused:
        lines.append(
            f"left {len(refused)} entries that may run code where they are loaded: what is imported is yours, and "
            "trusted. If you trust whoever made the archive: --trust"
        )
    Output().write(lines)


_Members = dict[str, tuple[tarfile.TarInfo, _File]]


def _entries(archive: tarfile.TarFile) -> dict[str, _Members]:
    """The entries of an archive, each with its files by their names in it; all is as the manifest tells.

    Raises ArchiveError where that would be written to another place than below the folder, or is none of files.
    """
    members: dict[str, tarfile.TarInfo] = {}
    for member in archive:
        if member.name in members:
            raise ArchiveError(f"the archive holds {member.name!r} twice: nothing was unpacked")
        members[member.name] = member
    manifest = _manifest(archive, members[MANIFEST])
    entries: dict[str, _Members] = {_inside(entry): {} for entry in manifest.entries}
    for name, expected in manifest.files.items():
        path = _inside(name)
        entry = next((e for e in map(str, PurePosixPath(path).parents) if e in entries), None)
        if entry is None:
            raise ArchiveError(f"{name!r} in the archive is of none of its entries: nothing was unpacked")
        found = members.get(name)
        if found is None or found.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise ArchiveError(f"{name!r} in the archive is no file: nothing was unpacked")
        if not path.endswith(_LEFT):
            entries[entry][path.removeprefix(f"{entry}/")] = (found, expected)
    return entries


def _manifest(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Manifest:
    file = archive.extractfile(member) if member.isreg() else None
    if file is None or member.size > _LARGEST:
        raise KeyError(MANIFEST)
    content = pydantic.TypeAdapter(dict[str, tp.Any]).validate_json(file.read())
    if content.get("version") != VERSION:
        raise ArchiveError(
            f"the archive is of version {content.get('version')!r}, and this release knows {VERSION}: update exca"
        )
    return Manifest.model_validate(content)


def _inside(name: str) -> str:
    """A path that leads to no other place than below the folder. Raises ArchiveError for any other."""
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or "\0" in name or any(part[0] == "." for part in path.parts):
        raise ArchiveError(
            f"the archive names {name!r}, which is no place below a folder: nothing was unpacked"
        )
    return str(path)


def _require_room(top: str, entries: dict[str, _Members]) -> None:
    needed = sum(expected.size for files in entries.values() for _, expected in files.values())
    free = shutil.disk_usage(top).free
    if needed > free:
        raise ArchiveError(
            f"the archive holds {amount(needed)}, and {amount(free)} are free in {top}: nothing was unpacked"
        )


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, expected: _File, path: str) -> None:
    file = archive.extractfile(member)
    digest = hashlib.sha256()
    _files.make_folders(os.path.dirname(path))
    with open(_files.create_file(path, _files.OWN), "wb") as out:
        while file is not None and out.tell() <= expected.size and (block := file.read(_BLOCK)):
            digest.update(block)
            out.write(block)
        out.flush()
        os.utime(out.fileno() if os.utime in os.supports_fd else path, (member.mtime, member.mtime))
        if (out.tell(), digest.hexdigest()) != (expected.size, expected.sha256):
            raise ArchiveError(
                f"{member.name!r} in the archive is damaged (its checksum differs): nothing was unpacked"
            )


# ------------------------------------------------------------------------------------------------- what may run


def _what_may_run(folder: str) -> str | None:
    """What in an unpacked entry may run code when it is loaded; None for numbers, tables, texts."""
    for path, _ in scan.walk_files(folder, whole=True):
        name = path.removeprefix(f"{folder}/")
        parts = name.split("/")
        if (
            name in _DATA
            or "data" in parts[-3:-1]
            or (parts[-1].startswith("metrics") and name.endswith(".jsonl"))
        ):
            continue  # what is in `data` is loaded as the lines that are looked at here say
        if name != "job.json" and not name.endswith("-info.jsonl"):
            return f"{name} may be anything"
        try:
            kinds = set(_kinds(path))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return f"{name} is damaged"
        if kinds - _PLAIN:
            return f"{name} holds values of {', '.join(sorted(kinds - _PLAIN))}"
    return None


def _kinds(path: str) -> Iterator[str]:
    """The kinds of all stored values that a record or an index speaks of."""
    import orjson

    with _files.open_regular(path) as file:
        data = file.read()
    if path.endswith(".json"):
        record = orjson.loads(data)
        if "pickle" in (record.get("error") or {}):
            yield "errors that are pickled"
        entries = [record.get("result")]
    else:
        entries = [orjson.loads(line) for line in data.split(b"\n") if line.strip()]
    for entry in entries:
        if entry is not None and entry["#type"] != "Json":  # which is loaded as it is, whatever it holds
            yield from _kinds_in(entry)


def _kinds_in(value: tp.Any) -> Iterator[str]:
    if isinstance(value, dict):
        kind = value.get("#type")
        if kind in ("Json", "Auto", "AutoPickle") and ("filename" in value or "content" not in value):
            yield "parts that are listed in a file"  # which is not looked at
        elif kind is not None:
            yield str(kind)
        if "#as" in value:
            yield str(value["#as"])
    if isinstance(value, (dict, list)):
        parts: Iterable[tp.Any] = value.values() if isinstance(value, dict) else value
        for part in parts:
            yield from _kinds_in(part)
