"""The text of a uid: as recorded, the same everywhere, and another one for another value."""

import datetime
import decimal
import enum
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import typing as tp
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exca.confdict import ConfDict, UidMaker
from exca.identity.uid import uid_text

VECTORS = json.loads((Path(__file__).parent / "data/confdict_vectors.json").read_text("utf8"))
SOURCE = Path(__file__).parents[2] / "src/exca"


# no test may fail because the machine was busy


class Color(enum.Enum):
    RED = "red"
    THREE = 3


class Name(str, enum.Enum):  # noqa: UP042 - such enums have another str() than a StrEnum
    A = "a"


@pytest.mark.parametrize("case", VECTORS["to_uid"])
def test_recorded_configurations_keep_their_uid(case: dict[str, tp.Any]) -> None:
    assert uid_text(case["data"]) == case["uid"]
    assert ConfDict(case["data"]).to_uid() == case["uid"]


@pytest.mark.parametrize("case", VECTORS["version_2"])
def test_recorded_uids_of_the_first_releases(case: dict[str, tp.Any]) -> None:
    with pytest.warns(DeprecationWarning, match="`version` of UidMaker is deprecated"):
        maker = UidMaker(case["data"], version=2)
    assert (maker.string, maker.hash, maker.format()) == (case["string"], case["hash"], case["uid"])
    if "config_uid" in case:
        with pytest.warns(DeprecationWarning, match="`version` of ConfDict.to_uid is deprecated"):
            assert ConfDict(case["data"]).to_uid(version=2) == case["config_uid"]


def test_the_current_version_may_still_be_named() -> None:
    config = {"a": {"b": 1}, "c": [1.5]}
    with pytest.warns(DeprecationWarning, match="leave it out"):
        assert UidMaker(config, version=3).format() == UidMaker(config).format()
    with pytest.warns(DeprecationWarning, match="leave it out"):
        assert ConfDict(config).to_uid(3) == ConfDict(config).to_uid()


@pytest.mark.parametrize("case", VECTORS["not_operations"])
def test_recorded_texts_that_only_look_like_operations(case: dict[str, tp.Any]) -> None:
    assert ConfDict(case["data"]).to_uid() == case["uid"] == uid_text(case["data"])


@pytest.mark.parametrize(
    ("value", "string", "hashed"),
    [
        (1, "1", "int:1"),
        (True, "True", "int:True"),
        (None, "None", "int:None"),
        (1.0, "1", "int:1"),
        (-0.0, "0", "int:0"),
        (0.001, "0.00", f"float:{hash(0.001)}"),
        (0.0009, "9.00e-04", f"float:{hash(0.0009)}"),
        (9999.995, "10000.00", f"float:{hash(9999.995)}"),
        (10000.5, "1.00e04", f"float:{hash(10000.5)}"),
        ("a b/c\\d\te\nf", "a-b-c-d-e-f", "str:a b/c\\d\te\nf"),
        ("[é]{(=,._-)}", "{(=,._-)}", "str:[é]{(=,._-)}"),
        ("x" * 128, "x" * 128, "str:" + "x" * 128),
        ("x" * 131, "x" * 128 + "...3", "str:" + "x" * 131),
        ((), "()", "seq:()"),
        ([1, ["a"]], "(1,(a))", "seq:(int:1,seq:(str:a))"),
        ({"b", "a", "ccc"}, "(a,b,ccc)", "seq:(str:a,str:b,str:ccc)"),
        (frozenset((2, 1)), "(1,2)", "seq:(int:1,int:2)"),
        ({"long": 1, "b": 2}, "{b=2,long=1}", "dict:{b=int:2,long=int:1}"),
        (OrderedDict(b=1, a=2), "{b=1,a=2}", "dict:{b=int:1,a=int:2}"),
        ({"a": {"b": 1}}, "{a={b=1}}", "dict:{a=dict:{b=int:1}}"),
        (Color.RED, "red", "str:red"),
        (Color.THREE, "3", "int:3"),
        (Name.A, "Name.A", "str:Name.A"),
        (PurePosixPath("/a/b c"), "-a-b-c", "str:/a/b c"),
        (datetime.date(2024, 1, 2), "2024-01-02", "str:2024-01-02"),
        (
            datetime.datetime(2024, 1, 2, 3, tzinfo=datetime.UTC),
            "2024-01-02T030000Z",
            "str:2024-01-02T03:00:00Z",
        ),
        (datetime.timedelta(seconds=90), "PT1M30S", "str:PT1M30S"),
        (decimal.Decimal("1.5"), "1.50", f"float:{hash(1.5)}"),
        (Fraction(4, 2), "2.00", "float:2"),
        (decimal.Decimal(0), "0.00e00", "float:0"),
        (np.int64(3), "3", "int:3"),
        (np.bool_(True), "True", "int:True"),
        (np.float32(0.5), "0.50", f"float:{hash(0.5)}"),
        (np.str_("b"), "b", "str:b"),
    ],
)
def test_each_kind_of_value_has_its_text(value: tp.Any, string: str, hashed: str) -> None:
    maker = UidMaker(value)
    assert (maker.string, maker.hash) == (string, hashed)


