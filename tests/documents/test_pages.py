"""What the documents show is what their readers get: blocks are run, their output compared, their types checked."""

import os
import re
import subprocess
import sys
import tomllib
import typing as tp
from pathlib import Path

import pytest
import yaml

import blocks
import exca
from exca.cli.sweeping import Specification

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(page for page in DOCS.rglob("*.md") if page.parent.name != "reference")]
BLOCKS = {page.relative_to(ROOT).as_posix(): blocks.blocks_of(page) for page in PAGES}
SCRIPTS = {name: blocks.scripts_of(every) for name, every in BLOCKS.items()}
PLAYED = {
    name: [script for script in scripts if not {"slurm", "played"} & set(script.block.words)]
    for name, scripts in SCRIPTS.items()
}
ON_SLURM = {
    f"{name}:{script.block.file}": (name, script)
    for name, scripts in SCRIPTS.items()
    for script in scripts
    if "slurm" in script.block.words
}
# whole studies, of many commands: each starts an interpreter
LONG = ("docs/a-week.md", "docs/tutorial.md")


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(name, marks=[pytest.mark.long] if name in LONG else [])
        for name, scripts in PLAYED.items()
        if scripts
    ],
)
def test_the_scripts_of_a_page_do_what_it_shows(page: str, tmp_path: Path) -> None:
    for package in {package for script in PLAYED[page] for package in needed(script)}:
        pytest.importorskip(package)
    blocks.play(BLOCKS[page], PLAYED[page], tmp_path)


def needed(script: blocks.Script) -> list[str]:
    """Return the packages that a script says it needs beside exca."""
    return [package for package in script.block.words.get("needs", "").split(",") if package]


@pytest.mark.slurm
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ON_SLURM)
def test_a_script_for_slurm_does_what_its_page_shows(name: str, slurm_folder: Path) -> None:
    page, script = ON_SLURM[name]
    blocks.play([each for each in BLOCKS[page] if "tree" not in each.words], [script], slurm_folder)


@pytest.mark.parametrize("page", BLOCKS)
def test_every_block_is_played_or_has_its_reason(page: str) -> None:
    run = {script.block.file for script in SCRIPTS[page]}
    for block in BLOCKS[page]:
        if block.language.startswith("{"):  # of the site, as the contents
            continue
        where = f"{page}:{block.line}"
        if "played" in block.words:
            test = (ROOT / block.words["played"]).read_text(encoding="utf-8")
            assert Path(page).name in test, f"{where}: {block.words['played']} does not read this page"
        elif "notest" in block.words:  # and there it says why
            assert block.words["notest"], f"{where} has no reason"
        elif block.language == "python":
            assert (block.file or blocks.JOINED) in run, where
        else:
            assert block.file or {"output", "error", "tree"} & set(block.words), (
                f"{where}: no test plays this block: give it file=NAME, played=PATH or notest=REASON"
            )


def test_configurations_are_valid() -> None:
    """Also of files that no script reads: what is an infra, a sweep or a search has no wrong field."""
    for page, block in ((page, block) for page, every in BLOCKS.items() for block in every):
        if block.language == "toml":
            tomllib.loads(block.body)
        if block.language == "yaml":
            content = yaml.safe_load(block.body)
            if "task" in content:
                Specification.model_validate(content)
            if "infra" in content:
                exca.TaskInfra.model_validate(content["infra"])
            assert isinstance(content, dict), f"{page}:{block.line}"


def package_of(page: str) -> str:
    return "page_" + re.sub(r"\W", "_", page.removesuffix(".md"))


def as_package(page: str, body: str) -> str:
    """Return a script with its imports of other files of the page as those of a package, since names repeat."""
    package = package_of(page)
    for name in blocks.files_of(BLOCKS[page]):
        module = name.removesuffix(".py")
        body = re.sub(
            rf"^(\s*)from {module} import", rf"\1from {package}.{module} import", body, flags=re.MULTILINE
        )
        body = re.sub(
            rf"^(\s*)import {module}$", rf"\1import {package}.{module} as {module}", body, flags=re.MULTILINE
        )
    return body


@pytest.mark.timeout(300)  # the first run reads the types of pydantic and numpy
def test_the_types_of_all_scripts_are_right(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """One run of mypy over the scripts of all pages; what has no annotations is checked too."""
    for page, scripts in SCRIPTS.items():
        for script in scripts:
            name = script.block.file
            if name.endswith(".py") and "untyped" not in script.block.words:
                (tmp_path / package_of(page)).mkdir(exist_ok=True)
                text = as_package(page, script.block.body)
                (tmp_path / package_of(page) / name).write_text(text, encoding="utf-8")
    cache: tp.Any = pytestconfig.cache  # there mypy remembers the packages for the next run
    command = [sys.executable, "-m", "mypy", "--config-file=", "--check-untyped-defs", "--no-error-summary"]
    command += [
        "--ignore-missing-imports",
        "--explicit-package-bases",
        "--cache-dir",
        str(cache.mkdir("pages")),
        ".",
    ]
    env = os.environ | {"MYPYPATH": str(ROOT / "src")}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=280, check=False
    )
    assert not done.stderr, done.stderr
    assert [line for line in done.stdout.splitlines() if ": error:" in line] == []
