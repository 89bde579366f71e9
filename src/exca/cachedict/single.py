"""One value whose entry is in a record of the caller's own: stored by the same handlers, with no index."""

import os
import typing as tp

import orjson

from .. import _trust
from .dumpcontext import DumpContext, DumpOptions
from .parts import SCALARS, Info
from .writer import write_error

_INLINE = 1024  # bytes up to which a plain value is held by its entry, whatever its handler


def inline_json(value: tp.Any) -> bytes | None:
    """The JSON of a value of the types in SCALARS; None when it is long, or nothing that JSON holds."""
    if type(value) is float and value - value != 0:  # inf and nan
        return None
    try:
        content = orjson.dumps(value)
    except TypeError:  # an int of more than 64 bits, or text with lone surrogates
        return None
    return content if len(content) <= _INLINE else None


def dump_one(
    folder: str | os.PathLike[str], value: tp.Any, *, key: str, cache_type: str | None = None
) -> Info:
    """Store a value; its data files are on the disk when this returns.

    Parameters
    ----------
    folder: data goes to ``data/`` in it
    value: what to store
    key: data files are named after it
    cache_type: name of the handler; by default the one for the value's type

    Returns
    -------
    what `load_one` needs, an object that JSON can hold: the value exists once the caller has published it

    Raises
    ------
    CacheWriteError: the disk is full, or the folder cannot be written to
    HandlerError: no handler takes the value
    """
    if cache_type is None and type(value) in SCALARS and inline_json(value) is not None:
        return {"#type": "Json", "content": value}
    with DumpContext(folder, key=key, options=DumpOptions(fsync=True)) as ctx:
        ctx.keeps_order = True
        try:
            info = ctx.dump(value, cache_type=cache_type)
            ctx.files.flush(sync=True)
        except OSError as e:
            ctx.files.forget()
            raise write_error(e, ctx.root, f"The value of {key[:100]!r} was not stored") from e
    return tp.cast(Info, orjson.loads(orjson.dumps(info)))


def load_one(
    folder: str | os.PathLike[str], info: Info, cache_type: str | None = None, *, trusted: bool = True
) -> tp.Any:
    """Load a value that `dump_one` stored.

    Parameters
    ----------
    folder: the folder it was stored in
    info: what `dump_one` returned
    cache_type: name of the handler that loads it, in place of the one that stored it
    trusted: whether the file that holds ``info`` may have modules imported

    Raises
    ------
    DamagedEntryError: its data is missing or not what was written
    UntrustedFileError: it is pickled and belongs to a stranger
    """
    if info["#type"] == "Json" and "content" in info:
        content = info["content"]
        # a caller may change a container that he was given, and the record must stay as it is
        return orjson.loads(orjson.dumps(content)) if type(content) in (list, dict) else content
    ctx = DumpContext(folder)
    if cache_type is not None and info["#type"] not in ("Auto", "Json", "Pickle"):
        ctx.options.replace[info["#type"]] = cache_type
    if trusted:
        return ctx.load(info)
    with _trust.imports(allowed=False):
        return ctx.load(info)


def delete_one(folder: str | os.PathLike[str], info: Info) -> None:
    """Delete the data of a value that `dump_one` stored; data already gone is no error."""
    from .handlers.structured import named_files

    ctx = DumpContext(folder)
    names = named_files(ctx, info)  # shared files too: no other value is in them
    ctx.delete(info)
    for relative in names:
        ctx.unlink(relative)
