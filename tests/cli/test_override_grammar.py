"""Overrides: what they read as, and how they are refused."""

import os
import re
import typing as tp
from collections.abc import Sequence
from pathlib import Path

import hypothesis
import pydantic
import pytest
from hypothesis import strategies

from exca.cli.configuring import Configurator, read_yaml
from exca.cli.overrides import parse, points
from exca.errors import OverrideError


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("a=1", [1]),
        ("a=1,2,3", [1, 2, 3]),
        ("a.b=x,y", ["x", "y"]),
        ("a=choice(x, 2)", ["x", 2]),
        ("a=range(3)", [0, 1, 2]),
        ("a=range(1,7,2)", [1, 3, 5]),
        ("a=range(0,1,0.25)", [0, 0.25, 0.5, 0.75]),
        ("a=range(0,0.3,0.1)", [0, 0.1, 0.2]),
        ("a=range(3,0,-1)", [3, 2, 1]),
        ("a=[1,2],[3]", [[1, 2], [3]]),
        ("a={b: 1, c: [2, 3]}", [{"b": 1, "c": [2, 3]}]),
        ("a=null", [None]),
        ("a=true", [True]),
        ("a=1e-3", [0.001]),
        ("a='1,2'", ["1,2"]),
        ('a="x, y",z', ["x, y", "z"]),
        ("a=s3://bucket/key", ["s3://bucket/key"]),
        ("a=it's", ["it's"]),
        ("a=x=y", ["x=y"]),
        ("a=@file,*,%,`,!x,|,>,...,&b", ["@file", "*", "%", "`", "!x", "|", ">", "...", "&b"]),
        ("a=- x", ["- x"]),
        ("a=010", ["010"]),  # a field of numbers makes 10 of it
        ("a=2024-13-45", ["2024-13-45"]),
        ("a=''", [""]),
        ("a=", [""]),
        ("+a=1", [1]),
        ("++a=1", [1]),
    ],
)
def test_values(argument: str, values: list[tp.Any]) -> None:
    assert [value.parsed for value in parse(argument).values] == values


def test_removal_and_interval() -> None:
    assert parse("~a.b").removes
    assert parse("~a.b").name == "a.b"
    assert parse("a=interval(0.1, 1)").interval == (0.1, 1.0)


def test_points_are_the_product() -> None:
    found = [
        {n: v.parsed for n, v in p.items()} for p in points([parse("a=1,2"), parse("b=x,y"), parse("~c")])
    ]
    assert found == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("layers", "is no override: write name=value"),
        ("a b=1", "is no dotted name of a field"),
        ("=1", "is no dotted name of a field"),
        ("~", "is no dotted name of a field"),
        ("a=[1,2", "does not close its ]"),
        ("a='x", "does not close its '"),
        ("a={b: 1}}, c: [", "does not close its ]"),
        ("a=range(x)", "takes numbers"),
        ("a=range(0,1,0)", "has no end"),
        ("a=range(0,inf)", "has no end"),
        ("a=range(0,1e9,1)", "makes 1000000000 values, more than"),
        ("a=range(1,2,3,4)", "cannot be read: write range"),
        ("a=interval(2,1)", "cannot be read: write range"),
        ("a=[1, *x]", "cannot be read"),
        ("a=choice()", "'a=choice()' gives a no value: write some, as in a=choice(1, 2)"),
        ("a=range(3,3)", "gives a no value"),
        ("a=range(0,-5)", "gives a no value"),
        ("a=1,", "has no value beside a comma: write '' for an empty text"),
        ("a=choice(1,,2)", "has no value beside a comma"),
        ("a=range(1,1000000000000)", "makes 1e+12 values, more than"),
        ("a=range(1,1e299)", "makes 1e+299 values, more than"),
        ("a=range(0,1,1e-320)", "values, more than"),
        ("a=range(0," + "9" * 400 + ")", "has no end"),
        ("a=" + "9," * 100_001, "gives 100002 values, more than"),
        ("a=[" + "[" * 500 + "]" * 500 + "]", "cannot be read"),
    ],
)
def test_refusals(argument: str, said: str) -> None:
    with pytest.raises(OverrideError, match=re.escape(said)):
        parse(argument)


def test_no_more_points_than_can_be_made() -> None:
    with pytest.raises(OverrideError, match=re.escape("a=range(1000) b=range(1000) make 1000000 points")):
        next(points([parse("a=range(1000)"), parse("b=range(1000)"), parse("c=1")]))


class _Strict(pydantic.BaseModel):
    model_config: tp.ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(extra="forbid")


class Linear(_Strict):
    kind: tp.Literal["linear"] = "linear"
    bias: bool = True


class Network(_Strict):
    kind: tp.Literal["network"] = "network"
    layers: int = pydantic.Field(default=2, ge=1)
    drop: float | None = None


class Data(_Strict):
    crop: list[int] = [1, 2]
    weights: dict[str, float] = {"a": 1.0}


