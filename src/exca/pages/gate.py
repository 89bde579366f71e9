"""What every request to the live page passes first: nothing is let in that is not named here.

A page server on a shared host can be reached by every user of that host, and by every page that its user opens. So

* a request must name a host that this server goes by, which no name that an attacker controls the address of does;
* it must carry the cookie of a session, which is given for the token in the printed address: the cookie holds a random
  id of this run and never the token, and the browser is sent on to the address without the token;
* its path must begin with a random part of this run: the cookie is sent with such paths only. Browsers send cookies to
  all ports of a host, so without it the server of another user, opened as another port of localhost, would see it;
* its path must be made of plain characters: none of our addresses has an escape, a dot at the start of a part, or an
  empty part, so that nothing has to be decoded before it is judged;
* what another page asks for (by `Sec-Fetch-Site`) is refused, unless it is a link that the user follows;
* what is not GET or HEAD may have an effect: it needs actions that were allowed, the token of a form that the page
  showed, and a browser that confirms that the page itself sent it.

Every answer carries the same headers, refusals and errors too. There is no socket but HTTP.
"""

import dataclasses
import hmac
import re
import secrets
import typing as tp
from collections.abc import Awaitable, Callable, Collection
from urllib.parse import parse_qsl

Scope = tp.MutableMapping[str, tp.Any]
Message = tp.MutableMapping[str, tp.Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode("ascii")),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"cache-control", b"no-store"),
)
FORM_TOKEN = "x-exca-token"  # noqa: S105 # the name of a header, and of a field of forms
_COOKIE = "exca"
_LOCAL = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"(\[[0-9a-f:]+\]|[a-z0-9._-]+)(?::\d{1,5})?")
_PATH = re.compile(r"(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)+/?|/")
_ROOT = re.compile(r"(?:/[A-Za-z0-9_~@%-][A-Za-z0-9._~@%-]*)*")
_ONCE = frozenset(
    ("host", "cookie", "origin", "sec-fetch-site", "sec-fetch-mode", FORM_TOKEN, "content-type")
)
_LONGEST_QUERY = 8192
_LONGEST_BODY = 65536


def _secret() -> str:
    return secrets.token_urlsafe(32)


@dataclasses.dataclass(frozen=True)
class Keys:
    """What only this run of a server knows.

    Parameters
    ----------
    token: str
        in the printed address
    session: str
        in the cookie
    form: str
        in the forms of the pages
    place: str
        with which all paths begin
    """

    token: str = dataclasses.field(default_factory=_secret)
    session: str = dataclasses.field(default_factory=_secret)
    form: str = dataclasses.field(default_factory=_secret)
    place: str = dataclasses.field(default_factory=lambda: f"/{secrets.token_hex(8)}")


