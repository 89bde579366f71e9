"""Run the tests of published packages that depend on exca, with the published release and with this one.

Each recipe (a TOML file beside this one) names a package and its version, what its tests need, and which of them are
left out of the comparison. All packages go into one environment outside the repository, which holds the published
release, too. The environment of this release lies over it: the same packages, and this repository in front of them.

Every test that passes with the published release has to pass with this one. What passes with the published release is
written down beside the environment and not run again unless asked.
"""

import argparse
import collections
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import typing as tp
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RELEASE = "0.6.0"
TOOLS = ["pytest>=9", "pytest-xdist>=3.6", "pytest-timeout>=2.3", "pytest-mock"]
TEST_TIMEOUT_S = 600  # seconds that one test may take


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the tests of a dependant are run.

    Parameters
    ----------
    name, version: str
        the package on the index
    needs: list of str
        packages that its tests need beyond its dependencies
    dependencies: bool
        install what the package itself asks for; otherwise `needs` says all
    tests: str
        folder of the tests below site-packages; empty for a package that ships none
    imports: list of str
        modules that have to be importable
    environment: dict
        environment variables of its tests
    release, here: int
        how many tests pass with the published release, and how many of them here, as last counted
    exceptions: dict
        tests that are left out of the comparison, each with its reason
    """

    name: str
    version: str
    needs: list[str] = dataclasses.field(default_factory=list)
    dependencies: bool = True
    tests: str = ""
    imports: list[str] = dataclasses.field(default_factory=list)
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    release: int = 0
    here: int = 0
    exceptions: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def requirement(self) -> str:
        """The package and its version, as pip takes them."""
        return f"{self.name}=={self.version}"


def recipes(names: tp.Sequence[str]) -> list[Recipe]:
    """Read the recipes of some dependants, or of all."""
    found = {path.stem: Recipe(**tomllib.loads(path.read_text("utf8"))) for path in HERE.glob("*.toml")}
    unknown = [name for name in names if name not in found]
    if unknown:
        sys.exit(f"there is no recipe for {', '.join(unknown)}: {', '.join(sorted(found))}")
    return [found[name] for name in sorted(found) if not names or name in names]


# ---------------------------------------------------------------------------------------------- environments


def shared_environment() -> Path:
    """Folder of the environment with the dependants and the published release."""
    given = os.environ.get("EXCA_DOWNSTREAM_ENV")
    if given:
        return Path(given).absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "exca-downstream" / "python3.12"


def python_of(environment: Path) -> str:
    """Interpreter of an environment."""
    return str(environment / "bin" / "python")


def site_packages(environment: Path) -> Path:
    """Where an environment holds its packages."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    done = subprocess.run([python_of(environment), "-c", code], check=True, capture_output=True, text=True)
    return Path(done.stdout.strip())


