"""Search configurations, item keys and pipelines for one whose identity is another than in the published release.

    python tests/identity/against_release/search.py --reference-python PATH         # everything
    python tests/identity/against_release/search.py --only items --examples 1000    # some of one kind

Hypothesis writes cases, both releases say what they make of them, each in a process of its own, and the first
difference is shown in its smallest form. What a rule of ours refuses, and what was decided to differ, is left out.
"""

import argparse
import collections
import difflib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import typing as tp
from collections.abc import Mapping
from pathlib import Path

import hypothesis
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

import chains
import keys
import models
import texts

RELEASE = "0.6.0"
RESTART = 400  # cases, after which a side begins anew: classes of old cases are never quite gone
AT_ONCE = 10  # cases that are sent together, or so: asking takes longer than answering
ROUND = 50  # examples with one seed
SIDE = Path(__file__).with_name("side.py")

Json = dict[str, tp.Any]


class Side:
    """A process that says what its release makes of cases."""

    def __init__(self, python: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.command = [python, str(SIDE), str(folder)]
        self.environment = {**environment, "PYTHONHASHSEED": "1"}
        self.asked = 0
        self.process: subprocess.Popen[str] | None = None

    def ask(self, cases: list[Json]) -> None:
        """Send cases; what is said to them is read with `answers`."""
        if self.process is None or self.asked >= RESTART or self.process.poll() is not None:
            self.close()
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=self.environment,
            )
            self.asked = 0
        self.asked += len(cases)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(cases) + "\n")
        self.process.stdin.flush()

    def answers(self) -> list[Json]:
        """Return what it says to the last cases."""
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.command} ended without an answer; what it printed says why")
        return tp.cast(list[Json], json.loads(line))

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None


# what a rule of ours refuses, by the error's name: each is described in the migration page
REFUSED: dict[str, tuple[str, ...]] = {}


def differences(ours: Json, theirs: Json) -> str | None:
    """Return what differs, None where both say the same or the difference was decided."""
    if "error" in theirs:
        return None  # what the release cannot do has no cache that could be lost
    if "error" in ours:
        if any(text in ours["message"] for text in REFUSED.get(ours["error"], ())):
            return None
        return f"ours refuses: {ours['error']}: {ours['message']}"
    for name, value in theirs.items():
        mine = ours.get(name)
        if isinstance(value, list) and isinstance(mine, list) and len(mine) == len(value):
            parts = [(one, other) for one, other in zip(mine, value, strict=True) if not _agree(one, other)]
        elif name == "said" and isinstance(mine, list):
            # up to the first statement that the release refuses
            parts = [(mine, value)] if not all(map(_agree, mine, value)) or len(mine) < len(value) else []
        else:
            parts = [] if mine == value or (name == "keys" and _agree(mine, value)) else [(mine, value)]
        for one, other in parts:
            lines = difflib.unified_diff(_lines(other), _lines(one), "release", "ours", lineterm="", n=1)
            return "\n".join([name, *(line[:400] for line in lines)])
    return None


def _agree(ours: tp.Any, theirs: tp.Any) -> bool:
    """Tell whether two outcomes are the same, or the release has none, or the difference was decided."""
    if ours == theirs:
        return True
    if isinstance(theirs, list) and len(theirs) == 1 and str(theirs[0]).endswith("Error"):
        return True
    # a value without any readable character has the key "" there, as all of them
    if isinstance(theirs, dict) and isinstance(ours, dict) and theirs.keys() == ours.keys():
        return all(
            theirs[place] == ours[place]
            or sorted(key for key in ours[place] if not re.fullmatch("-[0-9a-f]{8}", key))
            == sorted(key for key in theirs[place] if key)
            for place in theirs
        )
    return (
        isinstance(theirs, list)
        and isinstance(ours, list)
        and len(ours) == len(theirs) == 4
        and theirs[:3] == [*ours[:2], ""]
        and ours[2].startswith("-")
        and theirs[3] == ours[3]
    )


def _lines(value: tp.Any) -> list[str]:
    text = (
        value
        if isinstance(value, str)
        else json.dumps(value, indent=1, ensure_ascii=False).replace("\\n", "\n")
    )
    return text.splitlines()


