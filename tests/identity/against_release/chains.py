"""Strategies of pipelines."""

import dataclasses
import typing as tp

from hypothesis import strategies as st
from texts import ANYTHING, FLOATS, INTS, JSON, PATHS, PLAIN, SCALARS, TEXTS, Source, listed, mapped, ordered

Draw = st.DrawFn
_CACHED = "{'backend': 'Cached'}"
_LONG = "AStepWithARatherLongNameThatFillsAddresses"


@dataclasses.dataclass(frozen=True)
class Kind:
    """A class of steps: its fields, and whether it runs without a value."""

    name: str
    fields: dict[str, Source]
    generates: bool = False
    required: tuple[str, ...] = ()
    key: str = "type"


_INTS, _FLOATS, _TEXTS = st.integers(0, 99).map(repr) | INTS.map(repr), FLOATS.map(repr), TEXTS.map(repr)
_SMALL = st.integers(0, 3).map(repr)
_INNER = (
    st.builds(lambda a, b: f"{{'a': {a}, 'b': {b}}}", _INTS, _TEXTS) | st.just("Inner(a=2)") | st.just("{}")
)

GENERATORS = (
    Kind("Load", {"size": _SMALL, "workers": _SMALL}, generates=True),
    Kind("Optional", {"options": mapped(JSON)}, generates=True),
)
PLAIN_STEPS = (
    Kind("Plus", {"value": _FLOATS | _INTS}),
    Kind("Text", {"text": _TEXTS, "where": PATHS, "values": listed(ANYTHING)}),
    Kind("Required", {"count": _INTS, "ordered": ordered(_INTS)}, required=("count",)),
    Kind("Keyed", {"prefix": _TEXTS}),
    Kind(_LONG, {"value": _INTS, "name_of_the_thing": _TEXTS}),
    Kind(_LONG, {"value": _INTS, "name_of_the_thing": _TEXTS}),
    Kind("Base", {"scale": _FLOATS}, key="name"),
    Kind("Special", {"scale": _FLOATS, "extra": _INTS}, key="name"),
    Kind(
        "Outer",
        {
            "part": st.sampled_from(
                ("'Special'", "{'name': 'Base'}", "Special(extra=3)", "['Special', 'Base']")
            )
        },
    ),
)


def _infra(draw: Draw, chance: int) -> str | None:
    return _CACHED if draw(st.integers(0, chance)) == 0 else None


def _written(draw: Draw, kind: Kind, fields: dict[str, str]) -> str:
    ways = ["object", "object"]
    if kind.key == "type":
        ways += ["dict", "dict"]
        if not fields:
            ways.append("name")
    way = draw(st.sampled_from(ways))
    if way == "name":
        return repr(kind.name)
    if way == "dict":
        told = {"type": repr(kind.name), **fields}
        return "{" + ", ".join(f"{name!r}: {value}" for name, value in told.items()) + "}"
    return f"{kind.name}({', '.join(f'{name}={value}' for name, value in fields.items())})"


def _plain(draw: Draw, kinds: tuple[Kind, ...]) -> str:
    kind = draw(st.sampled_from(kinds))
    fields = {
        name: draw(values)
        for name, values in kind.fields.items()
        if name in kind.required or draw(st.booleans())
    }
    infra = _infra(draw, 5)
    return _written(draw, kind, fields | ({"infra": infra} if infra else {}))


def _function(draw: Draw) -> str:
    told = {
        "function": draw(st.sampled_from(("shortened", "'step_library.shortened'"))),
        "input_param": "'text'",
    }
    if draw(st.booleans()):
        told["width"] = draw(_SMALL)
    if draw(st.booleans()):
        told["name"] = draw(_TEXTS)
    infra = _infra(draw, 5)
    if infra:
        told["infra"] = infra
    return f"steps.helpers.Func({', '.join(f'{name}={value}' for name, value in told.items())})"


def _step(draw: Draw, depth: int) -> str:
    way = draw(st.sampled_from(("plain",) * 8 + ("function", "holder", "chain", "list", "named", "study")))
    if way == "plain" or depth == 0:
        return _plain(draw, PLAIN_STEPS)
    if way == "function":
        return _function(draw)
    if way == "holder":
        fields = {}
        if draw(st.booleans()):
            fields["inner"] = draw(_INNER)
        if draw(st.booleans()):
            fields["step"] = _step(draw, depth - 1)
        if draw(st.booleans()):
            fields["more"] = f"[{', '.join(_row(draw, depth - 1, 2))}]"
        return _written(draw, Kind("Holder", {}), fields)
    inner = _row(draw, depth - 1, 3)
    if way == "list":
        return f"[{', '.join(inner)}]"
    infra = _infra(draw, 3)
    told = f", infra={infra}" if infra else ""
    if way == "named":
        names = draw(st.lists(PLAIN, min_size=len(inner), max_size=len(inner), unique=True))
        pairs = ", ".join(f"{name!r}: {step}" for name, step in zip(names, inner, strict=True))
        return f"steps.Chain(steps=OrderedDict({{{pairs}}}){told})"
    return f"steps.Chain(steps=[{', '.join(inner)}]{told})"


def _row(draw: Draw, depth: int, most: int) -> list[str]:
    return [_step(draw, depth) for _ in range(draw(st.integers(1, most)))]


def _study(draw: Draw) -> str:
    transforms = ", ".join(_row(draw, 1, 2)) if draw(st.booleans()) else ""
    return f"Study(size={draw(_SMALL)}, transforms=[{transforms}])"


@st.composite
def chains(draw: Draw) -> dict[str, tp.Any]:
    """Return a case: the source that makes `step`, and the `inputs` it is run with."""
    generates = draw(st.booleans())
    first = [_study(draw) if draw(st.integers(0, 3)) == 0 else _plain(draw, GENERATORS)] if generates else []
    most = draw(st.sampled_from((1, 3, 3, 6, 12)))
    row = first + _row(draw, 2, most)
    folder = "{'backend': 'Cached', 'folder': FOLDER}"
    if len(row) == 1 and draw(st.booleans()):
        source = f"step = steps.Chain(steps=[{row[0]}], infra={folder})"
    else:
        source = f"step = steps.Chain(steps=[{', '.join(row)}], infra={folder})"
    further = draw(
        st.sampled_from(("", "", "", "step = step.clone()", "step = step[:1]", "step = step.model_copy()"))
    )
    if generates:
        inputs = "[()]"
    else:
        values = draw(st.lists(SCALARS | ANYTHING, min_size=1, max_size=2))
        inputs = "[" + ", ".join(f"({value},)" for value in values) + "]"
    header = "import datetime\n"
    return {"kind": "chain", "source": f"{header}{ENUMS}{source}\n{further}\ninputs = {inputs}\n"}


ENUMS = """import enum
class Color(enum.Enum):
    RED = "red"
    BLUE = "blue/1"
class Number(enum.Enum):
    ONE = 1
    HALF = 0.5
class Name(str, enum.Enum):
    A = "a"
    B = "b c"
class Level(enum.IntEnum):
    LOW = 1
    HIGH = 10
"""
