"""The live page: the templates of the report, served, and kept up to date as the folder changes.

Nothing here imports what a folder names, or unpickles. What may be asked for at all is decided before, by the `Gate`.
"""

import asyncio
import contextlib
import hashlib
import importlib.resources
import threading
import time
import typing as tp
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from urllib.parse import parse_qsl, urlencode

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from ..catalog.rows import STATES, Row
from ..catalog.select import Selection
from ..errors import FilterError
from . import charts, facts, following, records, render
from .acting import ACTIONS, MOST_AT_ONCE, Actor
from .gate import FORM_TOKEN, Keys
from .snapshots import Snapshot, Watched, id_of

MOST_RUNS = 20_000  # that one table shows
_PAGE = 100  # rows of them that a page holds; its script has the data of all
_MOST_STREAMS = 64
_MOST_ERRORS, _MOST_LINKS, _MOST_CURVES, _MOST_LATEST = 50, 30, 6, 20
_BLOCKS = 16  # of a log, before anything else is looked at
_LOOK = 0.25  # seconds between two looks at a log that is followed
_ALIVE = 15.0  # seconds after which a stream says that it is there
_TYPES = {"svg": "image/svg+xml", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}


def make_app(
    folder: str,
    keys: Keys,
    *,
    actions: bool = False,
    root_path: str = "",
    ending: Callable[[], bool] = lambda: False,
    pause: float = 1.0,
) -> tp.Any:  # a Starlette: not all type checkers that read this package have that one
    """What is behind the gate, an application of Starlette.

    Parameters
    ----------
    folder: str
        the cache folder
    keys: Keys
        the same that the gate before it has
    actions: bool
        whether the pages offer to cancel and to try again
    root_path: str
        what a proxy puts in front of all paths
    ending: callable
        whether the server is to end, so that streams do
    pause: float
        seconds from one look at the folder to the next, at least
    """
    pages = _Pages(folder, keys, actions=actions, root_path=root_path.rstrip("/"), ending=ending, pause=pause)
    app = Starlette(exception_handlers={HTTPException: pages.failed})
    for path, page in (
        ("/", pages.overview),
        ("/runs/{method}", pages.runs),
        ("/run/{run}", pages.run),
        ("/run/{run}/stream", pages.follow),
        ("/stream", pages.stream),
        ("/static/{name}", pages.static),
    ):
        app.router.add_route(path, page)
    if actions:
        for name in ACTIONS:
            app.router.add_route(f"/run/{{run}}/{name}", pages.acting(name), methods=["POST"])
            app.router.add_route(f"/runs/{{method}}/{name}", pages.acting_on_many(name), methods=["POST"])
    app.router.redirect_slashes = False
    app.state.pages = pages
    return app


