"""BaseInfra: what task, map and submit infras share."""

import collections.abc
import dataclasses
import datetime
import functools
import os
import sys
import threading
import time
import types
import typing as tp
import uuid
import weakref
from pathlib import Path

import pydantic

from .. import _files, _perclass, settings
from ..errors import ChangedConfigError, ExclusionError, InfraError
from ..identity import NotedNames, configfolder
from ..jobs.resources import JOB_FIELDS, Resources
from ..jobs.workdir import WorkDir
from . import attribute, overriding, placing
from .edge import UID_STRING, Edge, SubmititMixin

if tp.TYPE_CHECKING:
    from ..claims import FirstClaim
    from ..codedigest import CodeDigest
    from ..confdict import ConfDict
    from ..engine.code import Code
    from ..engine.method import Method
    from ..jobs.backends import Request

Exclusion = tp.Iterable[str] | tp.Callable[[tp.Any], tp.Iterable[str]] | str


class Applied:
    """The method an infra is applied to, and how."""

    def __init__(
        self, function: tp.Any, exclude: Exclusion = (), *, static: bool = False, **options: tp.Any
    ) -> None:
        self.function = function  # undecorated
        self.static = static
        self.name: str = function.__name__
        self.exclude: tp.Any = _checked_exclusion(self.name, exclude)
        self.options = options  # what else was given to the decorator
        self.wrapper: tp.Any = None
        self.token: str = uuid.uuid4().hex
        _APPLIED[self.token] = self

    def infra_of(self, obj: tp.Any, name: str) -> tp.Any:
        """The infra through which a call of the method goes.

        None where the object has none (``infra=None``), or where a child that applied one of its own calls the method
        of its parent.
        """
        infra = obj.__dict__.get(name)
        if infra is None or infra._obj is not obj or infra._infra_name != name:  # not bound yet
            infra = getattr(obj, name)
        return infra if infra is not None and infra._applied is self else None

    def __reduce__(self) -> tuple[tp.Any, ...]:
        # A class pickled by value and unpickled where it was made is updated in place (as cloudpickle does):
        # its objects must still recognise its methods.
        return _applied_of, (self.token,), self.__dict__


def _checked_exclusion(method: str, exclude: tp.Any) -> tp.Any:
    """What was given as ``exclude_from_cache_uid``, if it can be meant."""
    if callable(exclude) or (isinstance(exclude, str) and exclude.startswith("method:")):
        return exclude
    if not isinstance(exclude, str) and isinstance(exclude, collections.abc.Iterable):
        names = tuple(exclude)
        if all(isinstance(name, str) for name in names):
            return names
    raise ExclusionError(
        f"exclude_from_cache_uid={exclude!r} of {method!r} names no fields: give a list of names, a callable that "
        "returns one for an object, or 'method:<name>'"
    )


_APPLIED: "weakref.WeakValueDictionary[str, Applied]" = weakref.WeakValueDictionary()


def _applied_of(token: str) -> Applied:
    """The one of this process, or a new one to be filled."""
    applied = _APPLIED.get(token)
    if applied is None:
        applied = _APPLIED[token] = Applied.__new__(Applied)
    return applied


@dataclasses.dataclass(slots=True, eq=False)
class InfraState:
    """Run-time state of a bound infra; never copied nor pickled."""

    uid: str | None = None
    uid_config: dict[str, tp.Any] = dataclasses.field(default_factory=dict)
    exported: dict[str, tp.Any] = dataclasses.field(default_factory=dict)  # what the uid was computed from
    uid_string: str = UID_STRING
    home: Path | None = None  # the folder named after the uid
    folder: Path | None = None  # the one that is used: another where two configurations share a uid
    strict: bool = False  # whether models that ignore unknown fields were looked for
    classes: frozenset[type] | None = None  # of the models in the object
    code: tp.Any = None  # of the method (`engine.code.Code`)
    digest: str | None = None  # of that code, and until when it is believed
    digest_until: float = 0.0
    ensured: bool = False  # whether the folder is there, with its configuration files
    origin: Path | None = None  # the uid folder from which the object was made
    task: tp.Any = None  # of a task with a folder
    job: tp.Any = None  # of a task without one
    cache_dict: tp.Any = None
    forced: set[str] = dataclasses.field(default_factory=set)  # items that were computed again already
    batch: list[tp.Any] | None = None  # jobs to be sent together, while a batch is open
    lock: tp.Any = dataclasses.field(default_factory=threading.RLock)

    def __getattr__(self, name: str) -> None:
        if name != "cache_dict":  # kept for dependants, which delete it to have it opened anew
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


