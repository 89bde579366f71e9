"""Cases found by the search against the published release, recorded with it in found_vectors.json.

Written against the public interface only. `configurations()` yields (name, object with an infra), `pipelines(folder)`
yields (name, step, arguments of run); `record()` runs them all.
"""

import collections
import dataclasses
import json
import sys
import tempfile
import typing as tp
from pathlib import Path

import pydantic
import typing_extensions

import exca
from exca import steps
from exca.helpers import DiscriminatedModel
from exca.steps.helpers import Func
from exca.utils import ConfigExporter

Json = dict[str, tp.Any]
Ordered = collections.OrderedDict
FILES = ("uid.yaml", "full-uid.yaml", "config.yaml")


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class Plain(Strict):
    a: int = 0
    b: int = 1


class Says(Strict):
    """Writes its own part of the uid."""

    a: int = 0
    b: int = 1
    says: tp.Any = pydantic.Field(None, exclude=True)

    def _exca_uid_dict_override(self) -> tp.Any:
        return self.says


class Named(DiscriminatedModel):
    a: int = 0
    says: tp.Any = pydantic.Field(None, exclude=True)

    def _exca_uid_dict_override(self) -> tp.Any:
        return self.says


class Part(pydantic.BaseModel):
    q: int = 3
    infra: exca.MapInfra = exca.MapInfra(version="3")

    @infra.apply(item_uid=str)
    def run_items(self, items: tp.Sequence[int]) -> tp.Iterator[int]:
        yield from items


class SaysWithInfra(pydantic.BaseModel):
    a: int = 0
    infra: exca.MapInfra = exca.MapInfra(version="3")

    def _exca_uid_dict_override(self) -> tp.Any:
        return {"a": self.a}

    @infra.apply(item_uid=str)
    def run_items(self, items: tp.Sequence[int]) -> tp.Iterator[int]:
        yield from items


class Only(Strict):
    x: int = 1


class Overrides(pydantic.BaseModel):
    plain: Says = Says()
    given: Says = Says(a=0)
    other: Says = Says(a=5)
    maybe: Says | None = Says()
    several: list[Says] = [Says()]
    named: Named = Named()
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return 1


class SaysModel(Strict):
    """Writes a model as its part, which 0.6 can leave out at its default only."""

    part: Plain = Plain()
    rows: list[Plain] = []
    left: int = 0

    def _exca_uid_dict_override(self) -> tp.Any:
        return {"part": self.part, "rows": self.rows}


class SaysModels(pydantic.BaseModel):
    one: SaysModel = SaysModel(part=Plain(a=2), rows=[Plain(b=2)])
    two: SaysModel = SaysModel(part=Plain(a=3), rows=[])
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return 1

    @pydantic.field_serializer("two", mode="wrap")
    def _as_ever(self, value: tp.Any, handler: tp.Any) -> tp.Any:
        return handler(value)


class WithInfras(pydantic.BaseModel):
    parts: list[Part] = [Part()]
    table: dict[str, Part] = pydantic.Field(default_factory=lambda: {"k": Part()})
    one: Part = Part()
    says: SaysWithInfra = SaysWithInfra()
    five: SaysWithInfra = SaysWithInfra(a=5)
    none: list[Part] = []
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return 1


class Orders(pydantic.BaseModel):
    any: tp.Any = None
    rows: list[Ordered[str, tp.Any]] = []
    tuples: tuple[Ordered[str, int], ...] = ()
    tables: dict[str, list[Ordered[str, int]]] = {}
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return 1


class Nested(pydantic.BaseModel):
    only: Only = Only()
    plain: Plain = Plain(b=3)
    table: dict[str, dict[str, int]] = {"a": {"b": 1}}
    infra: exca.TaskInfra = exca.TaskInfra(version="1")

    @infra.apply
    def run(self) -> int:
        return 1


@dataclasses.dataclass
class Point:
    x: int = 0
    y: float = 0.5


@dataclasses.dataclass
class Line:
    start: Point = dataclasses.field(default_factory=Point)
    rest: list[Point] = dataclasses.field(default_factory=list)
    table: Ordered[str, int] = dataclasses.field(default_factory=Ordered)


@pydantic.dataclasses.dataclass
class Checked:
    x: int = 0
    point: Point = dataclasses.field(default_factory=Point)


