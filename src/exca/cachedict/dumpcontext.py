"""What a handler is given to store a value or to load one: files to write, parts to hand on, open resources."""

import contextlib
import dataclasses
import os
import pathlib
import re
import threading
import typing as tp

import xxhash

from .. import _files
from .._earlier import earlier_names
from .._files import pread
from ..errors import (
    CacheWriteError,
    DamagedEntryError,
    HandlerError,
    StoredValueError,
    UnknownHandlerError,
    UntrustedFileError,
)
from . import registry
from .datafiles import (
    DATA_DIR,
    SharedFile,
    cut_short,
    damaged_range,
    data_size,
    is_missing,
    no_range,
    open_data,
    unmap,
)
from .index import index_of
from .textindex import INFO_SUFFIX, Info, key_hash, line_of, reserved_of, restored, take_from_parts
from .writer import DataFiles, FolderWriter, write_error, writer_of

_T = tp.TypeVar("_T")
_C = tp.TypeVar("_C", bound=type)


@dataclasses.dataclass
class DumpOptions:
    """How values are stored.

    Parameters
    ----------
    replace: name of a handler -> name of the one to use in its place, for values stored by default and for loading
    fsync: flush data and index to the disk before an entry becomes visible; None: only on network file systems,
        where another host could otherwise see an entry before its data. Without it, a crash of the machine (not of a
        process) may lose or damage the last entries; damaged ones are detected and computed again.
    group_writable: whether a group may write to the index where the umask lets it; not where its entries hold pickles
    checksum_bytes: values up to this many bytes are compared with their checksum whenever they are loaded
    flush_entries: number of entries that may wait in memory before they are written to the index
    flush_bytes: bytes of index that may wait
    flush_seconds: seconds that an entry may wait; an entry whose predecessor is a fifth of this old is written at once
    """

    replace: dict[str, str] = dataclasses.field(default_factory=dict)
    fsync: bool | None = None
    group_writable: bool = True
    checksum_bytes: int = 1 << 20
    flush_entries: int = 1024
    flush_bytes: int = 1 << 20
    flush_seconds: float = 0.25


