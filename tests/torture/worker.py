"""What a worker of the crowd does, by its plan."""

import dataclasses
import json
import os
import random
import shutil
import signal
import threading
import time
import typing as tp
from pathlib import Path

from computing import Needing, Number, Numbers, Stage, note, same

import exca
from exca.cachedict import CacheDict, datafiles
from exca.cachedict import index as cache_index
from exca.claims import Claims, claimfile
from exca.errors import ChangedDefaultError, InconsistentConfigError, SubmissionError
from exca.jobs import slurm, slurm_queue

import exca.map  # isort: skip # everything that workers need is imported before they are forked
import exca.task  # isort: skip


@dataclasses.dataclass
class Plan:
    """What to do.

    Parameters
    ----------
    out: file for the outcome
    folder: cache folder
    journal: folder of the journal
    seed: of all choices
    kind: "ask" (tasks and items until all are there), "submit" (the same in jobs, without waiting), "damage"
    tasks, items, steps: numbers asked for, as tasks, as items of a map, as inputs of a pipeline
    needing: numbers asked for as items of two maps that need each other's
    threads: threads that ask at once
    seconds: that a computation takes, at most
    cluster: where it is computed
    host, beat: the host to be on, and its seconds between two beats
    clock: seconds by which time.time() is wrong; 0 where a library sees to it
    rounds: files to damage
    tolerant: errors of the file system, and of submissions, are counted, not raised
    patience: seconds that a command of Slurm may take; 0 for the usual ones
    """

    out: str
    folder: str
    journal: str
    seed: int = 0
    kind: str = "ask"
    tasks: list[int] = dataclasses.field(default_factory=list)
    items: list[int] = dataclasses.field(default_factory=list)
    steps: list[int] = dataclasses.field(default_factory=list)
    needing: list[int] = dataclasses.field(default_factory=list)
    threads: int = 1
    seconds: float = 0.0
    cluster: str | None = None
    host: str = ""
    beat: float = 5.0
    clock: float = 0.0
    rounds: int = 0
    tolerant: bool = False
    patience: float = 0.0


class Outcome:
    """What came of it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts = {"answers": 0, "wrong": 0, "refused": 0, "errors": 0}
        self.said: list[str] = []

    def add(self, name: str, number: int = 1, said: str = "") -> None:
        """Count something."""
        with self.lock:
            self.counts[name] += number
            if said and len(self.said) < 20:
                self.said.append(said)

    def check(self, value: tp.Any, n: int) -> None:
        """Count an answer, and whether it is wrong."""
        self.add("answers")
        if not same(value, n):
            self.add("wrong", said=f"{n}: {value!r}"[:200])


def run(raw: dict[str, tp.Any]) -> None:
    """Do what the plan says, and write down what came of it."""
    plan, outcome = Plan(**raw), Outcome()
    os.environ["EXCA_HEARTBEAT"] = str(plan.beat)
    if plan.host:
        os.environ["EXCA_HOST_ID"] = plan.host
    if plan.clock:
        true_time = time.time
        time.time = lambda: true_time() + plan.clock
    if plan.patience:
        slurm_queue.TIMEOUT = slurm_queue.ACCOUNTING_TIMEOUT = slurm.SBATCH_TIMEOUT = plan.patience
    if plan.kind == "damage":
        damage(plan, outcome)
    else:
        in_threads(plan, outcome)
    partial = Path(plan.out + ".tmp")
    partial.write_text(json.dumps({**outcome.counts, "said": outcome.said}))
    partial.rename(plan.out)


def in_threads(plan: Plan, outcome: Outcome) -> None:
    """Ask in as many threads as the plan says."""
    failures: list[BaseException] = []

    def one(number: int) -> None:
        try:
            ask(plan, random.Random(plan.seed * 100 + number), outcome)
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=one, args=(k,)) for k in range(1, plan.threads)]
    for thread in threads:
        thread.start()
    one(0)
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def ask(plan: Plan, rng: random.Random, outcome: Outcome) -> None:
    """Ask for all tasks and items, in an order and in portions that chance decides."""
    sizes = [*(rng.randint(0, len(plan.items)) for _ in range(4)), len(plan.items)]
    portions = [rng.sample(plan.items, size) for size in sizes]
    actions: list[tuple[str, tp.Any]] = [("task", n) for n in plan.tasks]
    actions += [("items", portion) for portion in portions if portion]
    actions += [("steps", rng.sample(plan.steps, len(plan.steps)))] if plan.steps else []
    for name in ("x", "y") if plan.needing else ():
        actions.append(("needing", (name, rng.sample(plan.needing, len(plan.needing)))))
    rng.shuffle(actions)
    for kind, what in actions:
        try:
            ASK[kind](plan, what, rng, outcome)
        except (OSError, SubmissionError) as e:
            if not plan.tolerant:
                raise
            outcome.add("errors", said=f"{type(e).__name__}: {e}"[:200])


def ask_task(plan: Plan, n: int, rng: random.Random, outcome: Outcome) -> None:
    """Ask for one task."""
    infra = exca.TaskInfra(folder=plan.folder, cluster=tp.cast(tp.Any, plan.cluster))
    task = Number(n=n, journal=plan.journal, seconds=rng.uniform(0.2, 1) * plan.seconds, infra=infra)
    if plan.kind == "submit":
        job = task.infra.job()
        note(plan.journal, f"J t{n}-{job.job_id}")
        return
    outcome.check(task.compute(), n)
    note(plan.journal, f"A t{n}")


def ask_items(plan: Plan, items: list[int], rng: random.Random, outcome: Outcome) -> None:
    """Ask for some items."""
    infra = exca.MapInfra(
        folder=plan.folder, keep_in_ram=False, cluster=tp.cast(tp.Any, plan.cluster), max_jobs=2
    )
    numbers = Numbers(journal=plan.journal, seconds=rng.uniform(0.2, 1) * plan.seconds, infra=infra)
    for n, value in zip(items, numbers.compute(items), strict=True):
        outcome.check(value, n)
        note(plan.journal, f"A m{n}")


def ask_needing(plan: Plan, what: tuple[str, list[int]], rng: random.Random, outcome: Outcome) -> None:
    """Ask one of two maps that need each other's items."""
    name, items = what
    cluster = rng.choice((None, "threadpool"))
    infra = {"folder": plan.folder, "cluster": cluster, "max_jobs": 2}
    seconds = rng.uniform(0.2, 1) * plan.seconds
    obj = Needing.model_validate({"name": name, "journal": plan.journal, "seconds": seconds, "infra": infra})
    for n, value in zip(items, obj.compute(items), strict=True):
        outcome.check(value, n)
        note(plan.journal, f"A n{name}{n}")