def test_an_array_is_known_by_its_shape_and_content() -> None:
    rows = np.arange(6).reshape(2, 3)
    digest = hashlib.md5(rows.tobytes()).hexdigest()[:8]
    assert UidMaker(rows).string == f"data-2,3-{digest}"
    assert UidMaker(np.asfortranarray(rows)).hash == f"array:2,3-{digest}"
    assert UidMaker(np.zeros((0, 3))).string == "data-0,3-d41d8cd9"
    assert UidMaker(np.array(3)).string.startswith("data-1-")
    assert UidMaker({"a": rows}).string == f"{{a=data-2,3-{digest}}}"


def test_a_tensor_is_known_as_an_array_is() -> None:
    torch = pytest.importorskip("torch")
    rows = np.arange(6).reshape(2, 3)
    assert UidMaker(torch.tensor(rows)).hash == UidMaker(rows).hash
    assert UidMaker(torch.zeros(2, dtype=torch.bfloat16)).string.startswith("data-2-")


def test_nothing_that_differs_is_written_as_none() -> None:
    """Infinities and nan have a text each, also those that come as objects of their own."""
    values = [None, float("inf"), -float("inf"), float("nan")]
    assert len({UidMaker(value).format() for value in values}) == 4
    assert (
        UidMaker(float("nan")).format()
        == UidMaker(float("nan")).format()
        == "nan-" + UidMaker(np.nan).format()[4:]
    )


def test_values_without_a_readable_character_still_differ() -> None:
    values: list[tp.Any] = ["", "é", "日本", [], {}, [""]]
    uids = {UidMaker(value).format() for value in values}
    assert len(uids) == 6
    assert uid_text({}) == ""


def test_a_string_with_brackets_keeps_them() -> None:
    assert UidMaker("(a)").format().startswith("(a)-")
    assert UidMaker(["a"]).format().startswith("a-")


@pytest.mark.parametrize(
    "value", [b"ab", 1j, object(), len, np.array([object()], dtype=object), {1: 2}, [{None: 2}]]
)
def test_what_has_no_stable_text_is_refused(value: tp.Any) -> None:
    with pytest.raises(TypeError, match=r"has no uid: .*(use|convert|must)"):
        UidMaker(value)


@pytest.mark.parametrize(
    "config", [{"a": "=delete="}, {"a": {"=replace=": True}}, {"a": ["=delete="]}], ids=repr
)
def test_a_configuration_with_an_operation_left_in_it_has_no_uid(config: dict[str, tp.Any]) -> None:
    with pytest.raises(ValueError, match="was not applied"):
        uid_text(config)


def test_a_plain_string_is_no_operation() -> None:
    assert UidMaker("=delete=").format().startswith("=delete=-")
    assert uid_text({"a": "x=y=", "b": "="}).startswith("b==,a=x=y=-")


