"""Ask each tool the same questions, by running it, and print what was seen as one table.

    python benchmarks/comparison/run.py                        # all tools; makes an environment for each
    python benchmarks/comparison/run.py --only 'joblib;redun'   # some of them
    python benchmarks/comparison/run.py --pythons DIR          # environments that are there: DIR/joblib/bin/python
    python benchmarks/comparison/run.py --ahead                # what others do and this one does not (tools/ahead.py)

Each tool computes the same function (`tools/compared.py`) through a program of a few lines beside it, as its
documentation shows it. A question changes a file, kills a process or damages a file, asks again in a new process, and
tells by the result and by what the function writes down when it runs. `--record` writes the answers to `answers.json`,
from which `docs/comparison.md` has its table.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import typing as tp
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ANSWERS = HERE / "answers.json"
DOCUMENT = ROOT / "docs" / "comparison.md"
BEGIN, END = "<!-- begin: made by make comparison -->\n", "<!-- end -->\n"
AHEAD = HERE / "ahead.json"
AHEAD_BEGIN, AHEAD_END = "<!-- begin: made by make comparison, ahead -->\n", "<!-- end of ahead -->\n"
SECONDS = 180.0  # for one call, on a machine that has other work
REQUIREMENTS = {
    "exca 0.6.0": ["exca==0.6.0", "numpy"],
    "joblib": ["joblib==1.6.0", "numpy"],
    "diskcache": ["diskcache==5.6.3", "numpy"],
    "submitit": ["submitit==1.5.4", "numpy"],
    "hydra": ["hydra-core==1.3.8", "hydra-submitit-launcher==1.2.0", "hydra-optuna-sweeper==1.3.0"],
    "executorlib": ["executorlib[cache,cluster]==1.11.0", "numpy"],
    "parsl": ["parsl==2026.10.26", "numpy"],
    "redun": ["redun==0.44.1", "numpy"],
    "pydra": ["pydra==1.0a12", "numpy"],
    "prefect": ["prefect==3.9.1", "numpy"],
    "dora": ["dora-search==0.1.13", "numpy"],
}
ONLY_AHEAD = {"seml": ["seml==0.5.7"]}  # nothing but what it is ahead in can be asked without its server
OURS, STRICT = "this one", 'this one, code="strict"'
ON_SLURM = (OURS, STRICT, "exca 0.6.0", "submitit", "hydra", "executorlib", "parsl", "pydra", "dora")
NOTHING_KEPT = "keeps nothing"


class Claim(tp.NamedTuple):
    """What a tool does, what this one does about it, and the function of ``tools/ahead.py`` that plays it."""

    tool: str
    what: str
    ours: str
    name: str
    ahead: bool = True  # False: this one does the same in another way


CLAIMS = [
    Claim("hydra", "A configuration composed of groups in several files", "one file and overrides", "groups"),
    Claim(
        "hydra", "A value that refers to another one in the file", "a validator in Python", "interpolation"
    ),
    Claim("hydra", "An object of any class, named in the file", "models made for it", "instantiated"),
    Claim("joblib", "Results are compressed", "no: they are memory-mapped", "compressed"),
    Claim("joblib", "A cache is reduced to a size", "`exca gc`, by age, reading or version", "reduced"),
    Claim("joblib", "A result expires", "`exca gc --older`", "expires"),
    Claim("joblib", "An `async def` is cached", "refused (`async-method`)", "awaited"),
    Claim("joblib", "Processes share a large array that they are given", "it is pickled", "shared"),
    Claim(
        "diskcache",
        "A cache evicts what was not used, by itself, at a limit of size",
        "`exca gc`, on request",
        "evicted",
    ),
    Claim("diskcache", "Counters that several processes increase", "no", "counted"),
    Claim("redun", "A file as an argument is compared by its content", "as its path", "files"),
    Claim(
        "redun",
        "A task calls tasks, and each is cached",
        "chains of steps; methods may call others",
        "recursion",
    ),
    Claim("redun", "A graph of all calls in a database", "the record of each task", "lineage"),
    Claim("parsl", "A future as the argument of a call", "`after`, and steps", "futures"),
    Claim(
        "parsl",
        "Many calls in few Slurm jobs, without a process for each",
        "packed tasks: a process each",
        "pilot",
    ),
    Claim(
        "parsl",
        "Other schedulers and clouds, each with workers that grow and shrink in number",
        "Slurm; others through Dask or an executor",
        "providers",
    ),
    Claim("executorlib", "A future as the argument of a call", "`after`, and steps", "chained"),
    Claim("pydra", "A command of the shell as a task, with typed fields", "a method that runs it", "shell"),
    Claim(
        "pydra", "A task split over its inputs and combined again", "`MapInfra`, `job_array`", "split", False
    ),
    Claim("prefect", "A server with a page, which starts runs on a schedule", "`exca ui`; cron", "schedule"),
    Claim(
        "seml", "Grids and random parameters in nested sections", "`exca sweep`, without sections", "sections"
    ),
    Claim("seml", "All runs of a group in a database", "plain files", "database"),
    Claim(
        "dora",
        "A grid as a Python file, followed on the terminal",
        "`exca sweep grids.py:NAME`, `exca watch`",
        "grid",
        False,
    ),
]


class Said(tp.NamedTuple):
    """What a call came to: its result, how often the function ran meanwhile, and how the program ended."""

    result: str | None
    runs: int
    error: str


class Project:
    """A folder with a tool's program and what it computes."""

    def __init__(self, tool: str, python: Path, place: Path) -> None:
        self.tool, self.python, self.place = tool, python, place
        self.cache, self.runs, self.pause = place / "cache", place / "runs.txt", place / "pause"
        self.cache.mkdir(parents=True)
        program = "exca" if tool in {OURS, STRICT, "exca 0.6.0"} else tool
        shutil.copy(HERE / "tools" / f"{program}_tool.py", place / "program.py")
        for name in ("compared.py", "compared_helper.py"):
            shutil.copy(HERE / "tools" / name, place / name)
        self.runs.touch()

    def change(self, name: str, old: str, new: str) -> None:
        path = self.place / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def start(self, mode: str = "here", text: str = "7", kind: str = "array") -> "subprocess.Popen[str]":
        home = self.place / "home"
        home.mkdir(exist_ok=True)
        env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EXCA_"))}
        env |= {
            "CODE": "strict" if self.tool == STRICT else "",
            "HOME": str(home),
            "KIND": kind,
            "PAUSE": str(self.pause),
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_LOGGING_LEVEL": "CRITICAL",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
            "PYTHONDONTWRITEBYTECODE": "1",  # a file that is changed twice within a second is read anew
            "PYTHONPATH": str(self.place),  # for jobs
            "RUNS": str(self.runs),
            "PATH": f"{self.python.parent}{os.pathsep}{env['PATH']}",
        }
        command = [str(self.python), "-c", "import program; program.main()", mode, str(self.cache), text]
        # into files: a job that outlives its submitter would keep a pipe open
        self.number = getattr(self, "number", 0) + 1
        out = (self.place / f"out{self.number}.txt").open("w")
        with out:
            process = subprocess.Popen(
                command,
                cwd=self.place,
                env=env,
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process.args = [out.name]
        return process

    def said(self, process: "subprocess.Popen[str]", runs: int) -> Said:
        """Wait for a call, and say what it came to; `runs` is how often the function had run before."""
        error = ""
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            kill(process)
            error = "hangs"
        text = Path(tp.cast("list[str]", process.args)[0]).read_text(errors="replace")
        found = re.search(r"^RESULT (.*)$", text, re.MULTILINE)
        if process.returncode and not error:
            error = (text.strip().splitlines() or ["no message"])[-1]
        return Said(found[1] if found else None, self.count() - runs, error)

    def ask(self, mode: str = "here", text: str = "7", kind: str = "array") -> Said:
        runs = self.count()
        return self.said(self.start(mode, text, kind), runs)

    def count(self) -> int:
        return len(self.runs.read_text().splitlines())

    def asking(self, process: "subprocess.Popen[str]") -> bool:
        return "ASKING" in Path(tp.cast("list[str]", process.args)[0]).read_text(errors="replace")

    def files(self) -> list[Path]:
        return [path for path in self.cache.rglob("*") if path.is_file() and not path.is_symlink()]


def kill(process: "subprocess.Popen[str]") -> None:
    """Kill a call and what it has started in its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def until(condition: Callable[[], bool], seconds: float = SECONDS) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def expected(said: Said, value: str = "[70.0]") -> bool:
    return said.result == value and not said.error


def kept(project: Project) -> bool:
    first = project.ask()
    if not expected(first) or first.runs != 1:
        raise RuntimeError(f"the first call came to {first}")
    again = project.ask()
    if not expected(again):
        raise RuntimeError(f"the second call came to {again}")
    return again.runs == 0


def survives(project: Project) -> str:
    return "yes" if kept(project) else "no"


def after_change(project: Project, name: str, old: str, new: str, value: str) -> str:
    """Change a file between two calls that are the same: `value` is what it makes of them."""
    if not kept(project):
        return NOTHING_KEPT
    project.change(name, old, new)
    said = project.ask()
    if said.result == value and said.runs:
        return "computed again"
    if expected(said) and not said.runs:
        return "earlier result, with a warning" if warned(project) else "earlier result"
    return "an error" if said.error else f"{said.result}"


def warned(project: Project) -> bool:
    return "Warning" in (project.place / f"out{project.number}.txt").read_text()


def changed_function(project: Project) -> str:
    return after_change(project, "compared.py", "10 * scale", "100 * scale", "[700.0]")


def changed_helper(project: Project) -> str:
    return after_change(project, "compared_helper.py", "factor * 1)", "factor * 2)", "[140.0]")


def changed_comment(project: Project) -> str:
    answer = after_change(
        project,
        "compared.py",
        "    return compared_helper",
        "    # faster\n    return compared_helper",
        "[70.0]",
    )
    return "earlier result" if answer.startswith("earlier") else answer


def changed_default(project: Project) -> str:
    return after_change(project, "compared.py", "SCALE = 1.0", "SCALE = 3.0", "[210.0]")


def two_at_once(project: Project) -> str:
    """Have two processes ask while the function is held up, and look after some seconds how often it runs."""
    project.pause.touch()
    asking = [project.start(), project.start()]
    # until both ask: one of them may be slow to start
    until(lambda: all(map(project.asking, asking)) or project.count() > 1, 60)
    until(lambda: project.count() > 1, 6)
    project.pause.unlink()
    for process in asking:
        said = project.said(process, 0)
        if not expected(said):
            return f"error: {said.error[:80]}"
    return "one computes" if project.count() == 1 else "both compute"


def killed(project: Project) -> str:
    """Kill the process, and what it started, in the middle of the computation, and ask again."""
    project.pause.touch()
    process = project.start()
    if not until(lambda: project.count() > 0 or process.poll() is not None) or not project.count():
        raise RuntimeError("it does not begin")
    kill(process)
    project.pause.unlink()
    said = project.ask()
    return "computed again" if expected(said) and said.runs else said.error[:80] or f"result {said.result}"


def damaged(project: Project) -> str:
    """Flip a bit in what is stored: in the numbers of the array where they are found, else amid the largest file."""
    import struct

    if not kept(project):
        return NOTHING_KEPT
    pattern = struct.pack("<d", 70.0) * 8
    paths = [path for path in project.files() if pattern in path.read_bytes()]
    path = max(paths or project.files(), key=lambda each: each.stat().st_size)
    data = bytearray(path.read_bytes())
    at = data.index(pattern) + 14 if paths else len(data) // 2
    data[at] ^= 1
    path.write_bytes(data)
    said = project.ask()
    if said.error:
        return f"error: {said.error[:80]}"
    if expected(said):
        if not paths and not said.runs:
            return "not answered: the numbers are not in its files as they are"
        return "computed again" if said.runs else "the same result"
    return "wrong result"


def strangers(project: Project) -> str:
    """Exchange a stored pickle for one of another user's that runs a command when it is loaded."""
    if os.geteuid() != 0:
        return "not tried (needs root)"
    if project.ask(kind="object").result is None or project.ask(kind="object").runs:
        return NOTHING_KEPT
    marker = project.place / "ran"
    planted = f"cos\nmkdir\n(V{marker}\ntR.".encode()
    pickles = [path for path in project.files() if path.read_bytes()[:2] in {b"\x80\x04", b"\x80\x05"}]
    if not pickles:
        return "keeps no pickle in a file of its own"
    for path in pickles:
        path.write_bytes(planted)
        os.chown(path, 65534, 65534)
        path.chmod(0o644)
    said = project.ask(kind="object")
    return (
        "loaded: its command ran"
        if marker.exists()
        else f"refused{': computed again' if expected(said) else ''}"
    )


def wrong_type(project: Project) -> str:
    said = project.ask(text="seven")
    return "refused before it runs" if said.error and not said.runs else "runs"


def address(project: Project) -> str:
    """Look for the parameter and its value in what was written."""
    if not kept(project):
        pass  # what a run writes can be found all the same
    for path in project.cache.rglob("*"):
        if re.search(r"\bx\b\W{1,3}7\b", str(path.relative_to(project.cache))):
            return "in the path"
    for path in project.files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        if len(text) < 10_000 and re.search(r"\bx\b\W{1,5}7\b", text):
            return "in a text file"
    return "no"


def on_slurm(project: Project) -> str:
    """Have a job compute, and ask again, there and here."""
    if project.tool not in ON_SLURM:
        return "no"
    said = project.ask("slurm")
    if not said.runs:
        raise RuntimeError(f"the call on Slurm came to {said}")
    if project.tool == "hydra":
        return "yes"  # what a job prints is in its own log
    if not expected(said):
        raise RuntimeError(f"the call on Slurm came to {said}")
    again = project.ask("slurm")
    here = project.ask()
    ways = [name for name, each in (("on Slurm", again), ("here", here)) if expected(each) and not each.runs]
    return f"yes; its result is found again {' and '.join(ways)}" if ways else "yes"


def submitter_killed(project: Project) -> str:
    """Kill the submitter while the job runs, and ask again: is the job found, or another one submitted?"""
    if project.tool not in ON_SLURM:
        return "no Slurm"
    project.pause.touch()
    process = project.start("slurm")
    if not until(lambda: project.count() > 0 or process.poll() is not None) or not project.count():
        kill(process)
        raise RuntimeError("the job does not begin")
    kill(process)
    next_one = project.start("slurm")
    if not until(lambda: project.asking(next_one) or next_one.poll() is not None):
        raise RuntimeError("it does not ask")
    until(lambda: project.count() > 1 or next_one.poll() is not None, 30)
    project.pause.unlink()
    said = project.said(next_one, 1)
    if said.runs:
        return "computed again"
    return "its job is found" if expected(said) else f"error: {said.error[:80]}"


def optuna(project: Project) -> str:
    if project.tool in {OURS, STRICT}:
        return "yes (`exca search`)"
    if project.tool != "hydra":
        return "no"
    said = project.ask("search")
    return "yes (plugin)" if said.runs == 3 and not said.error else f"error: {said.error[:80]}"


QUESTIONS: dict[str, Callable[[Project], str]] = {
    "The result is there for the next process": survives,
    "The function changed": changed_function,
    "A function that it calls, of another module, changed": changed_helper,
    "Only a comment in it changed": changed_comment,
    "A default changed": changed_default,
    "Two processes ask at once": two_at_once,
    "Killed in the middle, asked again": killed,
    "A bit of the stored array flipped": damaged,
    "A stored pickle exchanged by another user": strangers,
    '`x="seven"` for an `int`': wrong_type,
    "The parameters can be read where the result is": address,
    "Runs on Slurm": on_slurm,
    "The submitter dies while its Slurm job runs": submitter_killed,
    "A search whose points Optuna draws": optuna,
}


NAMES = list(QUESTIONS)
CHANGED, DEFAULT = NAMES[1], NAMES[4]
PARTS = {
    "What is kept, and what is noticed": [*NAMES[:5], NAMES[10]],
    "When something goes wrong": NAMES[5:10],
    "On a cluster": NAMES[11:],
}


def python_of(tool: str, pythons: Path) -> Path:
    """Return the interpreter of a tool, in an environment that is made when it is not there."""
    if tool in {OURS, STRICT}:
        return Path(sys.executable)
    folder = pythons / tool.replace(" ", "-")
    if not (folder / "bin" / "python").exists():
        print(f"making {folder.name}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [
            str(folder / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        subprocess.run([*pip, *(REQUIREMENTS | ONLY_AHEAD)[tool]], check=True)
    return folder / "bin" / "python"


def package_of(tool: str) -> str:
    if tool in {OURS, STRICT}:
        return "exca"
    return (REQUIREMENTS | ONLY_AHEAD)[tool][0].partition("==")[0].partition("[")[0]


def version_of(tool: str, python: Path) -> str:
    package = package_of(tool)
    query = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.check_output([str(python), "-c", query], text=True).strip()


def answer(question: str, tool: str, python: Path) -> str:
    with tempfile.TemporaryDirectory(prefix="exca-compare-", ignore_cleanup_errors=True) as folder:
        try:
            # jobs read it, also on a cluster of which this is the only node
            found = QUESTIONS[question](Project(tool, python, Path(folder) / "project"))
        except RuntimeError as e:
            found = f"not answered: {e}"
        return found.replace(folder, "...")


def table(answers: dict[str, dict[str, str]]) -> str:
    """Return the answers as Markdown tables, one per part: one line per tool, one column per question."""
    parts = []
    for title, questions in PARTS.items():
        asked = [question for question in questions if any(question in each for each in answers.values())]
        if not asked:
            continue
        lines = [f"**{title}**", "", "| | " + " | ".join(asked) + " |", "|---" * (len(asked) + 1) + "|"]
        for tool, answered in answers.items():
            cells = [cell(tool, question, answered.get(question, "")) for question in asked]
            name = tool if tool in {OURS, STRICT, "exca 0.6.0"} else f"{tool} {answered['version']}"
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def cell(tool: str, question: str, text: str) -> str:
    """Return an answer, in bold where it is ahead of what this one does unless it is told otherwise."""
    ahead = tool not in {OURS, STRICT} and question in {CHANGED, DEFAULT} and text == "computed again"
    return f"**{text}**" if ahead else text.replace("|", "\\|")


def play_ahead(tool: str, python: Path, name: str) -> str:
    """Play a claim of ``tools/ahead.py`` with the interpreter of its tool, and return what was seen."""
    with tempfile.TemporaryDirectory(prefix="exca-compare-", ignore_cleanup_errors=True) as folder:
        env = os.environ | {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
        where = package_of(tool) if name == "requirements" else folder
        done = subprocess.run(
            [str(python), str(HERE / "tools" / "ahead.py"), name, where],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=2 * SECONDS,
            check=False,
        )
        found = re.search(r"^SEEN (.*)$", done.stdout, re.MULTILINE)
        if found is None:
            raise RuntimeError(f"{tool}: {name}\n{done.stdout}{done.stderr}")
        return found[1]


def ask_ahead(tools: list[str], pythons: Path) -> dict[str, dict[str, str]]:
    """Return per tool its version, what it needs, and what was seen of each claim."""
    found: dict[str, dict[str, str]] = {}
    for tool in tools:
        python = python_of(tool, pythons)
        needs = play_ahead(tool, python, "requirements")
        found[tool] = {"version": version_of(tool, python), "requirements": needs}
        for claim in CLAIMS:
            if claim.tool == tool:
                found[tool][claim.name] = play_ahead(tool, python, claim.name)
                print(f"{tool}: {claim.what}: {found[tool][claim.name]}", file=sys.stderr, flush=True)
    return found


def ahead_tables(found: dict[str, dict[str, str]]) -> str:
    """Return what others are ahead in, and what each tool needs, as Markdown tables."""
    lines = ["| | this one | | what was seen |", "|---|---|---|---|"]
    for claim in CLAIMS:
        each = found[claim.tool]
        mark = "**" if claim.ahead else ""
        name = f"{mark}{claim.tool} {each['version']}{mark}"
        lines.append(f"| {claim.what} | {claim.ours} | {name} | {each[claim.name]} |")
    lines += [
        "",
        "| | packages that come with it | Python | systems that its metadata names |",
        "|---|---|---|---|",
    ]
    for tool, each in found.items():
        name = tool if tool == OURS else f"{tool} {each['version']}"
        lines.append(f"| {name} | {' | '.join(each['requirements'].split('; '))} |")
    return "\n".join(lines) + "\n"


def put(begin: str, end: str, made: str) -> None:
    """Write what was made between two marks of the page."""
    text = DOCUMENT.read_text(encoding="utf-8")
    head, _, rest = text.partition(begin)
    DOCUMENT.write_text(f"{head}{begin}{made}{end}{rest.partition(end)[2]}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask each tool the same questions, by running it.")
    parser.add_argument("--only", default="", help="tools, separated by semicolons")
    parser.add_argument("--questions", default="", help="words of questions, separated by commas")
    parser.add_argument(
        "--pythons", type=Path, default=ROOT / ".venv-comparison", help="folder of environments"
    )
    parser.add_argument(
        "--record", action="store_true", help="write the answers down, and the table of the page"
    )
    parser.add_argument(
        "--ahead",
        action="store_true",
        help="play what others do and this one does not, in place of the questions",
    )
    options = parser.parse_args()
    if options.ahead:
        tools = [tool for tool in (OURS, *REQUIREMENTS, *ONLY_AHEAD) if tool != "exca 0.6.0"]
        found = ask_ahead(tools, options.pythons)
        print(ahead_tables(found))
        if options.record:
            AHEAD.write_text(json.dumps(found, indent=1) + "\n")
            put(AHEAD_BEGIN, AHEAD_END, ahead_tables(found))
        return
    tools = [
        tool for tool in (OURS, STRICT, *REQUIREMENTS) if not options.only or tool in options.only.split(";")
    ]
    words = options.questions.lower().split(",")
    questions = [question for question in QUESTIONS if any(word in question.lower() for word in words)]
    before = json.loads(ANSWERS.read_text()) if ANSWERS.exists() else {}
    answers: dict[str, dict[str, str]] = {}
    for tool in tools:
        python = python_of(tool, options.pythons)
        answers[tool] = {"version": version_of(tool, python)}
        for question in questions:
            answers[tool][question] = answer(question, tool, python)
            print(f"{tool}: {question}: {answers[tool][question]}", file=sys.stderr, flush=True)
    print(table(answers))
    if options.record:
        merged = {
            tool: before.get(tool, {}) | answers.get(tool, {}) for tool in (OURS, STRICT, *REQUIREMENTS)
        }
        merged = {tool: each for tool, each in merged.items() if each}
        ANSWERS.write_text(json.dumps(merged, indent=1) + "\n")
        put(BEGIN, END, table(merged))


if __name__ == "__main__":
    main()
