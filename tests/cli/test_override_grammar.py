"""Overrides: what they read as, and how they are refused."""

import typing as tp

import pytest

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
        ("a=range(3,3)", []),
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
    ],
)
def test_refusals(argument: str, said: str) -> None:
    with pytest.raises(OverrideError, match=said.replace("(", r"\(").replace("]", r"\]")):
        parse(argument)