class Gate:
    """The outermost application.

    Parameters
    ----------
    app: ASGI application
        what is behind it
    keys: Keys
        the same that it was made with
    hosts: collection of str
        names by which it may be asked for, beside those of this host for itself
    root_path: str
        what a proxy puts in front of all paths; whether it takes that away again or not
    actions: bool
        whether anything but GET and HEAD gets through
    """

    def __init__(
        self,
        app: App,
        keys: Keys,
        *,
        hosts: Collection[str] = (),
        root_path: str = "",
        actions: bool = False,
    ) -> None:
        root_path = root_path.rstrip("/")
        if not _ROOT.fullmatch(root_path):
            raise ValueError(
                f"--root-path {root_path!r} is no path that a proxy puts before others: give one as /user/ada/exca"
            )
        for host in hosts:
            if not _HOST.fullmatch(host.lower()) or ":" in host.rpartition("]")[2]:
                raise ValueError(
                    f"--allow-host {host!r} is no name of a host: give it without scheme and port"
                )
        self.app = app
        self.hosts: frozenset[str] = frozenset((*_LOCAL, *(host.lower() for host in hosts)))
        self.root_path = root_path
        self.actions = actions
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(k, v) for k, v in message.get("headers", ()) if k.lower() not in _GIVEN]
                message = {**message, "headers": [*own, *HEADERS]}
            await send(message)

        try:
            headers = _headers_of(scope)
            self._require_known_host(headers)
            path = self._path_of(scope)
            _require_own_page(headers)
            query = _query_of(scope)
            reading = scope["method"] in ("GET", "HEAD")
            if scope["method"] == "GET" and path == "/" and "token" in query:
                await self._begin(query["token"], headers, guarded)
                return
            place, inside = self.keys.place, path.removeprefix(self.keys.place)
            if not path.startswith(f"{place}/") or not self._has_session(headers):
                raise _Refusal(401, "Open the address that `exca ui` printed: it begins a session.")
            if not reading:
                receive = await self._require_form(scope["method"], headers, receive)
        except _Refusal as refusal:
            more = [(b"allow", b"GET, HEAD, POST")] if refusal.status == 405 else []
            await _answer(guarded, refusal.status, refusal.text, [(b"connection", b"close"), *more])
            return
        within = {**scope, "path": inside, "raw_path": inside.encode("ascii"), "root_path": ""}
        await self.app(within, receive, guarded)

    def _require_known_host(self, headers: dict[str, str]) -> None:
        found = _HOST.fullmatch(headers.get("host", "").lower())
        if found is None or found[1] not in self.hosts:
            raise _Refusal(
                403,
                "This server does not answer to that host name: `exca ui --allow-host NAME` adds the name of a proxy.",
            )

    def _path_of(self, scope: Scope) -> str:
        """The path within this server, as it was sent."""
        raw = scope.get("raw_path")
        sent: bytes = scope["path"].encode("utf-8", "replace") if raw is None else raw
        path = sent.decode("latin-1")
        if self.root_path and (path == self.root_path or path.startswith(f"{self.root_path}/")):
            path = path[len(self.root_path) :] or "/"
        if not _PATH.fullmatch(path) or ".." in path:
            raise _Refusal(404, "There is no such page.")
        return path

    async def _begin(self, token: str, headers: dict[str, str], send: Send) -> None:
        """Give the cookie of the session for the token, and send the browser on to the address without it."""
        if not _same(token, self.keys.token):
            raise _Refusal(
                401, "This address belongs to another run of `exca ui`: open the one that it printed last."
            )
        place = f"{self.root_path}{self.keys.place}/"
        cookie = f"{_COOKIE}={self.keys.session}; HttpOnly; SameSite=Strict; Path={place}"
        given = [(b"set-cookie", cookie.encode("ascii"))]
        if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
            await _answer(send, 303, "", [(b"location", place.encode("ascii")), *given])
            return
        # the link was on another site's page, and a redirect would count as its doing: it would carry no cookie
        page = f'<!doctype html><meta http-equiv="refresh" content="0; url={place}"><title>exca</title>'
        await _answer(send, 200, page, given, kind=b"text/html; charset=utf-8")

    def _has_session(self, headers: dict[str, str]) -> bool:
        pairs = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
        return any(name == _COOKIE and _same(value, self.keys.session) for name, _, value in pairs)

    async def _require_form(self, method: str, headers: dict[str, str], receive: Receive) -> Receive:
        """Refuse what the page did not ask for itself; return what gives the body, which had to be read for that."""
        if method != "POST":
            raise _Refusal(405, "Only GET, HEAD and POST are answered here.")
        if not self.actions:
            raise _Refusal(403, "This page is read-only: `exca ui --allow-actions` lets it cancel and retry.")
        if headers.get("sec-fetch-site") != "same-origin":
            raise _Refusal(
                403,
                "The browser did not confirm that this page sent the form (Sec-Fetch-Site): use a current browser, and "
                "localhost or https.",
            )
        body = await _body(receive)
        token = headers.get(FORM_TOKEN)
        if token is None and headers.get("content-type") == "application/x-www-form-urlencoded":
            token = dict(_fields(body)).get(FORM_TOKEN)
        if token is None or not _same(token, self.keys.form):
            raise _Refusal(403, "This form belongs to another run of the server: load the page again.")
        sent = False

        async def again() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        return again


_GIVEN = frozenset(name for name, _ in HEADERS)


class _Refusal(Exception):  # noqa: N818 # it never leaves this file
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


def _headers_of(scope: Scope) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in scope["headers"]:
        name = key.decode("latin-1").lower()
        if name in _ONCE and name in found:
            raise _Refusal(400, f"The header {name} is there twice.")
        found[name] = value.decode("latin-1")
    return found


def _require_own_page(headers: dict[str, str]) -> None:
    """Refuse what the page of another site, or of another port of this host, asks for; links are followed."""
    site = headers.get("sec-fetch-site", "none")
    if site not in ("none", "same-origin") and headers.get("sec-fetch-mode") != "navigate":
        raise _Refusal(403, "Another site asks for this.")


def _query_of(scope: Scope) -> dict[str, str]:
    text = scope.get("query_string", b"")
    if len(text) > _LONGEST_QUERY:
        raise _Refusal(
            414, f"The address has more than {_LONGEST_QUERY} characters behind its question mark."
        )
    return dict(_fields(text))


def _fields(text: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text.decode("ascii"), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise _Refusal(400, "The fields cannot be read.") from None


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Refusal(400, "The request ended early.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > _LONGEST_BODY:
            raise _Refusal(413, f"The form has more than {_LONGEST_BODY} bytes.")
        if not message.get("more_body", False):
            return b"".join(parts)


def _same(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), secret.encode("ascii"))


async def _answer(
    send: Send,
    status: int,
    text: str,
    headers: list[tuple[bytes, bytes]],
    *,
    kind: bytes = b"text/plain; charset=utf-8",
) -> None:
    body = text.encode()
    length = str(len(body)).encode("ascii")
    all_headers = [(b"content-type", kind), (b"content-length", length), *headers]
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": body})