def test_single_keys_fold_into_their_parent_but_not_ordered_ones() -> None:
    assert uid_text({"a": {"b": {"c": 1}}}).startswith("a.b.c=1-")
    assert uid_text({"a": OrderedDict(b={"c": 1}, d=2)}).startswith("a={b.c=1,d=2}-")
    assert uid_text({"a": OrderedDict([("b", {"c": 1}), ("b.c", 2)])}).startswith("a={b={c=1},b.c=2}-")
    assert uid_text({"a": [{"b": {"c": 1}}]}).startswith("a=({b.c=1})-")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abcdéf_", min_size=1, max_size=4), inner)
    ),
    max_leaves=12,
)
CONFIGS = st.dictionaries(st.text("abcdéf_", min_size=1, max_size=4), JSON, max_size=5)


def _is_op(value: tp.Any) -> bool:
    if isinstance(value, dict):
        return any(map(_is_op, value)) or any(map(_is_op, value.values()))
    if isinstance(value, list):
        return any(map(_is_op, value))
    return isinstance(value, str) and len(value) > 2 and value[0] == value[-1] == "="


def _shuffled(value: tp.Any, draw: random.Random) -> tp.Any:
    if isinstance(value, dict):
        items = [(key, _shuffled(sub, draw)) for key, sub in value.items()]
        draw.shuffle(items)
        return dict(items)
    return [_shuffled(sub, draw) for sub in value] if isinstance(value, list) else value


@given(CONFIGS.filter(lambda config: not _is_op(config)), st.randoms())
def test_the_order_of_a_dict_never_matters(config: dict[str, tp.Any], draw: random.Random) -> None:
    assert uid_text(_shuffled(config, draw)) == uid_text(config) == ConfDict(config).to_uid()


@given(st.dictionaries(st.text("abcd", min_size=1, max_size=4), st.integers(), min_size=2), st.randoms())
def test_the_order_of_an_ordered_dict_always_does(items: dict[str, int], draw: random.Random) -> None:
    pairs = list(items.items())
    draw.shuffle(pairs)
    same = pairs == list(items.items())
    one, other = uid_text({"o": OrderedDict(items)}), uid_text({"o": OrderedDict(pairs)})
    assert (one == other) is same


def _random_json(draw: random.Random, depth: int = 0) -> tp.Any:
    kind = draw.randrange(9 if depth < 3 else 6)
    if kind < 2:
        return draw.choice([None, True, False, draw.randint(-9, 99), draw.getrandbits(70)])
    if kind < 4:
        return draw.choice(
            [draw.random(), draw.gauss(0, 1) * 10 ** draw.randint(-9, 9), float(draw.randint(0, 9))]
        )
    if kind < 6:
        return "".join(draw.choices("abAB01 ./-_=,(){}é:", k=draw.randint(0, 9)))
    if kind < 8:
        return {
            draw.choice("abcde") + draw.choice(("", "f", "g_")): _random_json(draw, depth + 1)
            for _ in range(3)
        }
    return [_random_json(draw, depth + 1) for _ in range(draw.randint(0, 3))]