Written = tp.Annotated[int, pydantic.PlainSerializer(lambda value: f"<{value}>")]


class Table(typing_extensions.TypedDict, total=False):
    point: Point
    written: Written


class Mark(tp.NamedTuple):
    point: Point
    written: Written = 1


class Apart(Strict):
    """Leaves itself out of the uid, or a field of itself."""

    left: int = 1
    kept: Point = Point()
    whole: bool = pydantic.Field(False, exclude=True)

    def _exclude_from_cls_uid(self) -> list[str]:
        return ["."] if self.whole else ["left"]


class _TypedFields(pydantic.BaseModel):
    """Fields whose annotation has a say in how they are written, where it is asked."""

    model_config = pydantic.ConfigDict(extra="forbid")
    point: Point = Point()
    line: Line | None = None
    points: list[Point] = []
    ordered: Ordered[str, Point] = Ordered()
    nested: dict[str, Ordered[str, Written]] = {}
    checked: Checked = Checked()
    table: Table = {}
    mark: Mark = Mark(Point())
    written: Written = 3
    code: pydantic.Base64Bytes = b""
    either: Line | Apart = Line()
    eithers: list[Line | Apart] = []
    within: dict[str, Line | Apart] = {}
    any: tp.Any = None


class TypedPlain(_TypedFields):
    pass


class Serialized(Strict):
    """Fields that a function of the class writes."""

    one: Apart = Apart()
    rows: list[Apart] = []
    table: dict[str, Apart] = {}
    order: Ordered[str, int] = Ordered()
    other: Apart = Apart()
    holds: TypedPlain = TypedPlain(either=Apart(left=4))
    mixed: list[Line | Apart] = [Line(Point(1)), Apart(left=2)]

    @pydantic.field_serializer("mixed", "holds", "one", "rows", "table", "order", mode="wrap")
    def _as_ever(self, value: tp.Any, handler: tp.Any) -> tp.Any:
        return handler(value)

    @pydantic.field_serializer("other")
    def _left(self, value: Apart) -> Json:
        return {"seen": value.left}


class TypedNamed(DiscriminatedModel, _TypedFields):
    part: TypedPlain = TypedPlain()


@dataclasses.dataclass
class Holder:
    """Holds models in a dataclass, whose fields nothing leaves out."""

    named: TypedNamed = dataclasses.field(default_factory=TypedNamed)
    apart: Apart = dataclasses.field(default_factory=Apart)


class Typed(pydantic.BaseModel):
    plain: TypedPlain = TypedPlain()
    named: TypedNamed = TypedNamed()
    rows: list[TypedNamed] = []
    holder: Holder = Holder()
    serialized: Serialized = Serialized()
    part: Line | Part = Part(infra=exca.MapInfra(keep_in_ram=True))
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return 1


class TypedOutside(DiscriminatedModel):
    point: Point = Point()
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return 1


class TypedStep(steps.Step):
    point: Point = Point()

    def _run(self, value: int) -> int:
        return value


TYPED: Json = {
    "point": Point(4),
    "line": Line(Point(3), [Point(1)], Ordered(b=1, a=2)),
    "points": [Point(1), Point()],
    "ordered": Ordered({"b.c": Point(1), "a": Point(y=2.0)}),
    "nested": {"k": Ordered(b=1, a=2)},
    "checked": Checked(point=Point(3)),
    "table": {"point": Point(1), "written": 2},
    "mark": Mark(Point(1), 4),
    "written": 4,
    "code": b"YWI=",
    "either": Apart(left=3, kept=Point(1)),
    "eithers": [Apart(left=3), Line(Point(1)), Apart(whole=True)],
    "within": {"a": Line(Point(2)), "b": Apart(left=2, kept=Point(2))},
    "any": [Point(1), Line(Point(2)), {"a": Apart(left=3, kept=Point(1))}],
}


class GivenInfras(pydantic.BaseModel):
    same: Part = Part(infra=exca.MapInfra(version="3"))
    other: Part = Part(q=4, infra=exca.MapInfra(version="7"))
    resources: Part = Part(infra=exca.MapInfra(keep_in_ram=False))
    says: SaysWithInfra = SaysWithInfra(a=2, infra=exca.MapInfra(version="7"))
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return 1


