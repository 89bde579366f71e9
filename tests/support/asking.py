"""Requests to an ASGI application, in process and byte by byte as they come in, so that odd ones can be made too."""

import asyncio
import dataclasses
import re
import typing as tp
from collections.abc import Callable, Iterable

Headers = Iterable[tuple[str, str]]
# parts of paths that lead upwards somewhere, and paths that no page has
UP = [
    "..",
    "%2e%2e",
    "%2E.",
    ".%2e",
    "%252e%252e",
    "..%2f",
    "%2e%2e%2f",
    "..%5c",
    "..\\",
    "%c0%ae%c0%ae",
    "..;",
    "....",
]
ODD_PATHS = [
    *(f"/{up}" for up in UP),
    *(f"/static/{up}/{up}/etc/passwd" for up in UP),
    *(f"/runs/{up}x" for up in UP),
    *(
        "//",
        "//evil.example",
        "/a//b",
        "/\\evil.example",
        "/.hidden",
        "/a/.git",
        "/%00",
        "/a%0d%0aset-cookie:x",
        "/ ",
    ),
    *("http://evil.example/", "*", "", "/a?b/..\x00", "/\xff", "/a;b", "/a:b", "/a'b", '/a"b', "/<script>"),
]


@dataclasses.dataclass
class Answer:
    """What came back."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    base: str  # with which all addresses of the pages begin

    @property
    def text(self) -> str:
        """The page, with addresses from the base on."""
        text = self.body.decode()
        return text.replace(f"{self.base}/", "/") if self.base else text

    def header(self, name: str) -> str | None:
        """A header, with addresses from the base on."""
        found = next((value for key, value in self.headers if key == name), None)
        return found.replace(f"{self.base}/", "/") if found is not None and self.base else found


class Asker:
    """Asks as a browser does that has followed the printed address, unless told otherwise.

    Parameters
    ----------
    app
        what is asked
    """

    def __init__(self, app: tp.Any) -> None:
        self.app = app
        self.cookie: str | None = None
        self.base = ""

    def begin(self, token: str, path: str = "/") -> Answer:
        """Follow the printed address, and keep the cookie."""
        answer = self.ask("GET", f"{path}?token={token}")
        found = re.match(r"([^;]+).*Path=(.*)/$", answer.header("set-cookie") or "")
        self.cookie, self.base = found.groups() if found else (None, "")
        answer.base = self.base
        return answer

    def get(self, path: str, headers: Headers = ()) -> Answer:
        """Ask for a page."""
        return self.ask("GET", path, headers)

    def post(self, path: str, fields: str = "", headers: Headers = ()) -> Answer:
        """Send a form, as the page itself does."""
        given = [("content-type", "application/x-www-form-urlencoded"), *headers]
        if not any(name == "sec-fetch-site" for name, _ in given):
            given.append(("sec-fetch-site", "same-origin"))
        return self.ask("POST", path, given, fields.encode())

    def ask(
        self,
        method: str,
        target: str,
        headers: Headers = (),
        body: bytes = b"",
        *,
        enough: Callable[[bytes], bool] | None = None,
    ) -> Answer:
        """Send a request to an address from the base on; the connection ends once there is enough of the answer."""
        return asyncio.run(self.asked(method, target, headers, body, enough=enough))

    async def asked(
        self,
        method: str,
        target: str,
        given: Headers = (),
        body: bytes = b"",
        *,
        enough: Callable[[bytes], bool] | None = None,
    ) -> Answer:
        """The same, in a loop that runs already."""
        headers = list(given)
        raw, _, query = f"{self.base}{target}".partition("?")
        names = {name for name, _ in headers}
        if "host" not in names:
            headers.append(("host", "localhost:8411"))
        if self.cookie is not None and "cookie" not in names:
            headers.append(("cookie", self.cookie))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": raw,
            "raw_path": raw.encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "root_path": "",
            "headers": [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers if v != "-"],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8411),
        }
        answer = Answer(0, [], b"", self.base)
        sent, left = False, asyncio.Event()

        async def receive() -> dict[str, tp.Any]:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, tp.Any]) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in message["headers"]]
            elif message["type"] == "http.response.body":
                answer.body += message.get("body", b"")
                if enough is not None and enough(answer.body):
                    left.set()

        await self.app(scope, receive, send)
        return answer
