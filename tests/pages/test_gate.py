"""What the gate lets in: what it was printed for, and nothing else."""

import asyncio
import re
import typing as tp
from urllib.parse import quote

import pytest

from asking import ODD_PATHS, Asker
from exca.pages.gate import FORM_TOKEN, HEADERS, Gate, Keys

INSIDE = "what is behind the gate"


async def inside(scope: tp.Any, receive: tp.Any, send: tp.Any) -> None:
    """Answer everything, and say which path was asked for."""
    body = b""
    if scope["method"] == "POST":
        body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"public")]})
    await send({"type": "http.response.body", "body": f"{INSIDE} {scope['path']} ".encode() + body})


def make(**options: tp.Any) -> tuple[Gate, Asker]:
    gate = Gate(inside, Keys(), **options)
    return gate, Asker(gate)


@pytest.fixture
def gate() -> Gate:
    return Gate(inside, Keys(), actions=True)


@pytest.fixture
def asker(gate: Gate) -> Asker:
    """A browser with a session."""
    asker = Asker(gate)
    asker.begin(gate.keys.token)
    assert asker.cookie is not None
    return asker


def test_the_token_is_exchanged_for_a_cookie_and_leaves_the_address(gate: Gate) -> None:
    asker = Asker(gate)
    assert asker.get("/").status == 401
    answer = asker.begin(gate.keys.token)
    assert (answer.status, answer.header("location"), answer.body) == (303, "/", b"")
    cookie = answer.header("set-cookie")
    assert cookie is not None
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert gate.keys.token not in str(answer.headers)
    assert gate.keys.form not in str(answer.headers)
    assert asker.get("/").text == f"{INSIDE} / "


def test_a_link_on_another_site_begins_a_session_too(gate: Gate) -> None:
    """A redirect would count as that site's doing, and would carry no cookie; a page that goes on by itself does."""
    asker = Asker(gate)
    headers = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]
    answer = asker.get(f"/?token={gate.keys.token}", headers)
    assert (answer.status, answer.header("location")) == (200, None)
    assert f'content="0; url={gate.keys.place}/"' in answer.text
    assert gate.keys.token not in answer.text


def test_a_session_is_of_one_run_and_one_server(gate: Gate, asker: Asker) -> None:
    other, browser = make()
    browser.cookie = asker.cookie
    for browser.base in ("", asker.base, other.keys.place):
        assert browser.get("/").status == 401
    browser.base = ""
    assert browser.get(f"/?token={gate.keys.token}").status == 401


def test_the_cookie_is_sent_with_addresses_of_this_run_alone(gate: Gate, asker: Asker) -> None:
    """So that a server at another port of this host never sees it; and elsewhere it opens nothing."""
    assert re.fullmatch(r"/[0-9a-f]{16}", gate.keys.place)
    assert asker.base == gate.keys.place
    for asker.base in (
        "",
        gate.keys.place[:-1],
        f"{gate.keys.place}0",
        f"/x{gate.keys.place}",
        "/0123456789abcdef",
    ):
        answer = asker.get("/")
        assert answer.status == 401
        assert gate.keys.place not in str(answer.headers) + answer.body.decode()


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8411",
        "LOCALHOST:1",
        "127.0.0.1:8411",
        "[::1]:8411",
    ],
)
def test_hosts_of_its_own(asker: Asker, host: str) -> None:
    assert asker.get("/", [("host", host)]).status == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8411", "localhost.evil.example", "localhost.", "", "-", "*"),
        *("127.0.0.1.nip.io", "127.1", "0x7f.1", "2130706433", "0.0.0.0", "[::]", "[::ffff:127.0.0.1]"),
        *(
            "user@localhost",
            "localhost:8411@evil.example",
            "localhost:port",
            "localhost:8411:1",
            "localhost/",
        ),
        *(
            "localhost evil.example",
            "localhost,evil.example",
            "local\xf6host",
            "localhost\x00",
            "[::1",
            "::1",
        ),
    ],
)
def test_other_hosts_are_refused(asker: Asker, gate: Gate, host: str) -> None:
    """With a session, with the token, for what only shows and for what acts."""
    for answer in (
        asker.get("/", [("host", host)]),
        asker.get(f"/?token={gate.keys.token}", [("host", host)]),
        asker.post("/", f"{FORM_TOKEN}={gate.keys.form}", [("host", host)]),
    ):
        assert answer.status == 403
        assert INSIDE not in answer.text