class DumpContext:
    """Stores values in a folder and loads them, through the handler registered for their type.

    Parameters
    ----------
    folder: where entries live; data goes to ``data/`` in it
    key: the key being stored, from which files are named
    """

    HANDLERS: tp.ClassVar[dict[str, type]] = registry.HANDLERS
    TYPE_DEFAULTS: tp.ClassVar[dict[type, type]] = registry.TYPE_DEFAULTS
    DATA_DIR: tp.ClassVar[str] = DATA_DIR
    INFO_SUFFIX: tp.ClassVar[str] = INFO_SUFFIX

    def __init__(
        self, folder: str | os.PathLike[str], *, key: str = "", options: DumpOptions | None = None
    ) -> None:
        self.folder: pathlib.Path = folder if isinstance(folder, pathlib.Path) else pathlib.Path(folder)
        self.key: str = key
        self.options: DumpOptions = DumpOptions() if options is None else options
        self.root: str = os.fspath(self.folder)
        self.files: DataFiles = DataFiles(self.root)
        self.keeps_order = False  # whether arrays keep their order in memory; release 0.6 reads C order only
        self._cache: dict[tp.Hashable, tp.Any] = {}
        self._cache_lock = threading.Lock()
        self._pid = os.getpid()
        self._sums: list[tuple[SharedFile, str, int]] | None = None
        self._given: list[Info] | None = None  # what `dump` returned to the handler at work

    def __enter__(self) -> tp.Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.files.close()

    # -- registration

    @tp.overload
    @classmethod
    def register(cls, target: _C, *, default_for: type | None = None) -> _C: ...
    @tp.overload
    @classmethod
    def register(cls, target: None = None, *, default_for: type | None = None) -> tp.Callable[[_C], _C]: ...
    @classmethod
    def register(cls, target: tp.Any = None, *, default_for: type | None = None) -> tp.Any:
        """Register a handler class, as ``@DumpContext.register`` or ``@DumpContext.register(default_for=SomeType)``.

        A handler has classmethods ``__dump_info__(ctx, value) -> dict`` and ``__load_from_info__(ctx, **info)``, and
        may have ``__delete_info__(ctx, **info)``. A class of values may carry the first as a plain method.

        Parameters
        ----------
        target: type
            the handler
        default_for: type, optional
            the type whose values it stores from now on

        Returns
        -------
        type
            the handler, or a decorator for one

        Raises
        ------
        HandlerError: a method is missing
        ValueError: another class is registered under this name
        """

        def decorate(handler: _C) -> _C:
            registry.add(handler, default_for)
            return handler

        return decorate if target is None else decorate(target)

    # -- for handlers

    def key_path(self, suffix: str = "") -> str:
        """Return a fresh file for this key, as its path within ``folder``. Its size and checksum are recorded.

        Parameters
        ----------
        suffix: str
            end of the name of the file, as ``.npy``
        """
        import hashlib

        stem = re.sub(r"[^\w\-=.,()\[\]]", "-", self.key)[:60]
        stem += "-" + hashlib.md5(self.key.encode("utf8", "replace"), usedforsecurity=False).hexdigest()[:8]
        return self.files.own_path(stem, suffix)

    def shared_file(self, suffix: str) -> tuple[tp.IO[bytes], str]:
        """Return the file of this writer that values are appended to, open at its end, and its path within ``folder``.

        Parameters
        ----------
        suffix: str
            end of the name of the file, as ``.npy``
        """
        file, relative = self.shared(suffix)
        return tp.cast(tp.IO[bytes], file), relative

    def shared(self, suffix: str) -> tuple[SharedFile, str]:
        """Return `shared_file` with its true type.

        Parameters
        ----------
        suffix: str
            end of the name of the file, as ``.npy``
        """
        file, relative = self.files.shared(suffix)
        if self._sums is not None and not file.summing:
            self._sums.append((file, relative, file.tell()))
            file.start_sum()
        return file, relative

    def cached(self, key: tp.Hashable, factory: tp.Callable[[], _T]) -> _T:
        """Return an open resource kept with this context: made the first time, and anew in a forked child.

        Parameters
        ----------
        key: hashable
            what it is found again by
        factory: callable
            makes it; takes no arguments
        """
        if self._pid != os.getpid():  # an open file of the parent shares its position with the child
            self._pid, self._cache, self._cache_lock = os.getpid(), {}, threading.Lock()
        with self._cache_lock:
            if key not in self._cache:
                self._cache[key] = factory()
            return tp.cast(_T, self._cache[key])

    def invalidate(self, key: tp.Hashable) -> None:
        """Forget a resource kept by `cached`, if there is one.

        Parameters
        ----------
        key: hashable
            as in `cached`
        """
        with self._cache_lock:
            self._cache.pop(key, None)

    @contextlib.contextmanager
    def part(self, name: tp.Any) -> tp.Iterator[None]:
        """Context in which a part of the value is stored: its files are named ``key[name]``.

        Parameters
        ----------
        name: str
            name of the part
        """
        before, self.key = self.key, f"{self.key[:200]}[{str(name)[:60]}]"
        try:
            yield
        finally:
            self.key = before

    # -- values

    def dump(self, value: tp.Any, *, cache_type: str | None = None) -> Info:
        """Store a value, or a part of one.

        Parameters
        ----------
        value: what to store
        cache_type: name of the handler; by default the one for its type

        Returns
        -------
        what `load` needs: an object that JSON can hold, with the handler's name under ``#type``

        Raises
        ------
        HandlerError: the handler does not take the value
        UnknownHandlerError: no handler has this name
        """
        if cache_type is not None:
            name, handler = cache_type, registry.for_name(cache_type)
        else:
            name, handler = registry.for_type(type(value))
            if name in self.options.replace:
                name = self.options.replace[name]
                handler = registry.for_name(name)
        made = len(self.files.fresh)
        try:
            info = self._dump_with(handler, value)
        except BaseException:
            for relative in self.files.fresh[made:]:
                self.unlink(relative)
            del self.files.fresh[made:]
            raise
        info.setdefault("#type", name)
        if self._given is not None:
            self._given.append(info)
        return info

    def _dump_with(self, handler: tp.Any, value: tp.Any) -> Info:
        trusted = getattr(handler, "checks_itself", False)
        before, self._sums = self._sums, None if trusted else []
        made = len(self.files.fresh)
        outer = self._given
        given: list[Info] | None = None if trusted else []
        if not trusted:
            self._given = given
        try:
            info: tp.Any
            if handler in registry.OWN:
                info = type(value).__dump_info__(value, self)
            else:
                info = handler.__dump_info__(self, value)
            sums = [[name, start, f.tell() - start, f.end_sum()] for f, name, start in self._sums or ()]
        finally:
            self._sums, self._given = before, outer
        if not isinstance(info, dict):
            raise HandlerError(
                f"__dump_info__ of {handler.__name__} returned {type(info).__name__}, not a dict"
            )
        found: Info = info if given is None else _checked(handler, info, given)
        if sums:
            found["#ranges"] = sums
        if len(self.files.fresh) == made:
            return found
        paths = [p for p in self.files.fresh[made:] if os.path.isfile(os.path.join(self.root, p))]
        paths = [p for p in paths if p not in self.files.recorded]
        if paths:
            found["#files"] = {path: self._size_and_sum(path) for path in paths}
            self.files.recorded.update(paths)
        return found

    def load(self, info: tp.Any) -> tp.Any:
        """Load what `dump` returned; anything without ``#type`` is returned as it is.

        Parameters
        ----------
        info: dict
            what `dump` returned, as a line of the index or a record holds it

        Returns
        -------
        any
            the value

        Raises
        ------
        UnknownHandlerError: no handler of this name is registered
        DamagedEntryError: its data is missing or not what was written
        UntrustedFileError: it is pickled and belongs to a stranger
        MissingPackageError: the handler needs a package that is not installed
        """
        if not isinstance(info, dict) or "#type" not in info:
            return info
        name: str = info.get("#as") or info["#type"]
        if type(name) is not str:
            raise DamagedEntryError(f"An entry of {self.root} names no handler: {name!r}")
        handler = registry.for_name(self.options.replace.get(name, name))
        self.check(info)
        ours = getattr(handler, "checks_itself", False)
        try:
            return handler.load(self, info) if ours else handler.__load_from_info__(self, **_plain(info))
        except _AS_THEY_ARE:
            raise
        except Exception as e:
            raise _explained(self, handler, info, e) from e

    def delete(self, info: tp.Any) -> None:
        """Delete the data that only this entry uses; data in shared files stays until the folder is cleared.

        Parameters
        ----------
        info: dict
            what `dump` returned, as a line of the index or a record holds it

        Raises
        ------
        StoredValueError
            if the handler fails to delete it
        """
        if not isinstance(info, dict) or "#type" not in info:
            return
        handler = registry.for_name(info["#type"])
        if getattr(handler, "checks_itself", False):
            # where it is damaged, it names no data
            with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
                handler.delete(self, info)
        elif hasattr(handler, "__delete_info__"):
            try:
                handler.__delete_info__(self, **_plain(info))
            except KeyError as e:
                raise StoredValueError(_failed(self, handler, "delete", e)) from e
        for relative in self.own_files(info):
            self.unlink(relative)

    def own_files(self, info: Info) -> list[str]:
        """Return the files that only this entry uses, as paths within the folder.

        Parameters
        ----------
        info: dict
            what `dump` returned, as a line of the index or a record holds it
        """
        files = info.get("#files")
        found: list[str] = []
        for relative in files if isinstance(files, dict) else ():
            with contextlib.suppress(DamagedEntryError):
                self.path(relative)
                found.append(relative)
        return found

    def dump_entry(self, key: str, value: tp.Any, *, cache_type: str | None = None) -> Info:
        """Store the value of a key and add its line to the index of the folder, where `CacheDict` finds it.

        Parameters
        ----------
        key: key of the entry
        value: what to store
        cache_type: name of the handler; by default the one for its type

        Returns
        -------
        ``jsonl`` (name of the index file), ``byte_range`` (where its line is in it) and ``content`` (the entry)

        Raises
        ------
        CacheWriteError: the folder cannot be written to, or the disk is full
        HandlerError: the handler does not take the value
        KeyError: what was just written is not found
        """
        index = index_of(_files.expand(self.root))
        writer = writer_of(index)
        ctx = DumpContext(index.folder, options=self.options)
        with index.lock:
            writer.open(self.options, ctx.delete)
        try:
            with index.lock:
                # nothing on its line but what its handler returns, as published releases write it
                writer.bare.add(key)
                ctx.dump_to(writer, key, value, cache_type=cache_type)
        finally:
            with index.lock:
                writer.close()
        found = index.locate(key)
        if found is None:
            raise KeyError(key)
        name, start, stop = index.address(found[1])
        return {"jsonl": name, "byte_range": (start, stop), "content": found[0]}

    def dump_for(self, key: str, value: tp.Any, *, cache_type: str | None = None) -> Info:
        """Store the value of a key: like `dump`, with files named after the key.

        Parameters
        ----------
        key: str
            the key
        value: any
            what to store
        cache_type: str, optional
            name of the handler; by default chosen by the type of the value

        Returns
        -------
        dict
            the entry, for `load`
        """
        before, self.key = self.key, key
        try:
            return self.dump(value, cache_type=cache_type)
        finally:
            self.key = before

    def dump_to(
        self, writer: FolderWriter, key: str, value: tp.Any, *, cache_type: str | None = None
    ) -> None:
        """Store the value of a key, and hand its line to the writer of the folder, whose lock is held.

        Parameters
        ----------
        writer: FolderWriter
            the writer of the folder
        key: str
            the key
        value: any
            what to store
        cache_type: str, optional
            name of the handler; by default chosen by the type of the value

        Raises
        ------
        CacheWriteError
            if it cannot be written
        HandlerError
            if the handler does not take the value
        """
        key_hash(key)  # an error before anything is written
        self.files = writer.files
        try:
            info = self.dump_for(key, value, cache_type=cache_type)
        except CacheWriteError:
            raise
        except OSError as e:
            if e.errno is None:
                raise
            raise write_error(e, self.root, f"The value of {key[:100]!r} was not stored") from e
        writer.put(key, line_of(key, info, bare=key in writer.bare), self.options)

    # -- data files

    def path(self, relative: str) -> str:
        """Return the full path of a data file.

        Parameters
        ----------
        relative: str
            path of the file within ``folder``

        Raises
        ------
        DamagedEntryError
            if it is not in the folder's ``data``
        """
        if (
            not isinstance(relative, str)
            or not relative.startswith(_DATA)
            or ".." in relative
            or "\\" in relative
            or "\0" in relative
        ):
            raise DamagedEntryError(f"An entry of {self.root} names a data file outside of it: {relative!r}")
        return f"{self.root}/{relative}"

    def open(self, relative: str) -> int:
        """Open a data file for reading, a regular one; no link of another user's is followed.

        Parameters
        ----------
        relative: str
            path of the file within ``folder``

        Returns
        -------
        its descriptor, for the caller to close

        Raises
        ------
        DamagedEntryError: it is not there, not in the folder's ``data``, or no regular file
        UntrustedFileError: there is a link of another user's on the way
        """
        return open_data(self.path(relative))

    def unlink(self, relative: str) -> None:
        """Delete a data file, if it is there.

        Parameters
        ----------
        relative: str
            path of the file within ``folder``
        """
        path = self.path(relative)
        unmap(path)
        with contextlib.suppress(FileNotFoundError):
            _files.remove(path)

    def check(self, info: Info, *, everything: bool = False) -> None:
        """Raise DamagedEntryError when a data file of an entry has not the size and checksum that were recorded.

        Checksums of more than ``options.checksum_bytes`` are compared with ``everything`` only.

        Parameters
        ----------
        info: dict
            what `dump` returned, as a line of the index or a record holds it
        everything: bool
            also compare checksums of values that are too large for each load

        Raises
        ------
        DamagedEntryError
            if one of them is damaged
        """
        if "#files" not in info and "#ranges" not in info:
            return
        try:
            for relative, (size, digest) in info.get("#files", {}).items():
                self.check_range(relative, 0, size, str(digest), everything=everything, whole=True)
            for relative, start, length, digest in info.get("#ranges", ()):
                self.check_range(relative, start, length, str(digest), everything=everything)
        except DamagedEntryError:
            raise
        except (ValueError, TypeError, AttributeError) as e:
            raise DamagedEntryError(f"An entry of {self.root} does not name its files: {e}") from e

    def check_range(
        self,
        relative: str,
        start: int,
        length: int,
        digest: str | None,
        *,
        everything: bool = True,
        whole: bool = False,
    ) -> None:
        """Raise DamagedEntryError when a range of a data file is not there, or not what was written.

        Its checksum is compared as in `check`, if there is one; ``whole``: the file has no further bytes.

        Parameters
        ----------
        relative: str
            path of the file within ``folder``
        start: int
            first byte
        length: int
            number of bytes
        digest: str or None
            the checksum that was recorded, if any
        everything: bool
            compare the checksum whatever the length
        whole: bool
            the range is all of the file

        Raises
        ------
        DamagedEntryError
            if the range is not there, or has another checksum
        """
        path = self.path(relative)
        if type(start) is not int or type(length) is not int or min(start, length) < 0:
            raise no_range(self.root, path, start, length)
        asked = everything or length <= self.options.checksum_bytes
        fd = open_data(path) if asked else -1  # what is compared is the very file whose size was asked for
        try:
            size = os.fstat(fd).st_size if asked else data_size(path)
            if length and size < start + length:
                raise cut_short(path, size, start + length)
            if whole and size != length:
                raise DamagedEntryError(f"The data file {path} has {size} bytes, not the {length} written")
            if asked and digest is not None and self.sum_of(fd, path, start, length) != digest:
                raise damaged_range(path, start, length)
        finally:
            if asked:
                os.close(fd)

    def sum_of(self, fd: int, path: str, start: int, length: int) -> str:
        """Return the XXH3-64 (16 hexadecimal digits) of a range of bytes of an open data file.

        Parameters
        ----------
        fd: int
            descriptor of the file
        path: str
            its path, for `before_reading`
        start: int
            first byte
        length: int
            number of bytes
        """
        return _sum_of(fd, start, length)

    def before_reading(self, path: str, size: int, length: int) -> None:
        """Be called before bytes of a data file of this size are read; may raise OSError.

        Parameters
        ----------
        path: str
            the file
        size: int
            its size, in bytes
        length: int
            bytes that are about to be read
        """

    def _size_and_sum(self, relative: str) -> tuple[int, str]:
        fd = self.open(relative)
        try:
            size = os.fstat(fd).st_size
            return size, _sum_of(fd, 0, size)
        finally:
            os.close(fd)


