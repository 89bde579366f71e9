"""Check what would be released of the last commit, or make a release of it.

``release.py check`` builds the wheel and the source distribution of the last commit twice, in folders, time zones and
with a umask of their own, and compares their bytes; looks at what is in them; installs the wheel in an environment of
its own, away from the repository, and uses it there. ``release.py VERSION`` writes the version and the changelog,
commits that, checks it, and tags the commit; what is left to do is printed.

Run by an interpreter that has the extra "release" (make release-check, make release VERSION=...).
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import typing as tp
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSION_FILE = "src/exca/__init__.py"
VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)
DATA = ("exca/py.typed", "exca/pages/templates/report.html", "exca/pages/static/vendor/uPlot.LICENSE")

USE = """
import sys
import pydantic
import exca

class Double(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra(folder="cache", version="1")

    @infra.apply
    def run(self) -> int:
        print("computing")
        return 2 * self.x

print(exca.__file__, exca.__version__, sep="\\n")
print(Double(x=21).run())
"""


def run(*command: str | Path, cwd: Path = ROOT, **env: str) -> str:
    """Run a command and return what it prints; end with what it printed where it fails."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"release: {' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def require(true: object, message: str) -> None:
    """End with a message where something does not hold."""
    if not true:
        sys.exit(f"release: {message}")


def version_of(text: str) -> str:
    """Read the version out of the text of the package's first module."""
    found = VERSION.search(text)
    require(found, f"{VERSION_FILE} has no line __version__ = ...")
    return tp.cast(re.Match[str], found)[1]


def tracked(commit: str) -> list[str]:
    """Return the files of a commit."""
    return run("git", "ls-tree", "-r", "-z", "--name-only", commit).rstrip("\0").split("\0")


# ------------------------------------------------------------------------------------------------ building


def build(commit: str, folder: Path, umask: int, zone: str) -> list[Path]:
    """Build both distributions from the files of a commit alone, and return them."""
    folder.mkdir(parents=True)
    before = os.umask(umask)
    try:
        run("git", "archive", "--output", folder / "source.tar", commit)
        with tarfile.open(folder / "source.tar") as archive:
            archive.extractall(folder / "source", filter="data")
        epoch = run("git", "log", "-1", "--format=%ct", commit).strip()
        command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist")
        run(*command, cwd=folder / "source", SOURCE_DATE_EPOCH=epoch, TZ=zone)
    finally:
        os.umask(before)
    return sorted((folder / "dist").iterdir())


def compare_builds(first: list[Path], second: list[Path]) -> None:
    """End where two builds differ by a byte."""
    require([each.name for each in first] == [each.name for each in second], f"{first} is not {second}")
    for one, other in zip(first, second, strict=True):
        require(one.read_bytes() == other.read_bytes(), f"{one.name} differs from build to build")
        print(
            f"{one.name}  {one.stat().st_size} bytes  sha256 {hashlib.sha256(one.read_bytes()).hexdigest()}"
        )


def compare_names(what: Path, found: tp.Iterable[str], wanted: tp.Iterable[str]) -> None:
    """End where a distribution holds other files than it has to."""
    missing, stray = sorted({*wanted} - {*found}), sorted({*found} - {*wanted})
    require(not missing, f"{what.name} lacks {', '.join(missing)}")
    require(not stray, f"{what.name} holds what does not belong there: {', '.join(stray)}")


def look_inside(commit: str, wheel: Path, source: Path, version: str) -> None:
    """Compare the files of both distributions with those of the commit."""
    files = tracked(commit)
    with tarfile.open(source) as archive:
        names = [each.name.removeprefix(f"exca-{version}/") for each in archive if each.isfile()]
    compare_names(source, names, [*files, "PKG-INFO"])
    package = [each.removeprefix("src/") for each in files if each.startswith("src/")]
    require(set(DATA) <= set(package), f"the package lacks one of {', '.join(DATA)}")
    licences = ["LICENSE", *(each for each in files if each.startswith("src/") and each.endswith(".LICENSE"))]
    info = f"exca-{version}.dist-info"
    about = [f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt")]
    with zipfile.ZipFile(wheel) as zipped:
        wanted = [*package, *about, *(f"{info}/licenses/{each}" for each in licences)]
        compare_names(wheel, zipped.namelist(), wanted)
        require(
            f"\nVersion: {version}\n" in zipped.read(about[0]).decode(), f"{wheel.name} has another version"
        )
    print(f"{len(names)} files in the source distribution, {len(wanted)} in the wheel: those of the commit")


# ------------------------------------------------------------------------------------------------ using


def use(wheel: Path, folder: Path, version: str) -> None:
    """Install the wheel in an environment of its own and use it, away from the repository."""
    folder.mkdir()
    run(sys.executable, "-m", "venv", folder / "venv")
    python, pip = (
        folder / "venv" / "bin" / "python",
        ("-m", "pip", "--disable-pip-version-check", "install", "--quiet"),
    )
    run(
        python,
        *pip,
        "--constraint",
        ROOT / "requirements-dev.lock",
        f"exca[ui] @ {wheel.as_uri()}",
        cwd=folder,
    )
    require(
        not run(python, "-m", "pip", "check", cwd=folder).strip().count("requires"),
        "requirements are missing",
    )
    (folder / "double.py").write_text(USE, encoding="utf-8")
    hidden = ["unshare", "--net"] if shutil.which("unshare") and os.geteuid() == 0 else []
    clean = {"PYTHONPATH": "", "EXCA_CACHE_DIR": str(folder / "digests")}
    for times in ("computing\n", ""):
        file, found, *rest = run(*hidden, python, "double.py", cwd=folder, **clean).split("\n", 2)
        require(Path(file).is_relative_to(folder), f"{file} was imported, not what was installed")
        require((found, *rest) == (version, f"{times}42\n"), f"the installed package prints {found}, {rest}")
    command = folder / "venv" / "bin" / "exca"
    require(
        run(command, "--version", cwd=folder, **clean) == f"exca {version}\n", "exca --version is another one"
    )
    listed = run(*hidden, command, "ls", "cache", "--json", cwd=folder, **clean)
    require('"completed"' in listed and "double" in listed, f"exca ls --json prints {listed}")
    run(*hidden, command, "report", "cache", "-o", "report.html", cwd=folder, **clean)
    require(
        "Double" in (folder / "report.html").read_text(encoding="utf-8"), "the report does not name the class"
    )
    print("installed in an environment of its own: it computes, caches, lists and reports")


def check(commit: str, keep: Path | None) -> None:
    """Build, compare, look at and use what would be released of a commit."""
    version = version_of(run("git", "show", f"{commit}:{VERSION_FILE}"))
    if run("git", "status", "--porcelain"):
        print("release: what is not committed is not looked at")
    run("towncrier", "build", "--draft", "--version", version, PATH=path_of_tools())
    with tempfile.TemporaryDirectory(prefix="exca-release-") as name:
        folder = Path(name)
        first = build(commit, folder / "one", 0o022, "UTC")
        second = build(commit, folder / "another place", 0o077, "Asia/Tokyo")
        source, wheel = sorted(first, key=lambda each: each.suffix == ".whl")
        compare_builds(first, second)
        look_inside(commit, wheel, source, version)
        run(sys.executable, "-m", "twine", "check", "--strict", wheel, source)
        use(wheel, folder / "use", version)
        if keep is not None:
            keep.mkdir(exist_ok=True)
            for each in first:
                shutil.copy(each, keep)
    print(f"exca {version} can be released")


# ------------------------------------------------------------------------------------------------ releasing


def path_of_tools() -> str:
    """Return the search path with the programs of this environment first."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def write_version(version: str) -> None:
    """Write the version into the package, and into what people cite."""
    for name, pattern, line in (
        (VERSION_FILE, VERSION, f'__version__ = "{version}"'),
        ("CITATION.cff", re.compile(r"^version: .+$", re.MULTILINE), f"version: {version}"),
    ):
        text = (ROOT / name).read_text(encoding="utf-8")
        (ROOT / name).write_text(pattern.sub(line, text, count=1), encoding="utf-8")


def release(version: str) -> None:
    """Write version and changelog, commit them, check the commit and tag it."""
    require(
        re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version),
        f"{version} is no version such as 1.2.0 or 1.2.0rc1",
    )
    require(not run("git", "status", "--porcelain"), "commit or remove what is not committed first")
    require(not run("git", "tag", "--list", version), f"{version} is tagged already: releases never change")
    fragments = [each for each in tracked("HEAD") if re.match(r"changes/\+", each)]
    known = f"\n## {version} (" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    require(known or fragments, f"there is nothing to say of {version}: changes/ holds no fragment")
    require(
        not (known and fragments),
        f"CHANGELOG.md has {version}, and changes/ holds more: take the next version",
    )
    write_version(version)
    if fragments:
        run("towncrier", "build", "--yes", "--version", version, PATH=path_of_tools())
    if run("git", "status", "--porcelain"):
        run("git", "add", "--all")
        run("git", "commit", "--message", f"Release {version}")
    check("HEAD", ROOT / "dist")
    run("git", "tag", "--annotate", "--message", f"exca {version}", version)
    print(f"tagged as {version}; now: git push --follow-tags, then twine upload dist/exca-{version}*")


def main() -> None:
    """Check or release, as the command line has it."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("version", help='"check", or the version to release')
    parser.add_argument("--keep", type=Path, help="folder for what was built and checked")
    given = parser.parse_args()
    if given.version == "check":
        check("HEAD", given.keep)
    else:
        release(given.version)


if __name__ == "__main__":
    main()
