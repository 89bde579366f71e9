"""Strategies of items and their keys, and of what is done to a ConfDict."""

import typing as tp

from hypothesis import strategies as st
from texts import (
    ANYTHING,
    ARRAYS,
    FLOATS,
    HEADER,
    INTS,
    KEYS,
    SCALARS,
    TEXTS,
    Source,
    listed,
    mapped,
    ordered,
    tupled,
)

Draw = st.DrawFn
Case = dict[str, tp.Any]

LENGTHS = st.lists(st.integers(32, 300) | st.sampled_from((32, 33, 64, 256)), min_size=1, max_size=3)
_NUMPY = st.one_of(
    st.builds(
        lambda kind, number: f"np.{kind}({number})",
        st.sampled_from(("int64", "int8", "uint8")),
        st.integers(0, 9),
    ),
    st.builds(
        lambda kind, number: f"np.{kind}({number!r})",
        st.sampled_from(("float64", "float32")),
        st.floats(-1e6, 1e6),
    ),
    st.sampled_from(("np.bool_(True)", "np.str_('a b')", "np.float32(0.1)", "np.float64(1e-7)")),
)
_VALUES: Source = st.one_of(
    INTS.map(repr),
    FLOATS.map(repr),
    TEXTS.map(repr),
    ANYTHING,
    ARRAYS,
    _NUMPY,
    listed(ARRAYS | SCALARS),
    mapped(ARRAYS | SCALARS),
    st.sampled_from(
        (
            *(
                "decimal.Decimal('1.5')",
                "fractions.Fraction(1, 3)",
                "fractions.Fraction(4, 2)",
                "Point(1, 2.0)",
            ),
            *(
                "Pair(1, 'x')",
                "uuid.UUID(int=3)",
                "b'ab'",
                "object",
                "1j",
                "range(3)",
                "collections.deque([1])",
            ),
            *(
                "{1: 2}",
                "{None: 1}",
                "(x for x in 'ab')",
                "collections.Counter('aab')",
                "types.MappingProxyType({'a': 1})",
            ),
        )
    ),
    st.builds(
        lambda count, text: repr(text * count), st.integers(900, 12_000), st.sampled_from(("a", "ab/", "é"))
    ),
)


@st.composite
def items(draw: Draw) -> Case:
    """Return a case: values, and the lengths to which their keys are cut."""
    values = draw(st.lists(_VALUES, min_size=1, max_size=4))
    source = f"{HEADER}import fractions, types\nimport numpy as np\nvalues = [{', '.join(values)}]\n"
    return {"kind": "items", "source": source, "lengths": draw(LENGTHS)}


@st.composite
def long_texts(draw: Draw) -> Case:
    """Return a case: uids of items, and the lengths to which they are cut."""
    text = st.builds(
        lambda head, piece, count: head + piece * count,
        st.text(max_size=12),
        st.text(min_size=1, max_size=3),
        st.integers(0, 400) | st.integers(900, 1100) | st.integers(3300, 3400) | st.integers(9_900, 10_100),
    ).filter(lambda text: not any("\ud800" <= letter <= "\udfff" for letter in text))
    return {"kind": "short", "texts": draw(st.lists(text, min_size=1, max_size=4)), "lengths": draw(LENGTHS)}


_NAMES = st.sampled_from(("a", "b", "c", "d"))
_DOTTED = st.lists(_NAMES | st.sampled_from(("0", "1")), min_size=1, max_size=3).map(".".join)
_LEVEL = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        listed(inner), mapped(inner, _DOTTED.map(repr)), mapped(inner, _NAMES.map(repr)), ordered(inner)
    ),
    max_leaves=6,
)
_CONFIG: Source = mapped(_LEVEL, _DOTTED.map(repr), most=4)


@st.composite
def _patch(draw: Draw) -> str:
    """Return a patch: values, and operations."""
    parts: dict[str, str] = {}
    for _ in range(draw(st.integers(1, 3))):
        key = draw(_DOTTED)
        ways = ["value", "value", "level"]
        if not any(
            part.isdigit() for part in key.split(".")
        ):  # the release does not look into items of lists
            ways += ["delete", "replace", "keep", "before", "after"]
        way = draw(st.sampled_from(ways))
        inner = draw(mapped(_LEVEL, _NAMES.map(repr), most=2))
        if way == "value":
            parts[key] = draw(_LEVEL)
        elif way == "level":
            parts[key] = inner
        elif way == "delete":
            parts[key] = "'=delete='"
        elif way in ("replace", "keep"):
            parts[key] = f"{{'=replace=': {way == 'replace'}, **{inner}}}"
        else:
            parts[key] = f"{{'={way}=': {draw(_NAMES)!r}, **{inner}}}"
    if draw(st.integers(0, 15)) == 0:
        parts["=replace="] = "True"
    return "{" + ", ".join(f"{key!r}: {value}" for key, value in parts.items()) + "}"


_QUESTIONS = (
    "config.flat()",
    "config.to_yaml()",
    "config.to_uid()",
    "list(config)",
    "len(config)",
    "bool(config)",
)


@st.composite
def _statement(draw: Draw) -> str:
    way = draw(
        st.sampled_from(
            ("update", "update", "update", "set", "ask", "get", "in", "pop", "del", "yaml", "args")
        )
    )
    key = repr(draw(_DOTTED))
    if way == "update":
        return f"config.update({draw(_patch())})"
    if way == "set":
        return f"config[{key}] = {draw(_LEVEL)}"
    if way == "ask":
        return "=" + draw(st.sampled_from(_QUESTIONS))
    if way == "get":
        return f"=config.get({key}, 'missing')"
    if way == "in":
        return f"={key} in config"
    # ours refuses to remove an item of a list, where the release does nothing
    named = ".".join(part for part in key.strip("'").split(".") if not part.isdigit()) or "a"
    if way == "pop":
        return f"=config.pop({named!r}, 'missing')"
    if way == "del":
        return f"del config[{named!r}]"
    if way == "yaml":
        return "config = ConfDict.from_yaml(config.to_yaml())"
    pairs = draw(st.lists(st.builds(lambda name, value: f"--{name}={value}", _DOTTED, TEXTS), max_size=3))
    return f"config = ConfDict.from_args({pairs!r})"


@st.composite
def confdicts(draw: Draw) -> Case:
    """Return a case: what is done to a ConfDict, statement by statement."""
    statements = [
        f"config = ConfDict({draw(_CONFIG)})",
        *draw(st.lists(_statement(), max_size=5)),
        "=config.flat()",
    ]
    statements += ["=config.to_yaml()", "=config.to_uid()"]
    return {"kind": "confdict", "source": "from collections import OrderedDict\n", "statements": statements}


__all__ = ["KEYS", "confdicts", "items", "long_texts", "tupled"]
