"""Anything, as a pickle: the last resort, reported once per type."""

import io
import os
import pickle
import typing as tp

from ... import _files, _trust
from ...errors import DamagedEntryError, HandlerError
from .. import registry
from ..datafiles import no_range
from ..dumpcontext import DumpContext
from ..textindex import Info
from .base import KeyFileHandler

_NO_PROTOCOL = 32  # far above the protocol of any Python


class Pickle(KeyFileHandler):
    """A pickle (by `cloudpickle` where the standard one cannot), in a file of its own, as every release reads it."""

    only_reads = False

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        data = _pickled(value)
        name = ctx.key_path(".pkl")
        _files.write_new(ctx.path(name), data, mode=_files.OWN)
        return {"filename": name}

    @classmethod
    def load(cls, ctx: DumpContext, info: Info) -> tp.Any:
        """Load from an entry."""
        if type(info.get("filename")) is not str:
            raise DamagedEntryError(f"An entry of {ctx.root} names no file to unpickle")
        path = ctx.path(info["filename"])
        if not path.endswith((".pkl", ".pkls")):
            raise DamagedEntryError(f"The data file {path} is not one that this handler writes")
        with open(ctx.open(info["filename"]), "rb") as file:
            _trust.require_trusted(os.fstat(file.fileno()), path)
            source: tp.IO[bytes] = file
            if "offset" in info:  # small pickles shared a file for a while
                source = io.BytesIO(_part(ctx, file, path, info))
            start = source.tell()
            try:
                return pickle.load(source)
            except (EOFError, pickle.UnpicklingError, OverflowError, ValueError, MemoryError) as e:
                # by no class's own code
                raised_here = e.__traceback__ is None or e.__traceback__.tb_next is None
                if not raised_here or (isinstance(e, ValueError | MemoryError) and _is_whole(source, start)):
                    raise
                raise DamagedEntryError(f"The pickle in {path} is damaged: {e}") from e

    @classmethod
    def __delete_info__(cls, ctx: DumpContext, **info: tp.Any) -> None:
        if "offset" not in info:
            ctx.unlink(info["filename"])


def protocols_in(source: tp.IO[bytes]) -> list[int]:
    """The protocols that a pickle names, which is walked through without running anything.

    Raises
    ------
    ValueError, IndexError, MemoryError, OverflowError: it is no whole pickle
    """
    import pickletools
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what is no escape, in what is no pickle
        return [int(arg or 0) for code, arg, _ in pickletools.genops(source) if code.name == "PROTO"]


def _is_whole(source: tp.IO[bytes], start: int) -> bool:
    """Whether there is a pickle from one end to the other, which is walked through without running anything."""
    source.seek(start)
    try:
        protocols = protocols_in(source)
    except (ValueError, IndexError, MemoryError, OverflowError):
        return False
    return all(protocol < _NO_PROTOCOL for protocol in protocols)  # a newer Python's is one


def _part(ctx: DumpContext, file: tp.IO[bytes], path: str, info: Info) -> bytes:
    """The bytes of a pickle that shares a file. Raises DamagedEntryError."""
    import xxhash

    offset, length = info["offset"], info.get("length")
    if type(offset) is not int or type(length) is not int or min(offset, length) < 0:
        raise no_range(ctx.root, path, offset, length)
    file.seek(offset)
    data = file.read(min(length, os.fstat(file.fileno()).st_size))
    digest = info.get("#sum")
    if len(data) != info["length"] or (digest is not None and xxhash.xxh3_64_hexdigest(data) != digest):
        raise DamagedEntryError(f"The pickle at byte {info['offset']} of {path} is damaged")
    return data


def _pickled(value: tp.Any) -> bytes:
    try:
        return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError) as first:
        import cloudpickle

        try:
            return tp.cast(bytes, cloudpickle.dumps(value))
        except Exception as e:
            raise HandlerError(
                f"A value of type {type(value).__module__}.{type(value).__qualname__} cannot be stored: no handler "
                f"is registered for it and it cannot be pickled ({first}). "
                "Register one with @DumpContext.register(default_for=...)."
            ) from e


class PickleFallback(Pickle):
    """`Pickle` for a value that the caller has not chosen to pickle."""

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        info = {**super().__dump_info__(ctx, value), "#type": "Pickle"}
        registry.report_pickled(type(value))  # once it is: what cannot be pickled has an error of its own
        return info


registry.add_builtin(Pickle)
registry.fallback = PickleFallback
