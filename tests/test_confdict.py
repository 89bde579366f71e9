"""ConfDict: dotted keys, merging, operations, YAML."""

import copy
import datetime
import enum
import io
import json
import pickle
import typing as tp
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pydantic
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from exca.confdict import ConfDict

VECTORS = json.loads((Path(__file__).parent / "identity/data/confdict_vectors.json").read_text("utf8"))
REPLACE, DELETE = ConfDict.ops.REPLACE, ConfDict.ops.DELETE
BEFORE, AFTER = ConfDict.ops.BEFORE, ConfDict.ops.AFTER


def updated(base: tp.Any, patch: tp.Any) -> ConfDict:
    config = ConfDict(base)
    config.update(patch)
    return config


def test_the_operations_are_strings_that_configuration_files_hold() -> None:
    assert {name: getattr(ConfDict.ops, name) for name in VECTORS["ops"]} == VECTORS["ops"]


def test_the_former_name_of_an_operation() -> None:
    with pytest.warns(DeprecationWarning, match="use ConfDict.ops.REPLACE"):
        former = ConfDict.OVERRIDE
    assert updated({"a": {"x": 1}}, {"a": {former: True, "y": 2}}) == {"a": {"y": 2}}


@pytest.mark.parametrize("case", VECTORS["to_uid"])
def test_recorded_yaml_and_flat_forms(case: dict[str, tp.Any]) -> None:
    config = ConfDict(case["data"])
    assert config.to_yaml() == case["yaml"]
    assert config.flat() == case["flat"]
    assert ConfDict.from_yaml(case["yaml"]) == config


@pytest.mark.parametrize("case", VECTORS["update"])
def test_recorded_updates(case: dict[str, tp.Any]) -> None:
    config = updated(case["base"], case["patch"])
    assert config == case["result"]
    assert list(config) == case["keys"]


@pytest.mark.parametrize("case", VECTORS["update_errors"])
def test_recorded_update_errors(case: dict[str, tp.Any]) -> None:
    config = ConfDict(case["base"])
    with pytest.raises((IndexError, TypeError, ValueError)) as caught:
        config.update(case["patch"])
    assert caught.type.__name__ == case["error"]


@pytest.mark.parametrize("case", VECTORS["from_args"])
def test_recorded_arguments(case: dict[str, tp.Any]) -> None:
    assert ConfDict.from_args(case["args"]) == case["result"]


def test_of_an_argument_given_twice_the_last_one_counts() -> None:
    assert ConfDict.from_args(["--a=0", "--a.b=1", "--a=2"]) == {"a": {"b": "1"}}
    assert ConfDict.from_args(["--a=0", "--a=2"]) == {"a": "2"}


@pytest.mark.parametrize("args", [["--a"], ["a=1"], ["-a=1"], ["--a", "1"]], ids=str)
def test_an_argument_of_another_form_is_refused(args: list[str]) -> None:
    with pytest.raises(ValueError, match="--key=value"):
        ConfDict.from_args(args)


def test_keys_are_split_in_whatever_way_they_come() -> None:
    expected = {"a": {"b": 1, "c": 2}}
    assert ConfDict({"a.b": 1, "a": {"c": 2}}) == expected
    assert ConfDict([("a.b", 1), ("a.c", 2)]) == expected
    assert ConfDict({"a.b": 1}, **{"a.c": 2}) == expected
    assert ConfDict({"a": 1}, a={"b": 1, "c": 2}) == expected
    assert ConfDict({"a": [{"b.c": 1}, ({"d.e": 2},)]}) == {"a": [{"b": {"c": 1}}, ({"d": {"e": 2}},)]}
    assert ConfDict.fromkeys(["a.b", "a.c"], 1) == {"a": {"b": 1, "c": 1}}


def test_an_ordered_dict_stays_one_and_keeps_its_keys() -> None:
    config = ConfDict({"o": OrderedDict([("x.y", 1), ("b", {"c.d": 2})])})
    assert type(config["o"]) is OrderedDict
    assert config["o"] == OrderedDict([("x.y", 1), ("b", {"c": {"d": 2}})])
    assert (config["o.x.y"], config["o.b.c.d"]) == (1, 2)
    config["o.x.y"] = 3
    config["o.z"] = 4
    assert list(config["o"].items())[::2] == [("x.y", 3), ("z", 4)]
    del config["o.x.y"]
    assert list(config["o"]) == ["b", "z"]


