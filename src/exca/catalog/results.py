"""What of a result can be shown by its record alone: numbers and short texts, not what is in data files."""

import base64
import struct
import typing as tp
from collections.abc import Iterator

_SHOWN = (int, float, str, bool)
_LENGTH = 200  # characters of a text that is shown
_DEEPEST = 20
_NAMED = (None, "Auto", "Json", "py.dataclass", "py.model")  # whose content is a dict by names, or plain
_FORMATS = {  # of `struct`, by the names of dtypes
    "bool": "?",
    "float16": "e",
    "float32": "f",
    "float64": "d",
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
}


def shown(result: dict[str, tp.Any]) -> Iterator[tuple[str, int | float | str | bool]]:
    """Yield the numbers and texts of a result as a record holds it, by their dotted names.

    A result that is one number or text is ``value``, those in a dict, dataclass or model are ``value.<name>``.
    """
    yield from _parts("value", result, 0)


def _parts(name: str, part: tp.Any, depth: int) -> Iterator[tuple[str, int | float | str | bool]]:
    if isinstance(part, dict) and depth <= _DEEPEST:
        if "#type" not in part:
            for key, value in part.items():
                yield from _parts(f"{name}.{key}", value, depth + 1)
            return
        kind, content = part["#type"], part.get("content")
        if kind in _NAMED:
            yield from _parts(name, content, depth + 1)
            return
        part = _number(kind, content, part.get("dtype"))
    if isinstance(part, _SHOWN) and len(str(part)) <= _LENGTH:
        yield name, part


def _number(kind: str, content: tp.Any, dtype: tp.Any) -> int | float | None:
    """Return a number that JSON cannot hold: of numpy's types, not finite, or large."""
    if not isinstance(content, str):
        return None
    try:
        if kind == "py.numpy_scalar" and isinstance(dtype, str) and dtype in _FORMATS:
            found: int | float = struct.unpack(f"={_FORMATS[dtype]}", base64.b64decode(content))[0]
            return found
        if kind in ("py.float", "py.int"):
            return float.fromhex(content) if kind == "py.float" else int(content)
    except (ValueError, OverflowError, struct.error):
        pass  # damaged: loading it reports that
    return None