class Search:
    """Asks both sides, and counts what came out."""

    def __init__(self, reference: str, folder: Path) -> None:
        # what leads this interpreter to our source must not lead the reference there
        without_path = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.sides = Side(sys.executable, folder, os.environ), Side(reference, folder, without_path)
        self.counts: collections.Counter[str] = collections.Counter()
        self.differs = False

    def check(self, cases: list[Json]) -> None:
        """Raise an AssertionError where the two differ."""
        for side in self.sides:
            side.ask(cases)
        ours, theirs = (side.answers() for side in self.sides)
        for case, mine, other in zip(cases, ours, theirs, strict=True):
            self.counts[
                "release refuses" if "error" in other else "ours refuses" if "error" in mine else "both"
            ] += 1
            difference = differences(mine, other)
            if difference is not None:
                shown = case["source"].removeprefix(texts.HEADER) if "source" in case else ""
                rest = {name: value for name, value in case.items() if name != "source"}
                if not self.differs:
                    print(f"{shown}\n{rest}\n{difference}\n... looking for a smaller case", file=sys.stderr)
                self.differs = True
                raise AssertionError(f"{shown}\n{rest}\n{difference}")

    def close(self) -> None:
        """End both sides."""
        for side in self.sides:
            side.close()


KINDS: dict[str, tuple[st.SearchStrategy[Json], int]] = {
    "configurations": (models.configurations(), 20_000),
    "items": (keys.items(), 20_000),
    "short": (keys.long_texts(), 2_000),
    "confdict": (keys.confdicts(), 5_000),
    "chains": (chains.chains(), 5_000),
}


def run(search: Search, name: str, examples: int, seed: int) -> bool:
    """Search one kind of cases; tell whether none differs."""
    strategy, _ = KINDS[name]

    @hypothesis.settings(
        max_examples=ROUND,
        deadline=None,
        database=None,
        suppress_health_check=tp.cast(tp.Any, list(hypothesis.HealthCheck)),  # typed as of its metaclass
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
        report_multiple_bugs=False,
    )
    @hypothesis.given(st.lists(strategy, min_size=1, max_size=2 * AT_ONCE))
    def same(cases: list[Json]) -> None:
        search.check(cases)

    search.counts.clear()
    begin = time.monotonic()
    while search.counts.total() < examples:
        try:
            hypothesis.seed(seed)(same)()
        except AssertionError as error:
            print(f"\n{name} differs (seed {seed}):\n{error}", flush=True)
            return False
        seed += 1
        print(
            f"... {name}: {search.counts.total()} cases, {time.monotonic() - begin:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    told = ", ".join(f"{count} {what}" for what, count in search.counts.most_common())
    print(f"{name}: {told}, no difference, {time.monotonic() - begin:.0f} s", flush=True)
    return True


def main() -> int:
    """Search what is asked for; the exit code tells whether anything differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--reference-python",
        default=os.environ.get("EXCA_REFERENCE_PYTHON"),
        help="an interpreter that has the published release (or the variable EXCA_REFERENCE_PYTHON)",
    )
    parser.add_argument("--only", help=f"of {', '.join(KINDS)}, with commas between")
    parser.add_argument("--examples", type=int, help="cases of each kind")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not options.reference_python:
        parser.error("name an interpreter that has the published release by --reference-python")
    query = "import importlib.metadata as m; print(m.version('exca'))"
    said = subprocess.run(
        [options.reference_python, "-c", query], capture_output=True, text=True, check=False, cwd="/"
    )
    if said.stdout.strip() != RELEASE:
        parser.error(
            f"{options.reference_python} has not exca {RELEASE}: {said.stdout.strip() or said.stderr.strip()}"
        )
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="exca-identity-", dir=memory) as folder:
        search = Search(options.reference_python, Path(folder))
        try:
            names = options.only.split(",") if options.only else list(KINDS)
            outcomes = [run(search, name, options.examples or KINDS[name][1], options.seed) for name in names]
        finally:
            search.close()
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
