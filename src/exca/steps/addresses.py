"""Where the results of a pipeline are kept: the segments of its steps, and the keys of its items."""

import hashlib
import re
import typing as tp
from collections.abc import Callable, Sequence

from .. import identity
from ..utils import ShortItemUid

if tp.TYPE_CHECKING:
    from .base import Step

NO_INPUT_KEY = "__exca_no_input__"
MAX_KEY = 256  # characters
MAX_INT = 10**15
MAX_ADDRESS = 350  # characters: a path below any ordinary folder stays under what file systems take
MAX_FOLDED = 70
_NAME = re.compile(r"(?:^|,)type=([^,\-{}()]*)")


class NoInput:
    """The value of what runs without one; there is only one object of it, also after copying and pickling."""

    _only: tp.ClassVar["NoInput | None"] = None

    def __new__(cls) -> "NoInput":  # noqa: PYI034  # nothing derives from it
        """Return the only object."""
        if cls._only is None:
            cls._only = super().__new__(cls)
        return cls._only

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return type(self), ()

    def __repr__(self) -> str:
        return "NO_INPUT"


NO_INPUT: tp.Final = NoInput()


def address(segments: Sequence[str]) -> str:
    """Return the folder of a pipeline below the folder of its infra."""
    whole = "/".join(segments)
    if len(whole) <= MAX_ADDRESS:
        return whole
    kept = used = 0
    while used + len(segments[kept]) + 1 + MAX_FOLDED <= MAX_ADDRESS:
        used += len(segments[kept]) + 1
        kept += 1
    return "/".join([*segments[:kept], _folded(segments[kept:])])


def _folded(segments: Sequence[str]) -> str:
    """Return one segment for several, which tells them apart by their hash."""
    digest = hashlib.md5("/".join(segments).encode("utf8", "surrogatepass"), usedforsecurity=False)
    end = f"-{len(segments)}-{digest.hexdigest()[:8]}"
    names = "+".join(_name(text) for text in segments)
    room = MAX_FOLDED - len(end)
    if len(names) > room:
        head = (room - 3) // 2
        names = f"{names[:head]}...{names[len(names) - (room - 3 - head) :]}"
    return names + end


def _name(text: str) -> str:
    found = _NAME.search(text)
    return found.group(1) if found else text[:20]


_shortened = ShortItemUid(str, MAX_KEY)


Namer = Callable[[tp.Any], str | None]


def key_of(step: "Step", value: tp.Any) -> str:
    """Return the key of an item, the same at every stage of a pipeline."""
    return named_key(step._exca_namer(), value, step)


def named_key(namer: Namer | None, value: tp.Any, step: "Step") -> str:
    """Return the key of an item."""
    if namer is not None:
        text = namer(value)
        if isinstance(text, str):
            if value is NO_INPUT and _takes_value(step):
                raise TypeError(
                    f"item_uid of {type(step).__name__} gives {text!r} for a call without a value, but the step also "
                    "takes values, which might get the same name: return None where value is exca.steps.NO_INPUT"
                )
            return text if len(text) <= MAX_KEY else _shortened(text)
    if value is NO_INPUT:
        return NO_INPUT_KEY
    return value_key(value, type(step).__name__)


def _takes_value(step: "Step") -> bool:
    pipeline = step._exca_state.pipeline
    return (step if pipeline is None else pipeline.lineage.steps[0]).takes_input()


def keys_of(step: "Step", values: Sequence[tp.Any]) -> list[str]:
    """Return the keys of many items."""
    namer = step._exca_namer()
    if namer is None:
        return [_int_key(value) if type(value) is int else named_key(None, value, step) for value in values]
    return [named_key(namer, value, step) for value in values]


def _int_key(value: int) -> str:
    """Return what UidMaker gives, at two thirds of its cost: items are mostly numbered."""
    if -MAX_INT < value < MAX_INT:
        text = str(value)
        digest = hashlib.md5(b"int:" + text.encode(), usedforsecurity=False)
        return f"{text}-{digest.hexdigest()[:8]}"
    return identity.UidMaker(value).format()


def value_key(value: tp.Any, name: str) -> str:
    """Return the key of a value without a name of its own."""
    if type(value) is int:
        return _int_key(value)
    try:
        return identity.UidMaker(value).format()
    except TypeError as error:
        raise TypeError(
            f"{error}. This is an item for {name}, whose result is kept under a key made from the item: define "
            f"`def item_uid(self, value) -> str` on {name} to name items yourself"
        ) from None
