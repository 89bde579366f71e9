"""The live page, in process: what it shows, what it follows, and what it never gives out."""

import asyncio
import hashlib
import html.parser
import json
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.routing import Route

import trained
from asking import ODD_PATHS, UP, Answer, Asker
from exca.claims import Claims
from exca.pages import acting, following, live, serving, snapshots
from exca.pages.gate import FORM_TOKEN, Gate, Keys
from saying import say
from waiting import wait_for

STRANGER = 64_321  # no user of this machine
STATIC = Path(live.__file__).parent / "static"
NASTY = "<script>alert(1)</script>\"'&\x1b[31m\x00\u202egnp.exe ${{7*7}} {{7*7}}"


class Page(html.parser.HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def links(self, start: str) -> list[str]:
        found = (value for _, attrs in self.tags for value in attrs.values() if value)
        return list(dict.fromkeys(value for value in found if value.startswith(start)))


class Site(Asker):
    """A folder that is served, and a browser that has begun a session."""

    def __init__(self, folder: Path, *, actions: bool = False, pause: float = 0.0) -> None:
        self.keys = Keys()
        self.routes = live.make_app(str(folder), self.keys, actions=actions, pause=pause)
        self.gate = Gate(self.routes, self.keys, actions=actions)
        super().__init__(self.gate)
        self.begin(self.keys.token)
        self.watched: snapshots.Watched = self.routes.state.pages.watched

    def links(self, path: str, start: str) -> list[str]:
        return Page(self.get(path).text).links(start)

    def run_page(self, condition: str) -> str:
        """The address of the one training that fits."""
        [runs] = [link for link in self.links("/", "/runs/") if "trained.Train" in self.get(link).text]
        [link] = [
            link
            for link in self.links(f"{runs}?where={quote(condition, safe='')}", "/run/")
            if link.count("/") == 2
        ]
        return link


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live") / "results"
    trained.make(folder)
    return folder


def content(folder: Path) -> dict[str, bytes | None]:
    """All that is in a folder, but for what is derived."""
    there = (path for path in folder.rglob("*") if path.name != ".exca-rows")
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in there}


@pytest.fixture
def site(cache: Path) -> Site:
    return Site(cache)


def test_from_the_methods_to_a_run(site: Site, cache: Path) -> None:
    assert "7 runs, 4 completed, 2 failed, 1 stored" in site.get("/").text
    [runs] = [link for link in site.links("/", "/runs/") if "trained.Train" in site.get(link).text]
    page = site.get(f"{runs}?where=rate%20%3E%205&state=failed").text
    assert "2 of 6 runs fit, 2 failed" in page
    assert "cannot read the filter" in site.get(f"{runs}?where=rate%20%3E").text
    run = site.get(site.run_page("rate == 9 and model.layers == 8")).text
    assert "ValueError: diverged" in run
    assert "No job of it has printed anything that is kept." in run
    for text in (page, run):
        assert str(cache.parent) not in re.sub(r"Traceback \(most recent.*?</pre>", "", text, flags=re.DOTALL)


def test_each_look_serves_all_tabs(cache: Path) -> None:
    site = Site(cache, pause=3600)
    for path in ("/", "/", *site.links("/", "/runs/")):
        assert site.get(path).status == 200
    assert site.watched.looks == 1


def test_tabs_that_ask_at_once_share_a_look(cache: Path) -> None:
    async def ask() -> int:
        watched = snapshots.Watched(str(cache), pause=3600)
        found = await asyncio.gather(*(watched.now() for _ in range(50)))
        assert {snapshot.version for snapshot in found} == {1}
        return watched.looks

    assert asyncio.run(ask()) == 1


def walked(site: Site) -> list[tuple[Route, str]]:
    """Every route of the application's own table, and a path that it answers."""
    values = {
        "method": site.links("/", "/runs/")[0].rpartition("/")[2],
        "run": site.run_page("rate == 9 and model.layers == 8").rpartition("/")[2],
        "name": "pages.css",
        "action": "retry",
    }
    found = []
    for route in site.routes.routes:
        assert isinstance(route, Route), "what is no route of pages needs a thought of its own"
        found.append((route, route.path.format_map(values)))
    return found


