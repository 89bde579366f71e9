"""The small file of a sweep: which tasks are its points. Records are never written for it."""

import dataclasses
import os
import re
import time
import typing as tp

from .. import _files, _trust
from ..errors import FilterError, SweepError

FOLDER = ".sweeps"
VERSION = 1
_NAME = re.compile(r"[\w][\w.-]{0,99}")


@dataclasses.dataclass
class Sweep:
    """What is kept of a sweep.

    Parameters
    ----------
    name: str
        by which it is asked for (``--sweep NAME``)
    source: str
        the file that it was read from
    target: str
        what it runs: ``train:Train.loss``
    uids: list of str
        the addresses of its points, within the cache folder
    written: float
        when, in seconds since the epoch
    """

    name: str
    source: str
    target: str
    uids: list[str]
    written: float = dataclasses.field(default_factory=time.time)
    trusted: bool = True  # False where another user may have written it: then nothing is ended on its word

    def _repr_html_(self) -> str | None:
        from .. import _notebook

        known = (("runs", self.target), ("from", self.source), ("points", f"{len(self.uids):,}"))
        return _notebook.card(f"sweep {self.name}", _notebook.pairs(known))

    def _repr_mimebundle_(self, **_: tp.Any) -> dict[str, str] | None:
        from .. import _notebook

        return _notebook.bundle(repr(self), self._repr_html_())


def read(folder: str, name: str) -> Sweep | None:
    """Read the file of a sweep, None where there is none. Raises SweepError where it cannot be read."""
    import orjson

    path = path_of(folder, name)
    try:
        data, status = _files.read_judged(path)
        content: tp.Any = orjson.loads(data)
        if content["version"] != VERSION:
            raise SweepError(
                f"{path} is of version {content['version']}, and this release knows {VERSION}: update exca"
            )
        texts = (content["name"], content["source"], content["target"])
        uids = content["uids"]
        if not all(isinstance(text, str) for text in (*texts, *uids)):
            raise ValueError("it holds other things than texts")
        return Sweep(*texts, uids, float(content["written"]), _trust.is_trusted(status))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as e:
        raise SweepError(f"{path} is damaged ({e}): run the sweep again to write it anew") from e


def write(folder: str, sweep: Sweep) -> None:
    """Write the file of a sweep."""
    import orjson

    path = path_of(folder, sweep.name)
    _files.make_folders(os.path.dirname(path))
    content = {"version": VERSION, **dataclasses.asdict(sweep)}
    del content["trusted"]
    _files.write_atomically(path, orjson.dumps(content, option=orjson.OPT_INDENT_2), mode=_files.OWN)


def path_of(folder: str, name: str) -> str:
    """The file of a sweep of this name. Raises FilterError where that is no name."""
    if not _NAME.fullmatch(name):
        raise FilterError(f"{name!r} is no name of a sweep: letters, digits, '.', '_' and '-' make one")
    return f"{folder}/{FOLDER}/{name}.json"


def names(folder: str) -> list[str]:
    """The names of all sweeps that a cache folder has files of, in order."""
    try:
        files = os.listdir(f"{folder}/{FOLDER}")
    except OSError:
        return []
    found = (name.removesuffix(".json") for name in files if name.endswith(".json"))
    return sorted(name for name in found if _NAME.fullmatch(name))