# kept on a class: digests by function, classes of models, roots and packages, and until when they are believed
_DIGESTS: tp.Final = "_exca_digests"
_DIGEST_SECONDS = 0.05
# a result in memory: object, method, value, when the code was compared (`_reloads.now`), and its digest
Kept = tuple[tp.Any, Applied | None, tp.Any, object, str | None]
NOTHING_KEPT: tp.Final[Kept] = (None, None, None, None, None)
_UNBOUND = (("_obj", None), ("_owner", None), ("_infra_name", ""), ("_applied", None), ("_ram", NOTHING_KEPT))


class BaseInfra(Edge, SubmititMixin):
    """Base of all infras: a configuration of where and how a method of a configuration runs.

    Parameters
    ----------
    version: str
        part of the address of results: change it when the method changes meaning
    workdir: WorkDir, optional
        copy of code in which jobs run, so that later edits do not reach them
    code: str
        what a cached result means whose code (the method, and what it reaches in the project) is another one today:
        "warn" (it is returned, with a `CodeChangedWarning`), "strict" (it does not count, and is computed again), "off"
        (code is neither recorded nor compared)
    code_roots: tuple of str
        folders, and names of installed packages, whose code counts; by default all that is not installed, and the
        package of the class
    code_packages: tuple of str
        names of installed packages whose version counts
    """

    _exca_new_fields: tp.ClassVar[tuple[str, ...]] = (
        *("code", "code_roots", "code_packages", "slurm_signal_delay_s"),
        *JOB_FIELDS,
        *("futures_executor", "dask_address", "dask_cluster"),
    )
    _exca_earlier_values: tp.ClassVar[dict[str, tuple[str | None, ...]]] = {
        "cluster": (None, "auto", "local", "slurm", "debug", "threadpool", "processpool")
    }
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ()
    # slots: reading pydantic's private attributes takes a microsecond, and a cached call reads several
    __slots__ = ("_applied", "_infra_name", "_obj", "_owner", "_ram", "_state")
    if tp.TYPE_CHECKING:  # no annotations, which type checkers would take for fields
        _obj = tp.cast(tp.Any, None)  # the object it is bound to
        _owner = tp.cast(tp.Any, None)  # the class on which it was placed
        _infra_name = ""
        _applied = tp.cast(Applied | None, None)
        _ram = tp.cast(Kept, None)
        _state = tp.cast(InfraState, None)

    workdir: WorkDir | None = None
    version: str = "0"
    code: tp.Literal["off", "warn", "strict"] = "warn"
    code_roots: tuple[str, ...] = ()
    code_packages: tuple[str, ...] = ()

    @pydantic.field_validator("version")
    @classmethod
    def _check_version(cls, version: str) -> str:
        if ".." in version or "/" in version or "\\" in version:
            raise ValueError(
                f"version={version!r} becomes part of a folder's name: it may hold no '..' and no slash"
            )
        return version

    def __new__(cls, *args: tp.Any, **kwargs: tp.Any) -> "tp.Self":
        """Make an infra that belongs to no object yet."""
        self = super().__new__(cls)
        fill = object.__setattr__
        for name, value in _UNBOUND:
            fill(self, name, value)
        fill(self, "_state", InfraState())
        return self

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: tp.Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls._exclude_from_cls_uid = tuple(name for name in cls.__pydantic_fields__ if name != "version")

    # ---------------------------------------------------------------- placing and binding

    def __set_name__(self, owner: type, name: str) -> None:
        self._infra_name = name
        attribute.place(owner, name, self)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: tp.Any, handler: tp.Any) -> tp.Any:
        attribute.place_waiting()
        maker = getattr(handler, "_generate_schema", None)  # of pydantic, which has no public name for it
        owner = None if maker is None else maker.model_type_stack.get()
        if owner is not None and isinstance(source, type):
            placing.refuse_containers(owner, BaseInfra)
        return handler(source)

    def _check_placed(self, owner: tp.Any, name: str) -> None:
        """Check the field or private attribute whose default this is, once pydantic knows the fields of its class."""
        placing.refuse_containers(owner, BaseInfra)
        placing.refuse_other_kind(owner, name, self, BaseInfra)

    def _register(self, applied: Applied, wrapper: tp.Any) -> None:
        """Note the method this infra is applied to."""
        if self._applied is not None:
            raise InfraError(
                f"{type(self).__name__} is already applied to {self._applied.name!r}, so not to {applied.name!r} too: "
                "give each method an infra of its own"
            )
        placing.refuse_coroutine(self, applied.function)
        applied.wrapper = wrapper
        self._applied = applied

    def _unbound_copy(self) -> "tp.Self":
        """A copy with the same fields that belongs to no object and has no run-time state."""
        cls = type(self)
        new = cls.__new__(cls)
        object.__setattr__(new, "__dict__", self.__dict__.copy())
        object.__setattr__(new, "__pydantic_fields_set__", self.__pydantic_fields_set__.copy())
        object.__setattr__(new, "__pydantic_extra__", None)
        object.__setattr__(new, "__pydantic_private__", None)
        return new

    def __copy__(self) -> "tp.Self":
        return self._unbound_copy()

    def __deepcopy__(self, memo: dict[int, tp.Any] | None = None) -> "tp.Self":
        return self._unbound_copy()

    def __getstate__(self) -> dict[tp.Any, tp.Any]:
        state = super().__getstate__()
        fields = state["__dict__"]
        if fields["folder"] is not None:  # a job may run in another directory, and means the same folder
            folder = os.path.abspath(fields["folder"])
            state = {**state, "__dict__": {**fields, "folder": type(fields["folder"])(folder)}}
        if self._obj is None:  # the default on a class, which travels when a class is pickled by value
            state = {**state, "default": (self._infra_name, self._applied)}
        if self._state.uid_string != UID_STRING:
            state = {**state, "uid_string": self._state.uid_string}
        return state

    def __setstate__(self, state: dict[tp.Any, tp.Any]) -> None:
        attribute.place_waiting()
        super().__setstate__(state)
        if "default" in state:
            self._infra_name, self._applied = state["default"]
        if "uid_string" in state:
            self._state.uid_string = state["uid_string"]

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment] # mutable, as every pydantic model

    def __repr_args__(self) -> tp.Iterator[tuple[str | None, tp.Any]]:
        for name, field in type(self).__pydantic_fields__.items():
            value = self.__dict__.get(name)
            if value != field.default:
                yield name, value

    def _repr_html_(self) -> str | None:
        """For notebooks: nothing is frozen, submitted or written by it."""
        from .. import _notebook

        if self._obj is None or self._applied is None:
            return None
        known: list[tuple[str, tp.Any]] = [(str(name), value) for name, value in self.__repr_args__()]
        if self._state.uid is None:
            known.append(("uid", "not computed yet: the object can still be changed"))
        else:
            known += [("uid", self._state.uid), *self._known_of_results()]
        return _notebook.card(f"{type(self).__name__} of {self._factory()}", _notebook.pairs(known))

    def _known_of_results(self) -> list[tuple[str, str]]:
        """What is said of the results in a notebook."""
        return []

    def _repr_mimebundle_(self, **_: tp.Any) -> dict[str, str] | None:
        from .. import _notebook

        return _notebook.bundle(repr(self), self._repr_html_())

    def __setattr__(self, name: str, value: tp.Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
            return
        if self._state.uid is not None:
            raise InfraError(
                f"cannot set {name}={value!r} on {self._infra_name!r} of {type(self._obj).__qualname__}: "
                "its uid was computed, so it is frozen; "
                f"make an unfrozen copy with clone_obj({{'{self._infra_name}.{name}': {value!r}}})"
            )
        super().__setattr__(name, value)

    def _check_bound(self) -> None:
        """Check the fields once they are merged with the default on the class."""
        self.check_resources()
        if self.workdir is not None and self.folder is None and self.workdir.folder is None:
            raise ValueError("workdir needs a folder to copy into: set infra.folder or workdir.folder")

    def _run_queued(self, args: tuple[tp.Any, ...], kwargs: dict[str, tp.Any]) -> tp.Any:
        from ..kept.queued import run_call

        return run_call(self, args, kwargs)

    # ---------------------------------------------------------------- identity

    @property
    def _bound(self) -> tuple[tp.Any, Applied]:
        if self._obj is not None and self._applied is not None:
            return self._obj, self._applied
        raise InfraError(
            f"this {type(self).__name__} belongs to no object: place it on a class, apply it to a method "
            "and read it from an instance of the class"
        )

    def _require_own_method(self, asked: str) -> None:
        """Refuse a question about the method where the object has another one, without an infra."""
        obj, applied = self._bound
        cls = type(obj)
        if getattr(cls, applied.name, None) is applied.wrapper:
            return
        attributes = attribute.infra_attributes(cls)
        by = overriding.overriding_class(cls, applied, attributes)
        if by is not None:
            name = self._infra_name
            error = overriding.of_another_method(asked, by, name, attributes[name])
            settings.complain("plain-override", error, by, cls)

    def _is_kept(self) -> bool:
        """Whether what the method returns is kept: it is the object's, or what it returns for the parent's objects."""
        obj, applied = self._bound
        if getattr(type(obj), applied.name, None) is applied.wrapper:
            return True
        return overriding.is_lent(type(obj), self._owner, applied)

    def _excluded(self, obj: tp.Any, applied: Applied) -> tuple[str, ...]:
        """Fields of the object that do not count for the cache."""
        exclude = applied.exclude
        if isinstance(exclude, str):
            name = exclude.removeprefix("method:")
            if not hasattr(obj, name):
                raise InfraError(
                    f"exclude_from_cache_uid={exclude!r} of {applied.name!r} asks for a method that "
                    f"{type(obj).__qualname__} does not have: define {name!r}, or name one that is there"
                )
            return tuple(getattr(obj, name)())
        return tuple(exclude(obj))

    def config(self, uid: bool = True, exclude_defaults: bool = False) -> "ConfDict":
        """Export the configuration of the object.

        Parameters
        ----------
        uid: bool
            keep only what makes the address of the result (all but what is excluded)
        exclude_defaults: bool
            leave out what equals its default

        Returns
        -------
        ConfDict
            the nested configuration, in JSON types
        """
        from ..confdict import ConfDict

        return ConfDict(self._export(uid, exclude_defaults))

    def _export(self, uid: bool = True, exclude_defaults: bool = False) -> dict[str, tp.Any]:
        from ..identity.export import export

        obj, applied = self._bound
        exclude = applied.exclude if uid else ()
        if type(exclude) is not tuple:  # names of fields are the common case
            exclude = self._excluded(obj, applied)
        return export(obj, uid=uid, exclude_defaults=exclude_defaults, exclude=exclude)

    def _factory(self) -> str:
        """Name of the method and its version: first part of every address."""
        obj, applied = self._bound
        cls = self._factory_class(obj, applied)
        return f"{cls.__module__}.{cls.__qualname__}.{applied.name},{self.version}"

    def _factory_class(self, obj: tp.Any, applied: Applied) -> type:
        """The class by which the method is addressed."""
        if getattr(type(obj), applied.name, None) is applied.wrapper:
            return type(obj)
        # overridden by a plain method: the results are those of the decorated one
        return tp.cast(type, self._owner)

    def uid(self) -> str:
        """The address of the result below the folder; freezes the object.

        Returns
        -------
        str
            ``<module>.<Class>.<method>,<version>/<text>-<hash>``, or ``.../default`` where nothing was changed
        """
        state = self._state
        if state.uid is None:
            from ..identity.freezing import freeze
            from ..identity.uid import uid_text

            state.uid_config = state.exported = self._export(uid=True, exclude_defaults=True)
            freeze(self._obj)
            text = uid_text(state.uid_config) or "default"
            if state.origin is not None:
                text = self._uid_in_origin(text)
            state.uid = self._address(text)
        return state.uid

    def _require_strict(self) -> None:
        """Refuse models that ignore unknown fields, as a uid does, where there is no folder and no uid is needed."""
        from .. import identity

        if not self._state.strict:
            obj, applied = self._bound
            identity.check_strict(obj, applied.exclude if type(applied.exclude) is tuple else ())
            self._state.strict = True

    def _require_unchanged(self) -> None:
        """Check that the object still is what its uid was computed from: a list in it can be changed."""
        from .. import identity

        if self.folder is None or not identity.holds_containers(self._obj):
            return
        self.uid()
        before, now = self._state.exported, self._export(uid=True, exclude_defaults=True)
        if now != before and identity.uid_text(now) != identity.uid_text(before):
            names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
            cls = type(self._obj)
            raise ChangedConfigError(
                f"{', '.join(names)} of {cls.__module__}.{cls.__qualname__} changed after the uid was in use, so "
                f"nothing is stored under {self.uid()}: change a copy made by clone_obj instead"
            )

    def _uid_in_origin(self, text: str) -> str:
        """The uid under which `iter_cached` found the object, where a default changed since and it did not."""
        from . import iterating

        state = self._state
        origin = tp.cast(Path, state.origin)
        if origin.name == text or origin.name.startswith(f"{text}-"):
            return text
        uid_config = iterating.uid_config_of(origin, self._export(uid=True))
        if uid_config is None:
            return text
        state.uid_config = uid_config
        return origin.name

    def _address(self, uid: str) -> str:
        """The address of a result below the folder, or of all results of the method for an empty uid."""
        method, _, version = self._factory().rpartition(",")
        return self._state.uid_string.format(method=method, version=version, uid=uid).rstrip("/")

    def _method_folder(self) -> Path | None:
        if self.folder is None:
            return None
        return Path(_files.name_root(os.path.abspath(self.folder))) / self._address("")

    def uid_folder(self, create: bool = False) -> Path | None:
        """Return the folder of the result, or None for an infra without folder.

        Parameters
        ----------
        create: bool
            make the folder and write the configuration files into it

        Raises
        ------
        RuntimeError
            if the folder holds another configuration, or a default changed under the results in it
        """
        if self.folder is None:
            return None
        state = self._state
        if state.ensured or (state.folder is not None and not create):
            return state.folder
        return self._ensure_folder(create)

    def _ensure_folder(self, create: bool, first_claim: "FirstClaim | None" = None) -> Path:
        """Find or make the uid folder, and check that it is this configuration's."""
        state = self._state
        assert self.folder is not None
        on_miss = None
        if state.home is None:  # absolute, since the method may change the current directory
            state.home = Path(f"{_files.name_root(os.path.abspath(self.folder))}/{self.uid()}")
            on_miss = self._under_earlier_default if state.uid_config and state.origin is None else None
        home = state.home
        if create:
            self._require_unchanged()
        obj, applied = self._obj, tp.cast(Applied, self._applied)
        own = getattr(type(obj), applied.name, None) is applied.wrapper
        full = functools.partial(self._export, True) if own else self._export_full
        names = NotedNames(self._class_names) if create else None
        state.folder = configfolder.ensure_config_folder(
            state.home,
            uid_config=state.uid_config,
            full_uid_config=full,
            config=self._whole,
            create=create,
            first_claim=first_claim,
            on_miss=on_miss,
            names=names,
        )
        if create and state.home != home:
            return self._ensure_folder(create)  # there is one from under an earlier default
        if names is not None:
            names.add_to(str(state.folder))
        state.ensured = create
        return state.folder

    def _class_names(self) -> dict[str, list[str]]:
        """The whole names of the classes of which the uid has the bare names."""
        from .. import identity

        obj, applied = self._bound
        exclude = applied.exclude if type(applied.exclude) is tuple else self._excluded(obj, applied)
        return identity.class_names(obj, exclude=exclude)

    def _export_full(self) -> dict[str, tp.Any]:
        """The uid configuration with the defaults, of which a parent whose result it is knows nothing but its own."""
        obj, applied = self._bound
        full = self._export(uid=True)
        cls: tp.Any = self._factory_class(obj, applied)
        known = full if cls is type(obj) else {*cls.__pydantic_fields__, *self._state.uid_config}
        return {name: value for name, value in full.items() if name in known}

    def _under_earlier_default(self) -> Path | None:
        """The folder of this configuration under a default that has changed since, if there is one."""
        from .. import identity

        state = self._state
        root = _files.name_root(os.path.abspath(tp.cast(Path, self.folder)))
        made: tp.Any = {}  # the places differ in a value each
        place = self._address("\0")
        found = configfolder.under_earlier_default(
            state.uid_config,
            self._export_full,
            lambda config: f"{root}/{place.replace(chr(0), identity.uid_text(config, made) or 'default')}",
        )
        if found is None:
            return None
        state.home, state.uid_config = found
        return state.home

    def _whole(self) -> tuple[dict[str, tp.Any], dict[str, tp.Any]]:
        """The whole configuration, and apart from it the fields that release 0.6 would refuse."""
        from .. import identity

        return identity.export_readable(self._obj)

    def _folder_now(self) -> Path:
        """Make the uid folder of the object as it is now, without freezing it."""
        from .. import identity

        method_folder = self._method_folder()
        assert method_folder is not None
        uid_config = self._export(uid=True, exclude_defaults=True)
        return configfolder.ensure_config_folder(
            method_folder / (identity.uid_text(uid_config) or "default"),
            uid_config=uid_config,
            full_uid_config=lambda: self._export(uid=True),
            config=self._whole,
        )

    # ---------------------------------------------------------------- other objects

    def clone_obj(self, *args: dict[str, tp.Any], **kwargs: tp.Any) -> tp.Any:
        """Make a new, unfrozen object with some fields changed, validated as any other.

        Parameters
        ----------
        *args: dict
            changes by (dotted) field name, e.g. ``{"model.layers": 12}``
        **kwargs: Any
            changes by field name

        Returns
        -------
        Any
            object of the same class
        """
        from .. import identity

        obj, _ = self._bound
        new = type(obj)(**identity.as_patched(obj, (*args, kwargs)))
        for name, attr in attribute.infra_attributes(type(obj)).items():
            if attr.private:
                infra = getattr(obj, name)
                attr.__set__(new, None if infra is None else infra._unbound_copy())
        return new

    def iter_cached(self) -> tp.Iterator[tp.Any]:
        """Go through all configurations with an outcome in the cache of this method.

        A folder that does not fit the class (any more) is skipped, and reported once. Where the configuration may have
        been written by a user who is not trusted, everything about how jobs run is taken from this infra.

        Returns
        -------
        iterator
            objects of the same class, with the folder of this infra
        """
        from .iterating import objects_in

        self._bound  # noqa: B018 # raises where there is no object
        folder = self._method_folder()
        return iter(()) if folder is None else objects_in(folder, self)

    def _has_outcome(self, folder: Path) -> bool:
        """Whether a folder of the method holds more than a configuration."""
        return True

    def obj_infras(self) -> dict[str, "BaseInfra"]:
        """Every infra in the object and its sub-configurations.

        Returns
        -------
        dict
            infras by dotted path
        """
        from ..utils import find_models

        obj, _ = self._bound
        return find_models(obj, BaseInfra)

    def _job_name(self) -> str:
        """Name of a job in the scheduler: the one that was set, or the address, so that jobs can be told apart."""
        return self.job_name or self._title(self.uid())

    def _title(self, address: str) -> str:
        """An address without the module, and its class without what that is nested in."""
        cls = self._factory_class(*self._bound)
        return cls.__name__ + address.removeprefix(f"{cls.__module__}.{cls.__qualname__}")

    def _logs_folder(self) -> Path:
        """Folder of a job's logs, with ``%j`` where the job's id goes."""
        method_folder = self._method_folder()
        assert method_folder is not None, "only infras with a folder have logs"
        return Path(str(self.logs).format(folder=method_folder, user=_files.user_name())).absolute()

    def _code_folder(self) -> Path:
        """A new place for a copy of the code that jobs run on."""
        now = datetime.datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        method_folder = self._method_folder()
        assert method_folder is not None, "submission needs a folder"
        return method_folder / "code" / f"{now}-{uuid.uuid4().hex[:6]}"

    def _digest(self) -> "CodeDigest | None":
        """The digest of the method's code; None where code is not compared, or it cannot be told."""
        if self.code == "off" or self.folder is None:
            return None
        state, (obj, applied) = self._state, self._bound
        if state.classes is None:
            from ..identity.freezing import classes_in

            self.uid()
            state.classes = classes_in(obj)
        # of a configuration of a function: what that calls
        function = getattr(type(obj), "_exca_function", applied.function)
        key = (function, state.classes, self.code_roots, self.code_packages)
        digests = type(obj).__dict__.get(_DIGESTS)
        known: tuple[CodeDigest | None, float] | None = None if digests is None else digests.get(key)
        if known is not None and time.monotonic() < known[1]:
            now, state.digest_until = known
            state.digest = None if now is None else now.digest
            return now
        from ..codedigest import digest_of

        cls = self._factory_class(obj, applied)
        now = None
        try:
            now = digest_of(cls, function, extra_classes=key[1], roots=key[2], packages=key[3])
        except Exception as e:  # of code of any kind: to compute counts more
            from ..engine.code import cannot_tell

            cannot_tell(f"{cls.__qualname__}.{applied.name}", e)
        if now is not None and not now.digest:
            now = None  # code that cannot be looked at
        # what is typed into an interpreter changes at any moment, modules when they are reloaded
        main = sys.modules.get("__main__")
        typed = not hasattr(main, "__file__") and any(
            each.__module__ == "__main__" for each in (*cls.__mro__, *key[1])
        )
        _perclass.kept(type(obj), _DIGESTS)[key] = now, 0.0 if typed else time.monotonic() + _DIGEST_SECONDS
        return now

    @property
    def _method(self) -> "Method":
        return _BoundMethod(self)


class _BoundMethod:
    """The method of an object, with its infra, as the engine sees it (an ``engine.method.Method``)."""

    __slots__ = ("_applied", "_infra", "obj", "resources")

    def __init__(self, infra: BaseInfra) -> None:
        self._infra = infra
        self.obj, self._applied = infra._bound
        self.resources: Resources = infra

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return _method_of, (self.obj, self._infra._infra_name)

    @property
    def name(self) -> str:
        return f"{type(self.obj).__qualname__}.{self._applied.name}"

    @property
    def family(self) -> str:
        return self._infra._factory()

    @property
    def uid(self) -> str:
        return self._infra.uid()

    @property
    def title(self) -> str:
        return self._infra._title(self._infra.uid())

    @property
    def config(self) -> dict[str, tp.Any]:
        return self._infra._state.exported

    @property
    def code(self) -> "Code | None":
        infra, now = self._infra, self._infra._digest()
        if now is None:
            return None
        known = infra._state.code
        if known is None or known.now is not now or known.policy != infra.code:
            from ..engine.code import Code

            known = infra._state.code = Code(now, infra.code, self)
        return tp.cast("Code", known)

    @property
    def digest(self) -> str | None:
        state = self._infra._state
        if time.monotonic() < state.digest_until:
            return state.digest
        now = self._infra._digest()
        return None if now is None else now.digest

    @property
    def policy(self) -> str:
        return self._infra.code

    @property
    def infra_name(self) -> str:
        return self._infra._infra_name

    @property
    def mode(self) -> str:
        return tp.cast(str, tp.cast(tp.Any, self._infra).mode)

    @property
    def keeps(self) -> bool:
        return self._infra.folder is not None or tp.cast(bool, tp.cast(tp.Any, self._infra).keep_in_ram)

    @property
    def folder(self) -> Path:
        infra = self._infra
        if infra.folder is None:
            return tp.cast(Path, None)  # of a map that keeps results in memory only
        return infra._state.folder or infra._ensure_folder(create=False)

    def full_config(self) -> dict[str, tp.Any]:
        return self._infra._export(uid=False)

    def class_names(self) -> dict[str, list[str]]:
        return self._infra._class_names()

    @property
    def home(self) -> Path:
        return tp.cast(Path, self._infra._method_folder())

    @property
    def logs(self) -> Path:
        return self._infra._logs_folder()

    def call(self, *args: tp.Any, **kwargs: tp.Any) -> tp.Any:
        own = () if self._applied.static else (self.obj,)
        return self._applied.function(*own, *args, **kwargs)

    def freeze(self) -> None:
        self._infra.uid()

    def make_folder(self, first_claim: "FirstClaim | None" = None) -> Path:
        if first_claim is None:
            return tp.cast(Path, self._infra.uid_folder(create=True))
        return self._infra._ensure_folder(create=True, first_claim=first_claim)

    def require_unchanged(self) -> None:
        self._infra._require_unchanged()

    def request(
        self,
        calls: list[tp.Callable[[], tp.Any]],
        *,
        max_workers: int,
        resources: Resources | None = None,
        name: str = "",
        tag: str = "",
        workdir: Path | None = None,
    ) -> "Request":
        from ..jobs.backends import Request

        infra = self._infra
        if infra.workdir is not None and workdir is None:
            workdir = infra.workdir.prepare(infra._code_folder())
        resources = resources or infra
        name = resources.job_name or name or infra._title(infra._factory())
        parameters = infra._launcher_parameters()
        return Request(calls, resources, str(self.logs), name, max_workers, workdir, tag, parameters)


def method_of(infra: BaseInfra) -> "Method":
    """The method of an infra of an object, as the engine sees it."""
    return infra._method


def _method_of(obj: tp.Any, infra_name: str) -> _BoundMethod:
    """What a pickled method is made of again."""
    return _BoundMethod(getattr(obj, infra_name))


def wrap(function: tp.Any, call: tp.Callable[..., tp.Any]) -> tp.Any:
    """Give the function that stands in for a method the method's name, docstring and signature."""
    for name in ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__", "__type_params__"):
        if hasattr(function, name):
            setattr(call, name, getattr(function, name))
    call.__wrapped__ = function  # type: ignore[attr-defined] # as functools.wraps does
    call.fget = None  # type: ignore[attr-defined] # kept for jobs that 0.6 queued, which name it
    assert isinstance(call, types.FunctionType)
    return call