def ask_steps(plan: Plan, inputs: list[int], rng: random.Random, outcome: Outcome) -> None:
    """Ask for some inputs through a stage."""
    infra = {"backend": "Cached", "folder": plan.folder}
    stage = Stage(journal=plan.journal, seconds=rng.uniform(0.2, 1) * plan.seconds, infra=infra)
    for n, value in zip(inputs, stage.run_many(inputs), strict=True):
        outcome.check(value, n)
        note(plan.journal, f"A p{n}")


ASK: dict[str, tp.Any] = {"task": ask_task, "items": ask_items, "steps": ask_steps, "needing": ask_needing}


# ---------------------------------------------------------------- damage


def damage(plan: Plan, outcome: Outcome) -> None:
    """Damage a file, forget all that this process has read, ask for everything; again and again."""
    rng = random.Random(plan.seed)
    folder, whole = Path(plan.folder), Path(plan.folder + ".whole")
    ask(dataclasses.replace(plan, folder=str(whole)), rng, outcome)
    fresh = False
    for turn in range(plan.rounds):
        if turn % 25 == 0 or not fresh:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(whole, folder, symlinks=True)
            leave_a_claim(next(folder.glob("*Numbers*/*")))
            fresh = True
        path = rng.choice([p for p in sorted(folder.rglob("*")) if p.is_file()])
        what = hurt(path, rng)
        forget()
        try:
            ask_everything(plan, rng, outcome)
        except (InconsistentConfigError, ChangedDefaultError) as e:
            # what a configuration file says may not be changed: that is told, and never worked around
            outcome.add("refused", said=f"{what} {path.name}: {type(e).__name__}")
            fresh = False


def leave_a_claim(folder: Path) -> None:
    """Leave the claim file of a dead process, so that one can be damaged."""
    pid = os.fork()
    if not pid:
        Claims(folder).acquire(["0", "left"])
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


def ask_everything(plan: Plan, rng: random.Random, outcome: Outcome) -> None:
    """Ask for all tasks, and for all items at once."""
    for n in plan.tasks:
        ask_task(plan, n, rng, outcome)
    if plan.items:
        ask_items(plan, plan.items, rng, outcome)


def hurt(path: Path, rng: random.Random) -> str:
    """Damage a file in one of many ways; the way is returned."""
    data = path.read_bytes()
    ways = ("truncate", "bit", "garbage", "empty", "vanish", "append", "zeros")
    way = rng.choices(ways, (4, 8, 4, 1, 2, 2, 2))[0]
    at = rng.randrange(len(data)) if data else 0
    if way == "vanish":
        path.unlink()
        return way
    if way == "truncate":
        data = data[:at]
    elif way == "bit" and data:
        data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    elif way == "garbage":
        size = rng.randint(1, 200)
        data = data[:at] + rng.randbytes(size) + data[at + size :]
    elif way == "zeros":
        data = data[:at] + bytes(min(rng.randint(1, 5000), len(data) - at)) + data[at + 5000 :]
    elif way == "empty":
        data = b""
    elif way == "append":
        data += rng.choice((b"\n", b"{", b'{"#key":"3"}\n', b"[1]\n", rng.randbytes(30)))
    path.write_bytes(data)
    return way


def forget() -> None:
    """Forget what this process has read of any folder: as another process would see it."""
    cache_index._registry.clear()
    claimfile._decided.clear()
    datafiles._maps.clear()


__all__ = ["CacheDict", "Outcome", "Plan", "run"]
