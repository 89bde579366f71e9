"""Measure this project beside the published release and other tools, and print one table.

    python benchmarks/run.py                                # all rows; makes .venv-reference when it is not there
    python benchmarks/run.py --only tasks,maps              # groups of rows, or what titles contain
    python benchmarks/run.py --only slurm                   # what needs a Slurm cluster, left out otherwise
    python benchmarks/run.py --reference-python PATH        # an interpreter that has the published release

Every number comes from a process of its own: reference, this, reference, this, ... for some rounds, and the median
is shown. What a row reads was written by yet another process. The machine should have nothing else to do.
"""

import argparse
import compileall
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import machine
import table
from registry import PEERS, ROWS, Row

HERE = Path(__file__).resolve().parent
FEW_FILES = 500
RELEASE = "exca==0.6.0"
MODULES = (
    "rows_tasks",
    "rows_local",
    "rows_maps",
    "rows_cachedict",
    "rows_arrays",
    "rows_growth",
    "rows_steps",
    "rows_pages",
    "rows_commandline",
    "rows_slurm",
    "rows_percentiles",
    "peers",
    "peers_more",
)


def reference_python(given: str | None) -> Path:
    """Return an interpreter that has the published release: the one given, or one of an environment made here."""
    python = Path(given) if given else HERE.parent / ".venv-reference" / "bin" / "python"
    if not given and not python.exists():
        print(f"making {python.parents[1]} with {RELEASE}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", RELEASE], check=True)
    query = "import importlib.metadata as m; print(m.version('exca'))"
    said = subprocess.run(
        [str(python), "-c", query], capture_output=True, text=True, env=clean(), check=False
    )
    if said.stdout.strip() != RELEASE.partition("==")[2]:
        raise SystemExit(f"{python} has not {RELEASE} but {said.stdout.strip() or said.stderr.strip()}")
    return python


def clean() -> dict[str, str]:
    """Return the environment without what would lead the reference to this project's source."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


class Bench:
    """Runs the rows and keeps what was measured; `folder` holds what they read and write."""

    def __init__(self, reference: Path, folder: Path, rounds: int) -> None:
        self.pythons = {"reference": str(reference), "ours": sys.executable}
        self.folder = folder
        self.rounds = rounds
        self.samples: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.errors: dict[tuple[str, str], str] = {}
        self.staged: dict[tuple[str, object], Path] = {}

    def child(self, what: str, row: Row, title: str, column: str, folder: Path) -> str:
        """Run one function of a row in a new process, and return the last line that it prints."""
        tool = "exca" if column in self.pythons else column
        module = row.group if tool != "exca" else f"rows_{row.group}"
        ran = subprocess.run(
            [self.pythons.get(column, sys.executable), "measure.py", what, module, tool, title, str(folder)],
            cwd=HERE,
            env=clean() if column == "reference" else None,
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise RuntimeError(ran.stderr.strip().splitlines()[-1] if ran.stderr.strip() else "no message")
        return (ran.stdout.strip().splitlines() or [""])[-1]

    def prepared(self, row: Row, title: str, column: str) -> Path:
        """Return the folder that the row reads, written once, or an empty one."""
        if row.stage is None:
            return Path(tempfile.mkdtemp(dir=self.folder)) / "cache"
        key = (column, row.stage)
        if key not in self.staged:
            folder = Path(tempfile.mkdtemp(dir=self.folder)) / "cache"
            self.child("stage", row, title, column, folder)
            self.staged[key] = folder
        return self.staged[key]

    def sample(self, row: Row, title: str, column: str) -> None:
        """Measure a row once in a column."""
        if (column, title) in self.errors:
            return
        try:
            folder = self.prepared(row, title, column)
            self.samples[column, title].append(
                float(json.loads(self.child("measure", row, title, column, folder)))
            )
            # Many files stay to the end: for half a minute after their removal, ext4 takes ten times longer to make
            # one. A few large ones go: what the disk has yet to write slows the next sample down.
            if row.stage is None and sum(len(files) for _, _, files in os.walk(folder.parent)) < FEW_FILES:
                shutil.rmtree(folder.parent)
            os.sync()
        except RuntimeError as error:
            self.errors[column, title] = str(error)

    def measure(self, row: Row, tools: list[str]) -> None:
        """Measure a row in all columns, turn about, and say so."""
        columns = {"reference": row, "ours": row} if row.beside else {"ours": row}
        columns |= {tool: PEERS[tool, row.title] for tool in tools if (tool, row.title) in PEERS}
        for _ in range(min(self.rounds, row.rounds or self.rounds)):
            for column, its_row in columns.items():
                self.sample(its_row, row.title, column)
        print(
            "  ".join(filter(None, table.lines([row], self.samples, tools)[1])), file=sys.stderr, flush=True
        )


def chosen(only: str) -> list[Row]:
    """Return the rows of the groups that start with one of the words, or else whose titles contain it."""
    words = [word.strip().lower() for word in only.split(",") if word.strip()]
    groups = {row.group for row in ROWS}
    rows: list[Row] = []
    for row in ROWS:
        fits = (
            row.group.startswith(word)
            if any(group.startswith(word) for group in groups)
            else word in row.title.lower()
            for word in words
        )
        if any(fits) or (not words and row.group != "slurm"):
            rows.append(row)
    if not rows:
        raise SystemExit(f"no row fits {only!r}; the groups are {sorted(groups)}")
    return rows


def recorded(described: dict[str, object], rows: list[Row], bench: Bench) -> dict[str, object]:
    """Return all that a page needs: the machine, what each row is, its samples and what failed."""
    fields = ("group", "title", "unit", "bar", "limit", "than", "higher_is_better")
    return {
        "machine": described,
        "rows": [{field: getattr(row, field) for field in fields} for row in rows],
        "samples": [
            {"column": column, "row": title, "samples": values}
            for (column, title), values in bench.samples.items()
        ],
        "failed": [
            {"column": column, "row": title, "error": error}
            for (column, title), error in bench.errors.items()
        ],
    }


def main() -> None:
    """Read the command line, measure, print the table."""
    parser = argparse.ArgumentParser(description="Measure this project beside the published release.")
    parser.add_argument("--reference-python", help="an interpreter that has the published release")
    parser.add_argument(
        "--only",
        default="",
        help="groups (tasks,maps,cachedict,arrays,growth,percentiles,pages,slurm) or words of titles",
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each number is measured (default 5)")
    parser.add_argument("--folder", help="where to write (default: the folder for temporary files)")
    parser.add_argument(
        "--no-peers",
        action="store_true",
        help="leave joblib.Memory, diskcache, SQLite and all other tools out",
    )
    parser.add_argument("--json", help="also write the machine and all samples to this file, for page.py")
    options = parser.parse_args()
    for module in MODULES:
        importlib.import_module(module)
    rows = chosen(options.only)
    tools = (
        []
        if options.no_peers
        else sorted({tool for tool, title in PEERS if title in {row.title for row in rows}})
    )
    reference = reference_python(options.reference_python)
    # as pip does for an installed package; an editable one may lack its bytecode
    compileall.compile_dir(Path(__file__).parents[1] / "src", quiet=2)
    with tempfile.TemporaryDirectory(prefix="exca-bench-", dir=options.folder) as folder:
        bench = Bench(reference, Path(folder), options.rounds)
        described = machine.described(Path(folder))
        for row in rows:
            bench.measure(row, tools)
    print(table.markdown(table.lines(rows, bench.samples, tools)))
    for (column, title), error in bench.errors.items():
        print(f"\n{title}, {column}: failed: {error}")
    if options.json:
        path = Path(options.json)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(recorded(described, rows, bench), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
