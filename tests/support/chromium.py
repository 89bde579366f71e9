"""A headless Chromium that tests drive, and the rules of accessibility that pages are held to."""

import importlib.util
import shutil
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import pytest

if tp.TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE = 30_000  # ms
_ACCEPTED = ("net::ERR_ABORTED",)  # what a page still loads when it is left
_STREAM_ENDED = "[object Event]"  # as htmx reports it


def missing_because() -> str | None:
    """Why no page can be driven here; None where it can."""
    if importlib.util.find_spec("playwright") is None:
        return "needs playwright (the extra dev)"
    if not any(map(shutil.which, _PROGRAMS)):
        return "needs Chromium (Debian: apt install chromium)"
    return None


@pytest.fixture(scope="module")
def chromium() -> Iterator["Browser"]:
    """A browser; skipped where there is none. It ends with the module, since its loop is in the way of others."""
    reason = missing_because()
    if reason is not None:
        pytest.skip(reason)
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=_PATIENCE)
    program = next(found for name in _PROGRAMS if (found := shutil.which(name)))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: "Browser") -> Iterator["Page"]:
    """A page of 1280 x 900 that fails its test where it reports an error."""
    yield from opened(chromium)


def opened(browser: "Browser", **options: tp.Any) -> Iterator["Page"]:
    """A page of a context of its own, with options of that; what it reports is looked at when it is closed."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    page = context.new_page()
    page.set_default_timeout(_PATIENCE)
    reported: list[str] = []
    page.on("pageerror", lambda error: reported.append(str(error)))
    page.on(
        "console",
        lambda said: (
            reported.append(said.text)
            if said.type in ("error", "warning") and said.text != _STREAM_ENDED
            else None
        ),
    )
    page.on(
        "requestfailed",
        lambda request: reported.append(request.url) if request.failure not in _ACCEPTED else None,
    )
    yield page
    context.close()
    assert not reported, reported


def violations(page: "Page") -> list[str]:
    """What axe-core finds wrong with a page as it is shown just now: the rule, and where."""
    import axe_playwright_python

    source = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    page.evaluate(source + "; undefined")
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{rule['id']}: {node['target']} {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