def own_dependencies() -> list[str]:
    """What this release needs to run."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
    return list(project["dependencies"])


def install(environment: Path, *arguments: str) -> None:
    """Have pip install into an environment; nothing is printed unless it fails."""
    command = [python_of(environment), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, *arguments], check=True)


def make_shared(environment: Path, wanted: list[Recipe], interpreter: str) -> None:
    """Make the environment with the dependants where it is missing, and install what is new in the recipes."""
    if not Path(python_of(environment)).exists():
        print(f"making {environment}: torch and its like are large downloads", flush=True)
        subprocess.run([interpreter, "-m", "venv", str(environment)], check=True)
        install(environment, "--upgrade", "pip")
    for recipe in wanted:
        bare = [] if recipe.dependencies else [recipe.requirement]
        full = [*TOOLS, *own_dependencies(), *recipe.needs, *([] if bare else [recipe.requirement])]
        mark = environment / f".{recipe.name}-{_digest([*full, *bare])}"
        if mark.exists():
            continue
        print(f"installing {recipe.requirement} and what its tests need", flush=True)
        install(environment, f"exca=={RELEASE}", *full)
        if bare:
            install(environment, "--no-deps", *bare)
        mark.touch()


def make_own(environment: Path, shared: Path, wheel: Path | None) -> Path:
    """Make the environment of this release over the shared one: its packages, behind this repository or a wheel."""
    content = "" if wheel is None else hashlib.md5(wheel.read_bytes(), usedforsecurity=False).hexdigest()
    words = [str(ROOT), str(shared), (ROOT / "src/exca/__init__.py").read_text("utf8").partition("if tp.")[0]]
    own = environment.with_name(
        f"{environment.name}-{'here' if wheel is None else 'wheel'}-{_digest([*words, content])}"
    )
    if not (own / ".made").exists():
        shutil.rmtree(own, ignore_errors=True)
        subprocess.run([python_of(shared), "-m", "venv", str(own)], check=True)
        line = f"import site; site.addsitedir({str(site_packages(shared))!r})\n"
        (site_packages(own) / "zz-shared.pth").write_text(
            line, "utf8"
        )  # last: what is installed here goes first
        install(own, "--no-deps", *(["--editable", str(ROOT)] if wheel is None else [str(wheel)]))
        (own / ".made").touch()
    return own


def check_release(environment: Path) -> str:
    """Return the version of exca that an environment imports; end where it is not the one that was meant."""
    ours = environment.name != shared_environment().name
    code = "import exca, importlib.metadata as m; print(exca.__version__, m.version('exca'), exca.__file__)"
    done = subprocess.run(
        [python_of(environment), "-P", "-c", code], check=True, capture_output=True, text=True, cwd="/"
    )
    version, installed, file = done.stdout.split(maxsplit=2)
    if (
        version != installed
        or Path(file.strip()).is_relative_to(ROOT) is not (ours and "-wheel-" not in environment.name)
        or (
            ours
            and not Path(file.strip()).is_relative_to(ROOT)
            and not Path(file.strip()).is_relative_to(environment)
        )
        or (version == RELEASE) is ours
    ):
        sys.exit(f"{environment} imports exca {version} ({installed}) from {file}: remove the folder")
    return version


def _digest(texts: list[str]) -> str:
    return hashlib.md5("\n".join(texts).encode(), usedforsecurity=False).hexdigest()[:8]


# ---------------------------------------------------------------------------------------------- running tests


def outcomes(
    recipe: Recipe, environment: Path, packages: Path, workers: int, tests: tp.Sequence[str] = ()
) -> dict[str, str]:
    """Run tests of a dependant, and return "passed", "failed" or "skipped" for each."""
    with tempfile.TemporaryDirectory(prefix="exca-downstream-") as folder:
        report, arguments = Path(folder) / "report.xml", Path(folder) / "tests"
        arguments.write_text("\n".join(tests or [str(packages / recipe.tests)]), "utf8")
        command = [python_of(environment), "-m", "pytest", "--quiet", "--no-header", f"--rootdir={packages}"]
        command += [
            f"--basetemp={Path(folder) / 'results'}",
            f"--junitxml={report}",
            "-o",
            "junit_family=xunit1",
        ]
        command += ["-p", "no:cacheprovider", "-p", "dependant_fixtures", f"--timeout={TEST_TIMEOUT_S}"]
        command += ["-n", str(workers), f"@{arguments}"]
        # put in front of sys.path, the folder of the packages would hide this release behind the published one
        command += ["--import-mode=append"]
        env = {**os.environ, **recipe.environment, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"}
        env["EXCA_DOWNSTREAM_VERSION"] = check_release(environment)
        log = environment.parent / f"{recipe.name}-{environment.name}.log"
        with open(log, "w") as output:
            subprocess.run(command, cwd=folder, env=env, stdout=output, stderr=subprocess.STDOUT, check=False)
        if not report.exists():
            sys.exit(f"pytest wrote no report on {recipe.name}: see {log}")
        return _parsed(report)


def _parsed(report: Path) -> dict[str, str]:
    """Read the outcome of each test from a report, by its id."""
    found: dict[str, str] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):  # noqa: S314  # pytest wrote it just now
        kinds = {child.tag for child in case}
        word = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        file, name = case.get("file"), case.get("name")
        if file is None or name is None:
            continue  # a file that could not be imported: none of its tests is there
        inside = (case.get("classname") or "").removeprefix(file.removesuffix(".py").replace("/", "."))
        found["::".join([file, *inside.strip(".").split("."), name] if inside else [file, name])] = word
    return found


def release_outcomes(recipe: Recipe, environment: Path, workers: int, again: bool) -> dict[str, str]:
    """What passes with the published release, from the last run of it where there was one."""
    known = environment / f"{recipe.name}-{recipe.version}-with-{RELEASE}.json"
    if not known.exists() or again:
        found = outcomes(recipe, environment, site_packages(environment), workers)
        known.write_text(json.dumps(found, indent=1), "utf8")
    return tp.cast(dict[str, str], json.loads(known.read_text("utf8")))


@dataclasses.dataclass
class Comparison:
    """What came of a dependant: tests by what they did, and those that pass only with the published release."""

    recipe: Recipe
    release: collections.Counter[str]
    passed: int
    lost: list[str]
    seconds: float


def compare(recipe: Recipe, shared: Path, own: Path, workers: int, again: bool) -> Comparison:
    """Run the tests that pass with the published release with this one."""
    start = time.monotonic()
    for module in recipe.imports:
        code = f"import importlib; importlib.import_module({module!r})"
        subprocess.run([python_of(own), "-P", "-c", code], check=True, cwd="/", capture_output=True)
    if not recipe.tests:
        return Comparison(recipe, collections.Counter(), 0, [], time.monotonic() - start)
    release = release_outcomes(recipe, shared, workers, again)
    asked = [test for test, word in release.items() if word == "passed" and test not in recipe.exceptions]
    packages = site_packages(shared)
    paths = [str(packages / test) for test in asked]
    found = outcomes(recipe, own, packages, workers, paths)
    lost = [test for test in asked if found.get(test) != "passed"]
    if lost:  # again, alone: a test that measures time fails on a busy machine
        second = outcomes(recipe, own, packages, 0, [str(packages / test) for test in lost])
        lost = [test for test in lost if second.get(test) != "passed"]
    return Comparison(
        recipe, collections.Counter(release.values()), len(asked) - len(lost), lost, time.monotonic() - start
    )


# ---------------------------------------------------------------------------------------------- the command


def table(rows: list[tuple[str, ...]]) -> str:
    """Write rows in columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def main() -> int:
    """Run the recipes and print how they compare."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("names", nargs="*", help="dependants (default: all recipes)")
    parser.add_argument(
        "--release-again", action="store_true", help="run the tests with the published release anew"
    )
    parser.add_argument(
        "--no-caches", action="store_true", help="leave out the caches that go from one to the other"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="tests at once")
    parser.add_argument(
        "--wheel", type=Path, help="run with this wheel (make release-check ARGS=...) in place of src"
    )
    parser.add_argument("--python", default="python3.12", help="interpreter to make the environment with")
    given = parser.parse_args()
    wanted, shared = recipes(given.names), shared_environment()
    make_shared(shared, wanted, given.python)
    own = make_own(shared, shared, given.wheel)
    versions = check_release(shared), check_release(own)
    rows: list[tuple[str, ...]] = [
        ("dependant", "version", f"with {versions[0]}", f"with {versions[1]}", "lost", "seconds")
    ]
    failed: list[str] = []
    for recipe in wanted:
        print(f"running {recipe.requirement}", flush=True)
        result = compare(recipe, shared, own, given.workers, given.release_again)
        failed += result.lost
        numbers = (result.release["passed"] - len(recipe.exceptions.keys()), result.passed, len(result.lost))
        cells = [str(number) for number in numbers] if recipe.tests else ["imports", "imports", "0"]
        rows.append((recipe.name, recipe.version, *cells, f"{result.seconds:.0f}"))
        for number, known, where in (
            (numbers[0], recipe.release, "release"),
            (numbers[1], recipe.here, "here"),
        ):
            if recipe.tests and number != known:
                print(
                    f"{recipe.name}.toml says {where} = {known}, and {number} pass: write it down", flush=True
                )
    if not given.no_caches:
        failed += caches(shared, own)
    print(table(rows))
    for test in failed:
        print("LOST", test)
    print(
        "everything that passes with the published release passes here"
        if not failed
        else f"{len(failed)} lost"
    )
    return 1 if failed else 0


def caches(shared: Path, own: Path) -> list[str]:
    """Have each release find what the other one has cached; returns what was computed again."""
    lost = []
    for writer, reader, way in ((shared, own, "release -> here"), (own, shared, "here -> release")):
        with tempfile.TemporaryDirectory(prefix="exca-downstream-") as folder:
            for environment, role in ((writer, "write"), (reader, "read")):
                code = f"import caches, pathlib; caches.main({role!r}, pathlib.Path({folder!r}))"
                done = subprocess.run(
                    [python_of(environment), "-c", code],
                    cwd=folder,
                    env={**os.environ, "PYTHONPATH": str(HERE), "EXCA_WRITE_FOR_0_6": "1"},
                    check=False,
                    capture_output=True,
                    text=True,
                )
                if done.returncode:
                    lost.append(
                        f"caches {way} ({role}, exit code {done.returncode}):\n{done.stdout}{done.stderr}"
                    )
                    break
            else:
                print(f"caches {way}: {done.stdout.strip()}", flush=True)
    return lost


if __name__ == "__main__":
    sys.exit(main())
