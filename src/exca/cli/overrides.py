"""Overrides as people write them on a command line: ``model.layers=2,4 rate=range(0.1,0.5,0.1) ~data.crop``."""

import dataclasses
import itertools
import math
import re
import sys
import typing as tp
from collections.abc import Iterator, Sequence

from ..errors import OverrideError

_NAME = re.compile(r"[\w-]+(?:\.[\w-]+)*")
_CALL = re.compile(r"(choice|range|interval|glob)\((.*)\)", re.DOTALL)
_TAG = re.compile(r"tag\(\s*log\s*,\s*(interval\(.*\))\s*\)", re.DOTALL)
_CLOSING = {"[": "]", "{": "}", "(": ")"}
_MOST = 100_000  # points of one command line
_LARGEST = 1e300  # number of a range, so that what is computed of it is finite
_SHOWN = 200  # characters of an argument in a message
_OCTAL = re.compile(r"[-+]?0[\d_]+")


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
        found = _called(name, called[1], _several(called[2], argument), argument)
        if found.removes:
            raise OverrideError(f"{argument!r} gives {name} no value: write some, as in {name}=choice(1, 2)")
        return found if tagged is None else dataclasses.replace(found, log=True)
    values = tuple(_value(part, argument) for part in _several(text, argument))
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
    if any(abs(number) > _LARGEST for number in numbers):
        raise OverrideError(f"{argument!r} has no end: write {function}(0, 10), with numbers below 1e300")
    if function == "interval" and len(numbers) == 2 and numbers[0] < numbers[1]:
        return Override(name, (), argument, (float(numbers[0]), float(numbers[1])))
    if function == "range" and 1 <= len(numbers) <= 3:
        return Override(name, tuple(_range(numbers, argument)), argument)
    raise OverrideError(
        f"{argument!r} cannot be read: write range(start, stop, step), or interval(low, high)"
    )


def _range(numbers: Sequence[float], argument: str) -> Iterator[Value]:
    start, stop, step = (0, numbers[0], 1) if len(numbers) == 1 else (*numbers, 1)[:3]
    if not step or math.isnan(start + stop + step):
        raise OverrideError(
            f"{argument!r} has no end: write range(start, stop, step) with a step that is not 0"
        )
    try:
        count = max(0, math.ceil((stop - start) / step - 1e-9))
    except OverflowError:  # of a tiny step
        count = sys.maxsize
    if count > _MOST:
        raise OverrideError(f"{argument!r} makes {count:.10g} values, more than {_MOST}")
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


def _several(text: str, argument: str) -> list[str]:
    """The values of an override, as many as one command line may have."""
    parts = split(text, argument)
    if len(parts) > _MOST:
        raise OverrideError(f"{_cut(argument)!r} gives {len(parts)} values, more than {_MOST}")
    if len(parts) > 1 and not all(parts):
        raise OverrideError(f"{argument!r} has no value beside a comma: write '' for an empty text")
    return parts


def _cut(argument: str) -> str:
    return argument if len(argument) <= _SHOWN else f"{argument[: _SHOWN - 1]}…"


def _value(text: str, argument: str) -> Value:
    try:
        parsed = _read(text)
    except Exception as e:  # of YAML's own classes, or of what it makes numbers and dates with
        raise OverrideError(
            f"the value {_cut(text)!r} of {_cut(argument)!r} cannot be read: {' '.join(str(e).split())}"
        ) from e
    if isinstance(parsed, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", parsed):
        parsed = float(parsed)  # YAML 1.1 takes 1e-3 for a text
    return Value(parsed, text)


def _read(text: str) -> tp.Any:
    """What a value reads as: what begins with a bracket or a quote is YAML, else a number, a word or a text."""
    import yaml

    if text[:1] in tuple("[{'\""):
        return yaml.safe_load(text)
    # a colon or equals sign within a text is no mapping, and what begins with 0 is not octal, as YAML would have it
    if re.search(r"[:#]", text) or _OCTAL.fullmatch(text):
        return text
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        is_plain = node is None or (
            isinstance(node, yaml.ScalarNode) and (node.style, node.value) == (None, text)
        )
        return yaml.safe_load(text) if is_plain else text
    except (yaml.YAMLError, ValueError):  # such as *, @file, or a date that there is not
        return text


def points(overrides: Sequence[Override]) -> Iterator[dict[str, Value]]:
    """Yield the values of each point of the product, by name, the last override changing fastest."""
    several = [o for o in overrides if o.values]
    count = math.prod(len(o.values) for o in several)
    if count > _MOST:
        raise OverrideError(
            f"{' '.join(_cut(o.argument) for o in several if len(o.values) > 1)} make {count} points, more than {_MOST}"
        )
    for values in itertools.product(*(o.values for o in several)):
        yield {o.name: value for o, value in zip(several, values, strict=True)}
