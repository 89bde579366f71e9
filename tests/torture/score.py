"""Reading the journal: what was computed, how often, by whom, and how long it took to take over."""

import dataclasses
import itertools
import statistics
from pathlib import Path

LOST = 1.5  # seconds before a kill whose results may not have been written yet


@dataclasses.dataclass(frozen=True)
class Computation:
    """One computation of one key; ``end`` is when its process was killed for one that was never finished."""

    key: str
    pid: int
    actor: str
    start: float
    end: float
    finished: bool


@dataclasses.dataclass
class Score:
    """What a case came to, over its runs."""

    case: str
    runs: int = 0
    killed: int = 0
    stopped: int = 0
    wanted: int = 0
    computed: int = 0
    allowed: int = 0
    answers: int = 0
    wrong: int = 0
    duplicates: int = 0
    lost: int = 0
    stuck: int = 0
    hijacked: int = 0
    takeovers: list[float] = dataclasses.field(default_factory=list)
    failures: list[str] = dataclasses.field(default_factory=list)
    note: str = ""

    @property
    def good(self) -> bool:
        """No wrong answer, no duplicate, nothing lost or done at a stranger's bidding, nobody stuck, no error."""
        bad = (self.wrong, self.duplicates, self.lost, self.stuck, self.hijacked)
        return not (any(bad) or self.failures)


def read(journal: Path, killed: dict[int, float]) -> list[Computation]:
    """All computations that were noted, those of killed processes ended by the kill."""
    found = []
    for path in sorted(journal.iterdir()):
        pid = int(path.name.partition("-")[0])
        last = killed.get(pid, float("inf"))
        open_: tuple[str, float] | None = None
        for line in path.read_text().splitlines():
            what, key, at = line.split()
            if what == "S":
                if open_ is not None:  # raised in the middle
                    found.append(Computation(open_[0], pid, path.name, open_[1], float(at), False))
                open_ = (key, float(at))
            elif what == "E" and open_ is not None:
                found.append(Computation(key, pid, path.name, open_[1], float(at), True))
                open_ = None
        if open_ is not None:
            found.append(Computation(open_[0], pid, path.name, open_[1], last, False))
    return sorted(found, key=lambda c: c.start)


def judge(score: Score, journal: Path, killed: dict[int, float], wanted: int) -> None:
    """Add one run to a score.

    A key may be computed again for each computation that a kill cut off, or whose result a kill may have kept from
    being written; anything beyond is a duplicate, and so are two computations of one key at the same time.
    """
    by_key: dict[str, list[Computation]] = {}
    for computation in read(journal, killed):
        by_key.setdefault(computation.key, []).append(computation)
    score.runs += 1
    score.killed += len(killed)
    score.wanted += wanted
    first_after: dict[int, float] = {}
    for key, found in by_key.items():
        lost = [c for c in found if c.pid in killed and (not c.finished or c.end > killed[c.pid] - LOST)]
        score.computed += len(found)
        score.allowed += len(lost)
        extra = max(0, len(found) - 1 - len(lost))
        overlaps = sum(b.start < a.end for a, b in itertools.pairwise(found))
        score.duplicates += max(extra, overlaps)
        if extra or overlaps:
            score.failures.append(f"{key} was computed more than once: {found}, {killed}")
        for before, after in itertools.pairwise(found):
            if before.pid in killed and not before.finished:
                seconds = after.start - killed[before.pid]
                first_after[before.pid] = min(seconds, first_after.get(before.pid, seconds))
    score.takeovers += first_after.values()


def lost_answers(journal: Path, since: float) -> list[str]:
    """Keys for which somebody had an answer (noted as A), and that were computed again later than this."""
    answered: set[str] = set()
    again: set[str] = set()
    for path in journal.iterdir():
        for line in path.read_text().splitlines():
            what, key, at = line.split()
            if what == "A" and float(at) < since:
                answered.add(key)
            elif what == "S" and float(at) >= since:
                again.add(key)
    return sorted(answered & again)


def table(scores: list[Score]) -> str:
    """The report."""
    head = ["case", "runs", "killed", "stopped", "items", "computed", "lost by kills", "answers"]
    head += [
        "take over: median",
        "max (s)",
        "wrong",
        "duplicates",
        "lost",
        "stuck",
        "hijacked",
        "errors",
        "note",
    ]
    rows = [head]
    for s in scores:
        median = f"{statistics.median(s.takeovers):.3f}" if s.takeovers else "-"
        longest = f"{max(s.takeovers):.3f}" if s.takeovers else "-"
        numbers = (s.runs, s.killed, s.stopped, s.wanted, s.computed, s.allowed, s.answers)
        bad = (s.wrong, s.duplicates, s.lost, s.stuck, s.hijacked, len(s.failures))
        rows.append([s.case, *(f"{n:,}" for n in numbers), median, longest, *map(str, bad), s.note])
    widths = [max(len(row[n]) for row in rows) for n in range(len(head))]
    lines = []
    for row in rows:
        middle = [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *middle, row[-1]]).rstrip())
    return "\n".join(lines)