def test_reading_by_dotted_keys() -> None:
    config = ConfDict({"a": {"b": {"c": 1}}, "l": [{"x": 1}, [5, 6]], "s": "text"})
    assert type(config["a.b"]) is ConfDict
    assert (config["a.b.c"], config["l.0.x"], config["l.1.1"]) == (1, 1, 6)
    assert "a.b.c" in config
    for missing in ("z", "a.z", "a.b.c.d", "l.7", "l.x", "l.-1", "s.0", "", "a.", 0):
        assert missing not in config
        assert config.get(tp.cast(str, missing), "default") == "default"
    with pytest.raises(KeyError, match=r"a\.b\.z \(there is no 'z' beside \['c'\]\)"):
        config["a.b.z"]
    with pytest.raises(KeyError, match=r"a\.b\.c\.d \(there is no 'd' in 1\)"):
        config["a.b.c.d"]
    with pytest.raises(KeyError, match="configuration keys are str"):
        config[tp.cast(str, 3)]
    with pytest.raises(IndexError, match=r"key 'l\.2': index 2 is outside of a list of length 2"):
        config["l.2"]


def test_setting_merges_into_what_is_there() -> None:
    config = ConfDict({"a": {"b": 1}, "l": [{"x": 1}], "t": ({"y": 1}, 2)})
    config["a"] = {"c": 2}
    config["l.0.y"] = 2
    config["t.1"] = 3
    config["t.0.z"] = 4
    assert config == {"a": {"b": 1, "c": 2}, "l": [{"x": 1, "y": 2}], "t": ({"y": 1, "z": 4}, 3)}
    config["l.0"] = {"z.w": 1}  # an item of a list is replaced
    assert config["l"] == [{"z": {"w": 1}}]
    assert config.setdefault("a.b", 9) == 1
    assert config.setdefault("a.n.m", 9) == 9 == config["a"]["n"]["m"]
    with pytest.raises(TypeError, match="keys must be str"):
        config[3] = 1  # type: ignore[index]  # what is tested


def test_removing() -> None:
    config = ConfDict({"a": {"b": 1, "c": 2}, "l": [{"x": 1}, 2]})
    del config["a.b"]
    assert config.pop("a.c") == 2
    assert config.pop("l.0.x") == 1
    assert config == {"a": {}, "l": [{}, 2]}
    assert config.pop("a.c", 5) == 5
    with pytest.raises(KeyError):
        config.pop("a.c")
    with pytest.raises(TypeError, match="whole list"):
        del config["l.1"]


@pytest.mark.parametrize(
    ("base", "patch", "result"),
    [
        ({"a": 5}, {"a": {REPLACE: True, "x": 1}}, {"a": {REPLACE: True, "x": 1}}),
        ({"a": {"x": 1}}, {"a": {REPLACE: False, "y": 1}}, {"a": {"x": 1, "y": 1}}),
        ({"l": [1]}, {"l": {REPLACE: True, "x": 1}}, {"l": {REPLACE: True, "x": 1}}),
        ({"l": [{"a": 1}]}, {"l.0": {REPLACE: True, "x": 1}}, {"l": [{"x": 1}]}),
        ({"l": [{"a": 1}, 2]}, {"l.0.b": 3, "l": {"1": 4}}, {"l": [{"a": 1, "b": 3}, 4]}),
        ({"l": [1, 2]}, {"l": {"7": 4}}, {"l": {"7": 4}}),
        ({"a": {"x": 1}}, {REPLACE: True, "b": 2}, {"b": 2}),
        ({"a": {"x": {"y": 1}, "z": 2}}, {"a": {"x": {REPLACE: True}}}, {"a": {"x": {}, "z": 2}}),
        ({"a": {"x": 1}, "b": 2}, {"a.=replace=": True}, {"a": {}, "b": 2}),
        ({"a": {"b": 1}}, {"a.b": DELETE, "a.c": 3}, {"a": {"c": 3}}),
        ({"l": [{"x": 1}]}, {"l.0.x": DELETE}, {"l": [{}]}),
        ({"a": 1, "c": 3}, {"b": {BEFORE: "c", "x": 1}}, {"a": 1, "b": {"x": 1}, "c": 3}),
        ({"x": {"a": {}, "b": {}}}, {"x.b": {BEFORE: "a"}}, {"x": {"b": {}, "a": {}}}),
        ({"o": OrderedDict(a={}, b={})}, {"o.b": {BEFORE: "a"}}, {"o": OrderedDict(b={}, a={})}),
        ({"o": OrderedDict(a=1)}, {"o": {REPLACE: True, "b": 3}}, {"o": OrderedDict(b=3)}),
        ({"o": OrderedDict(a=1, b=2)}, {"o": OrderedDict(b=3)}, {"o": OrderedDict(b=3)}),
    ],
)
def test_operations(base: tp.Any, patch: tp.Any, result: tp.Any) -> None:
    config = updated(base, patch)
    assert config == result
    assert json.dumps(config) == json.dumps(result)  # the order as well
    assert updated(base, ConfDict(patch)) == config  # a patch may be built as a ConfDict