def _normal(value: tp.Any) -> tp.Any:
    """What the contract takes for one value: an integral float is an int, single keys fold, dicts have no order."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _normal(sub) for key, sub in sorted(ConfDict(value).flat().items())} | {
            key: {} for key, sub in value.items() if sub == {}
        }
    return [_normal(sub) for sub in value] if isinstance(value, list) else value


def test_different_json_values_never_share_a_uid_in_100_000_random_pairs() -> None:
    draw = random.Random(12)
    seen: dict[str, str] = {}
    while len(seen) < 450:  # each against each other: 101,025 pairs
        config = {"a": _random_json(draw), "b": _random_json(draw)}
        if _is_op(config):
            continue
        text = json.dumps(_normal(config), sort_keys=True)
        uid = uid_text(config)
        assert seen.setdefault(uid, text) == text
    assert len(set(seen.values())) == len(seen)


def test_a_small_change_anywhere_changes_the_uid() -> None:
    draw = random.Random(3)
    for _ in range(3000):
        config = {"a": _random_json(draw), "b": _random_json(draw)}
        other = {**config, draw.choice("ab"): _random_json(draw)}
        if _is_op(config) or _is_op(other):
            continue
        differ = json.dumps(_normal(config), sort_keys=True) != json.dumps(_normal(other), sort_keys=True)
        assert (uid_text(config) != uid_text(other)) is differ


# Prints the uids of what it reads, in any Python: only the packages above the module are stand-ins, since their own
# imports need what another interpreter may not have.
_PRINT_UIDS = """
import sys, types, json
from collections import OrderedDict
for name, path in (("exca", sys.argv[1]), ("exca.identity", sys.argv[1] + "/identity")):
    package = types.ModuleType(name)
    package.__path__ = [path]
    sys.modules[name] = package
from exca.identity.uid import UidMaker, uid_text
configs = json.loads(sys.argv[2])
uids = [uid_text(config) for config in configs]
uids += [UidMaker(set(config)).format() for config in configs]
uids += [UidMaker(OrderedDict(config)).format() for config in configs]
uids += [UidMaker({float("nan"), float("inf"), -float("inf"), 1e-7, "é"}).format()]
print(json.dumps(uids))
"""


def _uids_in(python: str, configs: list[dict[str, tp.Any]], hash_seed: str) -> list[str]:
    done = subprocess.run(
        [python, "-c", _PRINT_UIDS, str(SOURCE), json.dumps(configs)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return tp.cast("list[str]", json.loads(done.stdout))


def _sample() -> list[dict[str, tp.Any]]:
    draw = random.Random(5)
    configs = [{key: _random_json(draw) for key in "dcba"} for _ in range(100)]
    return [config for config in configs if not _is_op(config)]


def test_the_uid_is_the_same_in_another_process_with_another_hash_seed() -> None:
    configs = _sample()
    first = _uids_in(sys.executable, configs, "0")
    assert first == _uids_in(sys.executable, configs, "4242")
    assert first[: len(configs)] == [uid_text(config) for config in configs]


def _find_python(version: str) -> str | None:
    """Look on the PATH, and where pyenv and uv keep theirs."""
    homes = (Path.home() / ".pyenv/versions", Path.home() / ".local/share/uv/python")
    installed = [str(path) for home in homes for path in home.glob(f"*{version}.*/bin/python{version}")]
    for python in filter(None, [shutil.which(f"python{version}"), *installed]):
        if subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0:
            return python
    return None


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_uid_is_the_same_in_every_python(version: str) -> None:
    python = _find_python(version)
    if python is None:
        pytest.skip(f"no working python{version} on this machine")
    configs = _sample()
    assert _uids_in(python, configs, "1") == _uids_in(sys.executable, configs, "2")


@given(CONFIGS.filter(lambda config: not _is_op(config)))
def test_the_outer_class_of_a_configuration_does_not_matter(config: dict[str, tp.Any]) -> None:
    assert uid_text(OrderedDict(config)) == uid_text(config) == uid_text(ConfDict(config))


def test_what_was_written_for_a_value_is_used_again_only_for_that_value() -> None:
    config: dict[str, tp.Any] = {
        "data": {"seed": 3, "name": "x"},
        "model": {"rate": 0.1},
        "sizes": [1, 2],
        "deep": {"a": {"b": {"c": 1}}},
    }
    made: tp.Any = {}
    for k in range(500):  # new values often come to where earlier ones were in memory
        changed = {
            **config,
            "data": {"seed": k},
            "sizes": [k, {"a": k}],
            "deep": {"a": {"b": {"c": k, "d": 1}}},
        }
        assert uid_text(changed, made) == uid_text(changed)
        del changed["model"]
        assert uid_text(changed, made) == uid_text(changed)
