"""What the published releases held about storage beside `CacheDict` and its handlers."""

import dataclasses
import hashlib
import re
import typing as tp
from pathlib import Path

from ..cachedict.handlers.base import KeyFileHandler

if tp.TYPE_CHECKING:
    pass

__all__ = [
    "LAST_USE_NAME",
    "UNSAFE_TABLE",
    "DumpInfo",
    "JsonlReader",
    "KeyFileHandler",
    "is_torch_view",
    "string_uid",
]

LAST_USE_NAME = ".exca-last-use"
UNSAFE_TABLE = {ord(character): "-" for character in "/\\\n\t "}
_KEPT = 40  # characters of a long text that are kept at each end


def string_uid(string: str) -> str:
    """Make a name for a file from any text: the text, shortened where it is long, and a hash.

    Parameters
    ----------
    string: str
        the text
    """
    digest = hashlib.md5(string.encode("utf8", "surrogatepass"), usedforsecurity=False).hexdigest()[:8]
    text = string.translate(UNSAFE_TABLE)
    if len(text) > 2 * _KEPT:
        text = f"{text[:_KEPT]}[.]{text[-_KEPT:]}"
    return f"{text}-{digest}"


def is_torch_view(x: tp.Any) -> bool:
    """Tell whether a tensor shows a part of its storage, or shows it in another order.

    Parameters
    ----------
    x: torch.Tensor
        the tensor

    Raises
    ------
    TypeError
        if it is no tensor
    """
    import torch

    if not isinstance(x, torch.Tensor):
        raise TypeError(f"is_torch_view takes a tensor, not {type(x).__name__}")
    return not x.is_contiguous() or x.untyped_storage().nbytes() != x.numel() * x.element_size()


@dataclasses.dataclass
class DumpInfo:
    """A line of the text index of a folder.

    Parameters
    ----------
    jsonl: Path
        the file
    byte_range: tuple of int
        where the line begins and where the next one does
    content: dict
        what it holds for the handler
    """

    jsonl: Path
    byte_range: tuple[int, int]
    content: dict[str, tp.Any]

    def delete_info(self, *, ignore_errors: bool = False) -> None:
        """Delete the entry and its data.

        Parameters
        ----------
        ignore_errors: bool
            do not complain of one that is gone, or cannot be deleted
        """
        from ..cachedict import CacheDict

        cache: CacheDict[tp.Any] = CacheDict(self.jsonl.parent)
        try:
            del cache[self.content["#key"]]
        except (KeyError, OSError):
            if not ignore_errors:
                raise


class JsonlReader:
    """Reads one file of the text index of a folder.

    Parameters
    ----------
    filepath: Path or str
        the file
    """

    def __init__(self, filepath: Path | str) -> None:
        self.filepath: Path = Path(filepath)
        self._start = 0

    def read(self) -> dict[str, DumpInfo]:
        """Return the lines that came since the last call, by key."""
        import orjson

        found: dict[str, DumpInfo] = {}
        with open(self.filepath, "rb") as file:
            file.seek(self._start)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # still being written
                place = (self._start, self._start + len(line))
                self._start = place[1]
                if line.isspace() or not re.match(rb"\s*\{", line):
                    continue  # deleted, or a header
                content = orjson.loads(line)
                if "#key" in content:
                    found[content["#key"]] = DumpInfo(self.filepath, place, content)
        return found
