"""Jobs that an earlier release queued and that start under this one. Kept for jobs in flight during an upgrade.

The pickle of such a job names functions and classes of the release that wrote it. Those of tasks, maps and
submitted calls whose class is in a module are resolved to what is here, and the job computes as if it were called
in this process: under a claim, with its outcome published. All others (classes of ``__main__``, steps) hold too much
of that release's inside; their first name is answered with an error that asks to submit again.
"""

import typing as tp

from ..errors import SubmissionError
from ..infra.base import method_of
from ..infra.edge import Edge
from ..utils import FrozenSetattr

if tp.TYPE_CHECKING:
    import pydantic


# by module: names of run-time state that means nothing here, and names that only jobs hold which cannot be run here
_STATE = {
    "exca.base": ("Sentinel", "_BaseInfraState"),
    "exca.map": ("_MapInfraState",),
    "exca.task": ("_TaskInfraState",),
}
_UNREADABLE = {"exca.base": ("_InfraMethodPickler",), "exca.steps.backends": ("_multi_run_and_cache",)}


def answer(module: str, name: str) -> tp.Any:
    """Answer for a name that only pickled jobs of an earlier release hold (a module's ``__getattr__``).

    Raises a SubmissionError for a job that cannot be run here.
    """
    if name in _STATE.get(module, ()):
        return FrozenSetattr
    if name in _UNREADABLE.get(module, ()):
        # no AttributeError, which pickle would replace by one that does not tell what to do
        raise SubmissionError(
            f"this job was submitted by an earlier release of exca and cannot be run by this one (it needs {module}."
            f"{name}): submit it again, by calling its method or step once more"
        )
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


def run_call(infra: tp.Any, args: tuple[tp.Any, ...], kwargs: dict[str, tp.Any]) -> tp.Any:
    """Run what an earlier release queued for a method, and return what the method returns."""
    obj, infra = _revived(infra)
    return _method(obj, infra)(*args, **kwargs)


def run_items(infra: tp.Any, items: tp.Iterable[tp.Any], keep: bool) -> dict[str, tp.Any]:
    """Compute what an earlier release queued for some items of a map; those that are not kept are returned by uid."""
    items = list(items)
    obj, infra = _revived(infra)
    results = _method(obj, infra)(items)
    if keep:
        return {}  # they were stored when the method was called
    return dict(zip(infra.item_uid.of_all(items), results, strict=True))


def _method(obj: tp.Any, infra: tp.Any) -> tp.Callable[..., tp.Any]:
    method: tp.Callable[..., tp.Any] = getattr(obj, method_of(infra).name.rpartition(".")[2])
    return method


def _revived(pickled: tp.Any) -> tuple[tp.Any, tp.Any]:
    """The object of a pickled infra and its infra as this release knows them, to be computed in this process."""
    state = pickled.__pydantic_private__
    obj, name = state["_obj"], state["_infra_name"]
    _tidy(obj, set())
    infra = getattr(obj, name)
    vars(infra)["cluster"] = None
    vars(infra)["workdir"] = None  # the job runs in its copy already
    return obj, infra


def _tidy(value: tp.Any, seen: set[int]) -> None:
    """Take marks of the earlier release out of an object and all it holds, and add the fields it did not know."""
    import pydantic

    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, pydantic.BaseModel):
        _tidy_model(value)
        for part in list(value.__dict__.values()):
            _tidy(part, seen)
    elif isinstance(value, dict):
        for part in value.values():
            _tidy(part, seen)
    elif isinstance(value, (list, tuple, set)):
        for part in value:
            _tidy(part, seen)


def _tidy_model(model: "pydantic.BaseModel") -> None:
    fields = type(model).__pydantic_fields__
    content: dict[str, tp.Any] = vars(model)  # pyright: ignore[reportAssignmentType] # an object's, so a dict
    for name in [n for n in content if n not in fields and (n[0] == "#" or n == "_setattr_handler")]:
        del content[name]
    if isinstance(model, Edge):
        for name in [n for n in content if n not in fields]:
            del content[name]
        for name, field in fields.items():
            if name not in content:
                content[name] = field.get_default(call_default_factory=True)
        object.__setattr__(model, "__pydantic_private__", None)