class Numbers(pydantic.BaseModel):
    """Defaults that are never validated."""

    either: float | list[float] = [1, 2]
    maybe: list[float] | None = [1, 2]
    table: dict[str, float] | str = {"k": 1}
    flags: int | list[int] = [True]
    mixed: list[float | str] = [1]
    pair: tuple[float, int] | str = (1, True)
    inner: dict[str, float | list[float]] = {"k": [1]}
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return 1


class Leaf(steps.Step):
    value: tp.Any = 1

    def _run(self, x: tp.Any = 0) -> str:
        return str(x)[:20]


class Special(Leaf):
    extra: int = 0


class Outer(steps.Step):
    part: Leaf = Special()
    row: list[steps.Step] = [Leaf()]

    def _run(self, x: tp.Any) -> str:
        return str(x)[:20]


def two_optional(a: int = 1, b: int = 2) -> int:
    return a + b


def one_required(x: int, w: int = 1) -> int:
    return x + w


FORWARD, BACKWARD = Ordered(b=1, a=2), Ordered(a=2, b=1)


class Choosing(pydantic.BaseModel):
    """Writes its own part of the uid, or leaves it to its fields."""

    model_config = pydantic.ConfigDict(extra="forbid")
    kind: tp.Literal["choosing"] = "choosing"
    b: int = 3

    def _exca_uid_dict_override(self) -> Json | None:
        if self.b < 10:
            return None
        order = Ordered(z=1, y={2})
        return Ordered(pair=(self.b, [(1,)]), list=[order]) if self.b < 30 else Ordered(b=order, a={1, 2})


class Contrary(Strict):
    """Writes a field that it leaves out."""

    x: int
    y: int = 2
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("x", "y")

    def _exca_uid_dict_override(self) -> Json | None:
        return {"x": self.x}


