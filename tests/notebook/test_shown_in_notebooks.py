"""How objects show themselves in notebooks: escaped, small, and without any effect."""

import html.parser
import subprocess
import sys
import typing as tp
from pathlib import Path

import pytest

import exca
import trained
from exca import _notebook, steps
from exca.cachedict import CacheDict
from exca.catalog import sweeps

EVIL = "<script>alert('1')</script>\x1b[2J\u202e"
MOST = 20_000  # characters


class Mult(steps.Step):
    """A stage."""

    coeff: float = 2.0
    infra: steps.backends.Backend | None = None

    def _run(self, value: float) -> float:
        return self.coeff * value


def shown(obj: tp.Any) -> str:
    """The HTML of an object, which is the one of its bundle, beside a text."""
    found = obj._repr_html_()
    bundle = obj._repr_mimebundle_(include=None, exclude=None)
    assert bundle.keys() == {"text/plain", "text/html"}
    assert bundle["text/plain"]
    for text in (found, bundle["text/html"]):
        assert "<script" not in text
        assert text.replace("\n", "").isprintable()
        assert len(text) < MOST
        open_tags: list[str] = []
        parser = html.parser.HTMLParser()
        parser.handle_starttag = lambda tag, attrs, tags=open_tags: tags.append(tag)  # type: ignore[method-assign, misc] # a parser of its own
        parser.handle_endtag = lambda tag, tags=open_tags: assert_closes(tags, tag)  # type: ignore[method-assign, misc] # the same
        parser.feed(text)
        assert open_tags == []
    return tp.cast(str, found)


def assert_closes(open_tags: list[str], tag: str) -> None:
    assert open_tags.pop() == tag


def test_an_infra_is_not_frozen_by_being_shown(tmp_path: Path) -> None:
    task = trained.train(tmp_path, title=EVIL)
    assert "not computed yet" in shown(task.infra)
    task.title = f"{EVIL}!"
    task.loss()
    text = shown(task.infra)
    assert "TaskInfra of trained.Train.loss,1" in text
    assert "completed" in text
    assert trained.Train.model_fields["infra"].default._repr_mimebundle_() is None, "bound to no object"
    assert "MapInfra of trained.Squares.of" in shown(trained.Squares().infra)


def test_arrays_jobs_and_tables(tmp_path: Path) -> None:
    base = trained.train(tmp_path, infra={"cluster": "debug"})
    with base.infra.job_array() as array:
        assert array._repr_mimebundle_() is None, "a list until it is submitted"
        assert array._repr_html_() is None
        array.extend(base.infra.clone_obj({"rate": rate, "title": EVIL}) for rate in (0.1, 9.0, 0.2))
    text = shown(array)
    assert "3 of 3 done (1 failed)" in text
    assert "ValueError: diverged" in text
    assert "0.2" in shown(array.table())
    assert "<progress" in shown(array.progress())
    for job in array.jobs():
        assert "COMPLETED" in shown(job) or "FAILED" in shown(job)


def test_stores_reports_plans_and_sweeps(tmp_path: Path) -> None:
    cache: CacheDict[int] = CacheDict(tmp_path / "cache")
    assert "0 entries" in shown(cache)
    with cache.write():
        for n in range(30):
            cache[f"{EVIL}{n}"] = n
    text = shown(cache)
    assert "30 entries" in text
    assert text.count("&lt;script&gt;") == 10, "the first keys"
    report = exca.verify(tmp_path)
    assert "sound" in shown(report)
    (tmp_path / "cache" / "old.tmp-1-2-ab").touch()
    assert "nothing to repair" in shown(exca.repair(tmp_path))
    step = Mult(infra=steps.backends.Cached(folder=tmp_path / "steps"))
    assert "2 result(s) to compute" in shown(step.plan([1.0, 2.0]))
    assert "3" in shown(sweeps.Sweep("wide", EVIL, EVIL, ["a", "b", "c"]))


def test_texts_are_bounded() -> None:
    assert len(_notebook.escaped("x" * 1_000_000)) == 80
    assert _notebook.text_of("a\nb\x00") == "a\\nb\\x00"
    assert "and 80 more" in _notebook.table(["n"], [[n] for n in range(100)], "many")


def test_no_notebook_is_asked_for_where_there_is_none() -> None:
    """Nothing of notebooks is imported by importing, computing or showing."""
    code = (
        "import sys, exca, exca._notebook as n; from exca.cachedict import CacheDict;"
        "CacheDict(None, keep_in_ram=True)._repr_html_();"
        "print(n.is_notebook(), sorted({'IPython', 'ipywidgets', 'html'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False ['html']\n"


START = f"""
import sys; sys.path[:0] = {[str(Path(trained.__file__).parent)]!r}
import importlib.util, exca, trained
from exca import _notebook
from exca.engine import items
_notebook._DELAY = _notebook._EVERY = items.ProgressBar.DELAY = 0.0
found = importlib.util.find_spec
"""
WITHOUT_WIDGETS = (
    "importlib.util.find_spec = lambda name, *a: None if name == 'ipywidgets' else found(name, *a)"
)
SUBMIT = """
task = trained.train('cache', infra={'cluster': 'local'})
with task.infra.job_array() as array:
    array.extend(task.infra.clone_obj(rate=rate) for rate in (0.1, 0.2, 0.3))
"""
MAP = "list(trained.Squares.model_validate({'infra': {'folder': 'cache'}}).of(range(5)))"


@pytest.mark.long
@pytest.mark.parametrize("hidden", [True, False], ids=["plain", "widgets"])
def test_progress_in_a_kernel(tmp_path: Path, hidden: bool) -> None:
    """One output that ends as all done; none where nothing is to be done."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    if not hidden:
        pytest.importorskip("ipywidgets")
    start = START + (WITHOUT_WIDGETS if hidden else "")
    cells = [start, "trained.train('cache').infra", SUBMIT, "array.wait()", "array", MAP, MAP]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, kernel_name="python3", resources=where).execute()
    shown = [[dict(each.data) for each in cell.outputs if "data" in each] for cell in book.cells]
    assert "TaskInfra of trained.Train.loss,1" in shown[1][0]["text/html"]
    progress, returned = shown[3]
    assert returned == {"text/plain": "True"}
    if hidden:
        assert "3 of 3 tasks done" in progress["text/html"]
    else:
        assert "application/vnd.jupyter.widget-view+json" in progress
    assert "3 of 3 done" in shown[4][0]["text/html"]
    assert shown[5][-1] == {"text/plain": "[0, 1, 4, 9, 16]"}
    assert shown[6] == shown[5][-1:], "nothing was computed, so nothing but the results is shown"