def test_an_operation_waits_for_its_target() -> None:
    patch = ConfDict({"a": DELETE, "b": {REPLACE: True, "x": 1}, "c": {AFTER: "d"}})
    assert patch == {"a": DELETE, "b": {REPLACE: True, "x": 1}, "c": {AFTER: "d"}}
    assert (
        ConfDict.from_yaml(patch.to_yaml())
        == patch
        == copy.deepcopy(patch)
        == pickle.loads(pickle.dumps(patch))
    )
    base = ConfDict({"a": 1, "b": {"y": 2}, "c": {}, "d": {}})
    assert list(base | patch) == ["b", "d", "c"]
    with pytest.raises(ValueError, match="not applied"):
        patch.to_uid()


def test_a_move_waits_until_its_key_is_patched_beside_the_neighbour() -> None:
    config = updated({"a": {"x": 1}, "b": 2}, {"a": {AFTER: "c", "y": 1}})
    config.update({"c": 1})
    assert list(config) == ["a", "b", "c"]
    config.update({"a": {"z": 1}})
    assert list(config.items()) == [("b", 2), ("c", 1), ("a", {"x": 1, "y": 1, "z": 1})]


def test_patches_that_are_put_together_do_what_they_did_one_by_one() -> None:
    """A replacement is not lost where an earlier patch holds nothing that it could replace."""
    base = {"a": {"x": 1, "y": 2}}
    starts: list[tp.Any] = [None, 5, {}, [1]]
    for earlier in starts:
        patches = ConfDict({"a": earlier}) | {"a": {REPLACE: True, "z": 3}}
        assert patches == {"a": {REPLACE: True, "z": 3}}
        assert ConfDict(base) | patches == {"a": {"z": 3}}


@pytest.mark.parametrize(
    ("patch", "error"),
    [
        ({"a": "=typo="}, "unknown operation '=typo='"),
        ({"=typo=": 1}, "unknown operation '=typo='"),
        ({"a": REPLACE}, "cannot be used here"),
        ({"a": {AFTER: "a"}}, "cannot move 'a' after itself: name another key"),
        ({"a": {AFTER: "b", BEFORE: "b"}}, "patch for 'a' has both '=before=' and '=after='"),
        ({"a": {AFTER: 3}}, "expects the name of a key beside 'a', got 3"),
        ({AFTER: 3}, "expects the name of a key beside it, got 3"),
        ({f"{REPLACE}.x": 1}, "operation '=replace=' cannot hold the key 'x'"),
        ({"l.0": DELETE}, "does not fit item .* of a list: give the whole list instead"),
        ({"l.7": 1}, "index 7 is outside of the list .* of length 2"),
        ({"l.x": 1}, "key 'x' does not fit the list .*: index it by a number from 0"),
        ({"l.0": {AFTER: "1"}}, "cannot be moved"),
    ],
)
def test_an_impossible_operation_says_why(patch: tp.Any, error: str) -> None:
    with pytest.raises((ValueError, TypeError, IndexError), match=error):
        updated({"a": {"x": 1}, "l": [1, 2]}, patch)


def test_what_is_given_is_copied() -> None:
    source = {"a": {"b": 1}, "l": [{"m": 1}], "o": OrderedDict(k=[1])}
    config = ConfDict(source)
    copies = [config.copy(), copy.copy(config), ConfDict(config), copy.deepcopy(config), config | {}]
    for one in [config, *copies]:
        one["a.b"], one["l.0.m"], one["o.k.0"] = 5, 5, 5
        one["a.b"] = 6
    assert source == {"a": {"b": 1}, "l": [{"m": 1}], "o": {"k": [1]}}
    copies[0]["l.0.m"] = 7
    assert config["l.0.m"] == 5
    assert all(type(one) is ConfDict for one in copies)


def test_it_is_a_dict_beside_other_dicts() -> None:
    config, plain = ConfDict({"a.b": 1}), {"a": {"b": 1}}
    assert config == plain
    assert plain == config
    assert config != {"a.b": 1}
    assert isinstance({"c": 1} | config, ConfDict)
    assert {"a.c": 2} | config == {"a": {"c": 2, "b": 1}}
    config |= {"a.c": 2}
    assert config.flat() == {"a.b": 1, "a.c": 2}
    loaded = pickle.loads(pickle.dumps(config))
    assert loaded == config
    assert type(loaded["a"]) is ConfDict
    assert list(config) == ["a"]
    assert repr(config) == "{'a': {'b': 1, 'c': 2}}"


