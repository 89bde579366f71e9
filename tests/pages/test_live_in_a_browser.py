"""The live page as a person uses it: in a real browser, of a real server, with jobs that run."""

import contextlib
import http.client
import http.server
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import pytest

import trained
from chromium import opened, violations
from people import BOB, Commons

if tp.TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, Route

pytestmark = pytest.mark.long
SUPPORT = Path(trained.__file__).parent
NASTY = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>'\u202e"


class Served:
    """The command ``exca ui``, as it runs."""

    def __init__(self, folder: Path, *options: str) -> None:
        env = {**os.environ, "PYTHONPATH": str(SUPPORT), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "exca", "ui", str(folder), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://localhost:(\d+)\S*", line)
        assert found is not None, line + self.process.stdout.read()
        self.address, self.port = found[0], int(found[1])
        self.top = f"http://localhost:{self.port}"

    def __enter__(self) -> tp.Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Press Ctrl-C: it ends at once, although pages are open, and has reported nothing."""
        self.process.send_signal(signal.SIGINT)
        said, _ = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, said
        assert "Traceback" not in said, said


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live") / "study"
    trained.make(folder)
    trained.train(folder, rate=2.0, title=NASTY).loss()
    return folder


@pytest.fixture(scope="module")
def served(cache: Path) -> Iterator[Served]:
    with Served(cache, "--port", "0") as served:
        yield served


@pytest.fixture
def runs(page: "Page", served: Served) -> "Page":
    """The table of trainings."""
    page.goto(served.address)
    assert re.fullmatch(rf"{served.top}/[0-9a-f]+/", page.url), "the token has left the address"
    page.get_by_role("link", name="trained.Train.loss").click()
    page.locator(".controls").wait_for()
    return page


def cells(page: "Page", column: int) -> list[str]:
    return page.locator(f"table.list > tbody > tr > :nth-child({column})").all_inner_texts()


def head(page: "Page", name: str) -> "Locator":
    return page.locator("table.list thead button", has_text=re.compile(f"^{name}$"))


def titles(page: "Page") -> list[str]:
    return page.locator("table.list > thead th").all_inner_texts()


def test_filter_sort_group_and_plot(runs: "Page") -> None:
    from playwright.sync_api import expect

    expect(runs.locator("#countline")).to_contain_text("7 of 7 runs fit")
    runs.get_by_label("Where").fill("rate > 5")
    runs.get_by_role("button", name="Show").click()
    expect(runs.locator("#countline")).to_contain_text("2 of 7 runs fit, 2 failed")
    assert "where=rate" in runs.url
    runs.get_by_label("Where").fill("rate >")
    runs.get_by_label("Where").press("Enter")
    expect(runs.get_by_role("alert")).to_contain_text("cannot read the filter")
    runs.get_by_label("Where").fill("")
    runs.get_by_label("State", exact=True).select_option("completed")
    expect(runs.locator("#countline")).to_contain_text("5 of 7 runs fit, 5 completed")
    head(runs, "rate").click()
    at = titles(runs).index("rate") + 1
    assert cells(runs, at) == sorted(cells(runs, at), key=float)
    assert runs.locator("th[aria-sort=ascending]").inner_text() == "rate"
    runs.get_by_role("searchbox").fill("rate<2")
    expect(runs.locator(".countline")).to_have_text("4 of 5 runs")
    runs.get_by_label("Group by").select_option("rate")
    assert len(runs.locator("tr.group").all()) == 2
    assert len(runs.locator(".explorer circle.dot").all()) == 4
    assert runs.title() != "owned"


def test_what_was_chosen_stays_while_the_page_changes(runs: "Page", cache: Path) -> None:
    """A run more, while a filter is typed: the table has it, and the filter, the order and the focus are as before."""
    from playwright.sync_api import expect

    head(runs, "rate").click()
    head(runs, "rate").click()
    runs.get_by_role("searchbox").fill("rate<=1")
    expect(runs.locator(".countline")).to_have_text("4 of 7 runs")
    trained.train(cache, rate=0.25).loss()
    expect(runs.locator(".countline")).to_have_text("5 of 8 runs")
    expect(runs.locator("#countline")).to_contain_text("8 of 8 runs fit")
    assert runs.locator("th[aria-sort=descending]").inner_text() == "rate"
    expect(runs.get_by_role("searchbox")).to_be_focused()
    assert runs.get_by_role("searchbox").input_value() == "rate<=1"


def test_a_change_while_the_page_is_being_loaded_is_not_missed(runs: "Page", cache: Path) -> None:
    """A run ends while the answer to the change before it is on its way: both are on the page in the end."""
    from playwright.sync_api import expect

    total = int(runs.locator("#countline").inner_text().partition(" of ")[0])
    delayed: list[str] = []

    def late(route: "Route") -> None:
        answer = route.fetch()
        if not delayed:
            delayed.append(route.request.url)
            trained.train(cache, rate=0.125).loss()
            runs.wait_for_timeout(3000)  # the server has seen it by then, and has told the page
        route.fulfill(response=answer)

    runs.route("**/runs/*", late)
    trained.train(cache, rate=0.0625).loss()
    expect(runs.locator("#countline")).to_contain_text(f"{total + 2} of {total + 2} runs fit")
    assert len(delayed) == 1
    runs.unroute("**/runs/*")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More runs than a page holds rows; the first is the one with the lowest rate."""
    folder = tmp_path_factory.mktemp("many") / "study"
    for k in range(250):
        trained.train(folder, rate=(k + 1) / 50, title=f"t{k % 5}").loss()
    return folder


def test_more_runs_than_rows(page: "Page", many: Path) -> None:
    """Sorting, filters and groups are of all runs; rows are made as they are shown, also by the keyboard."""
    from playwright.sync_api import expect

    with Served(many, "--port", "0", "--allow-actions") as served:
        page.goto(served.address)
        page.get_by_role("link", name="trained.Train.loss").click()
        expect(page.locator("#countline")).to_have_text("250 of 250 runs fit, 250 completed")
        table = page.locator("table.list")
        rows = table.locator("> tbody > tr")
        expect(rows).to_have_count(100)
        assert table.get_attribute("aria-rowcount") == "251"
        assert rows.last.get_attribute("aria-rowindex") == "101"
        assert violations(page) == []
        head(page, "rate").click()
        at = titles(page).index("rate") + 1
        assert cells(page, at)[0] == "0.02"
        head(page, "rate").click()
        assert cells(page, at)[0] == "5"
        more = page.get_by_role("button", name="Show 150 more of 250")
        more.focus()
        page.keyboard.press("Enter")
        expect(rows).to_have_count(250)
        assert [float(text) for text in cells(page, at)] == [(250 - k) / 50 for k in range(250)]
        expect(rows.nth(100).locator("a")).to_be_focused()
        assert table.get_attribute("aria-rowcount") is None
        assert violations(page) == []
        lowest = rows.last.locator("a")
        name = lowest.inner_text()
        page.get_by_label("Filter").fill("rate<=0.04")
        expect(page.locator(".countline")).to_have_text("2 of 250 runs")
        page.get_by_label("Filter").fill("t3")
        expect(page.locator(".countline")).to_have_text("50 of 250 runs")
        page.get_by_label("Filter").fill("")
        page.get_by_label("Group by").select_option("title")
        assert page.locator("tr.group").first.inner_text().startswith("title = t0: 50 runs")
        page.get_by_label("Group by").select_option("nothing")
        page.get_by_label(f"choose {name}").check()
        trained.train(many, rate=0.005).loss()
        expect(page.locator(".countline")).to_have_text("251 runs")
        expect(page.get_by_label(f"choose {name}")).to_be_checked()
        page.get_by_role("link", name=name).click()
        expect(page.locator("h1")).to_contain_text(name)


def test_more_runs_than_rows_without_scripts(chromium: "Browser", many: Path) -> None:
    with Served(many, "--port", "0") as served:
        for view in opened(chromium, java_script_enabled=False):
            view.goto(served.address)
            view.get_by_role("link", name="trained.Train.loss").click()
            seen = cells(view, 1)
            for _ in range(2):
                view.get_by_role("link", name="The earlier 100").click()
                seen += cells(view, 1)
            assert len(set(seen)) == len(seen) >= 250
            assert view.get_by_role("link", name="The earlier 100").count() == 0
            view.get_by_role("link", name="The later 100").click()
            assert set(cells(view, 1)) < set(seen)


def test_something_is_done_to_several_runs(page: "Page", tmp_path: Path) -> None:
    """Two that failed are computed again; one that did not fail, chosen beside them, is left alone."""
    from playwright.sync_api import expect

    for rate in (7.0, 8.0, 1.0):
        with contextlib.suppress(ValueError):
            trained.train(tmp_path, rate=rate).loss()
    before = {path: path.read_bytes() for path in tmp_path.glob("trained*/*/job.json")}
    with Served(tmp_path, "--port", "0", "--allow-actions") as served:
        page.goto(served.address)
        page.get_by_role("link", name="trained.Train.loss").click()
        retry = page.get_by_role("button", name="Retry")
        expect(retry).to_be_disabled()
        page.get_by_label("choose all that fit").check()
        expect(retry).to_have_text("Retry 2")
        expect(page.get_by_role("button", name="Cancel")).to_be_disabled()
        assert violations(page) == []
        retry.click()
        expect(page.locator("#said")).to_contain_text("failed again: ValueError: diverged")
        expect(page.locator("#countline")).to_have_text("3 of 3 runs fit, 1 completed, 2 failed")
    changed = [path for path, data in before.items() if path.read_bytes() != data]
    assert len(changed) == 2


def test_back_and_forward(runs: "Page") -> None:
    from playwright.sync_api import expect

    total = runs.locator("#countline").inner_text()
    runs.get_by_label("Where").fill("rate > 5")
    runs.get_by_label("Where").press("Enter")
    expect(runs.locator("#countline")).to_contain_text("2 of ")
    runs.go_back()
    expect(runs.locator("#countline")).to_have_text(total)
    expect(runs.get_by_label("Where")).to_have_value("")
    runs.go_forward()
    expect(runs.locator("#countline")).to_contain_text("2 of ")
    expect(runs.get_by_label("Where")).to_have_value("rate > 5")


def test_without_scripts(chromium: "Browser", served: Served) -> None:
    """The pages are whole, conditions are forms, and links lead on."""
    for view in opened(chromium, java_script_enabled=False):
        view.goto(served.address)
        view.get_by_role("link", name="trained.Train.loss").click()
        view.get_by_label("Where").fill("rate > 5")
        view.get_by_role("button", name="Show").click()
        assert "2 of " in view.locator("#countline").inner_text()
        view.locator("table.list tbody a").first.click()
        assert "ValueError: diverged" in view.locator("main").inner_text()


def test_with_the_keyboard_alone(runs: "Page") -> None:
    from playwright.sync_api import expect

    runs.goto(runs.url)
    runs.keyboard.press("Tab")
    expect(runs.locator(".skip")).to_be_focused()
    runs.keyboard.press("Enter")
    expect(runs.locator("main")).to_be_focused()
    reached = set()
    for _ in range(60):
        runs.keyboard.press("Tab")
        reached.add(
            runs.evaluate(
                "() => document.activeElement.textContent.trim().slice(0, 20) || document.activeElement.id"
            )
        )
    assert {"where", "Show", "run", "rate", "Columns"} <= reached


def test_no_token_no_page(chromium: "Browser", served: Served) -> None:
    for address in (served.top, f"{served.top}/?token=x", f"{served.top}/static/pages.js"):
        context = chromium.new_context()
        answer = context.new_page().goto(address)
        assert answer is not None
        assert answer.status == 401
        assert "exca ui" in answer.text()
        context.close()


class Stranger(http.server.BaseHTTPRequestHandler):
    """A server of another user on this host, which keeps what browsers send to it."""

    cookies: tp.ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.cookies.append(self.headers.get("cookie"))
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>stranger</title>")

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


def test_another_server_of_this_host_gets_nothing(chromium: "Browser", served: Served) -> None:
    """It is another port of localhost, so that the browser takes it for the same site: it gets no cookie, no page."""
    stranger = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
    threading.Thread(target=stranger.serve_forever, daemon=True).start()
    context = chromium.new_context()
    here, there = context.new_page(), context.new_page()
    here.goto(served.address)
    there.goto(f"http://localhost:{stranger.server_port}/")
    there.goto(f"http://localhost:{stranger.server_port}/runs/x")
    assert len(Stranger.cookies) >= 2
    assert set(Stranger.cookies) == {None}
    asked = """async (url) => {
        try { return (await fetch(url, {mode: "no-cors", credentials: "include"})).type } catch { return "refused" }
    }"""
    for address in (served.top, here.url):
        assert there.evaluate(asked, address) == "refused"
    context.close()
    stranger.shutdown()
    stranger.server_close()


@pytest.mark.parametrize("look", ["light", "dark", "narrow"])
def test_accessible(chromium: "Browser", served: Served, look: str, tmp_path: Path) -> None:
    options: dict[str, tp.Any] = {"color_scheme": "dark" if look == "dark" else "light"}
    if look == "narrow":
        options["viewport"] = {"width": 390, "height": 844}
    for view in opened(chromium, **options):
        requested: list[str] = []
        view.on("request", lambda request: requested.append(request.url))  # noqa: B023 # there is one view
        view.goto(served.address)
        pages = [view.url]
        pages += [f"{served.top}{link.get_attribute('href')}" for link in view.locator("#methods a").all()]
        for address in pages[1:]:
            view.goto(address)
            link = view.locator("table.list tbody tr", has_text=re.compile("failed|stored")).first.locator(
                "a"
            )
            pages.append(f"{served.top}{link.get_attribute('href')}")
        assert len(pages) == 5
        for number, address in enumerate(pages):
            view.goto(address)
            view.screenshot(path=tmp_path / f"{look}-{number}.png", full_page=True)
            assert violations(view) == []
            width = view.evaluate(
                "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert width <= 0, f"{address} is wider than the screen"
        assert [url for url in requested if not url.startswith(f"{served.top}/")] == []


@pytest.mark.slurm
def test_a_job_on_slurm_is_followed_and_cancelled(page: "Page", slurm_folder: Path) -> None:
    """Its log grows on the page, curves too, its state changes in place, and a click ends it."""
    from playwright.sync_api import expect

    folder = slurm_folder / "cache"
    go = slurm_folder / "go"
    script = f"""
import time, pathlib, pydantic, exca
class Talk(pydantic.BaseModel):
    name: str = ""
    infra: exca.TaskInfra = exca.TaskInfra(folder={str(folder)!r}, cluster="slurm", timeout_min=5)
    @infra.apply
    def long(self) -> int:
        print("it has <begun>", flush=True)
        while not pathlib.Path({str(go)!r}).exists():
            time.sleep(0.05)
        for step in range(4):
            exca.log_metrics(step, loss=1 / (step + 1))
        print("it goes on", flush=True)
        time.sleep(600)
        return 1
"""
    (slurm_folder / "talk.py").write_text(script)
    env = {**os.environ, "PYTHONPATH": str(slurm_folder)}
    subprocess.run(
        [sys.executable, "-c", "import talk; talk.Talk(name='a').infra.job()"], env=env, check=True
    )
    with Served(folder, "--port", "0", "--allow-actions") as served:
        page.goto(served.address)
        page.get_by_role("link", name="talk.Talk.long").click()
        page.locator("table.list tbody a").first.click()
        expect(page.locator("#log")).to_contain_text("it has <begun>")
        go.touch()
        expect(page.locator("#log")).to_contain_text("it goes on")
        expect(page.locator(".zoomable canvas")).to_be_visible()
        expect(page.locator("#countline")).to_have_text("running")
        assert violations(page) == []
        page.screenshot(path=slurm_folder / "running.png", full_page=True)
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#said")).to_contain_text("cancelled 1 job")
        expect(page.locator("#countline")).not_to_have_text("running")


def test_a_failure_is_tried_again(chromium: "Browser", tmp_path: Path) -> None:
    """And the page says so when the server has ended."""
    from playwright.sync_api import expect

    with pytest.raises(ValueError, match="diverged"):
        trained.train(tmp_path, rate=9.0).loss()
    context = chromium.new_context()
    view = context.new_page()
    with Served(tmp_path, "--port", "0", "--allow-actions") as served:
        view.goto(served.address)
        view.get_by_role("link", name="trained.Train.loss").click()
        view.locator("table.list tbody a").first.click()
        view.get_by_role("button", name="Retry").click()
        expect(view.locator("#said")).to_contain_text("failed again: ValueError: diverged")
        view.wait_for_load_state()  # with the scripts that notice it
    expect(view.locator("#connection")).to_contain_text("not connected since")
    context.close()


def test_a_socket_at_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "ui"
    folder.mkdir(mode=0o700)
    with Served(tmp_path, "--uds", str(folder / "socket"), "--root-path", "/exca") as served:
        token = served.address.partition("token=")[2]

        connections: list[http.client.HTTPConnection] = []

        def ask(path: str, **headers: str) -> http.client.HTTPResponse:
            connection = http.client.HTTPConnection("localhost")
            connections.append(connection)
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.connect(str(folder / "socket"))
            connection.request("GET", path, headers=headers)
            return connection.getresponse()

        assert ask("/exca/").status == 401
        answer = ask(f"/exca/?token={token}")
        place = answer.getheader("location") or ""
        assert (answer.status, bool(re.fullmatch("/exca/[0-9a-f]+/", place))) == (303, True)
        cookie = (answer.getheader("set-cookie") or "").partition(";")[0]
        assert b"There are no runs in this folder yet" in ask(place, cookie=cookie).read()
        assert ask(place, cookie=cookie, host="evil.example").status == 403
        for connection in connections:
            connection.close()
    assert not (folder / "socket").exists()


def test_another_user_cannot_open_the_socket(commons: Commons) -> None:
    place = Path(tempfile.mkdtemp(dir=commons.shared.parent))
    place.chmod(0o755)
    with Served(place, "--uds", str(place / "socket")):
        code = f"""
            import socket
            with socket.socket(socket.AF_UNIX) as connection:
                try:
                    connection.connect({str(place / "socket")!r})
                except PermissionError:
                    print("refused")
        """
        assert BOB.run(commons.home(BOB), code) == "refused\n"
