"""Strategies that write the source of configurations: classes, and an object of the last one."""

import dataclasses
import re
import typing as tp

from hypothesis import strategies as st
from texts import (
    ANYTHING,
    BOOLS,
    COLORS,
    DATES,
    FLOATS,
    HEADER,
    INTS,
    JSON,
    LEVELS,
    MOMENTS,
    NAMES,
    NUMBERS,
    PATHS,
    PLAIN,
    SCALARS,
    SETS,
    SPANS,
    TEXTS,
    TIMES,
    Source,
    listed,
    mapped,
    ordered,
    tupled,
)

Draw = st.DrawFn
_INTS, _FLOATS, _BOOLS, _TEXTS = INTS.map(repr), FLOATS.map(repr), BOOLS.map(repr), TEXTS.map(repr)
_NONE = st.just("None")
_POINTS = st.sampled_from(("Point()", "Point(1)", "Point(y=2.0)")) | st.builds(
    lambda x, y: f"Point(x={x}, y={y})", _INTS, _FLOATS
)
_LINES = st.builds(lambda p, q: f"Line({p}, rest={q})", _POINTS, listed(_POINTS)) | _POINTS.map(
    lambda point: f"Line({point})"
)
_CHECKED = st.sampled_from(("Checked()", "Checked(3)")) | _POINTS.map(lambda point: f"Checked(p={point})")
_TABLES = st.builds(lambda p, n: f"{{'p': {p}, 'n': {n}}}", _POINTS, _INTS) | st.just("{}")
_MARKS = st.builds(lambda p, tag: f"Mark({p}, {tag})", _POINTS, _TEXTS)
_PAIRS = st.builds(lambda x, y: f"Pair({x}, {y})", _INTS, _TEXTS)
_DECIMALS = st.sampled_from(("decimal.Decimal('1.50')", "decimal.Decimal('3')", "decimal.Decimal('1e-9')"))
_IDS = st.integers(0, 3).map(lambda number: f"uuid.UUID(int={number})")
_BYTES = st.sampled_from(("b''", "b'ab'", "b'a/b'"))

