"""What published packages reach for on infras beyond their documented methods: kept for dependants."""

import contextlib
import typing as tp
from pathlib import Path

import pydantic

from ..errors import InfraError
from ..jobs.resources import Resources

if tp.TYPE_CHECKING:
    from ..kept.infras import InfraMethod
    from .base import BaseInfra

UID_STRING = "{method},{version}/{uid}"


class SubmititMixin(Resources):
    """Resources that make a submitit executor; launchers replace its method on the class."""

    def executor(self) -> tp.Any:
        """The submitit executor with these resources, or None where nothing is submitted.

        Returns
        -------
        submitit.AutoExecutor or None
        """
        infra = tp.cast("BaseInfra", self)
        if infra.cluster is None or infra.folder is None:
            return None
        from ..jobs.slurm import make_executor

        return make_executor(infra, infra._logs_folder(), name=infra._job_name())

    def _launcher_parameters(self) -> dict[str, tp.Any]:
        """What a launcher that replaced `executor` sets otherwise than we would, by submitit's names."""
        if type(self).executor is _EXECUTOR:
            return {}
        theirs, ours = self.executor(), _EXECUTOR(self)
        if theirs is None or ours is None:
            return {}
        before, after = _parameters(ours), _parameters(theirs)
        return {name: value for name, value in after.items() if name not in before or before[name] != value}


_EXECUTOR = SubmititMixin.executor


def _parameters(executor: tp.Any) -> dict[str, tp.Any]:
    return dict(getattr(executor, "_executor", executor).parameters)


def call_method(infra: "BaseInfra", *args: tp.Any, **kwargs: tp.Any) -> tp.Any:
    """Call the method of an infra as its object's class has it, through the cache."""
    obj, applied = infra._bound
    return applied.wrapper(obj, *args, **kwargs)


class Edge:
    """Private attributes of infras in the published releases, as far as published packages use them."""

    __slots__ = ()

    @property
    def _infra_method(self) -> "InfraMethod | None":
        """The method it is applied to: ``.method``, ``.infra_name``, ``.exclude_from_cache_uid``."""
        from ..kept.infras import described

        infra = tp.cast("BaseInfra", self)
        return None if infra._applied is None else described(infra._applied, infra._infra_name)

    def _method_override(self, *args: tp.Any, **kwargs: tp.Any) -> tp.Any:
        """Call the method as its object's class has it, through the cache."""
        return call_method(tp.cast("BaseInfra", self), *args, **kwargs)

    def _log_path(self) -> Path:
        """Folder of a job's logs, with ``%j`` where the job's id goes."""
        infra = tp.cast("BaseInfra", self)
        if infra.folder is None:
            raise InfraError(f"No folder specified: {infra!r} has no logs, set folder=... on it")
        return infra._logs_folder()

    @contextlib.contextmanager
    def _work_env(self) -> tp.Iterator[None]:
        """Work inside a fresh copy of the code, where the infra has a workdir."""
        infra = tp.cast("BaseInfra", self)
        if infra.workdir is None:
            yield
            return
        with infra.workdir.activate(infra._code_folder()):
            yield

    @property
    def _uid_string(self) -> str:
        """How method, version and uid make the address of a result."""
        return tp.cast("BaseInfra", self)._state.uid_string

    @_uid_string.setter
    def _uid_string(self, text: str) -> None:
        import string

        infra = tp.cast("BaseInfra", self)
        names = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
        if names != {"method", "version", "uid"}:
            raise InfraError(
                f"_uid_string={text!r} of {infra!r} should hold exactly {{method}}, {{version}} and {{uid}}: "
                f"write it like {UID_STRING!r}"
            )
        if infra._state.uid is not None:
            raise InfraError(f"_uid_string={text!r} comes too late for {infra!r}: its uid was computed")
        infra._state.uid_string = text

    def _update(self, mapping: tp.Any = None, **kwargs: tp.Any) -> None:
        """Set fields, also those of an infra whose uid was computed.

        Parameters
        ----------
        mapping: infra, mapping or pairs, optional
            fields by name; of an infra those that were set
        **kwargs: Any
            further fields
        """
        infra = tp.cast("BaseInfra", self)
        if isinstance(mapping, Edge):
            given = tp.cast("BaseInfra", mapping)
            mapping = {name: getattr(given, name) for name in given.__pydantic_fields_set__}
        fields = {**dict(mapping or {}), **kwargs}
        unknown = [name for name in fields if name not in type(infra).__pydantic_fields__]
        if unknown:
            raise ValueError(f'"{type(infra).__name__}" object has no field "{unknown[0]}"')
        for name, value in fields.items():  # past the check that refuses it once there is a uid
            pydantic.BaseModel.__setattr__(infra, name, value)
        if infra._state.uid is not None and not fields.keys().isdisjoint(("folder", "version")):
            infra._state = type(infra._state)()  # another address: nothing that is known holds for it