def test_a_name_that_is_allowed() -> None:
    gate, asker = make(hosts=["Exca.Example"])
    assert asker.ask("GET", f"/?token={gate.keys.token}", [("host", "exca.example")]).status == 303
    assert asker.ask("GET", "/", [("host", "other.example")]).status == 403
    for name in ("https://a.example", "a.example:80", "a b", "", "a/b"):
        with pytest.raises(ValueError, match="no name of a host"):
            Gate(inside, Keys(), hosts=[name])


@pytest.mark.parametrize("name", ["host", "cookie", "origin", "sec-fetch-site", FORM_TOKEN])
def test_a_header_that_decides_is_there_once(asker: Asker, name: str) -> None:
    twice = [(name, "localhost"), (name, "localhost")]
    assert asker.get("/", twice).status == 400


@pytest.mark.parametrize("path", [path for path in ODD_PATHS if "?" not in path])
def test_odd_paths_lead_nowhere(asker: Asker, path: str) -> None:
    for base in (asker.base, ""):
        asker.base = base
        answer = asker.get(path)
        assert answer.status in (401, 404)
        assert INSIDE not in answer.text


def test_without_a_session_nothing_is_told(gate: Gate) -> None:
    asker = Asker(gate)
    cookie = f"exca={gate.keys.token}"
    for headers in (
        [],
        [("cookie", cookie)],
        [("authorization", f"Bearer {gate.keys.token}")],
        [("cookie", "; =;" * 99)],
    ):
        for method in (
            "GET",
            "HEAD",
            "POST",
            "PUT",
            "DELETE",
            "OPTIONS",
            "TRACE",
            "CONNECT",
            "PATCH",
            "BREW",
        ):
            answer = asker.ask(method, "/", headers)
            assert answer.status == 401
            assert INSIDE not in answer.text
    for token in (
        "",
        "x",
        gate.keys.token[:-1],
        gate.keys.token + "x",
        quote("ü", safe=""),
        "%00",
        "%ff",
        gate.keys.form,
    ):
        assert asker.get(f"/?token={token}").status == 401
    assert asker.get(f"/static?token={gate.keys.token}").status == 401, "at the printed address only"
    assert asker.ask("POST", f"/?token={gate.keys.token}").status == 401


def test_forms(gate: Gate, asker: Asker) -> None:
    good = f"a=1&{FORM_TOKEN}={gate.keys.form}"
    answer = asker.post("/go", good)
    assert answer.text == f"{INSIDE} /go {good}", "what was read at the gate is read again behind it"
    assert asker.post("/go", "a=1", [(FORM_TOKEN, gate.keys.form)]).status == 200
    for wrong in (
        "",
        "a=1",
        f"{FORM_TOKEN}=",
        f"{FORM_TOKEN}={gate.keys.token}",
        f"{FORM_TOKEN}=%FF",
        "&" * 1000,
    ):
        assert asker.post("/go", wrong).status in (400, 403)
    assert asker.post("/go", good, [(FORM_TOKEN, "x")]).status == 403, (
        "a wrong header is not made good by a field"
    )
    assert asker.post("/go", "a=" + 70_000 * "x").status == 413
    assert (
        asker.ask(
            "POST", "/go", [("sec-fetch-site", "same-origin"), ("content-type", "text/plain")], good.encode()
        ).status
        == 403
    )


@pytest.mark.parametrize(
    "site", ["cross-site", "same-site", "none", "-", "", "Same-Origin", "same-origin, cross-site"]
)
def test_only_the_page_itself_acts(gate: Gate, asker: Asker, site: str) -> None:
    answer = asker.post(
        "/go", f"{FORM_TOKEN}={gate.keys.form}", [("sec-fetch-site", site), ("sec-fetch-mode", "navigate")]
    )
    assert answer.status == 403
    assert INSIDE not in answer.text