# (annotation, values that it takes, defaults that are never validated and written by hand for it)
LEAVES: tuple[tuple[str, Source, Source], ...] = (
    ("int", _INTS, _INTS),
    ("float", _FLOATS | _INTS, _FLOATS | _INTS | _BOOLS),
    ("bool", _BOOLS, _BOOLS),
    ("str", _TEXTS, _TEXTS),
    ("int | None", _INTS | _NONE, _INTS | _NONE),
    ("tp.Optional[float]", _FLOATS | _NONE, _INTS | _NONE | _FLOATS),
    ("str | None", _TEXTS | _NONE, _TEXTS | _NONE),
    ("int | str", _INTS | _TEXTS, _INTS | _TEXTS),
    ("int | float", _INTS | _FLOATS, _INTS | _FLOATS),
    ("float | str", _FLOATS | _TEXTS | _INTS, _FLOATS | _TEXTS | _INTS),
    ("bool | int | str", _BOOLS | _INTS | _TEXTS, _BOOLS | _INTS | _TEXTS),
    ("float | list[float]", _FLOATS | listed(_FLOATS), _INTS | listed(_INTS)),
    ('tp.Literal["a", "b c", 3]', st.sampled_from(('"a"', '"b c"', "3")), st.sampled_from(('"a"', "3"))),
    ("Color", COLORS | st.just("'red'"), COLORS),
    ("Number", NUMBERS, NUMBERS),
    ("Name", NAMES, NAMES | st.just("'a'")),
    ("Level", LEVELS, LEVELS),
    ("Color | None", COLORS | _NONE, COLORS | _NONE),
    ("list[Color]", listed(COLORS), listed(COLORS)),
    ("dict[Color, int]", mapped(_INTS, COLORS), mapped(_INTS, COLORS)),
    ("datetime.date", DATES | st.just("'2024-02-29'"), DATES),
    ("datetime.datetime", MOMENTS, MOMENTS),
    ("datetime.time", TIMES, TIMES),
    ("datetime.timedelta", SPANS | _INTS.filter(lambda text: len(text) < 6), SPANS),
    ("Path", PATHS | st.just("'a/b'"), PATHS | st.just("'a/b'")),
    ("Path | str", PATHS | _TEXTS, PATHS | _TEXTS),
    ("Path | None", PATHS | _NONE, PATHS | _NONE),
    ("decimal.Decimal", _DECIMALS, _DECIMALS),
    ("uuid.UUID", _IDS, _IDS),
    ("bytes", _BYTES, _BYTES),
    ("list[int]", listed(_INTS), listed(_INTS) | tupled(_INTS)),
    ("list[float]", listed(_FLOATS | _INTS), listed(_FLOATS | _INTS)),
    ("list[str]", listed(_TEXTS), listed(_TEXTS)),
    ("list[list[int]]", listed(listed(_INTS)), listed(listed(_INTS))),
    ("tuple[int, ...]", tupled(_INTS), tupled(_INTS) | listed(_INTS)),
    ("tuple[int, float]", st.builds(lambda x, y: f"({x}, {y})", _INTS, _FLOATS | _INTS), st.just("(1, 2)")),
    ("tuple[float, str] | None", st.builds(lambda x, y: f"({x}, {y})", _FLOATS, _TEXTS) | _NONE, _NONE),
    ("dict[str, int]", mapped(_INTS), mapped(_INTS)),
    ("dict[str, float]", mapped(_FLOATS), mapped(_FLOATS | _INTS)),
    ("dict[int, str]", mapped(_TEXTS, _INTS), mapped(_TEXTS, _INTS)),
    ("dict[str, list[float]]", mapped(listed(_FLOATS)), mapped(listed(_INTS))),
    ("dict[str, dict[str, int]]", mapped(mapped(_INTS)), mapped(mapped(_INTS))),
    ("dict[str, tp.Any]", mapped(ANYTHING), mapped(ANYTHING)),
    ("OrderedDict[str, int]", ordered(_INTS), ordered(_INTS)),
    ("OrderedDict[str, tp.Any]", ordered(JSON), ordered(JSON)),
    ("tp.OrderedDict[str, float]", ordered(_FLOATS), ordered(_FLOATS)),
    ("dict[str, OrderedDict[str, int]]", mapped(ordered(_INTS)), mapped(ordered(_INTS))),
    ("set[int]", SETS.filter(lambda text: "'" not in text), st.just("set()")),
    ("frozenset[int]", st.sampled_from(("{1, 2, 3}", "frozenset((2,))")), st.just("frozenset()")),
    ("tp.Any", ANYTHING, ANYTHING),
    ("list", listed(ANYTHING), listed(ANYTHING)),
    ("dict", mapped(ANYTHING), mapped(ANYTHING)),
    ("tp.Sequence[int]", listed(_INTS) | tupled(_INTS), tupled(_INTS)),
    ("tp.Mapping[str, float]", mapped(_FLOATS), mapped(_INTS)),
    ("collections.deque[int]", listed(_INTS), st.just("collections.deque([1])")),
    ("pydantic.PositiveInt", st.integers(1, 9).map(repr), st.integers(1, 9).map(repr)),
    (
        "tp.Annotated[float, pydantic.Field(ge=0)]",
        st.sampled_from(("0.5", "2")),
        st.sampled_from(("0.5", "2")),
    ),
    ("Count", _INTS, _INTS),
    ("Point", _POINTS, _POINTS),
    ("Pair", _PAIRS, _PAIRS),
    ("list[Point]", listed(_POINTS), listed(_POINTS)),
    ("Point | None", _POINTS | _NONE, _POINTS | _NONE),
    ("dict[str, Point]", mapped(_POINTS), mapped(_POINTS)),
    ("OrderedDict[str, Point]", ordered(_POINTS), ordered(_POINTS)),
    ("Line", _LINES, _LINES),
    ("list[Line | None]", listed(_LINES | _NONE), listed(_LINES)),
    ("Checked", _CHECKED, _CHECKED),
    ("dict[str, Checked]", mapped(_CHECKED), mapped(_CHECKED)),
    ("Table", _TABLES, _TABLES),
    ("Mark", _MARKS, _MARKS),
    ("list[Mark]", listed(_MARKS), listed(_MARKS)),
    ("Written", _INTS, _INTS),
    ("dict[str, OrderedDict[str, Written]]", mapped(ordered(_INTS)), mapped(ordered(_INTS))),
    ("list[Written]", listed(_INTS), listed(_INTS)),
    ("pydantic.Base64Bytes", st.just("b'YWI='"), st.just("b'YWI='")),
    ("tp.Any", _POINTS | _LINES, _POINTS | listed(_LINES)),
)


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of a generated class: its values are sources, `code` what follows its name."""

    name: str
    values: Source
    code: str
    required: bool


@dataclasses.dataclass
class Model:
    """A generated class."""

    name: str
    fields: list[Field]
    key: str | None = None  # names the class in dicts
    tag: str = ""  # what the key says
    abstract: bool = False
    extra: bool = False
    infra: bool = False
    whole: bool = False  # leaves itself out of the uid

    def arguments(self, draw: Draw) -> dict[str, str]:
        """Return arguments for the fields: all that are required and some of the others."""
        out = {
            field.name: draw(field.values) for field in self.fields if field.required or draw(st.booleans())
        }
        if self.extra and draw(st.integers(0, 2)) == 0:
            out["further"] = draw(ANYTHING)
        if self.infra and draw(st.integers(0, 2)) == 0:
            out["infra"] = draw(
                st.sampled_from(('{"version": "7"}', '{"folder": FOLDER}', '{"keep_in_ram": True}'))
            )
        return out

    def written(self, draw: Draw, as_dict: bool) -> str:
        """Return an object of the class, or the dict that it is made from."""
        arguments = self.arguments(draw)
        if not as_dict:
            return f"{self.name}({', '.join(f'{name}={value}' for name, value in arguments.items())})"
        if self.key is not None:
            arguments = {self.key: repr(self.tag), **arguments}
        return "{" + ", ".join(f"{name!r}: {value}" for name, value in arguments.items()) + "}"


@dataclasses.dataclass
class Group:
    """The classes that a field may hold, one or several."""

    annotation: str
    models: list[Model]
    key: str | None = None

    def values(self, allow_dicts: bool = True) -> Source:
        """Return values for a field that holds one of them."""

        @st.composite
        def value(draw: Draw) -> str:
            model = draw(st.sampled_from(self.models))
            return model.written(draw, as_dict=allow_dicts and draw(st.booleans()))

        return value()


def _shaped(draw: Draw, group: Group) -> tuple[str, Source, Source, str]:
    """Return a field that holds models: annotation, values, defaults, and what `Field` is told of a discriminator."""
    values, objects = group.values(), group.values(allow_dicts=False)
    inner = group.annotation
    if group.key is not None:
        inner = f"tp.Annotated[{inner}, pydantic.Field(discriminator={group.key!r})]"
    shapes = ["one", "one", "one", "optional", "list", "tuple", "lists"]
    if len(group.models) == 1 and group.key is None:
        shapes += ["either", "eithers"]
    if not any(model.whole for model in group.models):
        shapes += ["dict", "ordered"]  # the release removes it from the dicts of the object itself
    shape = draw(st.sampled_from(shapes))
    told = f"discriminator={group.key!r}" if group.key is not None else ""
    if shape == "one":
        return group.annotation, values, objects, told
    if shape == "optional":
        return f"{group.annotation} | None", values | _NONE, objects | _NONE, told
    if shape == "either":
        return f"Line | {group.annotation}", objects | _LINES, objects | _LINES, told
    if shape == "eithers":
        return f"list[Line | {group.annotation}]", listed(objects | _LINES), listed(objects | _LINES), ""
    if shape == "list":
        return f"list[{inner}]", listed(values), listed(objects), ""
    if shape == "dict":
        return f"dict[str, {inner}]", mapped(values), mapped(objects), ""
    if shape == "tuple":
        return f"tuple[{inner}, ...]", tupled(values), tupled(objects), ""
    if shape == "lists":
        return f"dict[str, list[{inner}]]", mapped(listed(values)), mapped(listed(objects)), ""
    return f"OrderedDict[str, {inner}]", ordered(values), ordered(objects), ""


@st.composite
def _almost(draw: Draw, default: str, models: list[Model], *, copies: bool) -> str:
    """Write the default of a field with one other value in it, which may be one that does not count.

    What a copy is updated with is not validated: see `_field`.
    """
    model = next((model for model in models if model.name == default.partition("(")[0]), None)
    if model is None or not model.fields:
        return default
    field = draw(st.sampled_from(model.fields))
    if copies and model.key in (None, "kind") and draw(st.booleans()):
        return f"{default}.model_copy(update={{{field.name!r}: {draw(field.values)}}})"
    begin = default.removesuffix(")")
    if f"{field.name}=" in begin or not default.endswith(")"):
        return default
    return f"{begin}{'' if begin.endswith('(') else ', '}{field.name}={draw(field.values)})"


def _field(draw: Draw, name: str, groups: list[Group], *, of_top: bool) -> Field:
    models: list[Model] = []
    if groups and draw(st.integers(0, 9)) < 4:
        group = draw(st.sampled_from(groups))
        models = group.models
        annotation, values, defaults, told = _shaped(draw, group)
    else:
        annotation, values, defaults = draw(st.sampled_from(LEAVES))
        told = ""
    told = f", {told}" if told else ""
    if draw(st.integers(0, 39)) == 0:
        hidden = (", exclude=True",) if of_top else ()
        told += draw(st.sampled_from((", description='x'", ", repr=False", *hidden)))
    way = draw(st.sampled_from(("required", "default", "default", "default", "factory")))
    if way == "required":
        return Field(
            name, values, f": {annotation}" + (f" = pydantic.Field(...{told})" if told else ""), required=True
        )
    if not of_top:
        # in a hierarchy, and in whatever lies in it, the release writes 1 for a default like `x: float = 1`, not 1.0
        told += ", validate_default=True"
    default = draw(defaults)
    values = values | _almost(default, models, copies=of_top) if models else values
    if way == "factory":
        return Field(
            name,
            values,
            f": {annotation} = pydantic.Field(default_factory=lambda: {default}{told})",
            required=False,
        )
    code = f"pydantic.Field({default}{told})" if told or draw(st.booleans()) else default
    return Field(name, values, f": {annotation} = {code}", required=False)


NAMES_OF_FIELDS = ("a", "b", "x", "y", "long_name_of_a_field", "lr")


def _exclusion(draw: Draw, fields: list[str]) -> list[str]:
    names = draw(st.lists(st.sampled_from(fields), max_size=2, unique=True)) if fields else []
    if draw(st.integers(0, 7)) == 0:
        names = ["."]
    return draw(
        st.sampled_from(
            (
                [f"    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = {tuple(names)!r}"],
                [f"    _exclude_from_cls_uid: tp.ClassVar[list[str]] = {names!r}"],
                ["    def _exclude_from_cls_uid(self):", f"        return {names!r}"],
                ["    @classmethod", "    def _exclude_from_cls_uid(cls):", f"        return {names!r}"],
            )
        )
    )


def _override(draw: Draw, fields: list[str]) -> list[str]:
    told = draw(
        st.sampled_from(
            (
                "None",
                "{}",
                "{'const': 1}",
                "{'a.b': [1, 2], 'c': {'d': 'x'}}",
                "exca.utils.ConfigExporter(uid=True, exclude_defaults=True, ignore_first_override=True).apply(self)",
                "OrderedDict(b=1, a=2)",
                *(f"{{{name!r}: self.{name}}}" for name in fields),
            )
        )
    )
    return ["    def _exca_uid_dict_override(self):", f"        return {told}"]


def _class(
    draw: Draw,
    name: str,
    groups: list[Group],
    *,
    bases: str,
    parent: Model | None = None,
    key: str | None = None,
) -> tuple[list[str], Model]:
    """Return the source of a class, and what is known of it."""
    # a model without any field that is written is lost from a dict of models in the release's config.yaml
    names = draw(st.lists(st.sampled_from(NAMES_OF_FIELDS), min_size=1, max_size=3, unique=True))
    fields = {field.name: field for field in parent.fields} if parent is not None else {}
    own = [_field(draw, field, groups, of_top=name == "Top") for field in names]
    lines = [f"class {name}({bases}):"]
    extra = draw(st.sampled_from(("forbid",) * 14 + ("allow", "ignore"))) if parent is None else ""
    if extra and "DiscriminatedModel" not in bases:
        lines.append(f"    model_config = pydantic.ConfigDict(extra={extra!r})")
    if key is not None:
        lines.append(f"    {key}: tp.Literal[{name!r}] = {name!r}")
    lines += [f"    {field.name}{field.code}" for field in own]
    fields.update({field.name: field for field in own})
    if draw(st.integers(0, 3)) == 0:
        lines += _exclusion(draw, list(fields))
    if draw(st.integers(0, 9)) == 0:
        lines += _override(draw, list(fields))
    if draw(st.integers(0, 11)) == 0:
        lines += [
            f"    @pydantic.field_serializer({draw(st.sampled_from(list(fields)))!r}, mode='wrap')",
            "    def _written(self, value, handler):",
            "        return handler(value)",
        ]
    infra = key is None and parent is None and "Discriminated" not in bases and draw(st.integers(0, 11)) == 0
    if infra:
        lines += [
            "    infra: exca.MapInfra = exca.MapInfra(version='3')",
            "    @infra.apply(item_uid=str)",
            "    def items(self, items: tp.Sequence[int]) -> tp.Iterator[int]:",
            "        yield from items",
        ]
    lines.append("    pass")
    model = Model(
        name,
        list(fields.values()),
        key=key,
        tag=name,
        extra="extra='allow'" in "".join(lines) or (parent is not None and parent.extra),
        infra=infra or (parent is not None and parent.infra),
        whole=(parent is not None and parent.whole) or any("'.'" in line for line in lines),
    )
    return lines, model


@st.composite
def _parts(draw: Draw) -> tuple[list[str], list[Group]]:
    """Return the source of some classes, and what fields may hold of them."""
    lines: list[str] = []
    groups: list[Group] = []
    for number in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(("plain", "plain", "child", "union", "hierarchy")))
        name = f"M{number}"
        singles = [group for group in groups if len(group.models) == 1 and group.key is None]
        if kind == "child" and singles:
            parent = draw(st.sampled_from(singles)).models[0]
            source, model = _class(draw, name, groups, bases=parent.name, parent=parent)
            lines += source
            groups.append(Group(name, [model]))
        elif kind == "union":
            members = []
            for letter in "AB":
                source, model = _class(draw, name + letter, groups, bases="pydantic.BaseModel", key="kind")
                lines += source
                members.append(model)
            groups.append(Group(" | ".join(model.name for model in members), members, key="kind"))
        elif kind == "hierarchy":
            key = draw(st.sampled_from(("type", "name")))
            base = "DiscriminatedModel" if key == "type" else f"DiscriminatedModel, discriminator_key={key!r}"
            source, model = _class(draw, name, groups, bases=base)
            lines += source
            members = [model]
            for letter in "AB":
                source, child = _class(draw, name + letter, groups, bases=name, parent=model)
                lines += source
                members.append(child)
            for member in members:
                member.key = key
            groups.append(Group(name, members))
        else:
            source, model = _class(draw, name, groups, bases="pydantic.BaseModel")
            lines += source
            groups.append(Group(name, [model]))
    return lines, groups


@st.composite
def configurations(draw: Draw) -> dict[str, tp.Any]:
    """Return a case: the source of a module that makes `obj`, and how its method is called."""
    lines, groups = draw(_parts())
    source, top = _class(draw, "Top", groups, bases="pydantic.BaseModel")
    while source[-1] == "    pass" or "infra" in source[-1]:
        if source[-1] == "    pass":
            source.pop()
        else:
            break
    lines += list(source)
    run = "map" if draw(st.integers(0, 5)) == 0 else "task"
    names = [field.name for field in top.fields]
    if top.infra:
        lines = [line.replace("    def items(", "    def run(") for line in lines[: -len(source)]] + [
            line.replace("def items(", "def run(") for line in source
        ]
        run = "map"
    elif run == "map":
        lines += [
            f"    infra: exca.MapInfra = exca.MapInfra(version={draw(st.sampled_from(('0', '1', 'v.2')))!r})",
            f"    @infra.apply(item_uid=str{_excluded(draw, names)})",
            "    def run(self, items: tp.Sequence[str]) -> tp.Iterator[int]:",
            "        yield from (len(item) for item in items)",
        ]
    else:
        told = _excluded(draw, names)
        lines += [
            f"    infra: exca.TaskInfra = exca.TaskInfra(version={draw(st.sampled_from(('0', '1', 'v.2')))!r})",
            f"    @infra.apply({told[2:]})" if told else "    @infra.apply",
            "    def run(self) -> int:",
            "        return 1",
        ]
    if "method:" in "".join(lines):
        lines += [
            "    def _left_out(self):",
            f"        return {draw(st.lists(st.sampled_from(names), unique=True))!r}",
        ]
    arguments = {name: value for name, value in top.arguments(draw).items() if name != "infra"}
    told = ", ".join(f"{name}={value}" for name, value in arguments.items())
    given = draw(
        st.sampled_from(("'folder': FOLDER", "'folder': FOLDER", "'folder': FOLDER, 'version': '9'"))
    )
    lines.append(f"obj = Top({told + ', ' if told else ''}infra={{{given}}})")
    lines += _copied(draw, top, lines)
    return {"kind": "config", "source": HEADER + "\n".join(lines) + "\n", "run": run}


def _copied(draw: Draw, top: Model, lines: list[str]) -> list[str]:
    """Return what puts a copy in the place of the object, in some cases."""
    ways = ["", "", "", "", "deepcopy", "clone"]
    if "discriminator=" not in "".join(lines):
        # in the release, a copy with members that were not there forgets which model of a union they are
        ways.append("change")
    further = draw(st.sampled_from(ways))
    if further == "clone":
        return ["obj = obj.infra.clone_obj()"]
    if further == "deepcopy":
        return ["obj = copy.deepcopy(obj)"]
    if further == "change" and top.fields:
        field = draw(st.sampled_from(top.fields))
        value = draw(field.values)
        # in the release, a model that is given to a copy forgets its defaults, which may differ by their infras
        forgets = re.search(r"\bM\d", value) and "".join(lines).count("infra: exca.") > 1
        # ours merges a dict into what the object holds, the release into what it holds beside its defaults
        if not value.startswith(("{", "OrderedDict")) and not forgets:
            return [f"obj = obj.infra.clone_obj({{{field.name!r}: {value}}})"]
    return []


def _excluded(draw: Draw, names: list[str]) -> str:
    if not names or draw(st.integers(0, 3)):
        return ""
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True))
    return draw(
        st.sampled_from(
            (
                f", exclude_from_cache_uid={tuple(chosen)!r}",
                f", exclude_from_cache_uid=lambda obj: {chosen!r}",
                ", exclude_from_cache_uid='method:_left_out'",
            )
        )
    )


__all__ = ["PLAIN", "SCALARS", "configurations"]
