"""Overrides as people write them on a command line: ``model.layers=2,4 rate=range(0.1,0.5,0.1) ~data.crop``."""

import dataclasses
import itertools
import math
import re
import typing as tp
from collections.abc import Iterator, Sequence

from ..errors import OverrideError

_NAME = re.compile(r"[\w-]+(?:\.[\w-]+)*")
_CALL = re.compile(r"(choice|range|interval|glob)\((.*)\)", re.DOTALL)
_TAG = re.compile(r"tag\(\s*log\s*,\s*(interval\(.*\))\s*\)", re.DOTALL)
_CLOSING = {"[": "]", "{": "}", "(": ")"}
_MOST = 100_000  # points of one command line


@dataclasses.dataclass(frozen=True)
class Value:
    """One value of an override: what it reads as, and its text, which a field of texts takes instead."""

    parsed: tp.Any
    text: str


@dataclasses.dataclass(frozen=True)
class Override:
    """What one argument changes.

    Parameters
    ----------
    name: str
        dotted name of the field
    values: tuple of Value
        what it takes, one after the other; none where it is removed
    argument: str
        as it was written, for errors
    interval: tuple of two float, optional
        where a search samples
    log: bool
        whether it does so evenly in the logarithm
    """

    name: str
    values: tuple[Value, ...]
    argument: str
    interval: tuple[float, float] | None = None
    log: bool = False

    @property
    def removes(self) -> bool:
        """Whether the field is removed, so that it takes its default."""
        return not self.values and self.interval is None


def parse(argument: str) -> Override:
    """Read an override.

    Parameters
    ----------
    argument: str
        ``name=value``, ``name=value,value``, ``name=choice(a,b)``, ``name=range(start,stop,step)``,
        ``name=interval(low,high)``, ``name=tag(log,interval(low,high))``, ``~name``, ``+name=value``

    Raises
    ------
    OverrideError
        if it cannot be read
    """
    if argument.startswith("~"):
        name = argument[1:].partition("=")[0]
        _require_name(name, argument)
        return Override(name, (), argument)
    name, equals, text = argument.removeprefix("++").removeprefix("+").partition("=")
    if not equals:
        raise OverrideError(f"{argument!r} is no override: write name=value, as in model.layers=4, or ~name")
    _require_name(name, argument)
    tagged = _TAG.fullmatch(text.strip())
    called = _CALL.fullmatch(text.strip() if tagged is None else tagged[1])
    if called is not None:
        found = _called(name, called[1], split(called[2], argument), argument)
        return found if tagged is None else dataclasses.replace(found, log=True)
    values = tuple(_value(part, argument) for part in split(text, argument))
    return Override(name, values or (Value("", ""),), argument)


def _require_name(name: str, argument: str) -> None:
    if not _NAME.fullmatch(name):
        raise OverrideError(f"{name!r} in {argument!r} is no dotted name of a field, such as model.layers")


def _called(name: str, function: str, parts: list[str], argument: str) -> Override:
    if function == "choice":
        return Override(name, tuple(_value(part, argument) for part in parts), argument)
    try:
        numbers = [float(part) if set(".einf") & set(part.lower()) else int(part) for part in parts]
    except ValueError:
        raise OverrideError(f"{argument!r}: {function}() takes numbers, as in {function}(0, 10)") from None
    if function == "interval" and len(numbers) == 2 and numbers[0] < numbers[1]:
        return Override(name, (), argument, (float(numbers[0]), float(numbers[1])))
    if function == "range" and 1 <= len(numbers) <= 3:
        return Override(name, tuple(_range(numbers, argument)), argument)
    raise OverrideError(
        f"{argument!r} cannot be read: write range(start, stop, step), or interval(low, high)"
    )


def _range(numbers: Sequence[float], argument: str) -> Iterator[Value]:
    start, stop, step = (0, numbers[0], 1) if len(numbers) == 1 else (*numbers, 1)[:3]
    if not step or not all(map(math.isfinite, (start, stop, step))):
        raise OverrideError(
            f"{argument!r} has no end: write range(start, stop, step) with a step that is not 0"
        )
    count = max(0, math.ceil((stop - start) / step - 1e-9))
    if count > _MOST:
        raise OverrideError(f"{argument!r} makes {count} values, more than {_MOST}")
    for k in range(count):
        value = start + k * step
        value = value if isinstance(value, int) else float(f"{value:.12g}")
        yield Value(value, str(value))


def split(text: str, argument: str) -> list[str]:
    """Split at the commas outside of brackets and quotes. Raises OverrideError where one is not closed."""
    parts: list[str] = []
    closing: list[str] = []
    part = ""
    quote = ""
    for k, c in enumerate(text):
        if quote:
            quote = "" if c == quote and text[k - 1] != "\\" else quote
        elif c in "'\"" and (not part.strip() or closing):
            quote = c
        elif c in _CLOSING:
            closing.append(_CLOSING[c])
        elif closing and c == closing[-1]:
            closing.pop()
        elif c == "," and not closing:
            parts.append(part.strip())
            part = ""
            continue
        part += c
    if quote or closing:
        raise OverrideError(f"{argument!r} does not close its {quote or closing[-1]}")
    return [*parts, part.strip()] if parts or part.strip() else []


def _value(text: str, argument: str) -> Value:
    import yaml

    try:
        # a colon or equals sign within a text is no mapping, as YAML would have it
        parsed = yaml.safe_load(text) if text[:1] in "[{'\"" or not re.search(r"[:#]", text) else text
    except yaml.YAMLError as e:
        raise OverrideError(
            f"the value {text!r} of {argument!r} cannot be read: {' '.join(str(e).split())}"
        ) from e
    if isinstance(parsed, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", parsed):
        parsed = float(parsed)  # YAML 1.1 takes 1e-3 for a text
    return Value(parsed, text)


def points(overrides: Sequence[Override]) -> Iterator[dict[str, Value]]:
    """Yield the values of each point of the product, by name, the last override changing fastest."""
    several = [o for o in overrides if o.values]
    for values in itertools.product(*(o.values for o in several)):
        yield {o.name: value for o, value in zip(several, values, strict=True)}