_DATA = f"{DATA_DIR}/"
_RESERVED = frozenset(("#type", "#key", "#sum", "#files", "#ranges", "#parts", "#as", "#requires_grad"))


def _checked(handler: type, info: Info, given: list[Info]) -> Info:
    """What a user's handler returned, as an entry: those of its parts without reserved fields.

    Fields that a handler of ours returned to it may come back. Ours are replaced by what was found for the whole.
    """
    unknown = [key for key in info if isinstance(key, str) and key[:1] == "#" and key not in _RESERVED]
    if unknown:
        raise HandlerError(
            f"__dump_info__ of {handler.__name__} returned {unknown}: keys that start with '#' are reserved for exca; "
            "rename them"
        )
    if "#type" in info and info in given:  # it handed its value on to another handler, which will load it
        return dict(info)
    taken: list[Info | None] = []
    plain = {key: value for key, value in info.items() if not isinstance(key, str) or key[:1] != "#"}
    checked: Info = take_from_parts(plain, taken)
    given_parts = info.get("#parts")  # of a container of ours, which holds them already
    if not any(taken) and isinstance(given_parts, list) and len(given_parts) == len(taken):
        taken = given_parts
    if any(taken):
        checked["#parts"] = taken
    return checked


_AS_THEY_ARE = (
    DamagedEntryError,
    UntrustedFileError,
    HandlerError,
    UnknownHandlerError,
    StoredValueError,
    ImportError,
    MemoryError,
)


