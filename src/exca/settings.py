"""What this release refuses although earlier ones let it pass, and the switch that makes each of it a warning.

Each refusal has a code, which its message and its error (``error.code``) name. A code is allowed for the process, or
for one class and those derived from it, by `allow` or by the environment variable ``EXCA_ALLOW``: codes with commas
between them, each ``code`` or ``code:module.Class``, or ``all``. `allow` writes to that variable, so that the jobs and
processes that this one starts allow the same.
"""

import os
import typing as tp

from ._callers import warn
from .errors import RefusalWarning

VARIABLE: tp.Final = "EXCA_ALLOW"
EVERYTHING: tp.Final = "all"

#: All refusals by their codes, with what each is about.
REFUSALS: tp.Final[dict[str, str]] = {
    "async-method": "an infra is applied to an `async def`, which returns a coroutine in place of a result",
    "extra-fields": "without a folder, or an infra: a model in the object does not say what to do with unknown fields",
    "generator-method": "a `TaskInfra` is applied to a method that yields, which returns a generator, not a result",
    "infra-in-container": "infras are in a list, tuple, set or dict of a field, where they belong to no object",
    "infra-kind": "the default of a field is an infra of another class than the field is annotated with",
    "look-alike": "a field holds a model of a child class that nothing in the uid tells from the declared class",
    "lossy-item-uid": "`item_uid` names an item by a text that leaves out values, or by its place in memory",
    "other-class": "what is cached is of a class of another module or script that has the same name, and other code",
    "plain-override": "an infra is asked about a method that a child class overrides without an infra",
}

_warned: set[str] = set()  # texts


def allow(code: str, cls: type | str | None = None) -> None:
    """Let a refusal be a warning, here and in the jobs and processes started from now on.

    Parameters
    ----------
    code: str
        code of the refusal, or "all"
    cls: type or str, optional
        only for this class and those derived from it; as "module.Class" for one that is yet to be made

    Raises
    ------
    ValueError
        if no refusal has this code
    """
    entry = _entry(code, cls)
    entries = _entries()
    if entry not in entries:
        os.environ[VARIABLE] = ",".join([*entries, entry])


def refuse(code: str, cls: type | str | None = None) -> None:
    """Take back what `allow` was called with.

    Parameters
    ----------
    code: str
        code of the refusal, or "all"
    cls: type or str, optional
        the class for which it was allowed

    Raises
    ------
    ValueError
        if no refusal has this code
    """
    gone = _entry(code, cls)
    rest = [entry for entry in _entries() if entry != gone]
    os.environ[VARIABLE] = ",".join(rest)
    if not rest:
        del os.environ[VARIABLE]


def is_allowed(code: str, *classes: type | str) -> bool:
    """Whether a refusal is a warning.

    Parameters
    ----------
    code: str
        code of the refusal
    *classes: type or str
        the classes that it is about: one of them is enough

    Returns
    -------
    bool
        whether it is allowed for the process or for one of the classes
    """
    entries = _entries()
    for unknown in {entry.partition(":")[0] for entry in entries} - {*REFUSALS, EVERYTHING}:
        _warn_once(f"{VARIABLE} allows {unknown!r}, which is no refusal of this release: remove it", "")
    if not entries:
        return False
    names = ["", *(f":{name}" for cls in classes for name in _names(cls))]
    return any(f"{allowed}{name}" in entries for allowed in (code, EVERYTHING) for name in names)


def complain(code: str, error: Exception, *classes: type | str) -> None:
    """Raise an error with a code, or warn once with its text where that is allowed.

    Parameters
    ----------
    code: str
        code of the refusal
    error: Exception
        what to raise; its class has a `code`
    *classes: type or str
        the classes that it is about, the first of them the one to name in the advice

    Raises
    ------
    Exception
        the error that was given, where its code is not allowed
    """
    assert code in REFUSALS, code
    if is_allowed(code, *classes):
        _warn_once(f"{error} [{code}: allowed by {VARIABLE}]", code)
        return
    allowing = f"exca.settings.allow({code!r}"
    named = f", or for one class by {allowing}, {_names(classes[0])[0]!r})" if classes else ""
    advice = f"This is a warning with {VARIABLE}={code} in the environment or after {allowing}){named}."
    error.args = (f"{error}\n[{code}] {advice}",)
    error.code = code  # type: ignore[attr-defined] # of all errors that refuse something
    raise error


def _warn_once(text: str, code: str) -> None:
    if text not in _warned:
        _warned.add(text)
        warning = RefusalWarning(text)
        warning.code = code
        warn(warning)


def _entries() -> list[str]:
    return [entry.strip() for entry in os.environ.get(VARIABLE, "").split(",") if entry.strip()]


def _entry(code: str, cls: type | str | None) -> str:
    if code not in REFUSALS and code != EVERYTHING:
        raise ValueError(
            f"no refusal has the code {code!r}: give {EVERYTHING!r} or one of {', '.join(sorted(REFUSALS))}"
        )
    return code if cls is None else f"{code}:{_names(cls)[0]}"


def _names(cls: type | str) -> list[str]:
    """The names by which a class may be allowed: its own, and those of its parents."""
    if isinstance(cls, str):
        return [cls]
    return [f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__]