class Chosen(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    kind: tp.Literal["chosen"] = "chosen"


class Choices(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    one: Choosing | Chosen = pydantic.Field(..., discriminator="kind")
    table: Ordered[str, Choosing] = Ordered()
    any: tp.Any = None
    contrary: Contrary = Contrary(x=4, y=9)
    infra: exca.TaskInfra = exca.TaskInfra()

    def _exca_uid_dict_override(self) -> tp.Any:
        if self.any is None:
            return None
        return ConfigExporter(uid=True, exclude_defaults=True, ignore_first_override=True).apply(self)

    @infra.apply
    def run(self) -> int:
        return 1


def configurations() -> tp.Iterator[tuple[str, tp.Any]]:
    """Yields (name, object)."""
    for name, says in (("none", None), ("empty", {}), ("zero", {"a": 0}), ("five", {"a": 5}), ("const", {"c": 1})):
        for field in ("plain", "given", "other", "maybe", "several", "named"):
            kind = Named if field == "named" else Says
            for a in (0, 2, 5):
                value: tp.Any = kind(a=a, says=says)
                yield f"override-{name}-{field}-{a}", Overrides(**{field: [value] if field == "several" else value})
    yield "infras", WithInfras()
    yield "infras-given", WithInfras(parts=[Part()], table={"k": {}}, one={}, says={}, five={"a": 5})
    yield "infras-changed", WithInfras(parts=[Part(q=4)], one={"infra": {"version": "7"}}, five={"a": 0}, none=[{}])
    for name, order in (("forward", FORWARD), ("backward", BACKWARD)):
        yield f"order-item-{name}", Orders(any=[order])
        yield f"order-inner-{name}", Orders(any={"k": [order], "l": order})
        yield f"order-deep-{name}", Orders(any=[[{"k": order}]], rows=[Ordered(z=order, y=[order])])
        yield f"order-fields-{name}", Orders(rows=[order], tuples=(order,), tables={"k": [order]})
    yield "order-dotted", Orders(any=[Ordered({"x.y": 1, "b": {"c": 1}})])
    yield "order-single", Orders(any=[Ordered(a={"b": 1}), Ordered()])
    yield "given-infras", GivenInfras()
    yield "given-infras-again", GivenInfras(same={}, other={"q": 4}, resources={"infra": {"version": "3"}})
    yield "numbers", Numbers()
    yield "numbers-given", Numbers(either=[1, 2], table={"k": 1}, flags=[1], pair=(1, 1), inner={"k": [1.5]})
    yield "choices-left", Choices(one=Choosing(b=4))
    yield "choices-default", Choices(one=Choosing())
    yield "choices-written", Choices(one=Choosing(b=20))
    yield "choices-contrary", Choices(one=Choosing(), contrary=Contrary(x=-9))
    yield "choices-exported", Choices(one=Choosing(), any={"a": [Ordered(long_name="x", a=None)]})
    yield "choices-ordered", Choices(one=Choosing(b=30), table={"k": Choosing(b=20), "j": Choosing(b=30)})
    yield "says-models", SaysModels()
    equal = SaysModel(part=Plain(a=2), rows=[Plain(b=2)], left=3)
    yield "says-models-equal", SaysModels(one=equal, two=SaysModel(part=Plain(a=3), rows=[], left=2))
    for name, value in TYPED.items():
        plain, named = TypedPlain.model_validate({name: value}), TypedNamed.model_validate({name: value})
        yield f"typed-plain-{name}", Typed(plain=plain)
        yield f"typed-named-{name}", Typed(named=named, rows=[named], holder=Holder(named, Apart(left=2)))
        yield f"typed-part-{name}", Typed(named=TypedNamed(part=plain))
    yield "typed-serialized-default", Typed(serialized=Serialized(one=Apart(left=2)))
    changed = Apart(left=3, kept=Point(2))
    yield "typed-serialized-models", Typed(serialized=Serialized(one=changed, rows=[changed], table={"a": changed}))
    yield "typed-serialized-others", Typed(serialized=Serialized(order=Ordered(b=1, a=2), other=changed))
    yield "typed-outside", TypedOutside(point=Point(4))
    yield "nested", Nested()
    yield "nested-changed", Nested(only={"x": 2}, table={"c": {"d": 1}})


def pipelines(folder: Path) -> tp.Iterator[tuple[str, steps.Step, tuple[tp.Any, ...]]]:
    """Yields (name, step, arguments of run)."""
    inf: Json = {"backend": "Cached", "folder": folder}
    cached: Json = {"backend": "Cached"}
    yield "typed-step", TypedStep(point=Point(4), infra=inf), (1,)
    yield "single-key", Leaf(value={"a": None}, infra=inf), (1,)
    yield "order-item", Leaf(value=[FORWARD], infra=inf), (1,)
    yield "default-step", Outer(infra=inf), (1,)
    yield "given-step", Outer(part=Special(), row=[Leaf()], infra=inf), (1,)
    yield "other-step", Outer(part=Leaf(), row=[Special()], infra=inf), (1,)
    yield "handed-down", steps.Chain(steps=[Leaf(infra=cached), Outer(infra=cached)], infra=inf), (1,)
    yield "input-first", Func(function=two_optional, input_param="a", infra=inf), (3,)
    yield "input-left", Func(function=one_required, input_param="w", x=3, infra=inf), (3,)
    yield "input-required", Func(function=one_required, input_param="x", infra=inf), (3,)


def written(folder: Path) -> Json:
    """The configuration files below a folder."""
    paths = sorted(path for name in FILES for path in folder.rglob(name))
    return {str(p.relative_to(folder)): p.read_text("utf8").replace(str(folder), "<folder>") for p in paths}


def record() -> Json:
    """The recorded form of every case."""
    out: Json = {}
    for name, obj in configurations():
        with tempfile.TemporaryDirectory() as tmp:
            cloned = type(obj)(**{**dict(obj), "infra": {"folder": tmp, "version": obj.infra.version}})
            cloned.run()
            out[name] = {"uid": cloned.infra.uid(), "files": written(Path(tmp))}
    for name in [case[0] for case in pipelines(Path("unused"))]:
        with tempfile.TemporaryDirectory() as tmp:
            step, arguments = next((s, a) for n, s, a in pipelines(Path(tmp)) if n == name)
            value = step.run(*arguments)
            folders = sorted(str(p.parent.relative_to(tmp)) for p in Path(tmp).rglob("cache") if p.is_dir())
            out[name] = {"value": value, "folders": folders, "files": written(Path(tmp))}
    return out


if __name__ == "__main__":
    # in a module of its own name, which is part of the uids
    import found_models

    json.dump(found_models.record(), sys.stdout, indent=1, sort_keys=True)
