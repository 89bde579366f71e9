"""What runs in the night: trainings that note when they begin and end."""

import json
import os
import time
import typing as tp
from pathlib import Path

import pydantic

import exca

HUNGRY = 700  # MB that a hungry training takes the first time, more than its job asked for


class Training(pydantic.BaseModel):
    """One training; where it writes its notes is no part of its uid."""

    model_config = pydantic.ConfigDict(extra="forbid")
    _exclude_from_cls_uid: tp.ClassVar[tuple[str, ...]] = ("notes",)

    index: int
    kind: tp.Literal["plain", "wrong", "hungry", "resumes"] = "plain"
    seconds: float = 1.0
    notes: Path = Path("notes.jsonl")
    infra: exca.TaskInfra = exca.TaskInfra()

    def note(self, what: str) -> int:
        """Append a line to the notes, in one write; returns how often this training began before."""
        before = [line for line in read_notes(self.notes) if line["index"] == self.index]
        line = {
            "index": self.index,
            "what": what,
            "time": time.time(),
            "pid": os.getpid(),
            "job": os.environ.get("SLURM_JOB_ID", ""),
        }
        fd = os.open(self.notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(fd, json.dumps(line).encode() + b"\n")
        finally:
            os.close(fd)
        return sum(line["what"] == "began" for line in before)

    def work(self, done: float = 0.0) -> None:
        """Pass the time of the training, and note how far it is where it can resume."""
        folder = self.infra.uid_folder()
        state = folder / "progress" if folder is not None and self.kind == "resumes" else None
        if state is not None and state.exists():
            done = float(state.read_text())
        while done < self.seconds:
            time.sleep(0.2)
            done += 0.2
            if state is not None:
                draft = state.with_suffix(f".{os.getpid()}")
                draft.write_text(str(done))
                draft.rename(state)

    @infra.apply
    def train(self) -> float:
        """Train; the result tells the index."""
        before = self.note("began")
        if self.kind == "wrong":
            raise ValueError(f"training {self.index} diverges")
        if self.kind == "hungry" and not before:
            held = bytearray(HUNGRY * 1_000_000)
            held[::4096] = b"x" * len(held[::4096])
            time.sleep(60)  # ended by then
        self.work()
        self.note("ended")
        return self.index * 1.5


def read_notes(path: Path) -> list[dict[str, tp.Any]]:
    """Return the notes so far; the last line may be one that is being written."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.endswith("}")]


def trainings(
    count: int, folder: Path, length: float = 1.0, *, alone: int = 0, **infra: tp.Any
) -> list[Training]:
    """Return so many trainings, 2 to 8 s times the length each: most are plain, some raise, some take too much memory
    the first time, some resume. One of so many ``alone`` has a job for itself, whatever the infra tells.
    """
    unpacked = {"tasks_per_job": None, "concurrent_per_job": None}
    kinds: dict[int, str] = {3: "wrong", 7: "hungry", 11: "resumes", 14: "resumes"}
    return [
        Training.model_validate(
            {
                "index": k,
                "kind": kinds.get(k % 20, "plain"),
                "seconds": length * (2 + k % 7),
                "notes": folder / "notes.jsonl",
                "infra": {
                    "folder": folder / "cache",
                    **infra,
                    **(unpacked if alone and k % alone == alone - 1 else {}),
                },
            }
        )
        for k in range(count)
    ]
