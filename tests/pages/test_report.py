"""The report: one file with all that is in a folder, whole without scripts, and safe whatever is in the folder."""

import base64
import hashlib
import html.parser
import json
import random
import re
import sys
import typing as tp
from pathlib import Path

import pytest

import trained
from exca.catalog import sweeps
from exca.catalog.scan import rows
from exca.engine import record
from exca.pages import charts, facts, records, render
from reported import HOSTILE, logged, make_study
from saying import say

VOID = {"meta", "br", "hr", "img", "input", "link", "col"}


class Page(html.parser.HTMLParser):
    """A page as a parser sees it: tags in their order, whether they are closed, attributes, texts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []  # with the tag that they are in
        self.feed(text)
        self.close()
        assert self.open == [], "all elements are closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}>"

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def text(self, *, without: tuple[str, ...] = ("script", "style")) -> str:
        return " ".join(" ".join(text for tag, text in self.texts if tag not in without).split())


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("reported") / "study")


def reported(folder: Path, **options: tp.Any) -> str:
    return render.report(facts.gather(folder.name, str(folder), rows(folder)), **options)


def test_words_stay_apart_in_a_text_browser(cache: Path) -> None:
    """One knows no style sheet: links and counts have spaces between them, and nothing is there but hidden."""
    written = reported(cache)
    body = written[written.index("<body") : written.index("<footer")]
    assert "</a><a" not in body
    assert '</span><span class="count"' not in body
    assert "No run fits" not in body


def test_the_command_writes_one_file(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "report.html"
    assert re.fullmatch(rf"{target}: 13 runs, [\d.]+ KB\n", say(capsys, "report", cache, "-o", target))
    text = Page(target.read_text(encoding="utf-8")).text()
    assert "study" in text
    assert "trained.Train.loss" in text
    assert "ValueError: diverged" in text
    say(capsys, "report", cache, "-o", target, "--state", "failed", "--title", "What failed")
    text = Page(target.read_text(encoding="utf-8")).text()
    assert "What failed" in text
    assert "accuracy" not in text
    assert "there is no folder" in say(capsys, "report", tmp_path / "nowhere", code=2)
    for command in ("report", "plot"):
        assert "is a folder: give the name of a file with -o" in say(
            capsys, command, cache, "-o", tmp_path, code=2
        )
        assert "there is no folder" in say(capsys, command, cache, "-o", tmp_path / "no" / "r.png", code=2)
    few = Page(say(capsys, "report", cache, "-o", "-", "--details", -5))
    assert not [each for each in few.all("details") if each.get("class") == "run"]
    (tmp_path / "empty").mkdir()
    assert "There are no runs" in say(capsys, "report", tmp_path / "empty", "-o", "-")


def test_all_is_in_it_without_scripts(cache: Path) -> None:
    """Each run is a row, each picture has its numbers as a table, and each table has a caption."""
    page = Page(reported(cache))
    text = page.text()
    assert len(page.all("table")) == len(page.all("caption"))
    for row in rows(cache):
        assert f" {row.id} " in text
    for words in (
        "Sweeps",
        "completed 6 missing 1",
        "loss against rate",
        "All parameters and loss",
        "loss by step",
        "\u00d7 ValueError: diverged",
        "Traceback (most recent call last)",
        "Against the nearest completed run",
        "version 2",
        "Storage",
    ):
        assert words in text, words
    assert len(page.all("figure")) == text.count(" Numbers of ")
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.all("svg"))


def test_nothing_is_loaded_from_elsewhere(cache: Path) -> None:
    """The policy allows the script and the style that are in the page, by their digests, and nothing else."""
    text = reported(cache)
    page = Page(text)
    [policy] = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv")]
    assert policy.startswith("default-src 'none';")
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    for tag, attributes in page.tags:
        assert not {"src", "srcset", "style", "action"} & attributes.keys(), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("href", "#").startswith("#")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["href"][1:] for _, attributes in page.tags if "href" in attributes} <= {*ids}


def test_the_data_for_the_script_is_what_the_table_shows(cache: Path) -> None:
    text = reported(cache)
    for block in re.findall(r'<script type="application/json" class="data">(.*?)</script>', text):
        data = json.loads(block)
        lengths = {len(column.get("values", column.get("index"))) for column in data["columns"]}
        assert lengths == {len(data["state"])}
    assert {"loss", "accuracy", "rate", "title"} <= {
        column["name"]
        for column in json.loads(
            next(block for block in re.findall(r'class="data">(.*?)</script>', text) if '"accuracy"' in block)
        )["columns"]
    }


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_values_are_texts(tmp_path: Path, value: str) -> None:
    """Of values, names, errors, results and sweeps; they are escaped, and no control character is left."""
    trained.train(tmp_path / "c", title=value).loss()
    trained.train(tmp_path / "c", title=f"{value}2").loss()
    odd = (
        tmp_path
        / "c"
        / "trained.Train.loss,1"
        / f"{value[:40].replace('/', '_').replace(chr(0), '')}-0123abcd"
    )
    odd.mkdir()
    (odd / "uid.yaml").write_text(json.dumps({value[:50]: value}))
    with pytest.raises(ValueError, match="diverged"):
        trained.train(tmp_path / "c", rate=9, title=value).loss()
    sweeps.write(str(tmp_path / "c"), sweeps.Sweep("odd", value, value, [value]))
    text = reported(tmp_path / "c")
    page = Page(text)
    assert len(page.all("script")) == 2
    assert page.all("img") == []
    assert "<!--" not in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", text)
    assert len(text) < 200_000


def test_defaults_are_known_by_the_kind_of_model(tmp_path: Path) -> None:
    """A field that only one kind of model has is blank for others, and grey at its default."""
    for model in ({"name": "network"}, {"name": "network", "layers": 5}, {"name": "linear"}):
        trained.train(tmp_path, model=model).loss()
    [group] = facts.groups_of(rows(tmp_path))
    [layers] = [column for column in group.columns if column.name == "model.layers"]
    [name] = [column for column in group.columns if column.name == "model.name"]
    assert sorted(zip(name.texts, layers.texts, layers.defaults, strict=True)) == [
        ("linear", "", True),
        ("network", "2", True),
        ("network", "5", False),
    ]


def test_charts_have_places_for_odd_numbers() -> None:
    """One value, huge and tiny ones, and those that are not finite."""
    for values in ([1.0, 1.0], [0.0, 0.0], [1e-12, 1e12], [-5.0, 3.0], [1e299, -1e299]):
        scale = charts.Scale(values, 0.0, 100.0)
        assert all(-1 <= scale(value) <= 101 for value in values)
        assert len(scale.ticks()) <= 12
    column = facts.Column("x", "result", [1, float("nan"), True, None, "2", 1e308], [*"123456"])
    assert column.numbers() == [1.0, None, None, None, None, None]


def test_metrics_may_be_anything(tmp_path: Path) -> None:
    """Lines that are no objects of numbers are left out, and a file that is none is as if it were not there."""
    [row] = rows(made := _one(tmp_path))
    path = Path(row.folder) / "metrics.jsonl"
    path.write_bytes(
        b'{"step":1,"a":1}\n[]\n{"step":"x","a":2}\n\xff\xfe\n{"step":1,"a":3}\n{"step":0,"a":"nan","b":1e400}\n{"st'
    )
    assert records.curves(row) == {"a": [(1, 3)]}
    path.unlink()
    path.mkdir()
    assert records.curves(row) == {}
    assert "x" in reported(made)


def _one(tmp_path: Path) -> Path:
    trained.train(tmp_path / "one").loss()
    return tmp_path / "one"


def test_of_many_methods_the_smallest_are_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "MOST_GROUPS", 1)
    trained.make(tmp_path)
    logged(tmp_path).scores()
    names = [group.name for group in facts.groups_of(rows(tmp_path))]
    assert names == ["trained.Train.loss", "2 further methods"]
    Page(reported(tmp_path))


def test_a_missing_package_is_named(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.setattr(render, "environment", render.environment.__wrapped__)
    said = say(capsys, "report", cache, "-o", tmp_path / "r.html", code=2)
    assert said == "exca report: pages are made with Jinja2: pip install 'exca[ui]'\n"
    assert not (tmp_path / "r.html").exists()


def test_attempts_and_logs_of_jobs(tmp_path: Path) -> None:
    """A job that failed once and was tried again, and one that failed for good: attempts, what was used, stderr."""
    infra = {"cluster": "local", "retry_on": ["ValueError"], "retries": 1, "retry_backoff_s": 0, "mem_gb": 4}
    task = trained.train(tmp_path / "c", rate=9.0, infra=infra)
    assert isinstance(task.infra.job().exception(), ValueError)
    text = Page(reported(tmp_path / "c")).text()
    for words in (
        "Attempts before",
        "ValueError: diverged",
        "The end of its stderr",
        "Asked",
        "mem_gb 4",
        "Used ",
        "max_rss_mb",
    ):
        assert words in text, words
    assert "memory: used at most" in text
    assert "The end of its stderr" not in Page(reported(tmp_path / "c", logs=False)).text()


ODD: list[tp.Any] = [
    *(None, True, -1, 1e308, -1e308, 10**400, float("nan"), 1e-320),
    *("", " ", "x" * 2000, "nan", "<b>", "\ud800", "\u202e"),
    *([], [1, [2]], {}, {"a": {"b": 1}}, {"": 1}, {"a.b": 2}),
]
FIELDS = (
    *("seconds", "started", "finished", "submitted", "host", "user", "pid", "cluster", "job_id", "attempt"),
    *("ended", "config", "used", "resources", "git", "code", "attempts"),
)


def test_records_with_anything_in_them(tmp_path: Path) -> None:
    """Another user may have written them: all are shown, and all is a text."""
    chance = random.Random(3)
    for k in range(150):
        folder = tmp_path / "c" / "m.C.f,1" / f"x={k}-{k:08x}"
        folder.mkdir(parents=True)
        content: dict[str, tp.Any] = {name: chance.choice(ODD) for name in FIELDS if chance.random() < 0.6}
        content["config"] = {
            chance.choice(["a", "b", "c.d", "", "\x1b"]): chance.choice(ODD) for _ in range(3)
        }
        content["used"] = {name: chance.choice(ODD) for name in ("max_rss_mb", "cpu_seconds")}
        content["resources"] = {
            name: chance.choice(ODD) for name in ("mem_gb", "timeout_min", "cpus_per_task")
        }
        content["attempts"] = [chance.choice([*ODD, {"state": chance.choice(ODD)}]) for _ in range(2)]
        content["error"] = {name: chance.choice(ODD) for name in ("type", "message", "traceback")}
        content["result"] = {"content": chance.choice([*ODD, {"loss": chance.choice(ODD)}])}
        content |= {"version": 2, "state": chance.choice(["completed", "failed"])}
        record.publish(folder, content, durable=False)
    text = reported(tmp_path / "c")
    page = Page(text)
    assert len(page.all("script")) == 2
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
    [data] = re.findall(r'class="data">(.*?)</script>', text)
    assert len(json.loads(data)["state"]) == 150
    assert not re.search(r"<(th|button)[^>]*>\s*</", text), "no head without a name"
