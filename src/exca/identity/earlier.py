"""The text of a uid as the first releases wrote it, by which their folders are found and renamed.

# kept for dependants: nothing is stored under such uids any more
"""

import hashlib
import re
import typing as tp
import warnings
from collections.abc import Mapping

from .nesting import absorb, fold
from .uid import UidMaker

CURRENT: tp.Final = 3  # the version of uids that is written; below it is the text of this module

_MAX_TEXT = 82
_drop_unsafe = re.compile(r"[^a-zA-Z0-9{}\-=,.\[\]]+").sub
_DASHES = str.maketrans(dict.fromkeys("/\\\n\t ", "-"))


def warn_of_version(name: str, stacklevel: int = 3) -> None:
    """Warn the caller of the function `name` that the version of uids need not be chosen."""
    warnings.warn(
        f"the parameter `version` of {name} is deprecated: leave it out, results are found under current uids only",
        DeprecationWarning,
        stacklevel=stacklevel,
    )


def pair(data: tp.Any) -> tuple[str, str]:
    """Return the readable text and the text to hash of a value.

    Raises: TypeError for a value or key of an unknown type.
    """
    if isinstance(data, Mapping):
        pairs = {key: pair(data[key]) for key in sorted(data)}
        text = ",".join(f"{key}={text}" for key, (text, _) in pairs.items())
        return _clean(f"{{{text}}}"), ",".join(hashed for _, hashed in pairs.values())
    if isinstance(data, (list, tuple, set, frozenset)):
        items = [pair(item) for item in (sorted(data) if isinstance(data, (set, frozenset)) else data)]
        text = ",".join(text for text, _ in items)
        return _clean(f"[{text}]"), ",".join(hashed for _, hashed in items)
    if hasattr(data, "tobytes"):
        digest = hashlib.md5(data.tobytes(), usedforsecurity=False).hexdigest()
        return f"data-{digest[:8]}", digest
    maker = UidMaker(data)
    hashed = maker.hash.partition(":")[2]
    return _clean(hashed if maker.hash.startswith("str:") else maker.string), hashed


def uid(data: tp.Any) -> str:
    """Return the uid of a value.

    Raises: TypeError for a value or key of an unknown type.
    """
    text, hashed = pair(data)
    if isinstance(data, (Mapping, list, tuple, set, frozenset)):
        text = text[1:-1]
    return f"{text}-{hashlib.md5(hashed.encode(), usedforsecurity=False).hexdigest()[:8]}" if text else ""


def config_uid(config: Mapping[str, tp.Any]) -> str:
    """Return the uid of a configuration, nested or with dotted keys."""
    return uid(fold(absorb(dict(config), dict)))


def _clean(text: str) -> str:
    text = _drop_unsafe("", text.translate(_DASHES))
    return text if len(text) <= _MAX_TEXT else f"{text[:35]}[.]{text[-35:]}"