def test_nothing_acts_unless_it_was_allowed() -> None:
    gate, asker = make()
    asker.begin(gate.keys.token)
    answer = asker.post("/go", f"{FORM_TOKEN}={gate.keys.form}")
    assert answer.status == 403
    assert "--allow-actions" in answer.text
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE"):
        answer = asker.ask(method, "/go")
        assert (answer.status, answer.header("allow")) == (405, "GET, HEAD, POST")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, 200),
        ({"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),  # a link that is followed
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"}, 403),  # another port of this host
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
def test_what_other_sites_ask_for(asker: Asker, headers: dict[str, str], status: int) -> None:
    answer = asker.get("/", headers.items())
    assert answer.status == status
    assert (status == 403) == ("Another site asks for this." in answer.text)


def test_every_answer_carries_the_headers(gate: Gate, asker: Asker) -> None:
    stranger = Asker(gate)
    answers = [
        asker.get("/"),
        asker.get("/.."),
        asker.get("/", [("host", "evil.example")]),
        asker.post("/"),
        stranger.get("/"),
        stranger.begin(gate.keys.token),
    ]
    for answer in answers:
        for name, value in HEADERS:
            assert [v for k, v in answer.headers if k == name.decode()] == [value.decode()]
        assert not [name for name, _ in answer.headers if name.startswith("access-control-")]
    policy = answers[0].header("content-security-policy") or ""
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "data:" not in policy


@pytest.mark.parametrize("stripped", [False, True])
def test_behind_a_proxy(stripped: bool) -> None:
    """With a part of the path that the proxy takes away, or leaves."""
    root = "/user/ada%40x/exca"
    gate, asker = make(root_path=f"{root}/")
    before = "" if stripped else root
    asker.begin(gate.keys.token, f"{before}/")
    assert asker.base == f"{root}{gate.keys.place}", "of the cookie, and where the browser goes on"
    asker.base = f"{before}{gate.keys.place}"
    assert asker.get("/runs").text == f"{INSIDE} /runs "
    assert asker.get("/../runs").status == 404
    for wrong in ("//evil.example", "user", "/a/../b", "/a\r\nb", "/a b", '/"'):
        with pytest.raises(ValueError, match="no path that a proxy puts before others"):
            Gate(inside, Keys(), root_path=wrong)


def test_long_addresses_and_odd_fields(asker: Asker) -> None:
    assert asker.get("/?a=" + 9000 * "x").status == 414
    assert asker.get("/?" + "&".join(f"a{k}=" for k in range(200))).status == 400
    assert asker.get("/?%ff=%00&&&===&a").status == 200


def test_no_socket_but_http(gate: Gate) -> None:
    said: list[dict[str, tp.Any]] = []

    async def send(message: dict[str, tp.Any]) -> None:
        said.append(message)

    scope = {"type": "websocket", "headers": [], "path": "/"}
    asyncio.run(gate(scope, tp.cast("tp.Any", None), tp.cast("tp.Any", send)))
    assert said == [{"type": "websocket.close", "code": 1008}]


def test_a_form_that_ends_early(gate: Gate, asker: Asker) -> None:
    """Its connection was closed: nothing behind the gate gets to see the half of it."""
    given = {"host": "localhost:8411", "cookie": asker.cookie, "sec-fetch-site": "same-origin"}
    given["content-type"] = "application/x-www-form-urlencoded"
    path = f"{asker.base}/go"
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
    headers = [(name.encode(), str(value).encode()) for name, value in given.items()]
    coming: list[dict[str, tp.Any]] = [
        {"type": "http.request", "body": b"a=1", "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[dict[str, tp.Any]] = []

    async def receive() -> dict[str, tp.Any]:
        return coming.pop(0)

    async def send(message: tp.Any) -> None:
        sent.append(message)

    asyncio.run(gate({**scope, "root_path": "", "headers": headers}, receive, send))
    assert sent[0]["status"] == 400
    assert "The request ended early." in b"".join(each.get("body", b"") for each in sent).decode()