class Fit(_Strict):
    needed: int
    rate: float = 0.5
    title: str = ""
    model: Linear | Network = pydantic.Field(Network(), discriminator="kind")
    either: Data | Linear | None = None
    data: Data = Data()
    mode: tp.Literal["fast", "slow"] = "fast"


def made(arguments: Sequence[str], file: Path | None = None) -> list[pydantic.BaseModel]:
    base = None if file is None else read_yaml(str(file))
    return Configurator(Fit, base).objects([parse(argument) for argument in arguments])


def told(*arguments: str, file: Path | None = None) -> str:
    """What is wrong with arguments, in one line."""
    with pytest.raises(OverrideError) as caught:
        made(arguments, file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        (
            "model.layrs=2",
            "in 'model.layrs=2': model.network.layrs: Extra inputs are not permitted; did you mean 'layers'?",
        ),
        ("model={kind: linear, bais: true}", "did you mean 'bias'?"),
        ("model.kind=netwrk", "did you mean 'network'?"),
        ("mode=fats", "did you mean 'fast'?"),
        ("data.crop.5=5", "in 'data.crop.5=5': index 5 is outside of the list"),
        ("data.crop.x=5", "in 'data.crop.x=5': "),
        ("data.weights={1: 2}", "in 'data.weights={1: 2}': configuration keys must be str"),
        ("data.weights=[&a [*a]]", "in 'data.weights=[&a [*a]]': "),
        ("~rat", "'~rat' removes 'rat', which the configuration does not set; did you mean 'rate'?"),
        ("~model.layers", "which the configuration does not set"),
    ],
)
def test_what_no_object_can_be_made_of(argument: str, said: str) -> None:
    assert said in told("needed=1", argument).replace("Fit cannot be made: ", "")


def test_each_variant_tells_what_it_has() -> None:
    with pytest.raises(OverrideError) as caught:
        made(["needed=1", "either={cropp: [1]}"])
    _, data, linear = str(caught.value).splitlines()
    assert data.startswith("  in 'either={cropp: [1]}': either.Data.cropp: ")
    assert data.endswith("; did you mean 'crop'?")
    assert linear.endswith("; there are kind, bias")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "needed: 1\nmodel:\n  layrs: 2\n  kind: network\n",
            ":3: model.network.layrs: Extra inputs are not permitted; did",
        ),
        (
            "needed: 1\nmodel: {kind: linear}\nmode: slwo\n",
            ":3: mode: Input should be 'fast' or 'slow'; did you mean 'slow'?",
        ),
        ("needed: 2024-13-45\n", " cannot be read: month must be in 1..12"),
        ("needed: &a [*a]\n", " cannot be read: "),
        (f"needed: {'9' * 5000}\n", " cannot be read: "),
        (f"needed: {'[' * 500}{']' * 500}\n", " cannot be read: "),
    ],
)
def test_what_a_file_has_wrong(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "fit.yaml"
    file.write_text(text)
    assert f"fit.yaml{said}" in told(file=file)


EXAMPLES = int(os.environ.get("EXCA_FUZZ_EXAMPLES", "25"))
NAMES = [
    "needed",
    "rate",
    "title",
    "model",
    "model.layers",
    "model.kind",
    "model.bias",
    "model.drop",
    "either",
    "data",
]
NAMES += [
    "data.crop",
    "data.crop.0",
    "data.weights",
    "data.weights.a",
    "mode",
    "nope",
    "model.nope",
    "rate.nope",
    "__class__",
]
PLAIN = [
    "",
    "1",
    "-2.5e3",
    "null",
    "~",
    "true",
    "x",
    "ümläut",
    "a b",
    "'q'",
    '"q, r"',
    "'",
    "1,2",
    "1,",
    "[]",
    "{}",
    "[1, x]",
]
PLAIN += [
    "{a: 1}",
    "{kind: linear}",
    "{crop: [3]}",
    "[[",
    "}",
    "choice()",
    "choice(1,x)",
    "range(3)",
    "range(9,0,-4)",
    "range(1,1e9)",
]
PLAIN += [
    "interval(0,1)",
    "nan",
    "inf",
    "linear",
    "slow",
    "*",
    "&a",
    "!!set {1}",
    "=",
    "{=replace=: true}",
    "[&a [*a]]",
    "\ud800",
]


@hypothesis.settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
@hypothesis.given(
    strategies.lists(
        strategies.tuples(
            strategies.sampled_from(["", "", "", "+", "++", "~"]),
            strategies.sampled_from(NAMES),
            strategies.sampled_from(PLAIN) | strategies.text(max_size=8),
        ),
        max_size=4,
    )
)
def test_whatever_is_written_is_read_or_refused(written: list[tuple[str, str, str]]) -> None:
    arguments = [f"{sign}{name}" + (f"={value}" if sign != "~" else "") for sign, name, value in written]
    said = ""
    try:
        assert all(isinstance(obj, Fit) for obj in made(arguments))
    except OverrideError as e:
        said = str(e)
    for line in said.split("\n  ")[1:] or [said]:
        place = [text for text in arguments if repr(text) in line or text in line]
        assert not line or place or "needed: Field required" in line, (arguments, said)
