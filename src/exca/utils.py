"""Helpers that code around exca uses: safe files, models in a configuration, chunks, short uids."""

import contextlib
import hashlib
import itertools
import os
import shutil
import typing as tp
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pydantic

from ._earlier import earlier_names
from ._log import logger
from .errors import NothingToDeleteError
from .identity.configfolder import DEFAULT_CHECK_SKIPS

__all__ = [
    "DEFAULT_CHECK_SKIPS",
    "ConfigExporter",
    "ShortItemUid",
    "environment_variables",
    "even_chunks",
    "fast_unlink",
    "find_models",
    "temporary_save_path",
    "to_chunks",
]


T = tp.TypeVar("T")
X = tp.TypeVar("X")


@contextlib.contextmanager
def temporary_save_path(filepath: Path | str, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside a file (or folder), which takes its place when the context ends well.

    Parameters
    ----------
    filepath: where the file is to be in the end; its folder must exist
    replace: replace what is there already; otherwise what is there stays, and the new file is dropped

    Yields
    ------
    The path to write to, with the same suffix as the file

    Raises
    ------
    FileNotFoundError: nothing was written to the temporary path
    """
    filepath = Path(filepath)
    temporary = filepath.with_name(f"save-tmp-{os.urandom(4).hex()}-{filepath.name}")
    try:
        yield temporary
        if not os.path.lexists(temporary):
            raise FileNotFoundError(
                f"nothing was saved at {temporary}: write the content of {filepath} there"
            )
        _put_in_place(temporary, filepath, replace)
    finally:
        if os.path.lexists(temporary):
            logger.debug("Removing the temporary file %s", temporary)
            _delete(temporary)


def _put_in_place(temporary: Path, filepath: Path, replace: bool) -> None:
    if not replace:
        if temporary.is_dir():
            with contextlib.suppress(OSError):  # another process's folder is there
                temporary.rename(filepath)
        elif not os.path.lexists(filepath):
            with contextlib.suppress(FileExistsError):
                _link_or_rename(temporary, filepath)
    elif temporary.is_dir() or filepath.is_dir():
        # a folder cannot be replaced in one step: the old one steps aside first
        with fast_unlink(filepath, missing_ok=True):
            temporary.rename(filepath)
    else:
        os.replace(temporary, filepath)


def _link_or_rename(temporary: Path, filepath: Path) -> None:
    try:
        os.link(temporary, filepath)
    except FileExistsError:
        raise
    except OSError:  # no hard links here
        temporary.rename(filepath)


@contextlib.contextmanager
def fast_unlink(filepath: Path | str, missing_ok: bool = False) -> Iterator[None]:
    """Context that takes a file or folder out of the way at once, and deletes it at its end, also by an error.

    Parameters
    ----------
    filepath: what to delete
    missing_ok: do nothing when it is not there

    Raises
    ------
    NothingToDeleteError: it is not there
    """
    filepath = Path(filepath)
    aside = filepath.with_name(f"deltmp-{os.urandom(4).hex()}-{filepath.name}")
    try:
        filepath.rename(aside)
    except FileNotFoundError:
        if not missing_ok:
            raise NothingToDeleteError(f"{filepath} was to be deleted and is not there") from None
    try:
        yield
    finally:
        if os.path.lexists(aside):
            _delete(aside)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def environment_variables(**kwargs: tp.Any) -> Iterator[None]:
    """Context in which environment variables have other values; all are as before at its end.

    Parameters
    ----------
    kwargs: any
        values by name, written as str; None unsets a variable
    """
    before = {name: os.environ.get(name) for name in kwargs}
    try:
        _set_environment(kwargs)
        yield
    finally:
        _set_environment(before)


def _set_environment(values: dict[str, tp.Any]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = str(value)


def find_models(
    obj: tp.Any,
    Type: type[T],  # noqa: N803  # the name that callers use
    include_private: bool = True,
    stop_on_find: bool = False,
    skip: Callable[[pydantic.BaseModel], bool] | None = None,
) -> dict[str, T]:
    """Find the pydantic models of a class in an object: in fields, private attributes, lists, tuples and dicts.

    Parameters
    ----------
    obj: a model, or a list, tuple or dict of them
    Type: the class to look for
    include_private: look into private attributes, too
    stop_on_find: do not look into a model that was found
    skip: models for which it returns True are neither found nor looked into

    Returns
    -------
    The models by dotted path, "" for the object itself
    """
    found: dict[str, T] = {}
    # with the path of each value the objects that hold it, so that a circle ends
    waiting: list[tuple[str, tp.Any, frozenset[int]]] = [("", obj, frozenset())]
    while waiting:
        path, value, above = waiting.pop()
        if id(value) in above:
            continue
        if isinstance(value, pydantic.BaseModel):
            if skip is not None and skip(value):
                continue
            if isinstance(value, Type):
                found[path] = value
                if stop_on_find:
                    continue
        above |= {id(value)}
        parts = [
            (f"{path}.{name}" if path else name, sub, above) for name, sub in _parts(value, include_private)
        ]
        waiting.extend(reversed(parts))
    return found


def _parts(value: tp.Any, include_private: bool) -> Iterable[tuple[str, tp.Any]]:
    if isinstance(value, pydantic.BaseModel):
        # not iter(value): a model may define its own
        yield from vars(value).items()
        yield from (value.__pydantic_extra__ or {}).items()
        if include_private:
            yield from (value.__pydantic_private__ or {}).items()
    elif isinstance(value, dict):
        yield from ((str(key), sub) for key, sub in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((str(index), sub) for index, sub in enumerate(value))


class ConfigExporter(pydantic.BaseModel):
    """Exports models to dicts.

    Parameters
    ----------
    uid: leave out what does not count for the uid
    exclude_defaults: leave out fields at their default
    ignore_first_discriminator: leave out a discriminator at its default from the model itself
    ignore_first_override: do not call `_exca_uid_dict_override` of the model itself
    """

    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(extra="forbid")

    uid: bool = False
    exclude_defaults: bool = False
    ignore_first_discriminator: bool = True
    ignore_first_override: bool = False

    def apply(self, model: pydantic.BaseModel) -> dict[str, tp.Any]:
        """Return the configuration of a model as nested dicts of JSON values.

        Parameters
        ----------
        model: pydantic.BaseModel
            what to export
        """
        from .identity import export

        return export(
            model,
            uid=self.uid,
            exclude_defaults=self.exclude_defaults,
            ignore_first_discriminator=self.ignore_first_discriminator,
            ignore_first_override=self.ignore_first_override,
        )


class ShortItemUid:
    """Computes the uid of an item and cuts it in the middle when it is long.

    Parameters
    ----------
    item_uid: the function from an item to its uid
    max_length: characters from which on a uid is cut, at least 32

    Raises
    ------
    ValueError: `max_length` is below 32
    """

    def __init__(self, item_uid: Callable[[tp.Any], str], max_length: int) -> None:
        if max_length < 32:
            raise ValueError(f"max_length of item uids must be at least 32, got {max_length}")
        self.item_uid = item_uid
        self.max_length: int = int(max_length)

    def __call__(self, item: tp.Any) -> str:
        """Return the uid of an item: its head and tail, the number of characters cut, and a hash, when it is long."""
        uid = self.item_uid(item)
        if not isinstance(uid, str):
            raise TypeError(
                f"item_uid must return a str, got {uid!r} ({type(uid).__name__}) for the item {item!r}"
            )
        if len(uid) <= self.max_length:
            return uid
        kept = (self.max_length - 13 - len(str(len(uid)))) // 2  # so that it never gets longer than it may
        digest = hashlib.md5(uid.encode("utf8", "surrogatepass"), usedforsecurity=False).hexdigest()[:8]
        return f"{uid[:kept]}..{len(uid) - 2 * kept}..{uid[-kept:]}-{digest}"


def to_chunks(
    items: Sequence[X], *, max_chunks: int | None, min_items_per_chunk: int = 1
) -> list[Sequence[X]]:
    """Split items into chunks of one size, of which the last may be shorter or empty.

    Parameters
    ----------
    items: what to split
    max_chunks: number of chunks that is not exceeded, None for no limit
    min_items_per_chunk: no more chunks are made than this many items in each would fill

    Returns
    -------
    The chunks, in order; none when there are no items
    """
    count = -(-len(items) // max(1, min_items_per_chunk))
    if max_chunks is not None:
        count = min(count, max(1, max_chunks))
    size = -(-len(items) // count) if count else 0
    return [items[index * size : (index + 1) * size] for index in range(count)]


def even_chunks(items: Sequence[X], *, max_chunks: int | None, min_items: int = 1) -> list[Sequence[X]]:
    """Split items into chunks whose sizes differ by one at most.

    Parameters
    ----------
    items: what to split
    max_chunks: number of chunks that is not exceeded, None for no limit
    min_items: items that each chunk holds at least, as far as there are so many

    Returns
    -------
    The chunks, in order; none when there are no items
    """
    count = len(items) // max(1, min_items)
    if max_chunks is not None:
        count = min(count, max_chunks)
    count = min(max(1, count), len(items))
    bounds = [-(-len(items) * index // count) for index in range(count + 1)] if count else []
    return [items[start:end] for start, end in itertools.pairwise(bounds)]


class FrozenSetattr:  # kept for jobs that 0.6 queued: part of their frozen objects, and means nothing here
    def __setstate__(self, state: tp.Any) -> None:
        pass


_FrozenSetattr = FrozenSetattr  # its name in their pickles

if not tp.TYPE_CHECKING:
    __getattr__ = earlier_names(__name__)
