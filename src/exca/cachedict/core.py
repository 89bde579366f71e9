"""`CacheDict`: a mapping of text keys to values in a folder that many processes and hosts use at once."""

import contextlib
import functools
import itertools
import os
import pathlib
import typing as tp

import orjson

from .. import _files, _trust
from .._earlier import earlier_names
from ..errors import DamagedEntryError, UntrustedFileError
from .dumpcontext import DumpContext, DumpOptions
from .index import NOT_PRELOADED, WAITING, FolderIndex, Found, index_of
from .textindex import SCALARS, Info, LineRef, entry_of, key_hash
from .writer import touch, write_error, writer_of

X = tp.TypeVar("X")
_MOST = 1 << 63  # an int below it is one to orjson
_INLINE = 1024  # bytes up to which a plain value is held by its entry, whatever its handler


class Judge(tp.Protocol):
    """Tells whether an entry counts, by the digest of the code that computed it."""

    @property
    def digest(self) -> str:
        """Digest of the code of today."""
        ...

    def counts(self, recorded: str, which: str) -> bool:
        """Whether an entry counts that code of another digest computed; ``which`` one, for messages."""
        ...


class CacheDict(tp.Generic[X]):
    """Values by text key, in a folder and optionally in memory.

    Entries are written inside ``with cd.write():`` and seen by all processes that use the folder, at the latest
    when the context is left. Setting a key again replaces its value: the newest wins. Files are described in
    `exca.cachedict.textindex`, what becomes visible when in `exca.cachedict.index`.

    Parameters
    ----------
    folder: where entries live (made when the first one is written); None for a dictionary in memory
    keep_in_ram: keep values in memory once loaded or set
    cache_type: name of the handler for all values; by default each type has its own
    options: how values are stored and how long they may wait to be written

    Raises
    ------
    ValueError: neither a folder nor ``keep_in_ram``
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None,
        keep_in_ram: bool = False,
        cache_type: str | None = None,
        *,
        options: DumpOptions | None = None,
    ) -> None:
        if folder is None and not keep_in_ram:
            raise ValueError("A CacheDict needs a folder, keep_in_ram=True, or both")
        self.folder: pathlib.Path | None = (
            None if folder is None else pathlib.Path(_files.expand(os.fspath(folder)))
        )
        self.cache_type = cache_type
        self._keep_in_ram = keep_in_ram
        self.in_ram: dict[str, X] = {}  # values kept in memory; maps look there before they ask for anything
        self._frozen = 0
        self._writing = 0
        self._options = DumpOptions() if options is None else options
        self._judge: Judge | None = None
        self.code: str = ""  # the digest that is recorded with what is set
        self._foreign: frozenset[int] = frozenset()  # numbers of the files of other code
        self._judged = 0  # files that were asked for it
        self._index: FolderIndex = tp.cast(FolderIndex, None)
        if self.folder is None:
            return
        self._index = index_of(os.fspath(self.folder))
        self._writer = writer_of(self._index)
        self._context = DumpContext(self._index.folder, options=self._options)
        self._context.files = self._writer.files

    def __repr__(self) -> str:
        ram = ", keep_in_ram=True" if self._keep_in_ram else ""
        return f"CacheDict({None if self.folder is None else str(self.folder)!r}{ram})"

    def _repr_html_(self) -> str | None:
        from .. import _notebook

        first = [[key] for key in itertools.islice(self.keys(), 10)]
        count = len(self)
        shown = _notebook.table(["key"], first, "the first keys" if count > len(first) else "keys")
        where = "in memory" if self.folder is None else self.folder
        return _notebook.card(
            f"CacheDict: {count:,} {'entry' if count == 1 else 'entries'}", _notebook.line(where), shown
        )

    def _repr_mimebundle_(self, **_: tp.Any) -> dict[str, str] | None:
        from .. import _notebook

        return _notebook.bundle(repr(self), self._repr_html_())

    def __reduce__(self) -> tuple[tp.Any, ...]:
        made = functools.partial(CacheDict, options=self._options)
        return made, (self.folder, self._keep_in_ram, self.cache_type)

    @property
    def _ram_data(self) -> dict[str, X]:
        """What is kept in memory (kept for dependants, under this name)."""
        return self.in_ram

    @property
    def keep_in_ram(self) -> bool:
        """Whether values stay in memory once loaded or set."""
        return self._keep_in_ram

    # -- code

    def judge_by(self, judge: Judge | None, recorded: str = "") -> None:
        """Have entries of other code judged before they count, and record a digest with those set from now on.

        Parameters
        ----------
        judge: tells which count; None for all
        recorded: digest of the code that computes what is set
        """
        if judge is None or self._judge is None or judge.digest != self._judge.digest:
            self._foreign, self._judged = frozenset(), 0
            if self._judge is not None and self.folder is not None:
                self.in_ram.clear()  # what is kept there was judged by other code
        self._judge, self.code = judge, recorded

    def codes(self) -> set[str]:
        """Return the digests of all code that has computed entries of this folder, as far as they are known."""
        if self.folder is None:
            return set()
        self._index.refresh()
        return {code for code in self._index.codes if code}

    def code_of(self, key: str) -> str | None:
        """The digest of the code that computed an entry, whether it counts or not; empty where it is not known.

        Parameters
        ----------
        key: whose entry is looked for

        Returns
        -------
        None where there is no entry
        """
        if self.folder is None:
            return "" if key in self.in_ram else None
        self.flush()
        self._index.refresh()
        found = self._find(key)
        return None if found is None else self._index.code_of(found[1])

    def _is_mixed(self) -> bool:
        """Whether there may be entries of code that is to be judged."""
        codes = self._index.codes
        if len(codes) != self._judged and self._judge is not None:
            own = self._judge.digest
            self._foreign = frozenset(n for n, code in enumerate(codes) if code and code != own)
            self._judged = len(codes)
        return bool(self._foreign)

    def _counts(self, key: str, ref: LineRef) -> bool:
        index, judge = self._index, self._judge
        return judge is None or judge.counts(
            index.code_of(ref), f"the result of {key[:100]!r} in {index.folder}"
        )

    def _find_counting(self, key: str) -> Found | None:
        """The entry of a key and its line, None where it is missing or does not count."""
        found = self._find(key)
        return found if found is None or self._counts(key, found[1]) else None

    # -- reading

    def __getitem__(self, key: str) -> X:
        if self._keep_in_ram and key in self.in_ram:
            return self.in_ram[key]
        index = self._index
        if index is None:
            raise KeyError(key)
        value: X = index.preloaded(key)  # or a line, or NOT_PRELOADED
        if self._judge is not None and self._is_mixed():  # all that is known of the folder has been read
            return self._searched(key)
        kind = type(value)
        if kind in SCALARS:
            if self._keep_in_ram:
                self.in_ram[key] = value
            return value
        if kind is bytes and not self._keep_in_ram:
            try:
                return self._load_line(tp.cast(bytes, value))
            except (DamagedEntryError, FileNotFoundError, UntrustedFileError):
                pass  # the long way sets it aside, or knows whose file the line is in
        if key in self._writer.pending:
            self.flush()
        return self._searched(key)

    def _searched(self, key: str) -> X:
        found = self._find(key)
        if found is None or (
            self._judge is not None and self._is_mixed() and not self._counts(key, found[1])
        ):
            raise KeyError(key)
        value = self._load(key, *found)
        if self._keep_in_ram:
            self.in_ram[key] = value
        return value

    def _load_line(self, line: bytes) -> X:
        info = entry_of(orjson.loads(line))
        if self._index is None or self._index.trusted:
            return tp.cast(X, self._context.load(info))
        with _trust.imports(allowed=False):
            return tp.cast(X, self._context.load(info))

    def _find(self, key: str) -> Found | None:
        """The entry of a key and its line, or None when it is missing."""
        while True:
            found = self._index.search(key, self._frozen > 0)
            if found is not WAITING:
                return found
            self.flush()

    def _load(self, key: str, info: Info, ref: LineRef) -> X:
        if info["#type"] == "Json" and "content" in info:
            return tp.cast(X, info["content"])
        while True:
            try:
                if self._index.trusted:
                    return tp.cast(X, self._context.load(info))
                with _trust.imports(self._index.trusts(ref)):
                    return tp.cast(X, self._context.load(info))
            except (DamagedEntryError, FileNotFoundError) as error:
                if self._index.read_entry(ref, key) is not None:  # not deleted while it was loaded
                    if not isinstance(error, DamagedEntryError):
                        raise
                    self._index.set_aside(self._context, key, ref, error)
            found = self._find(key)  # perhaps it was written again, or there is an older value
            if found is None:
                raise KeyError(key)
            info, ref = found

    @tp.overload
    def get(self, key: str) -> X | None: ...
    @tp.overload
    def get(self, key: str, default: X) -> X: ...
    def get(self, key: str, default: X | None = None) -> X | None:
        """Return the value of a key, or ``default``.

        Parameters
        ----------
        key: str
            the key
        default: any
            returned where the key has no entry
        """
        try:
            return self[key]
        except KeyError:
            return default

    def __contains__(self, key: object) -> bool:
        if type(key) is not str:
            return False
        if key in self.in_ram:
            return True
        if self.folder is None:
            return False
        if key in self._writer.pending:
            return True
        if self._index.preloaded(key) is NOT_PRELOADED and self._index.search(key, self._frozen > 0) is None:
            return False
        return self._judge is None or not self._is_mixed() or self._find_counting(key) is not None

    def __len__(self) -> int:
        if self.folder is None:
            return len(self.in_ram)
        self.flush()
        return self._index.count()

    def __iter__(self) -> tp.Iterator[str]:
        return self.keys()

    def keys(self) -> tp.Iterator[str]:
        """Yield all keys, without holding them."""
        if self.folder is None:
            yield from list(self.in_ram)
            return
        self.flush()
        names = self._index.preloaded_keys()
        if names is not None:
            yield from names
            return
        for entry in self._index.entries():
            yield entry[0]

    def items(self) -> tp.Iterator[tuple[str, X]]:
        """Yield all keys with their values, one at a time. Entries found damaged are left out."""
        if self.folder is None:
            yield from list(self.in_ram.items())
            return
        self.flush()
        for key, info in self._index.entries():
            if info["#type"] == "Json" and "content" in info and not self._keep_in_ram:
                yield key, info["content"]
                continue
            try:
                yield key, self[key]
            except KeyError:  # damaged, or deleted meanwhile
                continue

    def values(self) -> tp.Iterator[X]:
        """Yield all values, one at a time."""
        for item in self.items():
            yield item[1]

    def missing(self, keys: tp.Sequence[str], *, total: int = 0) -> list[str]:
        """Return the keys that have no entry, in the order given; looks at the folder once for all.

        Parameters
        ----------
        keys: whose entries are looked for
        total: how many keys will be asked for altogether, where these are some of them
        """
        ram = self.in_ram
        if ram or self.folder is None:
            keys = [key for key in keys if key not in ram]
            if not keys or self.folder is None:
                return list(keys)
        absent = self._index.missing(keys, total, frozen=self._frozen > 0)
        if self._judge is None or not self._is_mixed():
            return absent
        gone = set(absent)
        return [key for key in keys if key in gone or self._find_counting(key) is None]

    def places_of(self, keys: tp.Iterable[str]) -> dict[str, tuple[str, int]]:
        """Return the file and the offset of the entries of keys, which tell each from any later one of its key.

        Parameters
        ----------
        keys: whose entries are looked for; those that have none are left out
        """
        if self.folder is None:
            return {}
        self.flush()
        self._index.refresh(frozen=self._frozen > 0)
        found = ((key, self._find(key)) for key in keys)
        return {key: self._index.address(entry[1])[:2] for key, entry in found if entry is not None}

    def iter_values(self, keys: tp.Iterable[str]) -> tp.Iterator[X]:
        """Yield the values of keys in the order given, one at a time, without holding them.

        Parameters
        ----------
        keys: iterable of str
            the keys

        Raises
        ------
        KeyError: a key has no entry, or its entry was found damaged and was set aside
        """
        index = self._index
        if self.folder is not None and not self._frozen:
            index.read_first()
        if self.folder is None or (self._judge is not None and self._is_mixed()):
            for key in keys:
                yield self[key]
            return
        if isinstance(keys, tp.Sized):
            index.expect(len(keys))
        if index.in_memory is None and not self._keep_in_ram:
            yield from self._iter_lines(keys)
            return
        kept = self.in_ram if self._keep_in_ram else None
        for key in keys:
            if kept is not None and key in kept:
                yield kept[key]
                continue
            value = index.preloaded(key)
            if type(value) not in SCALARS:
                yield self[key]
                continue
            if kept is not None:
                kept[key] = value
            yield value

    def _iter_lines(self, keys: tp.Iterable[str]) -> tp.Iterator[X]:
        """`iter_values` of entries that are not in memory."""
        pending, load = self._writer.pending, self._load
        for chunk, infos, ref_of in self._index.entries_of(keys):
            plain = [
                info["content"] for info in infos if info and info["#type"] == "Json" and "content" in info
            ]
            if len(plain) == len(infos) and not pending:
                yield from plain
                continue
            for number, (key, info) in enumerate(zip(chunk, infos, strict=True)):
                if info is None or key in pending:
                    yield self[key]
                elif info["#type"] == "Json" and "content" in info:
                    yield info["content"]
                else:
                    yield load(key, info, ref_of(number))

    @contextlib.contextmanager
    def frozen_cache_folder(self) -> tp.Iterator[None]:
        """Context in which missing keys do not make this object look at the folder again."""
        if self.folder is not None:
            self._index.refresh()
        self._frozen += 1
        try:
            yield
        finally:
            self._frozen -= 1

    def trusts(self, key: str) -> bool:
        """Whether the entry of a key may run something: no other user, but for named ones, can have written it.

        Parameters
        ----------
        key: str
            the key

        Raises
        ------
        KeyError: the key has no entry
        """
        if self.folder is None:
            return True
        self.flush()
        found = self._find(key)
        if found is None:
            raise KeyError(key)
        return self._index.trusts(found[1])

    def doubt(self, keys: tp.Iterable[str]) -> None:
        """Look at the folder before values of these keys are given again: other processes have just replaced them.

        Parameters
        ----------
        keys: iterable of str
            the keys
        """
        for key in keys:
            self.in_ram.pop(key, None)
        if self.folder is not None:
            self._index.doubt()

    # -- writing

    @contextlib.contextmanager
    def write(self) -> tp.Iterator["CacheDict[X]"]:
        """Context in which keys can be set; may be entered again inside. On exit all is visible to others.

        Raises
        ------
        CacheWriteError: the folder cannot be written to, or the disk is full
        """
        if self.folder is None:
            yield self
            return
        index, writer = self._index, self._writer
        with index.lock:
            writer.open(self._options, self._context.delete, frozen=self._frozen > 0)
            self._writing += 1
        try:
            yield self
        finally:
            with index.lock:
                self._writing -= 1
                writer.close()

    writer = write

    def flush(self) -> None:
        """Make everything that was set visible to others. Raises CacheWriteError."""
        if self.folder is not None and self._writer.pending:
            with self._index.lock:
                self._writer.flush()

    def __setitem__(self, key: str, value: X) -> None:
        if type(key) is not str:
            raise TypeError(f"Keys of a CacheDict are str, not {type(key).__name__}: {key!r}")
        if self.folder is None:
            self.in_ram[key] = value
            return
        if not self._writing:
            raise RuntimeError(
                f"{self!r} is written to inside its context: with cachedict.write(): cachedict[key] = ..."
            )
        kind, options = type(value), self._options
        with self._index.lock:
            self._writer.computed_by(self.code)
            entry: tp.Any = None
            if kind in SCALARS and self.cache_type is None:
                number: tp.Any = value
                is_number = (kind is float and number - number == 0) or (
                    kind is int and -_MOST < number < _MOST
                )
                entry = value if is_number and key.isascii() else _inline(key, value)
            if entry is not None:
                self._writer.put(key, entry, options)
            else:
                self._context.dump_to(self._writer, key, value, cache_type=self.cache_type)
        if self._keep_in_ram:
            self.in_ram[key] = value

    def __delitem__(self, key: str) -> None:
        if self.folder is None:
            del self.in_ram[key]
            return
        with self._index.lock:
            waited = self._writer.remove(key, self._context.delete)
            self._index.refresh()
            try:
                gone = self._index.delete(key)
            except OSError as e:
                raise write_error(e, str(self.folder), f"The entry {key[:100]!r} was not deleted") from e
            touch(self._index.folder)
            for info in gone:
                if info is not None:
                    self._context.delete(info)
        if self.in_ram.pop(key, None) is None and not gone and not waited:
            raise KeyError(key)

    def clear(self) -> None:
        """Delete all entries and their data; the folder stays."""
        self.in_ram.clear()
        if self.folder is None:
            return
        with self._index.lock:
            for key in list(self._writer.pending):
                self._writer.remove(key, self._context.delete)
            self._writer.files.close()
            self._index.clear()


def _inline(key: str, value: tp.Any) -> bytes | None:
    """The line of a small plain value, without its end; None when it needs a handler."""
    content = inline_json(value)
    if content is None:
        return None
    try:
        return b'{"content":%b,"#type":"Json","#key":%b' % (content, orjson.dumps(key))
    except TypeError:
        key_hash(key)  # an error that explains what is wrong with the key
        raise


# -- one value whose entry is in a record of the caller's own: the same handlers, no index


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


def load_one(folder: str | os.PathLike[str], info: Info, *, trusted: bool = True) -> tp.Any:
    """Load a value that `dump_one` stored.

    Parameters
    ----------
    folder: the folder it was stored in
    info: what `dump_one` returned
    trusted: whether the file that holds ``info`` may have modules imported

    Returns
    -------
    any
        the value

    Raises
    ------
    DamagedEntryError: its data is missing or not what was written
    UntrustedFileError: it is pickled and belongs to a stranger
    """
    if info["#type"] == "Json" and "content" in info:
        content = info["content"]
        # a caller may change a container that it was given, and the record must stay as it is
        return orjson.loads(orjson.dumps(content)) if type(content) in (list, dict) else content
    if trusted:
        return DumpContext(folder).load(info)
    with _trust.imports(allowed=False):
        return DumpContext(folder).load(info)


def delete_one(folder: str | os.PathLike[str], info: Info) -> None:
    """Delete the data of a value that `dump_one` stored; data already gone is no error.

    Parameters
    ----------
    folder: str or Path
        the folder it was stored in
    info: dict
        what `dump_one` returned
    """
    from .handlers.structured import named_files

    ctx = DumpContext(folder)
    names = named_files(ctx, info)  # shared files too: no other value is in them
    ctx.delete(info)
    for relative in names:
        ctx.unlink(relative)


if not tp.TYPE_CHECKING:
    __getattr__ = earlier_names(__name__)
