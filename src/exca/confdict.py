"""ConfDict: a configuration as a dict whose keys may be dotted."""

import typing as tp
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path

from ._earlier import earlier_names
from .identity import nesting
from .identity.configfolder import from_text, to_text
from .identity.nesting import Ops
from .identity.uid import UidMaker, uid_text

if tp.TYPE_CHECKING:
    import pydantic

__all__ = ["ConfDict", "UidMaker"]

Pairs = Mapping[str, tp.Any] | Iterable[tuple[str, tp.Any]]
_MISSING: tp.Any = object()


class _Override:
    """The former name of `ConfDict.ops.REPLACE`."""

    def __get__(self, obj: object, owner: type | None = None) -> str:
        warnings.warn(
            "ConfDict.OVERRIDE is deprecated: use ConfDict.ops.REPLACE", DeprecationWarning, stacklevel=2
        )
        return Ops.REPLACE


class ConfDict(dict[str, tp.Any]):
    """A dict that splits keys at ".", merges recursively and can be patched.

    Setting a mapping merges it into what is there; a number in a key indexes into a list; what is
    given is copied (mappings become ConfDicts, an OrderedDict stays one and keeps its order).

    Parameters
    ----------
    mapping: a mapping or (key, value) pairs to start from
    kwargs: further entries

    Raises
    ------
    TypeError: a key is no str, or does not fit the container it leads into
    ValueError: an unknown or impossible operation

    Example
    -------
    >>> ConfDict({"training.optim.lr": 0.01, "training": {"epochs": 3}})
    {'training': {'optim': {'lr': 0.01}, 'epochs': 3}}

    Operations (`ConfDict.ops`) patch instead of setting: `{"a": "=delete="}` removes `a`,
    `{"a": {"=replace=": True, "x": 1}}` replaces it instead of merging, and `"=before="` or `"=after="` with the name
    of a key beside it moves it there. An operation whose target is missing is kept, so that patches
    can be built up; a configuration with an operation left in it has no uid.
    """

    ops = Ops
    OVERRIDE = _Override()  # kept for dependants: the name of an early release

    def __init__(self, mapping: Pairs | None = None, /, **kwargs: tp.Any) -> None:
        super().__init__()
        self.update(mapping, **kwargs)

    @classmethod
    def from_model(
        cls, model: "pydantic.BaseModel", uid: bool = False, exclude_defaults: bool = False
    ) -> tp.Self:
        """Export a pydantic model.

        Parameters: `uid` leave out what does not count for the uid; `exclude_defaults` leave out fields at their
        default.
        Returns: the configuration, in JSON types.

        Parameters
        ----------
        model: pydantic.BaseModel
            what to export
        uid: bool
            only what counts for the uid
        exclude_defaults: bool
            leave out what equals the default of its field

        Returns
        -------
        ConfDict
            the configuration
        """
        from .identity import export

        return cls(export(model, uid=uid, exclude_defaults=exclude_defaults))

    @classmethod
    def from_yaml(cls, yaml: str | Path | tp.IO[str] | tp.IO[bytes]) -> tp.Self:
        """Read a configuration from YAML.

        Parameters: `yaml` the text, the path of a file (a str of a single line that is the path of a file, too), or an
        open file.
        Raises: FileNotFoundError for a Path that is not there, TypeError when the YAML is no mapping,
        yaml.YAMLError when it is no YAML.

        Parameters
        ----------
        yaml: str, Path or file
            the text, the file that holds it, or an open one

        Returns
        -------
        ConfDict
            the configuration

        Raises
        ------
        TypeError
            if the YAML holds no mapping
        """
        text, origin = _read_yaml(yaml)
        content = from_text(text)
        if not isinstance(content, dict):
            raise TypeError(f"{origin} holds {type(content).__name__} where a mapping is needed: {content!r}")
        return cls(content)

    @classmethod
    def from_args(cls, args: list[str]) -> tp.Self:
        """Read a configuration from command line arguments of the form `--key=value`; values stay str.

        Raises: ValueError for an argument of another form.

        Parameters
        ----------
        args: list of str
            the arguments, each ``--key=value``

        Returns
        -------
        ConfDict
            the configuration

        Raises
        ------
        ValueError
            if an argument has another form
        """
        wrong = [arg for arg in args if not (arg.startswith("--") and "=" in arg)]
        if wrong:
            raise ValueError(f"arguments must have the form --key=value, got {wrong} in {args}")
        pairs = [arg.lstrip("-").split("=", 1) for arg in args]
        return cls(dict(pairs))

    @classmethod
    def fromkeys(cls, keys: Iterable[str], value: tp.Any = None) -> tp.Self:  # type: ignore[override]  # str keys only
        """Build a configuration that holds the same value under every key.

        Parameters
        ----------
        keys: iterable of str
            the keys
        value: any
            what each of them holds

        Returns
        -------
        ConfDict
            the configuration
        """
        return cls((key, value) for key in keys)

    def __getitem__(self, key: str) -> tp.Any:
        return nesting.lookup(self, key)

    def __setitem__(self, key: str, value: tp.Any) -> None:
        nesting.assign(self, key, value, type(self))

    def __delitem__(self, key: str) -> None:
        nesting.remove(self, key)

    def __contains__(self, key: object) -> bool:
        return self.get(tp.cast(str, key), _MISSING) is not _MISSING

    def get(self, key: str, default: tp.Any = None) -> tp.Any:
        """Return what a dotted key holds, or the default.

        Parameters
        ----------
        key: str
            names of the levels, joined by dots
        default: any
            returned where the key holds nothing
        """
        try:
            return self[key]
        except (KeyError, IndexError):
            return default

    def setdefault(self, key: str, default: tp.Any = None) -> tp.Any:
        """Return what a dotted key holds, after setting it to the default when it holds nothing.

        Parameters
        ----------
        key: str
            names of the levels, joined by dots
        default: any
            what to set where the key holds nothing
        """
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str, default: tp.Any = _MISSING) -> tp.Any:
        """Remove a dotted key and return what it held.

        Raises: KeyError when it is not there and no default is given, TypeError for an item of a list.

        Parameters
        ----------
        key: str
            names of the levels, joined by dots
        default: any
            returned where the key holds nothing; without it, that is a KeyError
        """
        if default is not _MISSING and key not in self:
            return default
        return nesting.remove(self, key)

    def update(self, mapping: Pairs | None = None, /, **kwargs: tp.Any) -> None:  # type: ignore[override]  # merges
        """Merge entries and apply operations, in order; `=replace=` at the top clears first.

        Parameters: `mapping` a mapping or (key, value) pairs; `kwargs` further entries, taken after it.
        Raises: as for setting a key.

        Parameters
        ----------
        mapping: mapping, optional
            entries, nested or with dotted keys
        kwargs: any
            further entries
        """
        for pairs in (mapping, kwargs):
            items = _items(pairs)
            if self and any(key == Ops.REPLACE for key, _ in items):
                if any(key == Ops.REPLACE and value for key, value in items):
                    self.clear()
                items = [item for item in items if item[0] != Ops.REPLACE]
            nesting.merge(self, items, type(self))

    def __or__(self, other: tp.Any) -> tp.Self:  # type: ignore[override]  # always a ConfDict
        if not isinstance(other, Mapping):
            return NotImplemented
        merged = self.copy()
        merged.update(other)
        return merged

    def __ror__(self, other: tp.Any) -> tp.Self:  # type: ignore[override]  # always a ConfDict
        if not isinstance(other, Mapping):
            return NotImplemented
        merged = type(self)(other)
        merged.update(self)
        return merged

    def __ior__(self, other: tp.Any) -> tp.Self:  # type: ignore[override]  # merges
        self.update(other)
        return self

    def copy(self) -> tp.Self:
        """Return a copy that shares no container with this one."""
        copied: tp.Self = _restore(type(self), [(key, _copied(value)) for key, value in self.items()])
        return copied

    __copy__ = copy

    def __reduce__(self) -> tuple[tp.Any, ...]:
        # not through __setitem__, which would apply operations that are still waiting for their target
        return _restore, (type(self), list(self.items()))

    def flat(self) -> dict[str, tp.Any]:
        """Return the entries as one dict with dotted keys; lists stay lists, empty mappings vanish."""
        return tp.cast(dict[str, tp.Any], nesting.flatten(self))

    def to_yaml(self, filepath: Path | str | None = None) -> str:
        """Write the configuration as YAML, levels with a single key folded into dotted keys.

        Parameters: `filepath` where to write it as well, if anywhere.
        Returns: the text.
        Raises: TypeError for a value that has no YAML form.

        Parameters
        ----------
        filepath: str or Path, optional
            file to write; without it, only the text is returned

        Returns
        -------
        str
            the YAML
        """
        text = to_text(self)
        if filepath is not None:
            Path(filepath).write_text(text, encoding="utf8")
        return text

    def to_uid(self, version: int | None = None) -> str:
        """Return the uid of the configuration, "" when it is empty.

        Parameters: `version` deprecated, below 3 for the uid that the first releases gave it.
        Raises: TypeError for a value that has no uid, ValueError for an operation that was not applied.

        Parameters
        ----------
        version: int, optional
            deprecated: leave it out
        """
        if version is not None:
            from .kept import earlier_uids

            earlier_uids.warn_of_version("ConfDict.to_uid")
            if version < earlier_uids.CURRENT:
                return earlier_uids.config_uid(self)
        return uid_text(self)


