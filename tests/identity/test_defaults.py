"""When a model is left out of a uid as the default of its field; the uids were recorded with release 0.6.0."""

import typing as tp
from collections.abc import Callable
from pathlib import Path

import pydantic
import pytest

import exca
from exca import steps
from exca.steps import backends


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    @classmethod
    def _exclude_from_cls_uid(cls) -> list[str]:
        return ["z"] if "z" in cls.model_fields else []


class Plain(Model):
    x: int = 1
    path: Path = Path("a")
    z: int = 0


class Deep(Model):
    p: Plain = Plain()
    y: int = 0
    z: int = 0


class One(Model):
    kind: tp.Literal["one"] = "one"
    x: int = 1
    z: int = 0


class Two(Model):
    kind: tp.Literal["two"] = "two"


Either = tp.Annotated[One | Two, pydantic.Field(discriminator="kind")]


class Base(exca.helpers.DiscriminatedModel):
    x: int = 1
    z: int = 0

    @classmethod
    def _exclude_from_cls_uid(cls) -> list[str]:
        return ["z"]


class Sub(Base):
    y: int = 2


class Writes(Model):
    x: int = 1
    z: int = 0

    def _exca_uid_dict_override(self) -> dict[str, tp.Any]:
        return {"x": self.x}


class Mapped(Model):
    n: dict[str, int] = {}
    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> int:
        return self.x


class Adding(steps.Step):
    value: float = 1.0

    def _run(self, x: float) -> float:
        return x + self.value


class Running(steps.Step):
    infra: backends.Backend | None = backends.ProcessPool()

    def _run(self, x: float) -> float:
        return x


class Holds(steps.Step):
    inner: steps.Step = Adding()
    runs: Running = Running()

    def _run(self, x: float) -> float:
        return x


def holding(annotation: tp.Any, default: tp.Any, value: tp.Any) -> Model:
    """An object with one field, which has a default."""
    field = default if isinstance(default, pydantic.fields.FieldInfo) else pydantic.Field(default)
    cls = pydantic.create_model("Holding", __base__=Model, d=(annotation, field))
    return cls.model_validate({"d": value})


def made(make: Callable[[], tp.Any]) -> tp.Any:
    return pydantic.Field(default_factory=make)


CASES: list[tuple[str, Callable[[], pydantic.BaseModel]]] = [
    # what a value says in the uid is what the default was given
    ("", lambda: holding(Plain, Plain(x=5), Plain(x=5, z=3))),
    ("", lambda: holding(Plain, Plain(x=5, z=9), Plain(x=5, z=3))),
    ("", lambda: holding(Deep, Deep(y=3), Deep(y=3, p=Plain(z=3)))),
    ("d={}-a6ca4459", lambda: holding(Plain, Plain(x=5), Plain(x=1, z=3))),
    (
        "",
        lambda: holding(
            Mapped, Mapped(n={"a.b": 3}), Mapped(n={"a.b": 3}, infra=exca.TaskInfra(keep_in_ram=True))
        ),
    ),
    # as it is: text is no Path, a dict is no model
    ("d.path=b-e2ee5d4e", lambda: holding(Plain, Plain(path=Path("b")), Plain(path=Path("b"), z=1))),
    ("d.p.x=5-5a12c0ab", lambda: holding(Deep, Deep(p=Plain(x=5)), Deep(p=Plain(x=5), z=3))),
    ("d.p.x=5-5a12c0ab", lambda: holding(Deep, Deep(p=Plain(x=5)), Deep(p=Plain(x=5, z=3)))),
    ("", lambda: holding(Deep, Deep(p=Plain(x=5)), Deep(p=Plain(x=5)))),
    ("d.x=5-fa301c46", lambda: holding(Plain, made(lambda: Plain(x=5)), Plain(x=5, z=3))),
    ("", lambda: holding(Plain, made(lambda: Plain(x=5)), Plain(x=5))),
    # what names the class is no field, or was not given
    ("d.kind=one-bbe9e078", lambda: holding(Either, One(), One(z=3))),
    ("", lambda: holding(Either, One(kind="one"), One(z=3))),
    ("", lambda: holding(Either, One(), One())),
    ("d.type=Base-346aaaca", lambda: holding(Base, Base(), Base(z=1))),
    ("d={y=3,type=Sub}-fab34d68", lambda: holding(Base, Sub(y=3), Sub(y=3, z=1))),
    ("", lambda: holding(Base, Sub(y=3), Sub(y=3))),
    # models that write their part themselves
    ("", lambda: holding(Writes, Writes(x=3), Writes(x=3, z=1))),
    ("d.x=1-1876ec5f", lambda: holding(Writes, Writes(), Writes(z=1))),
    # an infra that the default was given
    (
        "d.x=3-69ed82c0",
        lambda: holding(Mapped, Mapped(x=3, infra=exca.TaskInfra(keep_in_ram=True)), Mapped(x=3)),
    ),
    ("", lambda: holding(Mapped, Mapped(x=3), Mapped(x=3))),
    # steps: an infra makes another one of them, also where a folder was handed to it
    ("type=Holds-c9da2ba8", Holds),
    ("type=Holds-c9da2ba8", lambda: Holds(inner=Adding(), runs=Running())),
    ("type=Holds,inner.type=Adding-d6c6b338", lambda: Holds(inner=Adding(infra="Cached"))),
    ("type=Holds,runs.type=Running-ecd1a045", lambda: Holds(runs=Running(infra=None))),
    ("type=Holds,runs.type=Running-ecd1a045", lambda: Holds(infra={"folder": "/tmp"})),
    (
        "steps=({type=Holds,runs.type=Running})-8f911d32",
        lambda: steps.Chain(steps=[Holds()], infra={"folder": "/tmp"}),
    ),
]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_model_is_left_out_where_the_release_leaves_it_out(number: int) -> None:
    recorded, make = CASES[number]
    assert exca.ConfDict.from_model(make(), uid=True, exclude_defaults=True).to_uid() == recorded


if __name__ == "__main__":  # with the release: what to record
    for number, (_, make) in enumerate(CASES):
        print(number, repr(exca.ConfDict.from_model(make(), uid=True, exclude_defaults=True).to_uid()))