def test_every_route_asks_for_a_session_a_host_and_a_form(cache: Path) -> None:
    """The paths come from the application's own table, so that new ones are among them."""
    site = Site(cache, actions=True)
    stranger = Asker(site.gate)
    routes = walked(site)
    assert len(routes) >= 7
    for route, path in routes:
        for method in sorted(
            (route.methods or set()) | {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}
        ):
            same = [("sec-fetch-site", "same-origin")]
            assert stranger.ask(method, path, same).status == 401, path
            assert site.ask(method, path, [("host", "evil.example"), *same]).status == 403, path
            if method not in ("GET", "HEAD"):
                assert site.ask(method, path, same).status in (403, 405), path
            assert (
                site.ask(method, path, [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "cors")]).status
                == 403
            )
        if "GET" in (route.methods or ()):
            assert site.ask("HEAD", path).status == 200, path
            ended = site.ask("GET", path, enough=lambda body: True)
            assert ended.status == 200, path
            form = f"{FORM_TOKEN}={site.keys.form}"
            assert site.post(path, form).status == 405, path
        else:
            assert route.methods == {"POST"}, "nothing that acts is done by a GET"
            assert site.get(path).status in (404, 405)


FIELDS = ("state", "err", "rank", "attempt", "runs", "at", "after", "version", "sort")
HOSTILE = [
    *(
        NASTY,
        "x" * 4000,
        "\x00",
        "../../etc/passwd",
        "/etc/passwd",
        "%2e%2e%2f",
        "-1",
        "1e999",
        "٣",
        "NaN",
        "__class__",
    ),
    *(
        "9" * 40,
        "rate == '" + "(" * 300,
        "(" * 4000,
        "not " * 900 + "rate",
        "rate > 5;import os",
        "_state.__class__",
    ),
    *(
        "[" * 2000 + "]" * 2000,
        "rate in " + "[1," * 500,
        "a" + ".a" * 1500,
        "\u202e",
        "' or '1'='1",
        "\ud800",
    ),
]


def test_hostile_values_in_every_field(site: Site) -> None:
    """Fields that are known and ones that are not, on every page: an answer, never an error of the server."""
    for _, path in walked(site):
        for value in HOSTILE:
            text = quote(value.encode("utf-8", "surrogatepass"), safe="")
            others = "&".join(f"{name}={text[:500]}" for name in FIELDS)
            for query in (f"where={text}"[:8000], f"{others}&{text[:50]}=x"):
                answer = site.ask("GET", f"{path}?{query}", enough=lambda body: True)
                assert answer.status in (200, 400, 404), (path, query[:80])
                assert b"<script>alert" not in answer.body
                assert b"root:" not in answer.body


def test_hostile_paths_on_every_route(site: Site) -> None:
    paths = list(ODD_PATHS)
    for route, _ in walked(site):
        for name in re.findall(r"\{(\w+)\}", route.path):
            for value in (
                *UP,
                "x",
                "0" * 20,
                "pages.css.",
                "vendor",
                "vendor.json",
                "live.py",
                "a" * 5000,
                "%00",
                "~root",
            ):
                filled = {**dict.fromkeys(re.findall(r"\{(\w+)\}", route.path), "x"), name: value}
                paths.append(route.path.format_map(filled))
    for path in paths:
        answer = site.get(path)
        assert answer.status == (404 if path else 401), path
        assert b"root:" not in answer.body


