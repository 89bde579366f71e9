"""YAML text is read as PyYAML reads it, though by a shorter way."""

import datetime
import typing as tp
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from exca.identity import configfolder
from exca.identity.configfolder import from_text

ODD = (
    "",
    "# nothing",
    "5",
    "a",
    "- 1\n- [2, {b: 3}]\n",
    "a: 1\na: 2\n",
    "a: &x {b: 1}\nc: *x\n",
    "a: &x {b: 1}\nc:\n  <<: *x\n  d: 2\n",
    "<<: {a: 1}\nb: 2\n",
    "a: !!str 5\n",
    "a: !!int '5'\n",
    "a: ! 5\n",
    "a: !!set {b, c}\n",
    "a: 2026-11-30\nb: 2026-11-30 12:00:00\nc: 12:30:45\n",
    "a: [0x1f, 0o17, 017, 1_000, .inf, -.inf, 1e5, 1.0e+5, 0b11]\n",
    "a: [yes, No, on, OFF, ~, null, NULL, '', \"\", 'yes', \"5\"]\n",
    "a: |\n  text\n  lines\nb: >\n  folded\n  lines\n",
    "? a\n: 1\n? b\n",
    "5: a\n1.5: b\nnull: c\ntrue: d\n",
    "? [a, b]\n: 1\n",
    "? {a: b}\n: 1\n",
    "a: 1\n---\nb: 2\n",
    "--- 5\n...\n",
    "a: =\n",
    "a: [1\n",
    "a: 'x\n",
    "a: *nowhere\n",
    "a: !!python/object:os.system {}\n",
    'a: "\\ud800"\n',
)


def read(reader: tp.Callable[[str], tp.Any], text: str) -> tp.Any:
    try:
        return reader(text)
    except yaml.YAMLError:
        return yaml.YAMLError


@pytest.mark.parametrize("text", ODD)
def test_odd_texts_mean_what_they_mean_to_pyyaml(text: str) -> None:
    found, expected = read(from_text, text), read(yaml.safe_load, text)
    assert repr(found) == repr(expected)  # with the types, and nan


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.dates(),
    st.binary(max_size=5),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(VALUES, st.booleans())
def test_what_pyyaml_writes_is_read_as_by_pyyaml(value: tp.Any, flow: bool) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow)
    assert repr(from_text(text)) == repr(yaml.safe_load(text))


def test_each_reading_gives_objects_of_its_own() -> None:
    text = "a: []\nb: {c: 1}\nd: 2026-11-30\n"
    first, second = from_text(text), from_text(text)
    first["a"].append(1)
    first["b"]["c"] = 2
    assert second == {"a": [], "b": {"c": 1}, "d": datetime.date(2026, 11, 30)}


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]\n",
        "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10 if k else ['x'])}]\n" for k in range(12)),
    ],
)
def test_references_do_not_multiply_without_end(text: str, tmp_path: Path) -> None:
    """A file of 500 bytes would take all memory once its references are written out."""
    (tmp_path / "uid.yaml").write_text(text)
    with pytest.raises(
        ValueError, match=r"uid.yaml is damaged: its references make more than 10000000 values"
    ):
        configfolder.load(tmp_path / "uid.yaml")
