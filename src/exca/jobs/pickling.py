"""Pickles of what goes to another process, with the source of the code that is pickled by value.

Such code (of ``__main__``, of notebooks) has no module over there, and its file is not the same any more, or never was
one: a cell. Its lines travel with it, so that tracebacks show them.
"""

import functools
import io
import os
import types
import typing as tp

_OURS = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")
_MOST = 1 << 20  # characters of one source
# of many pieces of code: lines of the one would be shown for the other
_SHARED_NAMES = ("<string>", "<stdin>")


def dumps(value: tp.Any) -> bytes:
    """Pickle a value, what cannot be imported by value; `pickle.loads` restores it."""
    sources: dict[str, list[str]] = {}
    buffer = io.BytesIO()
    pickler = _pickler()(buffer)
    pickler.sources = sources
    pickler.dump(_Sent(value, sources))
    return buffer.getvalue()


@functools.cache
def _pickler() -> tp.Any:
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc] # cloudpickle has no types
        sources: dict[str, list[str]]

        def reducer_override(self, obj: tp.Any) -> tp.Any:
            if type(obj) is types.CodeType and obj.co_filename not in self.sources:
                self.sources[obj.co_filename] = _lines_of(obj.co_filename)
            return super().reducer_override(obj)

    return Pickler


class _Sent:
    """A value, and sources that are found while it is pickled: they are pickled after it."""

    def __init__(self, value: tp.Any, sources: dict[str, list[str]]) -> None:
        self.value = value
        self.sources = sources

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return restored, (self.value, self.sources)


def restored(value: tp.Any, sources: dict[str, list[str]]) -> tp.Any:
    """Give back a value, and have tracebacks show the sources of its code."""
    if any(sources.values()):
        import linecache

        for name, lines in sources.items():
            if lines:  # without a time of change, so that what the file holds now does not replace it
                linecache.cache[name] = (sum(map(len, lines)), None, lines, name)
    return value


@functools.lru_cache(maxsize=1024)
def _is_there_too(name: str) -> bool:
    """Whether a file of code is of Python, an installed package or exca, which a job has as well.

    Local functions of such files are pickled by value, too: pydantic keeps some in each class.
    """
    from .forking import is_installed

    return name.startswith(_OURS) or is_installed(name)


def _lines_of(name: str) -> list[str]:
    import linecache

    lines = [] if name in _SHARED_NAMES or _is_there_too(name) else linecache.getlines(name)
    return lines if sum(map(len, lines)) <= _MOST else []
