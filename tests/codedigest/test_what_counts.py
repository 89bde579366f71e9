"""Which changes change the digest, and which do not."""

import pytest

from projects import Project

# name: modules, then for each change what is replaced by what; "!" where the digest must stay
HELPER = {
    "model.py": """
        import helper
        from helper import SCALE, Thing, table
        import other as o
        class Base:
            RATE = 2
            OTHER_RATE = 3
            def above(self):
                return 1
            def unused_above(self):
                return 2
            def run(self):
                return "base"
        class Model(Base):
            KEPT = 4
            def run(self, factor=helper.DEFAULT):
                "Doc."
                total: int = self.above() + self.RATE + SCALE * factor  # a comment
                total += helper.first(total) + o.inner.deep(total)
                return total + Thing(1).go() + table["a"](total) + self.prop + self.way(3)
            @property
            def prop(self):
                return 5
            @classmethod
            def way(cls, x):
                return cls.make(x)
            @staticmethod
            def make(x):
                return x * 1000
            def unused(self):
                return 6
        class Child(Model):
            def run(self):
                return super().run() + 7
    """,
    "helper.py": """
        import functools
        SCALE = 11
        DEFAULT = 12
        UNUSED = 13
        @functools.lru_cache(maxsize=14)
        def first(x):
            return second(x) + 15
        def second(x):
            return (lambda y: third(y) + 16)(x)
        def third(x):
            return [inner_call(i) for i in range(x)]
        def inner_call(i):
            return i + 17
        def unused(x):
            return 18
        class Thing:
            size = 19
            def __init__(self, x):
                self.x = x
            def go(self):
                return self.step() + self.size
            def step(self):
                return 20
            def unused(self):
                return 21
        def of_table(x):
            return 22
        FLAG = 24
        def of_partial(x):
            return 25
        table = {"a": of_table, "b": functools.partial(of_partial, 23)} if FLAG else {}
    """,
    "other/__init__.py": "",
    "other/inner.py": """
        from . import lazily
        from .lazily import *
        def deep(x):
            from .later import late
            return late(x) + starred(x) + lazily.named(x)
    """,
    "other/lazily.py": """
        def starred(x):
            return 26
        def named(x):
            return 27
        def unused(x):
            return 28
    """,
    "other/later.py": """
        import nothing_of_this_name
        def late(x):
            return 29
        def unused(x):
            return 30
    """,
}
COUNT = [
    *(
        "return 1\n",
        "RATE = 2\n",
        "return 5\n",
        "x * 1000",
        "SCALE = 11",
        "DEFAULT = 12",
        "maxsize=14",
        "+ 15",
    ),
    *("+ 16", "+ 17", "size = 19", "return 20", "return 22", ", 23)", "FLAG = 24", "return 25"),
    *("return 26", "return 27", "return 29"),
]
DO_NOT = ["OTHER_RATE = 3", "return 2\n", "KEPT = 4", "return 6", "UNUSED = 13", "return 18"]
DO_NOT += ["return 21", "return 28", "return 30", '"base"', "+ 7", "Doc.", "a comment", "total: int"]


def changed(files: dict[str, str], old: str) -> dict[str, str]:
    new = old.replace("total: int", "total: float").replace("a comment", "another").replace("Doc.", "Docs.")
    if new == old:
        digits = [c for c in old if c.isdigit()]
        new = old.replace(digits[-1], str((int(digits[-1]) + 1) % 10)) if digits else '"changed"'
    result = {name: text.replace(old, new, 1) for name, text in files.items()}
    assert sum(files[name] != result[name] for name in files) >= 1, old
    return result


@pytest.fixture
def base(project: Project) -> Project:
    project.write(
        {name: text.replace("other as o", "other.inner, other as o") for name, text in HELPER.items()}
    )
    return project


def files_of(project: Project) -> dict[str, str]:
    return {
        str(path.relative_to(project.folder)): path.read_text()
        for path in sorted(project.folder.rglob("*.py"))
    }


@pytest.mark.parametrize("old", COUNT)
def test_a_change_of_what_is_reached_counts(base: Project, old: str) -> None:
    before = base.digest()
    base.write(changed(files_of(base), old))
    after = base.digest()
    assert after.digest != before.digest
    assert not after.content.unresolved.get("model.Model.run")


@pytest.mark.parametrize("old", DO_NOT)
def test_a_change_of_what_is_not_reached_does_not_count(base: Project, old: str) -> None:
    before = base.digest()
    base.write(changed(files_of(base), old))
    after = base.digest()
    assert after.content.parts == before.content.parts
    assert after.digest == before.digest


def test_it_is_the_same_in_a_process_where_nothing_changed_since_it_began(base: Project) -> None:
    code = base.digest()
    found = base.elsewhere()
    assert found.parts == code.content.parts
    assert found.digest == code.digest
    assert found.method == "model.Model.run"


def test_super_reaches_the_parent(base: Project) -> None:
    before = base.digest("Child.run")
    assert {"model.Child.run", "model.Model.run", "model.Base.above"} <= set(before.content.parts)
    base.write(changed(files_of(base), "+ 7"))
    assert base.digest("Child.run").digest != before.digest


def test_what_is_not_imported_yet_counts_as_if_it_were(base: Project) -> None:
    """A module that a function imports is read, and not imported."""
    import sys

    before = base.digest()
    assert "other.later" not in sys.modules
    base.write({"other/later.py": "def late(x):\n    return 29\n"})
    assert base.digest().digest == before.digest