class _Pages:
    def __init__(
        self,
        folder: str,
        keys: Keys,
        *,
        actions: bool,
        root_path: str,
        ending: Callable[[], bool],
        pause: float,
    ) -> None:
        self.watched = Watched(folder, pause)
        self._actions = actions
        self._root = f"{root_path}{keys.place}"
        self._form_token = keys.form
        self._ending = ending
        self._actor = Actor()
        self._title = facts.shortened(folder.rstrip("/").rpartition("/")[2] or folder, 120)
        self._files = _static_files()
        self._streams = 0
        self._grouping = threading.Lock()
        self._groups: dict[str, tuple[facts.Group, facts.Nearest]] = {}
        self._grouped_at = 0

    # ------------------------------------------------------------------------------------ pages

    async def overview(self, request: Request) -> Response:
        """All methods, sweeps and errors."""
        snapshot = await self.watched.now()
        return await asyncio.to_thread(self._overview, request, snapshot)

    def _overview(self, request: Request, snapshot: Snapshot) -> Response:
        by_method: dict[str, list[Row]] = {}
        for row in snapshot.rows:
            by_method.setdefault(row.method, []).append(row)
        methods = []
        for method, rows in by_method.items():
            name, version = facts.named(method)
            methods.append(
                {
                    "link": self._to(f"/runs/{method_id(method)}"),
                    "name": name,
                    "version": version,
                    "counts": facts.counts_of(row.state for row in rows),
                    "runs": len(rows),
                    "latest": facts.moment(max(row.when for row in rows)),
                }
            )
        methods.sort(key=lambda one: str(one["latest"]), reverse=True)
        errors = [
            (error.text, [(self._link(run.row), run.id) for run in error.runs[:_MOST_LINKS]], len(error.runs))
            for error in facts.errors_of(facts.run_of(row) for row in snapshot.rows)[:_MOST_ERRORS]
        ]
        sweeps = facts.sweeps_of(self.watched.folder, snapshot.rows)
        return self._page(
            "live_overview.html",
            request,
            snapshot,
            methods=methods,
            errors=errors,
            latest=[self._listed(row) for row in _latest_first(snapshot.rows)[:_MOST_LATEST]],
            sweeps=render.sweeps(sweeps) if sweeps else "",
            counts=facts.counts_of(row.state for row in snapshot.rows),
            total=len(snapshot.rows),
        )

    def _listed(self, row: Row) -> dict[str, str]:
        known = row.facts
        outcome = known.get("error", known.get("value", known.get("owner")))
        if outcome is None:
            named = {name.removeprefix("value."): v for name, v in known.items() if name.startswith("value.")}
            outcome = ", ".join(f"{name} {facts.shortened(v)}" for name, v in named.items())
        return {
            "link": self._link(row),
            "id": facts.shortened(row.id),
            "state": row.state,
            "method": facts.named(row.method)[0],
            "outcome": facts.shortened(outcome, 100),
            "when": facts.moment(row.when),
        }

    async def runs(self, request: Request) -> Response:
        """The runs of one method."""
        snapshot = await self.watched.now()
        return await asyncio.to_thread(self._runs, request, snapshot)

    def _runs(self, request: Request, snapshot: Snapshot) -> Response:
        wanted = request.path_params["method"]
        every = [row for row in snapshot.rows if method_id(row.method) == wanted]
        if not every:
            raise HTTPException(404, "There is no such method in this folder, or no longer.")
        where = request.query_params.get("where", "").strip()
        state = request.query_params.get("state", "")
        problem = ""
        try:
            chosen = _chosen(every, where, state)
        except FilterError as e:
            chosen, problem = [], facts.shortened(str(e), 400)
        chosen = _latest_first(chosen)
        group = facts.group(wanted, every[0].method, chosen[:MOST_RUNS])
        shown = len(group.runs)
        first = min(_number(request, "from"), max(0, shown - 1)) // _PAGE * _PAGE
        return self._page(
            "live_runs.html",
            request,
            snapshot,
            group=group,
            table=render.runs(group, lambda run: self._link(run.row), _PAGE, first, named=True),
            pages=[
                (f"{title} {_PAGE}", f"?{urlencode({'where': where, 'state': state, 'from': at})}")
                for title, at in (("The later", first - _PAGE), ("The earlier", first + _PAGE))
                if 0 <= at < shown
            ],
            between=(first + 1, min(shown, first + _PAGE)),
            scatters=charts.scatters(group),
            parallel=charts.parallel(group),
            curves=charts.learning_curves(group),
            where=where,
            state=state,
            states=STATES,
            problem=problem,
            said=facts.shortened(self._actor.said(wanted), 1000),
            offers=ACTIONS if self._actions else {},
            most_at_once=MOST_AT_ONCE,
            query=f"?{request.url.query}" if request.url.query else "",
            shown=shown,
            fitting=len(chosen),
            total=len(every),
        )

    async def run(self, request: Request) -> Response:
        """All that is known of one run, with the log of its job."""
        snapshot = await self.watched.now()
        row = _row(request, snapshot)
        return await asyncio.to_thread(self._run, request, snapshot, row)

    def _run(self, request: Request, snapshot: Snapshot, row: Row) -> Response:
        which = _which_log(request)
        processes, attempts = records.choices(row)
        group, nearest = self._group_of(row.method, snapshot)
        one = next(run for run in group.runs if id_of(run.row) == id_of(row))
        text, at, missing = following.end_of_log(row, **which)
        return self._page(
            "live_run.html",
            request,
            snapshot,
            stream=self._to(
                f"/run/{id_of(row)}/stream?version={snapshot.version}&at={at}"
                f"&err={int(which['err'])}&rank={which['rank']}&attempt={which['attempt']}"
            ),
            one=one,
            group=group,
            back=self._to(f"/runs/{method_id(row.method)}"),
            details=render.run(one, group, nearest, logs=0),
            curves=[
                {
                    "name": facts.shortened(name),
                    "steps": [x for x, _ in curve],
                    "values": [y for _, y in curve],
                }
                for name, curve in [*records.curves(row).items()][:_MOST_CURVES]
            ],
            running=row.state == "running",
            log=text,
            no_log=missing,
            processes=processes,
            attempts=attempts,
            **which,
            said=facts.shortened(self._actor.said(row.folder), 1000),
            offers=[action for action, states in ACTIONS.items() if self._actions and row.state in states],
            act=self._to(f"/run/{id_of(row)}"),
        )

    def _group_of(self, method: str, snapshot: Snapshot) -> tuple[facts.Group, facts.Nearest]:
        """All runs of a method, put together once for all pages that show one of them."""
        with self._grouping:
            if self._grouped_at != snapshot.version:
                self._groups.clear()
                self._grouped_at = snapshot.version
            if method not in self._groups:
                rows = [row for row in snapshot.rows if row.method == method]
                group = facts.group(method_id(method), method, rows)
                self._groups[method] = (group, facts.Nearest(group))
            return self._groups[method]

    def acting(self, action: str) -> Callable[[Request], Awaitable[Response]]:
        """What answers a form that asks to do something to a run."""

        async def act(request: Request) -> Response:
            row = _row(request, await self.watched.now())
            await self._actor.act(action, [row], row.folder)
            # to another page, so that to load that again asks for nothing
            return RedirectResponse(self._link(row), status_code=303)

        return act

    def acting_on_many(self, action: str) -> Callable[[Request], Awaitable[Response]]:
        """What answers a form that asks to do something to some runs of a method."""

        async def act(request: Request) -> Response:
            snapshot = await self.watched.now()
            method = request.path_params["method"]
            wanted = dict(parse_qsl((await request.body()).decode("ascii", "replace"))).get("runs", "")
            chosen = list(dict.fromkeys(wanted.split(",")))
            if len(chosen) > MOST_AT_ONCE:
                raise HTTPException(413, f"These are more than {MOST_AT_ONCE:,} runs: choose fewer.")
            found = [snapshot.by_id.get(each) for each in chosen]
            rows = [row for row in found if row is not None and method_id(row.method) == method]
            if not rows:
                raise HTTPException(404, "None of these runs is in this folder, or no longer.")
            await self._actor.act(action, rows, method)
            query = f"?{request.url.query}" if request.url.query else ""
            return RedirectResponse(self._to(f"/runs/{method}{query}"), status_code=303)

        return act

    # ------------------------------------------------------------------------------------ streams

    async def stream(self, request: Request) -> Response:
        """Say when something in the folder has changed."""
        return await self._streaming(request, self._changes(_number(request, "version")))

    async def _changes(self, version: int) -> AsyncGenerator[bytes]:
        while True:
            snapshot = await self.watched.now()
            if snapshot.version != version:
                version = snapshot.version
                yield _event("changed", str(version))
            else:
                yield b""
            await asyncio.sleep(_LOOK)

    async def follow(self, request: Request) -> Response:
        """The log of a run as it grows, and when something in the folder has changed."""
        row = _row(request, await self.watched.now())
        at = request.headers.get("last-event-id") or request.query_params.get("after")
        given = _as_number(at, "at") if at else _number(request, "at")
        events = self._log(row, _number(request, "version"), at=given, **_which_log(request))
        return await self._streaming(request, events)

    async def _log(self, row: Row, version: int, **which: tp.Any) -> AsyncGenerator[bytes]:
        follower = await asyncio.to_thread(following.follower, row, **which)
        looked = time.monotonic()
        logged = await asyncio.to_thread(records.logged, row)
        try:
            while True:
                snapshot = await self.watched.now()
                changed = snapshot.version != version
                logged, before = await asyncio.to_thread(records.logged, row), logged
                if changed or logged != before:
                    version = snapshot.version
                    yield _event("changed", str(version))
                if changed or (follower is None and time.monotonic() - looked > _ALIVE / 10):
                    row = snapshot.by_id.get(id_of(row), row)
                    looked = time.monotonic()
                    new = await asyncio.to_thread(following.follower, row, **{**which, "at": None})
                    if new is not None and (follower is None or new.file_id != follower.file_id):
                        follower, new = new, follower  # a later attempt has another log
                        yield _event("begin", "")
                    if new is not None:
                        new.close()
                for _ in range(_BLOCKS):
                    if follower is None or not (text := await asyncio.to_thread(follower.more)):
                        break
                    yield _event("log", f"<span>{render.escaped(text)}</span>", follower.at)
                yield b""
                await asyncio.sleep(_LOOK)
        finally:
            if follower is not None:
                follower.close()

    async def _streaming(self, request: Request, events: AsyncGenerator[bytes]) -> Response:
        headers = {"x-accel-buffering": "no"}
        kind = "text/event-stream; charset=utf-8"
        if request.method == "HEAD":
            return Response(headers=headers, media_type=kind)
        if self._streams >= _MOST_STREAMS:
            raise HTTPException(503, "Too many pages are open: close some.")
        pages = self

        class Stream(StreamingResponse):
            async def __call__(self, *connection: tp.Any) -> None:
                pages._streams += 1  # at once: many may ask before the first of them has a line
                try:
                    await super().__call__(*connection)
                finally:
                    pages._streams -= 1

        return Stream(self._until_the_end(events), headers=headers, media_type=kind)

    async def _until_the_end(self, events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        said = time.monotonic()
        yield b"retry: 2000\n\n"
        async with contextlib.aclosing(events):
            async for event in events:
                if self._ending():
                    break
                if event or time.monotonic() - said > _ALIVE:
                    said = time.monotonic()
                    yield event or b": alive\n\n"

    # ------------------------------------------------------------------------------------ the rest

    async def static(self, request: Request) -> Response:
        """A file of ours, known by its name."""
        known = self._files.get(request.path_params["name"])
        if known is None:
            raise HTTPException(404, "There is no such file.")
        content, kind = known
        return Response(content, headers={"content-type": kind})

    async def failed(self, request: Request, error: Exception) -> Response:
        """Say what is wrong on a page."""
        assert isinstance(error, HTTPException)
        snapshot = Snapshot()
        text = "There is no such page." if error.detail == "Not Found" else error.detail
        page = self._page("live_error.html", request, snapshot, text=text)
        page.status_code = error.status_code
        return page

    def _to(self, path: str) -> str:
        return f"{self._root}{path}"

    def _link(self, row: Row) -> str:
        return self._to(f"/run/{id_of(row)}")

    def _page(self, template: str, request: Request, snapshot: Snapshot, **values: tp.Any) -> HTMLResponse:
        query = request.url.query
        given: dict[str, tp.Any] = {
            "policy": "",  # it is in the headers
            "title": self._title,
            "home": self._to("/"),
            "static": self._to("/static"),
            "path": self._to(request.url.path),
            "actions": self._actions,
            "here": self._to(request.url.path) + (f"?{query}" if query and request.method == "GET" else ""),
            "stream": self._to(f"/stream?version={snapshot.version}"),
            "form_token": self._form_token,
            "form_token_name": FORM_TOKEN,
        }
        return HTMLResponse(render.page(template, **{**given, **values}))


def method_id(method: str) -> str:
    """By which a page asks for the runs of a method: it tells nothing of the path, and is the same in each run."""
    return f"m{hashlib.blake2b(method.encode('utf-8', 'surrogateescape'), digest_size=8).hexdigest()}"


def _latest_first(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row.state not in ("running", "interrupted"), -row.when))