def _explained(ctx: DumpContext, handler: tp.Any, info: Info, error: Exception) -> Exception:
    """What an error of a handler means for the entry that it loaded: that is damaged, or not, or not known."""
    if isinstance(error, OSError) and error.errno is not None:
        name = error.filename if isinstance(error.filename, str) else ""
        below = name.startswith(ctx.root) or not name
        ours = getattr(handler, "checks_itself", False)
        if is_missing(error) and (ours or below):
            return DamagedEntryError(f"A data file of an entry of {ctx.root} is not there: {error}")
        return error
    if isinstance(error, RecursionError):
        return StoredValueError(f"An entry of {ctx.root} is nested too deeply to be loaded from here")
    if getattr(handler, "only_reads", False):
        return DamagedEntryError(
            f"An entry of {ctx.root} cannot be read by {info['#type']}: {type(error).__name__}: {error}"
        )
    return StoredValueError(_failed(ctx, handler, "load", error)) if isinstance(error, KeyError) else error


def _failed(ctx: DumpContext, handler: type, what: str, error: KeyError) -> str:
    """A mapping would take a KeyError for a key that is not there."""
    return (
        f"The handler {handler.__name__} failed to {what} an entry of {ctx.root}, which is unharmed: "
        f"KeyError: {error}; repair the handler, or compute the value again"
    )


def _plain(info: Info) -> Info:
    """The fields of an entry that a user's handler is given, its parts with their reserved fields."""
    plain = {key: value for key, value in info.items() if key[:1] != "#"}
    return restored(plain, reserved_of(info)) if "#parts" in info else plain


def _sum_of(fd: int, start: int, length: int) -> str:
    hasher = xxhash.xxh3_64()
    while length > 0 and (chunk := pread(fd, min(length, 1 << 20), start)):
        hasher.update(chunk)
        start += len(chunk)
        length -= len(chunk)
    return hasher.hexdigest()


if not tp.TYPE_CHECKING:
    __getattr__ = earlier_names(__name__)
