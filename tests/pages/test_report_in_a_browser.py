"""The report in a real browser: what its script does, accessibility, light and dark, a phone."""

import typing as tp
from pathlib import Path

import pytest

import trained
from chromium import missing_because, opened, violations
from exca.catalog.scan import rows
from exca.pages import facts, render
from reported import HOSTILE, make_study

if tp.TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(missing_because() is not None, reason=str(missing_because())),
]


def written(folder: Path) -> str:
    """Write a report of a folder beside it, and return its address."""
    target = folder.with_suffix(".html")
    target.write_text(render.report(facts.gather(folder.name, str(folder), rows(folder))), encoding="utf-8")
    return target.as_uri()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(make_study(tmp_path_factory.mktemp("browsed") / "study"))


def column(page: "Page", name: str, number: int) -> list[str]:
    """The texts of one column of a method's table, as it is shown."""
    cells = page.locator(f"section.runs:has(h2:text('{name}')) tbody tr:not(.group) > :nth-child({number})")
    return [text.strip() for text in cells.all_inner_texts()]


def test_filter_sort_group_choose_and_compare(page: "Page", report: str) -> None:
    page.goto(report)
    section = page.locator("section.runs:has(h2:text('Train.loss'))")
    count = section.locator(".countline")
    assert count.inner_text() == "6 runs"
    section.get_by_label("Filter").fill("rate>=1 state=completed")
    assert count.inner_text() == "2 of 6 runs"
    section.get_by_label("Filter").fill("diverged")
    assert set(column(page, "Train.loss", 2)) == {"failed"}
    section.get_by_label("Filter").fill("")
    button = section.get_by_role("button", name="rate", exact=True)
    place = [text.strip() for text in section.locator("thead th").all_inner_texts()].index("rate") + 1
    button.click()
    assert button.locator("..").get_attribute("aria-sort") == "ascending"
    assert column(page, "Train.loss", place) == ["0.5", "0.5", "1", "1", "9", "9"]
    button.click()
    assert column(page, "Train.loss", place) == ["9", "9", "1", "1", "0.5", "0.5"]
    section.get_by_label("Group by").select_option(label="model.layers")
    assert section.locator("tr.group").all_inner_texts() == [
        "model.layers = 4: 3 runs, result 0.125 to 0.25, median 0.1875",
        "model.layers = 8: 3 runs, result 0.0625 to 0.125, median 0.09375",
    ]
    section.locator("summary:text('Columns')").click()
    section.get_by_role("group", name="Columns").get_by_label("rate").uncheck()
    assert "rate" not in [text.strip() for text in section.locator("thead th:visible").all_inner_texts()]
    page.keyboard.press("Escape")
    assert not section.get_by_role("group", name="Columns").is_visible()
    compare = section.get_by_role("button", name="Compare")
    assert compare.is_disabled()
    for box in section.locator("tbody").get_by_role("checkbox").all()[:2]:
        box.check()
    compare.click()
    dialog = page.get_by_role("dialog", name="2 runs side by side")
    assert dialog.locator("td.differs").count() > 0
    assert violations(page) == []
    dialog.get_by_role("button", name="Close").click()
    assert page.get_by_role("dialog").count() == 0


def test_pictures_follow_the_table(page: "Page", report: str) -> None:
    """Any column is drawn against any other, of the runs that the table shows."""
    page.goto(report)
    section = page.locator("section.runs:has(h2:text('Logs.scores'))")
    explorer = page.locator(f".explorer[data-for='{section.get_attribute('data-group')}']")
    dots = explorer.locator("circle.dot")
    assert dots.count() == 6
    section.get_by_label("Filter").fill("rate<0.3")
    assert dots.count() == 4
    explorer.get_by_label("Up").select_option(label="accuracy")
    assert "accuracy against rate, 4 runs" in str(explorer.locator("svg").first.get_attribute("aria-label"))
    dots.last.hover()
    assert explorer.locator(".told").inner_text().count("accuracy 0.9") == 2, "both runs with these values"
    dots.last.click()
    assert page.get_by_role("dialog", name="2 runs side by side").count() == 1


def test_a_link_opens_the_details(page: "Page", report: str) -> None:
    page.goto(report)
    page.locator("details.error summary").first.click()
    page.locator("details.error a").first.click()
    opened_run = page.locator("details.run[open]")
    assert opened_run.count() == 1
    assert "Traceback (most recent call last)" in opened_run.inner_text()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"color_scheme": "dark"},
        {"viewport": {"width": 360, "height": 740}},
        {"java_script_enabled": False},
    ],
    ids=["light", "dark", "phone", "without scripts"],
)
def test_accessible_and_no_wider_than_the_screen(
    chromium: "Browser", report: str, options: dict[str, tp.Any]
) -> None:
    """Also with all that can be opened open."""
    for one in opened(chromium, **options):
        one.goto(report)
        if options.get("java_script_enabled", True):
            one.evaluate("for (const each of document.querySelectorAll('main details')) each.open = true")
            one.evaluate("for (const each of document.querySelectorAll('.choice')) each.open = false")
            assert violations(one) == []
            assert one.evaluate("document.documentElement.scrollWidth <= innerWidth")
        else:
            assert one.locator("section.runs tbody tr").count() == 13
            assert not one.locator(".controls").first.is_visible()
            assert not one.locator(".explorer").first.is_visible()


def test_hostile_texts_run_nothing(page: "Page", tmp_path: Path) -> None:
    for value in HOSTILE:
        trained.train(tmp_path / "c", title=value).loss()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: asked.append(dialog.message))
    page.goto(written(tmp_path / "c"))
    page.get_by_label("Group by").select_option(label="title")
    page.get_by_label("Filter").fill("<img")
    assert page.locator(".countline").inner_text() == f"1 of {len(HOSTILE)} runs"
    assert page.locator("img").count() == 0
    assert len(asked) == 1, "the page itself"
    assert violations(page) == []
