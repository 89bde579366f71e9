"""Filters: what they say of a row, and how they are refused."""

import pytest

from exca.catalog.filters import Filter
from exca.catalog.rows import Row
from exca.errors import FilterError


def row() -> Row:
    found = Row("train.Train.loss,1", "rate=9-b1dbbac5", "failed")
    found.config.update(
        {"rate": 9.0, "model.layers": 8, "name": "a b", "sizes": [1, 2], "flag": True, "none": None}
    )
    found.facts.update({"seconds": 2.5, "user": "ada", "value.acc": 0.5})
    return found


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("rate > 5", True),
        ("rate > 5 and model.layers in [4, 8]", True),
        ("rate > 5 and model.layers in [4]", False),
        ("not rate > 5 or name == 'a b'", True),
        ("1 < rate <= 9", True),
        ("rate == 9", True),
        ("rate != -9", True),
        ("2 in sizes", True),
        ("model['layers'] == 8", True),
        ("flag", True),
        ("not flag", False),
        ("flag == true and none == null", True),
        ("_state == 'failed' and _seconds > 1 and _user == 'ada'", True),
        ("_id == 'b1dbbac5' and _method == 'train.Train.loss,1'", True),
        ("_value.acc >= 0.5", True),
        ("'b' in name", True),
        ("rate < inf", True),
        ("missing > 1", False),
        ("missing < 1", False),
        ("missing == missing", False),
        ("not missing", True),
        ("missing or rate > 5", True),
        ("missing != 1", False),
        ("missing in [1]", False),
        ("missing not in [1]", False),
        ("1 < missing < 3", False),
        ("rate > 5 or missing > 1", True),
        ("none == null", True),
        ("none != 1", True),
        ("none < 5", False),
        ("none", False),
        ("flag == 1", True),  # as in Python
        ("flag == 'true'", False),
        ("rate == '9'", False),
        ("rate == nan", False),
        ("rate != nan", True),
        ("sizes == [1, 2] and sizes == (1, 2)", True),
        (r"name == '\d'", False),
        ("_uid == 'rate=9-b1dbbac5'", True),
        ("name > 5", False),  # what does not compare
        ("5 in rate", False),
    ],
)
def test_a_filter_holds_or_does_not(text: str, holds: bool) -> None:
    assert Filter(text)(row()) is holds


@pytest.mark.parametrize(
    "text",
    [
        *("", "rate >", "rate > 5 and", "rate = 5", "(rate", "rate > 5; name", "a b"),
        *(
            "__import__('os').system('true')",
            "rate.__class__()",
            "[r for r in sizes]",
            "lambda: 1",
            "f'{rate}' == 'x'",
        ),
        *(
            "rate ** 2 > 1",
            "rate if flag else name",
            "rate := 5",
            "rate is None",
            "sizes[0:1] == []",
            "sizes[rate] == 1",
        ),
        *("'a' * 10 == name", "await rate", "{**name}"),
    ],
)
def test_what_is_no_filter_is_refused_and_never_run(text: str) -> None:
    with pytest.raises(FilterError, match="cannot read the filter"):
        Filter(text)


def test_a_filter_says_where_it_cannot_be_read() -> None:
    with pytest.raises(
        FilterError, match=r"at character 9: invalid syntax.*compare names of the configuration"
    ):
        Filter("rate >> > 5")


@pytest.mark.parametrize("text", ["(" * 5000, "not " * 2000 + "rate", "x." * 4000 + "y == 1"])
def test_a_filter_that_is_too_deep_is_refused(text: str) -> None:
    with pytest.raises(FilterError, match="cannot read the filter"):
        Filter(text)


def test_a_filter_that_is_too_long_is_not_read() -> None:
    with pytest.raises(FilterError, match="has 20005 characters, and more than 10000 are not read"):
        Filter("rate == 1" + " " * 19996)


def test_identity_is_no_comparison() -> None:
    with pytest.raises(
        FilterError, match="cannot read the filter 'rate is 9': Is is no comparison of values"
    ):
        Filter("rate is 9")