def test_hostile_names_and_values_in_the_folder(tmp_path: Path) -> None:
    """Everything that a user can choose is text by the time that it is in a page."""
    folder = tmp_path / "a <b onload=x> 'folder'"
    folder.mkdir()
    trained.train(folder, rate=1.0, title=NASTY).loss()
    trained.train(folder, rate=2.0, title="x" * 1_000_000).loss()
    made = min((path.parent for path in folder.glob("trained*/*/job.json")), key=lambda path: len(path.name))
    os.rename(made.parent, odd := folder / "mod'<i>.Cl\"ass.\u202emethod,<1>")
    (odd / made.name / "job.json").unlink()
    names = {"<img src=x onerror=alert(1)>": NASTY, "a": [NASTY] * 50}
    (odd / made.name / "uid.yaml").write_text(json.dumps(names))
    (folder / ".sweeps").mkdir()
    sweep = {"version": 1, "name": NASTY, "source": NASTY, "target": NASTY, "uids": [NASTY], "written": 1e300}
    (folder / ".sweeps" / "wide.json").write_text(json.dumps(sweep))
    site = Site(folder)
    pages = {path: site.get(path) for path in ("/", *site.links("/", "/runs/"))}
    pages.update(
        {
            link: site.get(link)
            for path in list(pages)
            for link in site.links(path, "/run/")
            if link.count("/") == 2
        }
    )
    assert len(pages) >= 4
    for path, answer in pages.items():
        assert answer.status == 200, path
        assert len(answer.body) < 200_000, path
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", answer.text), path
        for tag, attributes in Page(answer.text).tags:
            assert tag not in ("img", "iframe", "object", "embed", "i", "b", "style"), path
            assert not [name for name in attributes if name.startswith("on") or name == "style"], path
            if tag == "script":
                assert attributes.get("type") == "application/json" or "src" in attributes, path
            for name in ("src", "href", "action", "hx-get", "sse-connect"):
                value = attributes.get(name) or "/"
                assert value.startswith(("/", "#", "?")), "nothing is loaded from elsewhere"
                assert not value.startswith("//")


def test_to_look_changes_nothing(tmp_path: Path) -> None:
    """Not even where a record is damaged, which who computes sets aside."""
    for rate in (1.0, 2.0):
        trained.train(tmp_path, rate=rate).loss()
    [damaged, _] = tmp_path.glob("trained*/*/job.json")
    damaged.write_bytes(b"{")
    (damaged.parent / "dead.1.2.claim").write_bytes(b"of nobody")
    before = content(tmp_path)
    site = Site(tmp_path)
    pages = {"/", *site.links("/", "/runs/")}
    pages |= {link for path in pages for link in site.links(path, "/run/")}
    assert len(pages) >= 4
    for path in pages:
        assert site.get(path).status == 200
        for stream in site.links(path, f"{path.rstrip('/')}/stream"):
            assert site.ask("GET", stream, enough=lambda body: True).status == 200
    assert content(tmp_path) == before


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_nothing_of_the_folder_is_unpickled_or_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a pickle in any place where one could be, and not the module that a folder is named after."""
    target, folder = tmp_path / "went-off", tmp_path / "cache"
    job = Claimed(folder)
    bomb = pickle.dumps(Bomb(target))
    (job.place / "job.pkl").write_bytes(bomb)
    for name in ("submitted", "0_result"):
        (job.log.parent / f"12_{name}.pkl").write_bytes(bomb)
    other = folder / "explosive.Model.run,1" / "x=1-0123abcd"
    other.mkdir(parents=True)
    (other / "job.pkl").write_bytes(bomb)
    (other / "uid.yaml").write_text(f"x: !!python/object/apply:os.mkdir [{target}]\n")
    (tmp_path / "explosive.py").write_text(f"import os; os.mkdir({str(target)!r})")
    monkeypatch.syspath_prepend(tmp_path)
    site = Site(folder)
    pages = {"/", *site.links("/", "/runs/")}
    pages |= {link for path in pages for link in site.links(path, "/run/") if link.count("/") == 2}
    assert len(pages) == 5
    for path in pages:
        assert site.get(path).status == 200
    assert not target.exists()
    assert "explosive" not in sys.modules
    pickle.loads(bomb)
    assert target.exists(), "the test would notice"
    job.claim.release()


def test_a_run_that_is_gone(tmp_path: Path) -> None:
    trained.train(tmp_path, rate=1.0).loss()
    site = Site(tmp_path)
    link = site.run_page("rate == 1")
    [made] = tmp_path.glob("trained*/*/job.json")
    shutil.rmtree(made.parent)
    wait_for(lambda: site.get(link).status == 404, "the run to be gone from the page")
    assert "There is no such run" in site.get(link).text
    assert "There are no runs in this folder yet" in site.get("/").text


# ---------------------------------------------------------------- streams


class Claimed:
    """A training that a job of this user computes just now, as far as the folder tells."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        trained.train(folder, rate=1.0).loss()
        [made] = folder.glob("trained.Train*/*/job.json")
        self.place = made.parent
        made.unlink()
        claim, _ = Claims(self.place).acquire(["task"])
        assert claim is not None
        self.claim = claim
        self.log = folder / "logs" / "12" / "12_0_log.out"
        self.log.parent.mkdir(parents=True)
        where = {"cluster": "local", "job_id": "12", "logs": str(folder / "logs" / "%j"), "pid": os.getpid()}
        (self.place / "submission.json").write_text(json.dumps({**where, "attempt": "a", "processes": 1}))

    def say(self, text: str) -> None:
        with self.log.open("a") as file:
            file.write(text)