def _items(pairs: Pairs | None) -> list[tuple[str, tp.Any]]:
    if pairs is None:
        return []
    if isinstance(pairs, Mapping):
        return list(tp.cast("Mapping[str, tp.Any]", pairs).items())
    return list(pairs)


def _restore(cls: type[tp.Any], items: list[tuple[str, tp.Any]]) -> tp.Any:
    restored = dict.__new__(cls)
    for key, value in items:
        dict.__setitem__(restored, key, value)
    return restored


def _copied(value: tp.Any) -> tp.Any:
    if isinstance(value, ConfDict):
        return value.copy()
    if isinstance(value, OrderedDict):
        return OrderedDict((key, _copied(sub)) for key, sub in value.items())
    if type(value) in (list, tuple):
        return type(value)(map(_copied, value))
    return value


def _read_yaml(yaml: str | Path | tp.IO[str] | tp.IO[bytes]) -> tuple[str | bytes, str]:
    """Return the text, and the name of where it comes from."""
    if isinstance(yaml, str):
        if "\n" in yaml or not _is_file(yaml):
            return yaml, "the YAML text"
        yaml = Path(yaml)
    if isinstance(yaml, Path):
        return yaml.read_text("utf8"), str(yaml)
    if isinstance(yaml, bytes):
        return yaml, "the YAML text"
    return yaml.read(), str(getattr(yaml, "name", "the YAML file"))


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long, or a null byte: no path
        return False


if not tp.TYPE_CHECKING:
    __getattr__ = earlier_names(__name__)
