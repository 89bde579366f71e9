"""The archive of ``exca doctor --bundle`` for a bug report: what was found, and of one task all but its values."""

import contextlib
import io
import os
import re
import tarfile
import time
import typing as tp
from collections.abc import Callable

from .. import _files
from ..catalog import scan
from ..catalog.logs import log_of
from ..catalog.rows import Row
from ..claims import Claims
from ..errors import NoSuchTaskError, OddFileError, UntrustedFileError
from .output import json_text

_LOG = 1 << 16  # bytes of the end of a log
_SHORTEST = 3  # characters of a value that is looked for in texts
_SECRET_NAME = re.compile(r"token|secret|passw|credential|api_?key|private_?key|_key$", re.IGNORECASE)
_SECRETS = (
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
        "<key>",
    ),
    (re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"), "<login>"),
    (
        re.compile(
            r"(?i)((?:token|secret|passw(?:or)?d|api[_-]?key|authorization|credentials?)[\w-]*['\"]?\s*[=: ]\s*)"
            r"(?:(?:bearer|basic)\s+)?['\"]?[^\s'\",;]+"
        ),
        r"\1<secret>",
    ),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), "<token>"),
    (re.compile(r"\b(?:sk|ghp|gho|ghs|github_pat|hf|glpat|xox[abp]|AKIA)[-_A-Za-z0-9]{8,}"), "<token>"),
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"), "<mail>"),
    (re.compile(r"\b[A-Za-z0-9+_=-]{40,}"), "<token>"),
)
_MOUNT_OPTIONS = re.compile(
    r"[a-z_]+|(?:vers|nfsvers|proto|local_lock|actimeo|ac(?:reg|dir)(?:min|max)|lookupcache|timeo|retrans|[rw]size)=\w+"
)


def write(path: str, folder: str, findings: tp.Any, row: Row | None) -> list[str]:
    """Write the archive, readable to this user alone; the names of what is in it."""
    hidden = redactor(row)
    texts = {"doctor.json": json_text(_each_text(findings, hidden)), "mount.txt": _mount(folder)}
    if row is not None:
        texts["task.json"] = json_text(_each_text(_told_of(row), hidden))
        texts["claims.json"] = json_text(_each_text(_claims_of(row), hidden))
        texts["files.txt"] = hidden("\n".join(sorted(_files_of(row))))
        for name, err in (("stdout.txt", False), ("stderr.txt", True)):
            with contextlib.suppress(NoSuchTaskError, UntrustedFileError, OddFileError, FileNotFoundError):
                texts[name] = hidden(_end_of(str(log_of(row, err=err))))
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _files.PRIVATE)
    with open(fd, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, text in texts.items():
            data = text.encode(errors="backslashreplace")
            about = tarfile.TarInfo(f"exca-bundle/{name}")
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return list(texts)


def redactor(row: Row | None) -> Callable[[str], str]:
    """A function that takes secrets, names of people and hosts, and the values of a task out of a text."""
    words: dict[str, str] = {}
    if row is not None:
        known = {
            **row.full,
            **{name: v for name, v in row.facts.items() if name.partition(".")[0] == "value"},
        }
        for name, value in known.items():
            words |= dict.fromkeys(_texts_in(value), f"<{name}>")
        words |= {row.folder: "<folder>", row.top: "<cache>", row.uid: "<uid>"}
        words |= {str(row.facts[name]): f"<{name}>" for name in ("user", "host") if name in row.facts}
    words |= {value: f"<${name}>" for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    words |= {os.path.expanduser("~"): "~", _files.user_name(): "<user>", _files.host_name(): "<host>"}
    words = {text: word for text, word in words.items() if len(text) >= _SHORTEST}
    longest_first = sorted(words, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")

    def hidden(text: str) -> str:
        for secret, word in _SECRETS:
            text = secret.sub(word, text)
        return pattern.sub(lambda match: words[match[0]], text)

    return hidden


def _texts_in(value: tp.Any) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [text for part in value for text in _texts_in(part)]
    if isinstance(value, dict):
        return _texts_in(list(value.values()))
    return [] if value is None or isinstance(value, bool) else [str(value)]


def _each_text(value: tp.Any, change: Callable[[str], str]) -> tp.Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(str(name)): _each_text(part, change) for name, part in value.items()}
    return [_each_text(part, change) for part in value] if isinstance(value, (list, tuple)) else value


def _told_of(row: Row) -> dict[str, tp.Any]:
    """What the record tells, with types in the place of values."""
    facts = {
        name: type(value).__name__ if name.partition(".")[0] == "value" else value
        for name, value in row.facts.items()
    }
    config = {name: type(value).__name__ for name, value in row.config.items()}
    return {"id": row.id, "method": row.method, "state": row.state, "config": config, **facts}


def _claims_of(row: Row) -> list[dict[str, tp.Any]]:
    holders = [h for folder in scan.claim_folders(row.folder) for h in Claims(folder).holders().values()]
    return [
        {
            "file": holder.path.name,
            "alive": holder.alive(),
            "kind": holder.owner.kind,
            "cluster": holder.owner.cluster,
            "job_id": holder.owner.job_id,
            "keys": len(holder.keys),
        }
        for holder in {holder.token: holder for holder in holders}.values()
    ]


def _files_of(row: Row) -> list[str]:
    """Kind, size and time of each file; names below ``data`` may be made of what items are called."""
    lines = []
    for path, status in scan.walk_files(row.folder):
        name = os.path.relpath(path, row.folder)
        if "/" in name:
            name = f"{os.path.dirname(name)}/*{os.path.splitext(name)[1]}"
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.st_mtime))
        lines.append(f"{name} {status.st_size} B {when} mode {status.st_mode:o}")
    return lines


def _end_of(path: str) -> str:
    with _files.open_regular(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG))
        return file.read(_LOG).decode(errors="replace")


def _mount(folder: str) -> str:
    """Type and options of the file system of a folder, without names of servers."""
    try:
        device = os.stat(folder).st_dev
        with open("/proc/self/mountinfo", encoding="utf8", errors="replace") as file:
            for line in file:
                before, _, after = line.partition(" - ")
                kind, _, *options = after.split()
                if before.split()[2] == f"{os.major(device)}:{os.minor(device)}":
                    named = ",".join([before.split()[5], *options]).split(",")
                    return (
                        f"{kind} {','.join(option for option in named if _MOUNT_OPTIONS.fullmatch(option))}\n"
                    )
    except (OSError, ValueError, IndexError, AttributeError):
        pass
    return "unknown\n"