def _chosen(rows: Sequence[Row], where: str, state: str) -> Sequence[Row]:
    """The rows that fit. Raises FilterError."""
    test = Selection(where=where or None, states=[state] if state else []).test()
    return [row for row in rows if test(row)]


def _row(request: Request, snapshot: Snapshot) -> Row:
    row = snapshot.by_id.get(request.path_params["run"])
    if row is None:
        raise HTTPException(404, "There is no such run in this folder, or no longer.")
    return row


def _which_log(request: Request) -> dict[str, tp.Any]:
    return {
        "err": _number(request, "err") == 1,
        "rank": _number(request, "rank"),
        "attempt": _number(request, "attempt"),
    }


def _number(request: Request, name: str) -> int:
    return _as_number(request.query_params.get(name, "0"), name)


def _as_number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise HTTPException(400, f"{name} is a number.")
    return int(text)


def _event(name: str, data: str, at: int | None = None) -> bytes:
    """One event of a stream; `at` is where a browser that lost the connection goes on."""
    lines = [f"event: {name}", *(f"data: {line}" for line in data.split("\n"))]
    if at is not None:
        lines.insert(0, f"id: {at}")
    return ("\n".join(lines) + "\n\n").encode()


def _static_files() -> dict[str, tuple[bytes, str]]:
    """All files that pages load, by name, with their types."""
    found: dict[str, tuple[bytes, str]] = {}
    top = importlib.resources.files("exca.pages").joinpath("static")
    for folder in (top, top.joinpath("vendor")):
        for file in folder.iterdir():
            kind = _TYPES.get(file.name.rpartition(".")[2])
            if kind is not None and file.is_file():
                found[file.name] = (file.read_bytes(), kind)
    return found
