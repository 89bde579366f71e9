"""What the handlers of this package share."""

import importlib
import os
import typing as tp

from ...errors import MissingPackageError
from ..datafiles import cut_short, damaged_range, no_range
from ..dumpcontext import DumpContext
from ..textindex import Info


class BuiltinHandler:
    """A handler that records and checks the checksum of its data itself, under ``#sum``.

    Each defines either `load` or ``__load_from_info__``, and has the other from here.
    """

    checks_itself: tp.ClassVar[bool] = True
    only_reads: tp.ClassVar[bool] = False  # loading runs no code of the user's, so what fails is the data

    @classmethod
    def load(cls, ctx: DumpContext, info: Info) -> tp.Any:
        """Load from an entry with its reserved fields."""
        return cls.__load_from_info__(ctx, **{key: value for key, value in info.items() if key[:1] != "#"})

    @classmethod
    def __load_from_info__(cls, ctx: DumpContext, *_: tp.Any, **info: tp.Any) -> tp.Any:
        return cls.load(ctx, info)

    @classmethod
    def delete(cls, ctx: DumpContext, info: Info) -> None:
        """Delete the data of an entry, given with its reserved fields."""
        plain = {key: value for key, value in info.items() if key[:1] != "#"}
        handler: tp.Any = cls
        if hasattr(handler, "__delete_info__"):
            handler.__delete_info__(ctx, **plain)


class KeyFileHandler(BuiltinHandler):
    """A value in one file of its own."""

    only_reads = True

    @classmethod
    def __delete_info__(cls, ctx: DumpContext, **info: tp.Any) -> None:
        if "filename" in info:
            ctx.unlink(info["filename"])


def read_range(ctx: DumpContext, filename: str, offset: int, length: int, digest: str | None) -> bytes:
    """Bytes of a shared data file, compared with their checksum. Raises DamagedEntryError."""
    import xxhash

    path = ctx.path(filename)
    if offset < 0 or length < 0:
        raise no_range(ctx.root, path, offset, length)
    fd = ctx.open(filename)
    try:
        size = os.fstat(fd).st_size
        if size < offset + length:  # before so many bytes are asked for
            raise cut_short(path, size, offset + length)
        ctx.before_reading(path, size, length)
        os.lseek(fd, offset, os.SEEK_SET)
        data = os.read(fd, length)
        while len(data) < length and (more := os.read(fd, length - len(data))):
            data += more
    finally:
        os.close(fd)
    if len(data) != length:
        raise cut_short(path, offset + len(data), offset + length)
    if digest is not None and xxhash.xxh3_64_hexdigest(data) != digest:
        raise damaged_range(path, offset, length)
    return data


_EXTRAS = {
    "torch": "torch",
    "pandas": "tables",
    "pyarrow": "tables",
    "nibabel": "neuro",
    "mne": "neuro",
    "pybv": "neuro",
}


def imported(package: str, what: str) -> tp.Any:
    """A package that a handler needs. Raises MissingPackageError where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as e:
        extra = _EXTRAS.get(package.partition(".")[0])
        install = package if extra is None else f"'exca[{extra}]'"
        raise MissingPackageError(
            f"{what} needs the package {package!r}, which is not installed: pip install {install}"
        ) from e
