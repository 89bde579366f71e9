"""The command doctor: whether what the guarantees rest on holds here, and a bundle for a bug report."""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
import typing as tp
from collections.abc import Iterator
from importlib import metadata

from .. import _files, _trust
from ..catalog import select
from ..catalog.rows import amount
from ..catalog.select import Selection
from . import bundling
from .commandline import FAILED
from .output import Output, as_text

_PACKAGES = (
    "exca",
    "pydantic",
    "submitit",
    "numpy",
    "orjson",
    "cloudpickle",
    "loky",
    "distributed",
    "pandas",
    "torch",
)
_SKEW = 2.0  # seconds between the clocks of this host and of the file system
_FULL = 1 << 30  # bytes of free space below which it is said


class Finding(tp.NamedTuple):
    """One thing that was looked at."""

    what: str
    good: bool | None  # None: nothing to judge
    text: str


def doctor(options: argparse.Namespace) -> int:
    """Look at this host, the folder and the scheduler."""
    found = [*_versions(), *_folder(options.folder), *_slurm(), *_settings()]
    if options.strict and os.path.isdir(options.folder):
        from .strictness import strictness

        found += [Finding("strict", good, text) for good, text in strictness(options.folder)]
    if options.format is not None:
        print(as_text(options.format, [finding._asdict() for finding in found]))
    else:
        out = Output()
        marks = {True: out.coloured("ok  ", "completed"), False: out.coloured("BAD ", "failed"), None: "    "}
        out.write(f"{marks[finding.good]} {finding.what:<18} {finding.text}" for finding in found)
    if options.bundle:
        row = select.one(Selection([options.task], options.folder)) if options.task else None
        written = bundling.write(
            options.bundle, options.folder, [finding._asdict() for finding in found], row
        )
        Output(sys.stderr).write(
            [f"wrote {options.bundle}: {', '.join(written)}; look at it before you send it"]
        )
    return FAILED if any(finding.good is False for finding in found) else 0


def _versions() -> Iterator[Finding]:
    yield Finding("python", None, f"{platform.python_version()} on {platform.platform()}")
    there = []
    for name in _PACKAGES:
        try:
            there.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    yield Finding("packages", None, ", ".join(there))


def _folder(folder: str) -> Iterator[Finding]:
    if not os.path.isdir(folder):
        yield Finding("folder", False, f"{folder} is no folder: name the one of the infra")
        return
    path = os.path.realpath(folder)
    network = _files.on_network(path)
    yield Finding(
        "file system", None, f"{path} is on {'a network file system' if network else 'a local file system'}"
    )
    free = shutil.disk_usage(path).free
    yield Finding("space", free > _FULL, f"{amount(free)} free")
    status = os.stat(path)
    if _files.everybody_may_write(status):
        yield Finding(
            "permissions", False, "every user may write here: nothing in it is trusted to run. chmod o-w"
        )
    elif not _trust.is_trusted(path):
        yield Finding(
            "permissions",
            None,
            "it belongs to another user: its results are read, its pickles are not loaded",
        )
    if not os.access(path, os.W_OK):
        yield Finding("permissions", None, "this user may only read here")
        return
    yield from _writing(path)


def _writing(path: str) -> Iterator[Finding]:
    """Try what the claims and records rest on, in a folder that is removed."""
    trial = f"{path}/.doctor-{os.getpid()}-{os.urandom(4).hex()}.tmp"
    os.mkdir(trial, _files.PRIVATE_FOLDER)
    try:
        before = time.time()
        _files.write_atomically(f"{trial}/one", b"1")
        skew = os.stat(f"{trial}/one").st_mtime - before
        yield Finding(
            "clock", abs(skew) < _SKEW, f"the file system's clock differs from this host's by {skew:+.1f} s"
        )
        try:
            os.close(os.open(f"{trial}/one", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            exclusive = False
        except FileExistsError:
            exclusive = True
        yield Finding(
            "exclusive create",
            exclusive,
            "a file is created once" if exclusive else "two writers may create one file",
        )
        try:
            os.link(f"{trial}/one", f"{trial}/two")
            yield Finding("hard links", True, "work")
        except OSError as e:
            yield Finding(
                "hard links", None, f"do not ({e.strerror}): configuration files are renamed instead"
            )
        os.replace(f"{trial}/one", f"{trial}/three")
        seen = os.path.exists(f"{trial}/three") and not os.path.exists(f"{trial}/one")
        yield Finding(
            "atomic rename", seen, "a renamed file is seen at once" if seen else "a renamed file is not seen"
        )
        insensitive = os.path.exists(f"{trial}/THREE")
        yield Finding(
            "names", None, "upper and lower case are the same here" if insensitive else "case is kept apart"
        )
    finally:
        shutil.rmtree(trial, ignore_errors=True)


def _slurm() -> Iterator[Finding]:
    if shutil.which("sbatch") is None:
        yield Finding("slurm", None, "there is no sbatch here: cluster='auto' means local")
        return
    for what, command in (
        ("slurm", ["scontrol", "ping"]),
        ("accounting", ["sacct", "-n", "-X", "-S", "now-1hour"]),
    ):
        start = time.monotonic()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
            good, said = done.returncode == 0, (done.stdout if what == "slurm" else "") + done.stderr
        except (OSError, subprocess.TimeoutExpired) as e:
            good, said = False, str(e)
        took = time.monotonic() - start
        yield Finding(what, good, f"{' '.join(said.split())[:120] or 'answers'} ({took:.1f} s)")


def _settings() -> Iterator[Finding]:
    given = {name: value for name, value in os.environ.items() if name.startswith("EXCA_")}
    yield Finding(
        "environment",
        None,
        ", ".join(f"{name}={value}" for name, value in sorted(given.items())) or "no EXCA_ variables",
    )
