"""Strategies that write Python source: values of every kind that a configuration may hold."""

import re
import string

from hypothesis import strategies as st

Source = st.SearchStrategy[str]

_OPERATION = re.compile("=.+=")  # such texts patch a configuration, and have no uid
_PIECES = (
    *(
        "a",
        "b",
        "Z",
        "0",
        "9",
        "_",
        "-",
        ".",
        ",",
        "=",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ":",
        "+",
        "#",
        "'",
        '"',
    ),
    *(
        "/",
        "\\",
        "\n",
        "\t",
        " ",
        "  ",
        "é",
        "ü",
        "日",
        "😀",
        "\u00a0",
        "\r",
        "\x00",
        "\x7f",
        "~",
        "null",
        "yes",
        "1e3",
    ),
)


def _is_free(text: str) -> bool:
    return _OPERATION.fullmatch(text) is None


PLAIN: st.SearchStrategy[str] = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=6)
TEXTS: st.SearchStrategy[str] = st.one_of(
    PLAIN,
    st.lists(st.sampled_from(_PIECES), max_size=8).map("".join).filter(_is_free),
    st.builds(
        lambda piece, count, end: piece * count + end,
        st.sampled_from(("x", "ab", "é", "a/b", "-", "x\n", "long text ")),
        st.sampled_from((1, 40, 63, 64, 65, 127, 128, 129, 130, 200, 700)),
        st.sampled_from(("", "z", "é", "\n")),
    ).filter(_is_free),
)
KEYS: st.SearchStrategy[str] = st.one_of(
    st.text("abcxyz", min_size=1, max_size=4),
    st.sampled_from(("a_b", "a-b", "long_key_of_a_dict", "é", "A", "0", "12")),
)
INTS: st.SearchStrategy[int] = st.one_of(
    st.integers(-10, 20), st.integers(), st.sampled_from((2**31, 2**53 + 1, 2**63, 10**15, 10**22, -(10**20)))
)
FLOATS: st.SearchStrategy[float] = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.builds(
        lambda digits, exponent, sign: sign * digits * 10.0**exponent,
        st.integers(1, 99999),
        st.integers(-12, 12),
        st.sampled_from((1, -1)),
    ),
    st.sampled_from(
        (
            0.0,
            -0.0,
            1e-3,
            9.999e-4,
            1e4,
            9999.99,
            9999.995,
            10000.5,
            0.1,
            0.005,
            2.675,
            1e16,
            1e22,
            1e300,
            5e-324,
        )
    ),
    st.integers(-5, 5).map(float),
)
BOOLS = st.booleans()
DATES = st.dates().map(lambda day: f"datetime.date({day.year}, {day.month}, {day.day})")
_ZONES = st.sampled_from(
    ("", ", tzinfo=datetime.UTC", ", tzinfo=datetime.timezone(datetime.timedelta(hours=-3, minutes=30))")
)
MOMENTS = st.builds(
    lambda moment, zone: (
        f"datetime.datetime({moment.year}, {moment.month}, {moment.day}, {moment.hour}, {moment.minute}, "
        f"{moment.second}, {moment.microsecond}{zone})"
    ),
    st.datetimes(),
    _ZONES,
)
TIMES = st.times().map(
    lambda time: f"datetime.time({time.hour}, {time.minute}, {time.second}, {time.microsecond})"
)
SPANS = st.builds(
    lambda days, seconds, micro: f"datetime.timedelta(days={days}, seconds={seconds}, microseconds={micro})",
    st.integers(-3, 400),
    st.integers(0, 86399),
    st.sampled_from((0, 0, 1, 500000)),
)
PATHS = st.sampled_from(("a", "a/b", "/abs/x y", ".", "../up", "data.csv", "ü/é", "/")).map(
    lambda path: f"Path({path!r})"
)
COLORS = st.sampled_from(("Color.RED", "Color.BLUE"))
NUMBERS = st.sampled_from(("Number.ONE", "Number.HALF"))
NAMES = st.sampled_from(("Name.A", "Name.B"))
LEVELS = st.sampled_from(("Level.LOW", "Level.HIGH"))

SCALARS: Source = st.one_of(st.none(), BOOLS, INTS, FLOATS, TEXTS).map(repr)


def listed(items: Source, most: int = 3) -> Source:
    """Return lists of what is given."""
    return st.lists(items, max_size=most).map(lambda parts: f"[{', '.join(parts)}]")


def tupled(items: Source, most: int = 3) -> Source:
    """Return tuples of what is given."""
    return st.lists(items, max_size=most).map(lambda parts: f"({''.join(part + ', ' for part in parts)})")


def mapped(items: Source, keys: Source | None = None, most: int = 3) -> Source:
    """Return dicts of what is given."""
    return st.dictionaries(KEYS.map(repr) if keys is None else keys, items, max_size=most).map(
        lambda parts: "{" + ", ".join(f"{key}: {value}" for key, value in parts.items()) + "}"
    )


def ordered(items: Source, most: int = 3) -> Source:
    """Return OrderedDicts of what is given."""
    return mapped(items, most=most).map(lambda text: f"OrderedDict({text})")


# the release writes sets in an order that differs from process to process, but for small numbers
SETS: Source = st.one_of(
    st.sets(st.integers(0, 7), max_size=4).map(
        lambda parts: f"{{{', '.join(map(str, sorted(parts)))}}}" if parts else "set()"
    ),
    PLAIN.map(lambda text: f"{{{text!r}}}"),
)
JSON: Source = st.recursive(
    SCALARS,
    lambda inner: st.one_of(listed(inner), mapped(inner), ordered(inner), tupled(inner)),
    max_leaves=6,
)
# what may be found in a field of any type
ANYTHING: Source = st.recursive(
    st.one_of(SCALARS, DATES, MOMENTS, TIMES, SPANS, PATHS, COLORS, NUMBERS, NAMES, LEVELS, SETS),
    lambda inner: st.one_of(listed(inner), mapped(inner), ordered(inner), tupled(inner)),
    max_leaves=5,
)
ARRAYS: Source = st.builds(
    lambda shape, dtype, start, order: (
        f"np.asfortranarray(np.arange({start}, {start} + {max(0, _size(shape))}).reshape({shape!r}).astype({dtype!r}))"
        if order
        else f"np.arange({start}, {start} + {max(0, _size(shape))}).reshape({shape!r}).astype({dtype!r})"
    ),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.sampled_from(
        ("int64", "int8", "uint16", "float32", "float64", "bool", "complex64", "<U3", ">i4", "datetime64[s]")
    ),
    st.integers(-3, 3),
    st.booleans(),
)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for count in shape:
        size *= count
    return size


HEADER = """
import collections, copy, dataclasses, datetime, decimal, enum, pickle, typing as tp, uuid
from collections import OrderedDict
from pathlib import Path
import pydantic
import typing_extensions
import exca
from exca.helpers import DiscriminatedModel
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
@dataclasses.dataclass
class Point:
    x: int = 0
    y: float = 0.5
class Pair(tp.NamedTuple):
    first: int
    second: str = "b"
@dataclasses.dataclass
class Line:
    p: Point
    name: str = "a"
    rest: list[Point] = dataclasses.field(default_factory=list)
@pydantic.dataclasses.dataclass
class Checked:
    x: int = 0
    p: Point = dataclasses.field(default_factory=Point)
Written = tp.Annotated[int, pydantic.PlainSerializer(lambda value: f"<{value}>")]
class Table(typing_extensions.TypedDict, total=False):
    p: Point
    n: Written
class Mark(tp.NamedTuple):
    p: Point
    tag: str = "b"
Count = tp.NewType("Count", int)
"""
