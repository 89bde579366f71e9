"""CacheDict against a plain dict: two writers on one folder, reopened at any moment, derived files deleted."""

import pathlib
import shutil
import tempfile
import typing as tp

import hypothesis.stateful as hs
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from exca.cachedict import CacheDict, DumpOptions
from exca.cachedict import index as cache_index

KEYS = st.sampled_from(["a", "b", "c", "", "é\n", "long" * 50])
VALUES = st.one_of(
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.none(),
    st.lists(st.integers(), max_size=3).map(tuple),
    st.dictionaries(st.integers(), st.text(max_size=3), max_size=2),
    st.integers(0, 4).map(lambda n: np.arange(n * 1.0)),
    st.integers(0, 4).map(lambda n: {"array": np.arange(n), "text": "x" * n * 400}),
)


def plain(value: tp.Any) -> tp.Any:
    if isinstance(value, np.ndarray):
        return ("array", value.tolist())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


class AgainstDict(hs.RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.model: dict[str, tp.Any] = {}
        self.caches = [CacheDict[tp.Any](self.folder) for _ in range(2)]

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @hs.rule(which=st.integers(0, 1), items=st.lists(st.tuples(KEYS, VALUES), max_size=4), asked=KEYS)
    def write(self, which: int, items: list[tuple[str, tp.Any]], asked: str) -> None:
        cd = self.caches[which]
        with cd.write():
            for key, value in items:
                cd[key] = value
                self.model[key] = value
            assert (asked in cd) == (asked in self.model)

    @hs.rule(which=st.integers(0, 1), key=KEYS, inside=st.booleans())
    def delete(self, which: int, key: str, inside: bool) -> None:
        cd = self.caches[which]
        if key not in self.model:
            assert key not in cd
            return
        if inside:
            with cd.write():
                del cd[key]
        else:
            del cd[key]
        del self.model[key]

    @hs.rule(which=st.integers(0, 1), own_state=st.booleans())
    def reopen(self, which: int, own_state: bool) -> None:
        """With a state of its own the object sees the folder as another process would."""
        if own_state:
            cache_index._registry.clear()
        self.caches[which] = CacheDict[tp.Any](self.folder, options=DumpOptions(flush_entries=2))

    @hs.rule()
    def delete_side_index(self) -> None:
        (self.folder / ".exca-index").unlink(missing_ok=True)

    @hs.rule(which=st.integers(0, 1))
    def roll(self, which: int) -> None:
        """Write the side index, as a large folder would."""
        index = self.caches[which]._index
        index.refresh()
        index._roll()
        assert index._table is not None
        assert index._table.save(str(self.folder))

    @hs.rule(which=st.integers(0, 1))
    def keep_all_in_memory(self, which: int) -> None:
        self.caches[which]._index.asked(1_000)

    @hs.precondition(lambda self: self.model)
    @hs.rule()
    def clear(self) -> None:
        self.caches[0].clear()
        self.model.clear()

    @hs.invariant()
    def agrees(self) -> None:
        for cd in self.caches:
            assert len(cd) == len(self.model)
            assert sorted(cd) == sorted(self.model)
            assert {key: plain(value) for key, value in cd.items()} == {
                k: plain(v) for k, v in self.model.items()
            }
            for key in self.model:
                assert plain(cd[key]) == plain(self.model[key])
            assert cd.missing(["a", "b", "nope"]) == [k for k in ["a", "b", "nope"] if k not in self.model]


TestAgainstDict = AgainstDict.TestCase
TestAgainstDict.settings = settings(
    max_examples=40, stateful_step_count=15, suppress_health_check=[HealthCheck.too_slow]
)