def test_yaml_is_read_from_text_paths_and_files(tmp_path: Path) -> None:
    config = ConfDict({"a.b": 1, "l": [{"x": 1}]})
    path = tmp_path / "config.yaml"
    assert config.to_yaml(path) == path.read_text() == "a.b: 1\nl:\n- x: 1\n"
    for source in (path, str(path), path.read_text(), io.StringIO(path.read_text())):
        assert ConfDict.from_yaml(source) == config
    with path.open("rb") as binary, path.open() as text:
        assert ConfDict.from_yaml(binary) == ConfDict.from_yaml(text) == config
    with pytest.raises(FileNotFoundError):
        ConfDict.from_yaml(tmp_path / "missing.yaml")
    with pytest.raises(TypeError, match="mapping is needed"):
        ConfDict.from_yaml("- a")
    with pytest.raises(yaml.YAMLError):
        ConfDict.from_yaml("a: [1")


class Color(str, enum.Enum):  # noqa: UP042 - such enums have another str() than a StrEnum
    RED = "red"


def test_yaml_of_values_beyond_json() -> None:
    config = ConfDict(
        path=Path("x/y"),
        color=Color.RED,
        day=datetime.date(2024, 1, 1),
        number=np.int64(2),
        real=np.float32(0.5),
        names={"b", "a", "c"},
        none=float("inf"),
    )
    assert config.to_yaml() == (
        "path: x/y\ncolor: red\nday: 2024-01-01\nnumber: 2\nreal: 0.5\n"
        "names: !!set\n  a: null\n  b: null\n  c: null\nnone: .inf\n"
    )
    with pytest.raises(TypeError, match="has no YAML form"):
        ConfDict(a=object()).to_yaml()


ODD_TEXTS = st.sampled_from(
    (
        *(
            "yes",
            "No",
            "null",
            "~",
            "",
            "1",
            "01",
            "1.5",
            "1e5",
            "1.0e+5",
            "0x1f",
            "0o7",
            "1_0",
            "12:30",
            ".inf",
        ),
        *(
            "2024-01-01",
            "<<",
            "- a",
            "a: b",
            "a #b",
            " lead",
            "trail ",
            "a\nb",
            "\ttab",
            "\x85",
            "\ud800",
            "\ufeff",
        ),
        *(
            "'q'",
            '"',
            "é",
            "😀",
            "word " * 40,
            "Wörter " * 20,  # libyaml breaks its lines elsewhere
            "x" * 200,
            "x\r",
            "{folder}/logs/%j",
            "{a}",
            "[a]",
            "&a",
            "*a",
            "!t",
            "%",
            "@",
            "|",
            ">",
            "?",
        ),
        *("/a/b-c.d_e", "-", "a,b"),
    )
)
TEXTS = (ODD_TEXTS | st.text(max_size=12)).filter(
    lambda text: not (len(text) > 2 and text[0] == text[-1] == "=")
)
KEYS = TEXTS.map(lambda text: text.replace("=", "-"))
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
CONFIGS = st.dictionaries(
    KEYS,
    st.recursive(
        LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_size=4,
)


def _nested(config: dict[str, tp.Any]) -> ConfDict | None:
    try:
        return ConfDict(config)
    except (TypeError, IndexError):  # keys that lead into each other's lists
        return None


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: tp.Any) -> bool:
        return True


def _dotted(value: tp.Any) -> tp.Any:
    """Single keys folded, in the plainest way."""
    if isinstance(value, list):
        return [_dotted(sub) for sub in value]
    if not isinstance(value, dict):
        return value
    out = {}
    for key, sub in value.items():
        folded = _dotted(sub)
        if isinstance(folded, dict) and len(folded) == 1:
            ((name, folded),) = folded.items()
            key = f"{key}.{name}"
        out[key] = folded
    return out


@given(CONFIGS)
def test_yaml_round_trip_in_the_bytes_that_pyyaml_writes(data: dict[str, tp.Any]) -> None:
    config = _nested(data)
    if config is None:
        return
    text = config.to_yaml()
    assert ConfDict.from_yaml(text) == config
    assert text == yaml.dump(_dotted(config), Dumper=_Dumper, sort_keys=False, default_flow_style=False)


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    x: int = 1
    names: list[str] = ["a"]


def test_a_model_is_exported() -> None:
    assert ConfDict.from_model(Model(x=2)) == {"x": 2, "names": ["a"]}
    assert ConfDict.from_model(Model(x=2), uid=True, exclude_defaults=True) == {"x": 2}
