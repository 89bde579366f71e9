"""Errors on their way to another process: pickled with their own type, whatever their constructor takes.

An exception pickles as its class and its ``args``, with which the constructor is called again. That fails, or makes
another error of it, where a class has a constructor of its own: ``args`` are what that passed on to its parent. Such an
error is rebuilt without its constructor, from the ``args`` and the attributes that it had.
"""

import base64
import io
import traceback
import typing as tp

from ..errors import JobError

# kept in C, beside __dict__ and args
_KEPT_IN_C = ("errno", "strerror", "filename", "filename2", "name", "path", "obj", "value", "code")


class RemoteError:
    """An error on its way from another process to the caller."""

    def __init__(self, error: BaseException) -> None:
        self.content: dict[str, tp.Any] = error_content(error)

    def rebuilt(self, where: str) -> BaseException:
        """The error as it was raised there, the remote traceback added as a note."""
        return rebuild_error(self.content, trusted=True, where=where)


def error_content(error: BaseException) -> dict[str, tp.Any]:
    """An error in JSON types: its type, message, traceback, and pickle where it can be carried."""
    kind = type(error)
    return {
        "type": kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}",
        "message": str(error),
        "traceback": "".join(traceback.format_exception(error)),
        "pickle": dump(error),
    }


def rebuild_error(content: dict[str, tp.Any], *, trusted: bool, where: str) -> BaseException:
    """Rebuild an error from its JSON form, with its own type where it could be carried, else as a JobError.

    Its traceback, and where it was raised, become a note.
    """
    error = load(content.get("pickle")) if trusted else None
    if error is None:
        message = content.get("message")
        error = JobError(f"{content['type']}: {message}" if content.get("type") else message)
    if content.get("traceback"):
        error.add_note(f"\nTraceback where it ran ({where}):\n{str(content['traceback']).rstrip()}")
    return error


def dump(error: BaseException) -> str | None:
    """The error as text, or None where it cannot be carried."""
    for own_way in (True, False):
        try:
            data = _pickled(error, own_way)
            again = _unpickled(data)
            if type(again) is type(error) and not (own_way and _differs(again, error)):
                return base64.b64encode(data).decode()
        except Exception:  # noqa: S112 # whatever its class does when it is pickled or made again
            continue
    return None


def load(data: str | None) -> BaseException | None:
    """Rebuild an error, or return None where its class is not there."""
    if not data:
        return None
    try:
        error = _unpickled(base64.b64decode(data))
    except Exception:
        return None
    return error if isinstance(error, BaseException) else None


def _unpickled(data: bytes) -> tp.Any:
    import pickle

    return pickle.loads(data)


def _differs(again: tp.Any, error: BaseException) -> bool:
    if type(again) is not type(error) or str(again) != str(error) or len(again.args) != len(error.args):
        return True
    theirs, ours = (getattr(group, "exceptions", ()) for group in (again, error))
    return any(map(_differs, theirs, ours))


def _pickled(value: tp.Any, own_way: bool) -> bytes:
    """Pickle, errors in the way of their classes or in that of `rebuild`, at whatever depth."""
    import cloudpickle

    if own_way:
        return tp.cast(bytes, cloudpickle.dumps(value))

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc] # cloudpickle has no types
        def reducer_override(self, obj: tp.Any) -> tp.Any:
            if isinstance(obj, BaseException):
                return _reduced(obj)
            return super().reducer_override(obj)

    buffer = io.BytesIO()
    Pickler(buffer).dump(value)
    return buffer.getvalue()


def _reduced(error: BaseException) -> tuple[tp.Any, ...]:
    import pydantic

    if type(error) is pydantic.ValidationError:  # made in Rust, by nothing but this
        return rebuild_validation_error, (error.title, error.errors(include_url=False))
    slots = [name for cls in type(error).__mro__ for name in _names(getattr(cls, "__slots__", ()))]
    attributes = {name: getattr(error, name, None) for name in (*_KEPT_IN_C, *slots)}
    attributes = {name: value for name, value in attributes.items() if value is not None}
    attributes |= getattr(error, "__dict__", {})
    state = {name: value for name, value in attributes.items() if _can_be_pickled(value)}
    args = tuple(arg if _can_be_pickled(arg) else repr(arg) for arg in error.args)
    return rebuild, (type(error), args, state, sorted(attributes.keys() - state.keys()))


def rebuild(
    cls: type[BaseException], args: tuple[tp.Any, ...], state: dict[str, tp.Any], left_out: list[str]
) -> BaseException:
    """Make an error without calling its own constructor; `left_out` are attributes that could not be pickled."""
    builtin: tp.Any = next(base for base in cls.__mro__ if base.__module__ == "builtins")
    error: BaseException = builtin.__new__(cls, *args)
    builtin.__init__(error, *args)
    error.args = args
    for name, value in state.items():
        try:
            setattr(error, name, value)
        except (AttributeError, TypeError):  # a property of the class
            continue
    if left_out:
        error.add_note(f"Left out, since they cannot be pickled: {', '.join(left_out)}")
    return error


def rebuild_validation_error(title: str, errors: list[dict[str, tp.Any]]) -> BaseException:
    """Make pydantic's error again."""
    from pydantic_core import PydanticCustomError, PydanticKnownError, ValidationError

    details: list[tp.Any] = []
    for error in errors:
        kind: tp.Any = error["type"]
        context = error.get("ctx", {})
        try:
            PydanticKnownError(kind, context)
        except (KeyError, TypeError):
            kind = PydanticCustomError(kind, "{text}", {"text": error["msg"]})
        details.append({"type": kind, "loc": error["loc"], "input": error["input"], "ctx": context})
    return ValidationError.from_exception_data(title, details)


def _names(slots: str | tp.Iterable[str]) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _can_be_pickled(value: tp.Any) -> bool:
    try:
        _unpickled(_pickled(value, own_way=False))
    except Exception:
        return False
    return True
