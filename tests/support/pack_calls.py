"""What the tests of several calls in one job have it call, importable by jobs."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path


@dataclasses.dataclass
class Note:
    """Notes what its process is like in a file, waits for a gate where it has one, and ends in the way it is told."""

    path: Path
    gate: Path | None = None
    end: str = "return"

    def __call__(self) -> None:
        print("noting", self.path.name)
        cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        content = {"pid": os.getpid(), "parent": os.getppid(), "cpus": cpus, "env": dict(os.environ)}
        content |= {"drawn": random.random(), "command": Path("/proc/self/cmdline").read_text()}
        if self.end == "orphan":
            left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            content["left"] = left.pid
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps(content))
        draft.rename(self.path)
        held = [b"x" * (10 << 20)] if self.end == "grow" else []
        while held and len(held) < 60:
            held.append(bytes([len(held)]) * (10 << 20))
        while self.gate is not None and not self.gate.exists():
            time.sleep(0.01)
        if self.end in ("kill", "orphan"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.end == "exit":
            os._exit(17)
        if self.end == "raise":
            raise ValueError("of no matter to its neighbours")
