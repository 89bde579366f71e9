"""What is known of the code of a method: its digest, the parts that it is made of, and their sources.

It is written once per method and digest, as data: ``<method folder>/.code/<digest>``.
"""

import hashlib
import json  # not orjson: sources may hold half of a surrogate pair
import os
import re
import typing as tp
from collections.abc import Iterable, Mapping

from .. import _files, _trust
from .digest import CodeDigest, tag_of

FOLDER: tp.Final = ".code"
WHEN: tp.Final = " (when imported)"
_DIGEST: tp.Final = r"(?:[a-z0-9_]+-)?[0-9a-f]{16}"


class Content(tp.NamedTuple):
    """What a digest was made of.

    Parameters
    ----------
    scheme
        number of the way in which digests are made; those of two schemes can't be compared
    method
        name of the part at which it starts
    parts
        digest of each part, by its name: a module and a qualified name in it
    sources
        source of each part as far as it counts, for people
    unresolved
        what can't be told of a part, and why; what a module does when it is imported, with `WHEN` behind its name
    packages
        versions of the installed packages that the modules import by name
    compared
        names of those packages whose versions are part of the digest
    """

    scheme: int
    method: str
    parts: dict[str, str]
    sources: dict[str, str]
    unresolved: dict[str, list[str]]
    packages: dict[str, str]
    compared: list[str]

    def is_told(self) -> bool:
        """Whether all that the method reaches is known, whatever modules do besides when they are imported."""
        return all(name.endswith(WHEN) for name in self.unresolved)

    def digest(self) -> str:
        """The digest of it all; it begins with a version of Python where a part has no source."""
        lines = [f"scheme {self.scheme}", f"method {self.method}"]
        lines += [f"part {name} {digest}" for name, digest in sorted(self.parts.items())]
        lines += [f"package {name} {self.packages.get(name, '')}" for name in sorted(self.compared)]
        text = "\n".join(lines)
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        tag = next((found for part in self.parts.values() if (found := tag_of(part))), "")
        return f"{tag}-{digest}" if tag else digest

    def encode(self) -> bytes:
        """Write it as JSON, with its digest and a checksum."""
        data = {"digest": self.digest(), **self._asdict()}
        data["sum"] = _sum(data)
        return json.dumps(data, indent=2, sort_keys=True).encode("ascii") + b"\n"

    @classmethod
    def decode(cls, data: bytes, digest: str) -> "Content":
        """Read it again. Raises ValueError where it is not whole, or has another digest."""
        try:
            read = json.loads(data)
        except RecursionError as e:
            raise ValueError("it is nested too deeply") from e
        if not isinstance(read, dict) or read.pop("sum", None) != _sum(read):
            raise ValueError("its checksum is another one")
        if read.pop("digest", None) != digest:
            raise ValueError("it holds another digest")
        try:
            content = cls(**{name: kind(read[name]) for name, kind in _KINDS.items()})
            found = content.digest()
        except (TypeError, KeyError, AttributeError) as e:
            raise ValueError(f"something is missing in it: {e!r}") from e
        if found != digest:
            raise ValueError(f"its parts have the digest {found}")
        return content


_KINDS: tp.Final[dict[str, tp.Any]] = {
    "scheme": int,
    "method": str,
    "parts": dict,
    "sources": dict,
    "unresolved": dict,
    "packages": dict,
    "compared": list,
}


def _sum(data: dict[str, tp.Any]) -> str:
    return _files.digest(json.dumps(data, sort_keys=True).encode("ascii"))[:16]


_combined: dict[tuple[str, ...], CodeDigest] = {}


def combined(codes: Iterable[CodeDigest]) -> CodeDigest:
    """The digest of all that several digests were made of."""
    several = list({code.digest: code for code in codes}.values())
    key = tuple(code.digest for code in several)
    if len(several) != 1 and key not in _combined:
        contents = [code.content for code in several]
        whole = Content(
            max(content.scheme for content in contents),
            ", ".join(content.method for content in contents),
            {name: digest for content in contents for name, digest in content.parts.items()},
            {name: source for content in contents for name, source in content.sources.items()},
            {name: why for content in contents for name, why in content.unresolved.items()},
            {name: version for content in contents for name, version in content.packages.items()},
            sorted({name for content in contents for name in content.compared}),
        )
        _combined[key] = CodeDigest(whole.digest(), whole.method, content=whole)
    return several[0] if len(several) == 1 else _combined[key]


def write_code(folder: str | os.PathLike[str], code: CodeDigest) -> None:
    """Write what a digest was made of into the folder of a method, unless it is there, or there is no digest."""
    if not code.digest:
        return
    place = f"{os.fspath(folder)}/{FOLDER}"
    path = f"{place}/{code.digest}"
    if os.path.lexists(path):
        return
    _files.make_folders(place)
    _files.write_atomically(path, code.content.encode(), mode=_files.OWN)


def read_code(folder: str | os.PathLike[str], digest: str) -> CodeDigest | None:
    """Read what a digest was made of from the folder of a method.

    None where it is not there, or not whole; the latter is reported. It is data, and nothing of it is run.
    """
    if not re.fullmatch(_DIGEST, digest):
        return None
    path = f"{os.fspath(folder)}/{FOLDER}/{digest}"
    try:
        content = Content.decode(_files.read_file(path), digest)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as e:
        _trust.skip(path, e)
        return None
    return CodeDigest(digest, content.method, content=content)


def changed_parts(old: Content, new: Content) -> list[str]:
    """Names of the parts that differ, that were added or that are gone."""
    names = sorted({*old.parts, *new.parts})
    return [name for name in names if old.parts.get(name) != new.parts.get(name)]


def diff(old: Content, new: Content) -> list[str]:
    """The lines of a unified diff of all parts that differ, and of the versions of packages."""
    import difflib

    lines: list[str] = []
    for name in changed_parts(old, new):
        before, after = _lines(old.sources, name), _lines(new.sources, name)
        found = list(difflib.unified_diff(before, after, f"{name} (before)", f"{name} (now)", lineterm=""))
        lines += found or [f"{name}: another form of the same source"]
    for name in sorted({*old.packages, *new.packages}):
        versions = old.packages.get(name), new.packages.get(name)
        if versions[0] != versions[1]:
            lines.append(f"{name}: {versions[0] or 'not imported'} -> {versions[1] or 'not imported'}")
    return lines


def _lines(sources: Mapping[str, str], name: str) -> list[str]:
    return sources.get(name, "").splitlines()
