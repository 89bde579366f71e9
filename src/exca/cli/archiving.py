"""The commands export and import: chosen entries as one archive with checksums, and back."""

import argparse
import hashlib
import io
import json
import os
import stat
import tarfile
import typing as tp
from pathlib import PurePosixPath

from .. import _files
from ..catalog.rows import Row
from ..errors import ArchiveError, NoSuchTaskError
from .commandline import FAILED
from .output import amount
from .tasks import selection

MANIFEST = "exca-archive.json"
VERSION = 1
_LARGEST = 1 << 28  # bytes of a manifest
_BLOCK = 1 << 20
_LEFT = (".claim", ".tmp")  # endings of what is about work under way


def export(options: argparse.Namespace) -> int:
    """Write chosen entries to an archive."""
    rows = [row for row in selection(options).rows() if row.state not in ("running", "empty", "interrupted")]
    if not rows:
        raise NoSuchTaskError(
            "nothing that is done fits, so nothing is exported: `exca ls` shows what there is"
        )
    draft = f"{options.output}.{os.getpid()}.tmp"
    files: dict[str, dict[str, tp.Any]] = {}
    try:
        with tarfile.open(draft, "x:gz", compresslevel=1) as archive:
            for row in rows:
                _add(archive, row, files)
            text = json.dumps(
                {"version": VERSION, "entries": [row.address for row in rows], "files": files}
            ).encode()
            about = tarfile.TarInfo(MANIFEST)
            about.size = len(text)
            archive.addfile(about, io.BytesIO(text))
        os.replace(draft, options.output)
    finally:
        if os.path.lexists(draft):
            os.unlink(draft)
    print(f"wrote {len(rows)} entries, {amount(sum(f['size'] for f in files.values()))}, to {options.output}")
    return 0


def _add(archive: tarfile.TarFile, row: Row, files: dict[str, dict[str, tp.Any]]) -> None:
    for folder, subfolders, names in os.walk(row.folder):
        subfolders[:] = sorted(name for name in subfolders if name != "submitit")
        for name in sorted(names):
            path = f"{folder}/{name}"
            if name.endswith(_LEFT) or not stat.S_ISREG(os.lstat(path).st_mode):
                continue
            inside = f"{row.address}/{os.path.relpath(path, row.folder)}"
            with _files.open_regular(path) as file:
                data = file.read()
            about = tarfile.TarInfo(inside)
            about.size = len(data)
            about.mtime = int(os.lstat(path).st_mtime)
            archive.addfile(about, io.BytesIO(data))
            files[inside] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def bring_in(options: argparse.Namespace) -> int:
    """Unpack an archive into a cache folder; what is there stays as it is."""
    try:
        with tarfile.open(options.archive, "r:*") as archive:
            manifest = _manifest(archive)
            entries = [_inside(entry) for entry in manifest["entries"]]
            there = {entry for entry in entries if os.path.lexists(f"{options.folder}/{entry}")}
            drafts = {
                e: f"{options.folder}/{e.rpartition('/')[0]}/.import-{os.urandom(4).hex()}.tmp"
                for e in entries
                if e not in there
            }
            try:
                _unpack(archive, manifest["files"], drafts)
                for entry, draft in drafts.items():
                    os.rename(draft, f"{options.folder}/{entry}")
            finally:
                for draft in drafts.values():
                    if os.path.isdir(draft):
                        _files.remove_tree(draft)
    except (tarfile.TarError, EOFError, json.JSONDecodeError, KeyError, TypeError) as e:
        raise ArchiveError(f"{options.archive} is no archive of `exca export`, or is damaged: {e}") from e
    print(
        f"brought in {len(drafts)} entries" + (f", left {len(there)} that are there already" if there else "")
    )
    return FAILED if options.strict and there else 0


def _manifest(archive: tarfile.TarFile) -> dict[str, tp.Any]:
    member = archive.getmember(MANIFEST)
    file = archive.extractfile(member)
    if file is None or member.size > _LARGEST:
        raise KeyError(MANIFEST)
    content: dict[str, tp.Any] = json.loads(file.read())
    if content["version"] != VERSION:
        raise ArchiveError(
            f"the archive is of version {content['version']}, and this release knows {VERSION}: update exca"
        )
    return content


def _inside(name: tp.Any) -> str:
    """A path that leads to no other place than below the folder. Raises ArchiveError for any other."""
    path = PurePosixPath(name)
    if (
        path.is_absolute()
        or not path.parts
        or any(part in ("..", ".") or part.startswith(".exca") for part in path.parts)
    ):
        raise ArchiveError(
            f"the archive names {name!r}, which is no place below a folder: nothing was unpacked"
        )
    return str(path)


def _unpack(archive: tarfile.TarFile, files: dict[str, tp.Any], drafts: dict[str, str]) -> None:
    for name, expected in files.items():
        inside = _inside(name)
        entry = next((e for e in drafts if inside.startswith(f"{e}/")), None)
        if entry is None:
            continue
        member = archive.getmember(name)
        file = archive.extractfile(member) if member.isreg() else None
        if file is None:
            raise ArchiveError(f"{name} in the archive is no file: nothing was unpacked")
        path = f"{drafts[entry]}/{inside[len(entry) + 1 :]}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        digest = hashlib.sha256()
        with open(path, "xb") as out:
            while block := file.read(_BLOCK):
                digest.update(block)
                out.write(block)
        if digest.hexdigest() != expected["sha256"]:
            raise ArchiveError(
                f"{name} in the archive is damaged (its checksum differs): nothing was unpacked"
            )
        os.utime(path, (member.mtime, member.mtime))
