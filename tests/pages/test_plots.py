"""Results against parameters as a picture: by the command and from a table."""

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import exca
import trained
from exca.errors import FilterError, MissingPackageError
from reported import HOSTILE, logged
from saying import say

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plotted")
    for rate in (0.001, 0.1, 0.4):
        for title in ("", "wide"):
            logged(folder, rate=rate, title=title).scores()
    for layers in (1, 2, 4):
        trained.train(folder, model={"name": "network", "layers": layers}).loss()
    return folder


def labels(figure: object) -> list[tuple[str, str]]:
    axes = [ax for ax in figure.axes if ax.axison]  # type: ignore[attr-defined] # matplotlib's Figure, if it is there
    return [(ax.get_xlabel(), ax.get_ylabel()) for ax in axes]


def test_a_picture_of_a_folder(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "study.svg"
    assert say(capsys, "plot", cache, "-o", target) == f"{target}: 9 runs\n"
    root = ET.fromstring(target.read_text(encoding="utf-8"))
    assert root.tag.endswith("svg")
    say(capsys, "plot", cache, "-o", tmp_path / "a.png", "--result", "loss", "--against", "rate")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_a_table(cache: Path) -> None:
    frame = exca.table(cache)
    assert labels(exca.plot(frame)) == [
        ("rate", "loss"),
        ("title", ""),
        ("rate", "accuracy"),
        ("title", ""),
        ("model.layers", "result"),
    ]
    assert labels(exca.plot(frame[frame["rate"] < 0.3], results=["loss"], against=["title", "rate"])) == [
        ("title", "loss"),
        ("rate", ""),
    ]
    figure = exca.plot(cache, where="rate > 0", against=["rate"])
    assert [ax.get_xscale() for ax in figure.axes] == ["log", "log"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--result", "speed"], "there is no result 'speed': there are accuracy, loss, result"),
        (
            ["--against", "size"],
            "there is no parameter 'size': there are model.layers, model.name, rate, title",
        ),
        (
            ["-w", "rate == 0.1 and title == ''"],
            "there is nothing to draw: it takes results that are numbers",
        ),
        (["-o", "a.xls"], "a.xls ends in no format that can be drawn: give it one of ."),
    ],
)
def test_what_cannot_be_drawn(
    cache: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert said in say(capsys, "plot", cache, *arguments, code=2)


def test_names_of_any_kind_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also what matplotlib would read as a formula."""
    for value in [*HOSTILE, "$\\frac{", "\u6a21\u578b"]:
        trained.train(tmp_path / "c", title=value).loss()
    say(capsys, "plot", tmp_path / "c", "-o", tmp_path / "odd.png")


def test_without_matplotlib(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingPackageError, match=r"draws with matplotlib: pip install 'exca\[plot\]'"):
        exca.plot(cache)
    with pytest.raises(FilterError, match="there is nothing to draw"):
        exca.plot(exca.table(cache).iloc[:1])