def events(answer: Answer) -> list[tuple[str, str]]:
    found = []
    for block in answer.text.split("\n\n"):
        fields = [line.partition(": ")[::2] for line in block.splitlines()]
        names = [value for name, value in fields if name == "event"]
        if names:
            found.append((names[0], "\n".join(value for name, value in fields if name == "data")))
    return found


def test_a_log_is_followed(tmp_path: Path) -> None:
    job = Claimed(tmp_path)
    site = Site(tmp_path)
    link = site.run_page("rate == 1")
    assert "running" in site.get(link).text
    job.say("first <line>\n")
    page = site.get(link)
    assert "first &lt;line&gt;" in page.text
    [stream] = Page(page.text).links(f"{link}/stream")
    job.say("\x1b[32msecond\x1b[0m\r\nthird\u202e")

    def more(body: bytes) -> bool:
        if b"second" in body and b"fourth" not in body:
            job.say("fourth\n")
        return b"fourth" in body

    answer = site.ask("GET", stream, enough=more)
    assert answer.header("content-type") == "text/event-stream; charset=utf-8"
    said = "".join(text for name, text in events(answer) if name == "log")
    assert re.sub(r"</?span>", "", said) == "second\nthird\\u202efourth\n"
    last = re.findall(r"^id: (\d+)$", answer.text, re.MULTILINE)[-1]
    assert int(last) == job.log.stat().st_size
    job.say("fifth\n")
    again = site.ask("GET", stream, [("last-event-id", last)], enough=lambda body: b"fifth" in body)
    assert [text for name, text in events(again) if name == "log"] == ["<span>fifth\n</span>"]
    job.claim.release()


def test_logs_of_other_processes_and_of_earlier_attempts(tmp_path: Path) -> None:
    """Each can be chosen and is followed; a job that another name of a path is given as is none."""
    job = Claimed(tmp_path)
    lost = [
        {"state": "preempted", "reason": "by <others>", "attempt": "b", "job_id": "11"},
        {"state": "requeued", "reason": "in the same log", "attempt": "a", "job_id": "12"},
        {"state": "killed", "reason": "", "attempt": "c", "job_id": "../../secret"},
    ]
    where = {"cluster": "local", "job_id": "12", "logs": str(tmp_path / "logs" / "%j"), "pid": os.getpid()}
    note = {**where, "attempt": "a", "processes": 3, "attempts": lost}
    (job.place / "submission.json").write_text(json.dumps(note))
    job.say("of the first\n")
    for number, rank, text in ((12, 2, "of the third"), (11, 0, "of before"), (11, 2, "of the third before")):
        path = tmp_path / "logs" / f"{number}" / f"{number}_{rank}_log.out"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{text}\n")
    site = Site(tmp_path)
    link = site.run_page("rate == 1")
    page = site.get(link).text
    assert "of 3, from 0" in page
    assert re.findall(r'<option value="(\d+)"[^>]*>([^<]*)', page) == [
        ("0", "the latest"),
        ("1", "1: preempted, job 11"),
    ]
    assert "by &lt;others&gt;" in page, "the attempts before are in the details while it runs"
    for rank, attempt, text in ((0, 0, "first"), (2, 0, "third"), (0, 1, "before"), (2, 1, "third before")):
        chosen = site.get(f"{link}?rank={rank}&attempt={attempt}").text
        assert f"of the {text}\n</pre>" in chosen.replace("of before", "of the before")
        [stream] = Page(chosen).links(f"{link}/stream")
        assert f"rank={rank}&attempt={attempt}" in stream
    for rank, attempt in ((1, 0), (0, 2), (0, 3), (0, 4), (5, 0)):
        assert "No job of it has printed" in site.get(f"{link}?rank={rank}&attempt={attempt}").text
    job.claim.release()


