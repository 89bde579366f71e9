"""Anything, as a pickle: the last resort, and said so once a type."""

import io
import pickle
import typing as tp

from ... import _files, _trust
from ...errors import DamagedEntryError, HandlerError
from .. import registry
from ..dumpcontext import DumpContext, Info
from .base import KeyFileHandler, read_range


class Pickle(KeyFileHandler):
    """A pickle (by `cloudpickle` where the standard one cannot), in a file of its own, as every release reads it."""

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        data = _pickled(value)
        name = ctx.key_path(".pkl")
        _files.write_new(ctx.path(name), data, mode=_files.OWN)
        return {"filename": name}

    @classmethod
    def load(cls, ctx: DumpContext, info: Info) -> tp.Any:
        """Load from an entry."""
        path = ctx.path(info["filename"])
        try:
            _trust.require_trusted(path)
            if "offset" in info:  # small pickles shared a file for a while
                data = read_range(ctx, info["filename"], info["offset"], info["length"], info.get("#sum"))
                file: tp.IO[bytes] = io.BytesIO(data)
            else:
                file = open(path, "rb")  # noqa: SIM115  # closed below, like the other kind
        except FileNotFoundError as e:
            raise DamagedEntryError(f"The data file {path} is missing") from e
        with file:
            try:
                return pickle.load(file)
            except (EOFError, pickle.UnpicklingError) as e:
                raise DamagedEntryError(f"The pickle in {path} is damaged: {e}") from e

    @classmethod
    def __load_from_info__(cls, ctx: DumpContext, **info: tp.Any) -> tp.Any:
        return cls.load(ctx, info)

    @classmethod
    def __delete_info__(cls, ctx: DumpContext, **info: tp.Any) -> None:
        if "offset" not in info:
            ctx.unlink(info["filename"])


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
    """`Pickle` for a value that nobody chose to pickle."""

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        registry.tell_pickled(type(value))
        return {**super().__dump_info__(ctx, value), "#type": "Pickle"}


registry.add_builtin(Pickle)
registry.fallback = PickleFallback