def test_a_stream_tells_of_changes_in_the_folder(tmp_path: Path) -> None:
    trained.train(tmp_path, rate=1.0).loss()
    site = Site(tmp_path)
    [stream] = Page(site.get("/").text).links("/stream")

    def more(body: bytes) -> bool:
        if b"retry" in body and b"changed" not in body:
            trained.train(tmp_path, rate=2.0).loss()
        return b"changed" in body

    answer = site.ask("GET", stream, enough=more)
    assert [name for name, _ in events(answer)] == ["changed"]
    assert "2 runs" in site.get("/").text


def test_no_more_streams_than_are_allowed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where many ask at the same moment, before any of them has had its first line; a place is free again."""
    monkeypatch.setattr(live, "_MOST_STREAMS", 3)
    monkeypatch.setattr(live, "_ALIVE", 0.0)
    site = Site(cache)
    [stream] = Page(site.get("/").text).links("/stream")

    async def ask_at_once() -> list[int]:
        begun: set[int] = set()

        def enough_with(number: int) -> Callable[[bytes], bool]:
            def enough(body: bytes) -> bool:
                begun.add(number)
                return len(begun) == 10

            return enough

        asked = (site.asked("GET", stream, enough=enough_with(k)) for k in range(10))
        return [answer.status for answer in await asyncio.gather(*asked)]

    assert sorted(asyncio.run(ask_at_once())) == [200] * 3 + [503] * 7
    assert site.ask("GET", stream, enough=lambda body: True).status == 200


def test_streams_end_with_the_server(cache: Path) -> None:
    keys = Keys()
    site = Asker(Gate(live.make_app(str(cache), keys, ending=lambda: True), keys))
    site.begin(keys.token)
    assert site.get("/stream?version=1").body == b"retry: 2000\n\n"


def test_a_follower_keeps_up_and_keeps_whole_characters(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes("ü".encode()[:1])
    follower = following.Follower(str(log), 0)
    assert follower.more() == ""
    log.write_bytes("ü\n".encode())
    assert follower.more() == "ü\n"
    with log.open("ab") as file:
        file.write(b"line\n" * 500_000)
    said = follower.more()
    assert said.startswith("[24")
    assert said.endswith("line\n")
    log.write_bytes(b"")
    log.write_bytes(b"x\n")
    assert follower.more() == "[the log begins anew]\nx\n"
    follower.close()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives files to another user")
@pytest.mark.parametrize("planted", ["link", "submission"])
def test_what_another_user_planted_is_no_log(tmp_path: Path, planted: str) -> None:
    """A link in the place of a log, or a submission that names a file outside of the folder."""
    folder = tmp_path / "cache"
    job = Claimed(folder)
    secret = tmp_path / "12_0_log.out"
    secret.write_text("of this user alone")
    if planted == "link":
        job.log.symlink_to(secret)
        os.lchown(job.log, STRANGER, STRANGER)
        os.chown(job.log.parent, STRANGER, STRANGER)
    else:
        file = job.place / "submission.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "logs": str(tmp_path)}))
        os.chown(file, STRANGER, STRANGER)
    site = Site(folder)
    page = site.get(link := site.run_page("rate == 1"))
    assert "of this user alone" not in page.text
    if planted == "submission":
        assert "another user may have written down that the log of" in page.text
    [stream] = Page(page.text).links(f"{link}/stream")
    answer = site.ask("GET", stream.replace("version=1", "version=0"), enough=lambda body: b"changed" in body)
    assert "of this user alone" not in answer.text
    job.claim.release()
    os.chown(job.place / "submission.json", 0, 0)
    own = site.get(link).text
    assert ("of this user alone" in own) == (planted == "submission"), "the test would notice"


# ---------------------------------------------------------------- actions


def test_actions_are_offered_where_they_make_sense(cache: Path) -> None:
    site, reader = Site(cache, actions=True), Site(cache)
    failed, completed = (
        site.run_page("rate == 9 and model.layers == 8"),
        site.run_page("rate == 1 and model.layers == 8"),
    )
    assert f'action="{failed}/retry"' in site.get(failed).text
    assert "<form" not in site.get(completed).text
    assert "<form" not in reader.get(failed).text
    assert site.keys.form not in reader.get(failed).text
    form = f"{FORM_TOKEN}={site.keys.form}"
    for link, state in ((completed, "completed"), (failed, "failed")):
        answer = site.post(f"{link}/cancel", form)
        assert (answer.status, answer.header("location")) == (303, link)
        assert f"It is {state} by now, so there is nothing to cancel." in site.get(link).text
    assert site.post(f"{failed}/remove", form).status == 404
    assert reader.post(f"{failed}/retry", form).status == 403
    assert set(acting.ACTIONS) == {"cancel", "retry"}


# ---------------------------------------------------------------- files of others, and the server


def test_vendored_files_are_what_they_were_when_they_came() -> None:
    known = json.loads((STATIC / "vendor" / "vendor.json").read_text())
    there = {path.name for path in (STATIC / "vendor").iterdir()} - {"vendor.json"}
    assert there == set(known) | {facts["license_file"] for facts in known.values()}
    for name, facts in known.items():
        assert hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == facts["sha256"], name
        assert re.fullmatch(r"\d+\.\d+\.\d+", facts["version"])


def test_all_that_pages_load_is_served(site: Site) -> None:
    page = Page(site.get("/").text)
    loaded = [attrs.get("src") or attrs.get("href") for tag, attrs in page.tags if tag in ("script", "link")]
    assert len(loaded) == 9
    for path in loaded:
        answer = site.get(str(path))
        assert answer.status == 200, path
        assert (answer.header("content-type") or "").startswith(
            ("text/css", "text/javascript", "image/svg+xml")
        )


def test_the_socket_at_a_path_is_of_this_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    with (
        pytest.raises(FileNotFoundError, match=r"there is no folder .*mkdir -m 700"),
        serving.listening(None, str(folder / "s")),
    ):
        pass
    folder.mkdir(mode=0o700)
    path = folder / "s"
    with serving.listening(None, str(path)) as (_, place):
        assert place == str(path)
        assert path.stat().st_mode & 0o777 == 0o600
        with (
            pytest.raises(FileExistsError, match="another server answers"),
            serving.listening(None, str(path)),
        ):
            pass
    assert not path.exists()
    with serving.listening(None, str(path)) as (listener, _):
        listener.close()  # as of a server that was killed
        with serving.listening(None, str(path)):
            assert path.is_socket()
    path.write_text("no socket")
    with pytest.raises(FileExistsError, match="is no socket"), serving.listening(None, str(path)):
        pass
    assert path.read_text() == "no socket"


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_no_socket_where_others_could_put_another(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    with (
        pytest.raises(PermissionError, match="another user could put another socket"),
        serving.listening(None, str(folder / "s")),
    ):
        pass
    assert list(folder.iterdir()) == []


def test_the_usual_port_or_another() -> None:
    with serving.listening(None, None) as (_, one), serving.listening(None, None) as (_, other):
        assert serving.USUAL_PORT != other != one


def test_a_port_that_is_none() -> None:
    with pytest.raises(OSError, match="port 70000 cannot be listened at"), serving.listening(70_000, None):
        pass


def test_a_port_that_is_taken() -> None:
    with serving.listening(0, None) as (_, port):
        assert isinstance(port, int)
        with (
            pytest.raises(OSError, match=f"port {port} cannot be listened at"),
            serving.listening(port, None),
        ):
            pass


def test_what_is_printed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys()
    gate = Gate(live.make_app(str(cache), keys), keys, root_path="/exca")
    lines = "\n".join(serving.lines_to_print(gate, 8500, []))
    assert f"http://localhost:8500/exca/?token={keys.token}" in lines
    assert "ssh -N -L 8500:localhost:8500 " in lines
    lines = "\n".join(serving.lines_to_print(gate, "/run/me/my socket", ["exca.example"]))
    assert f"https://exca.example/exca/?token={keys.token}" in lines
    assert "ssh -N -L '8411:/run/me/my socket' " in lines


def test_what_the_command_refuses(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "there is no folder nowhere" in say(capsys, "ui", "nowhere", code=2)
    assert "give --port or --uds" in say(capsys, "ui", cache, "--port", 0, "--uds", "s", code=2)
    assert "no path that a proxy puts" in say(capsys, "ui", cache, "--port", 0, "--root-path", "//x", code=2)
    assert "no name of a host" in say(capsys, "ui", cache, "--port", 0, "--allow-host", "http://x", code=2)
    monkeypatch.setitem(sys.modules, "uvicorn", None)  # as where it is not installed
    assert 'exca ui needs uvicorn: pip install "exca[ui]"' in say(capsys, "ui", cache, code=2)
