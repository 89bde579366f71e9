"""Something odd under each name that is read: skipped, reported, set aside or a named error, and nothing hangs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ODD = """
import os, pathlib, resource, signal, socket, sys, traceback
import numpy as np
import pydantic
import exca
import exca.helpers
from exca import errors, steps
from exca.claims.owner import Process
from exca.engine import record
from exca.jobs import before_end, entry, pack
from exca.jobs.paths import JobPaths


class Task(pydantic.BaseModel):
    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def build(self) -> int:
        return 3


class Map(pydantic.BaseModel):
    x: int = 1
    infra: exca.MapInfra = exca.MapInfra()

    @infra.apply(item_uid=str)
    def build(self, items):
        for item in items:
            yield np.arange(item)


class Add(steps.Step):
    x: int = 1

    def _run(self, value: int) -> int:
        return value + self.x


class OfTask:
    def __init__(self, root):
        self.root = root

    def new(self, **infra):
        return Task(x=2, infra={"folder": self.root, **infra})

    def ask(self):
        return self.new().build()

    def folder(self):
        return self.new().infra.uid_folder()

    def others(self):
        task = self.new()
        yield "status", task.infra.status
        asking = Task(infra={"folder": self.root})
        yield "iter_cached", lambda: [found.infra.status() for found in asking.infra.iter_cached()]
        yield "retry", lambda: self.new(mode="retry").build()
        yield "job", lambda: self.new().infra.job().result()
        yield "job_array", lambda: [t.infra.job() for t in array(task.infra)]
        yield "stdout", lambda: self.new().infra.job().stdout()
        yield "find_slurm_job", lambda: exca.helpers.find_slurm_job(job_id="12", folder=self.root)

    def last(self):
        yield "clear_job", self.new().infra.clear_job


def array(infra):
    with infra.job_array() as tasks:
        tasks.append(Task(x=2, infra={"folder": infra.folder}))
    return tasks


class OfMap:
    def __init__(self, root):
        self.root = root

    def new(self):
        return Map(x=2, infra={"folder": self.root})

    def ask(self):
        return [array.tolist() for array in self.new().build([1, 2])] == [[0], [0, 1]] and 3

    def folder(self):
        return self.new().infra.uid_folder()

    def others(self):
        yield "len", lambda: len(self.new().infra.cache_dict)
        yield "items", lambda: list(self.new().infra.cache_dict.items())
        yield "iter_cached", lambda: list(Map(infra={"folder": self.root}).infra.iter_cached())

    def last(self):
        def delete():
            cache = self.new().infra.cache_dict
            for key in list(cache):
                del cache[key]
        yield "delete", delete


class OfStep:
    def __init__(self, root):
        self.root = root

    def new(self):
        return Add(infra={"backend": "Cached", "folder": self.root})

    def ask(self):
        return self.new().run(2)

    def folder(self):
        return pathlib.Path(self.new().lookup(2).paths.step_folder)

    def others(self):
        yield "status", lambda: self.new().lookup(2).status
        yield "cached", lambda: self.new().lookup(2).cached()
        yield "job", lambda: self.new().lookup(2).job()

    def last(self):
        yield "clear", lambda: self.new().lookup(2).clear_cache()


class OfJob:  # that begins again
    def __init__(self, root):
        self.root = root

    def folder(self):
        return self.root / "12"

    def ask(self):
        self.folder().mkdir(exist_ok=True)
        before_end.note_requeue(JobPaths(str(self.root / "%j"), "12"), None, 1.0)
        noted = record.requeues(self.folder(), "attempt", {})
        return 3 if {each["state"] for each in noted} <= {"requeued"} else noted

    def others(self):
        yield "has_saved", lambda: before_end.has_saved(self.folder() / "warned")
        yield "read_exit", lambda: pack.read_exit(self.folder())
        yield "noted_process", lambda: entry.noted_process(self.folder() / "pid")

    def last(self):
        return []


GARBAGE = [b"", b"\\0" * 100, b"{", b"[]", b"- 1\\n", b'{"job_id": [], "logs": 3}', b"\\x80\\x05K\\x01."]
GARBAGE += [bytes(range(256)), b'{"state": [], "started": 1e300}']


def plant(kind, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name("moved-away"))
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # an address is short
        socket.socket(socket.AF_UNIX).bind(path.name)
        os.chdir(here)
    elif kind == "device":
        os.mknod(path, 0o20666, os.makedev(1, 5))  # without an end: /dev/zero
    elif kind == "folder":
        path.mkdir()
        (path / "inside").write_text("x")
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(3 << 30)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "foreign":
        secret = pathlib.Path(sys.argv[1]) / "elsewhere"
        secret.write_text("x: 3")
        path.symlink_to(secret)
        os.lchown(path, 64_322, 64_322)
    else:
        path.write_bytes(GARBAGE[int(kind)])


def attempt(name, action, allowed=()):
    signal.alarm(20)  # nothing here takes a second
    try:
        return action()
    except Exception as e:
        if vars(errors).get(type(e).__name__) is not type(e) and not isinstance(e, allowed):
            print(f"{where}: {name} raised {type(e).__name__}: {e}")
            traceback.print_exc(limit=-4, file=sys.stdout)
        elif not str(e):
            print(f"{where}: {name}: {type(e).__name__} says nothing")
        return e
    finally:
        signal.alarm(0)


def stuck(number, frame):
    print(f"{where}: stuck")
    traceback.print_stack(frame, limit=6, file=sys.stdout)
    raise KeyboardInterrupt


signal.signal(signal.SIGALRM, stuck)
root, of, name, *kinds = sys.argv[1:]
for number, kind in enumerate(kinds):
    for before in (True, False):
        where = f"{kind} {'before' if before else 'after'}"
        kinds_of_places = {"task": OfTask, "map": OfMap, "step": OfStep, "job": OfJob}
        place = kinds_of_places[of](pathlib.Path(root) / f"{number}-{before}")
        place.root.mkdir()
        folder = place.folder()
        if not before:
            assert place.ask() == 3
        path = folder / name
        if name.startswith("*"):
            if before:
                continue
            path = max(folder.rglob(name), key=lambda path: len(str(path)))
        elif "HOST" in name:  # the owner of a damaged claim is known by its name: a process of this host that is dead
            path = folder / name.replace("HOST", Process.current().host)
        plant(kind, path)
        attempt("verify", lambda: exca.verify(place.root))
        for action, call in place.others():
            attempt(action, call)
        found = attempt("call", place.ask)
        if not isinstance(found, Exception) and found != 3:
            print(f"{where}: call gave {found!r}")
        repairs = attempt("repair", lambda: exca.repair(place.root, orphans=True))
        if not isinstance(repairs, Exception):
            str(repairs)
            found = attempt("call after repair", place.ask)
            # other configurations are told apart, and what another user has put there is left
            differs = isinstance(found, (errors.InconsistentConfigError, errors.ChangedDefaultError))
            # what no configuration of ours is beside may be the user's
            bare = isinstance(found, errors.OddFileError) and not (folder / "uid.yaml").exists()
            if found != 3 and kind != "foreign" and not differs and not bare:
                print(f"{where}: call after repair gave {found!r}\\n{repairs}")
        for action, call in place.last():
            attempt(action, call)
        if kind == "foreign" and (pathlib.Path(root) / "elsewhere").read_text() != "x: 3":
            print(f"{where}: what a stranger's link leads to was changed")
most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> (10 if sys.platform == "linux" else 20)
print("done" if most < 1500 else f"took {most} MiB")
"""

KINDS = ["fifo", "socket", "folder", "sparse", "dangling", "loop", *map(str, range(9))]
if hasattr(os, "geteuid") and os.geteuid() == 0:
    KINDS += ["device", "foreign"]
CONFIGS = ["uid.yaml", "full-uid.yaml", "config.yaml", "config-new.yaml", "classes.json", ".identity.json"]
CLAIM = "HOST-1-2-abcdef.1.aa.claim"
NAMES = {
    "task": [
        *CONFIGS,
        "job.json",
        "job.pkl",
        "submission.json",
        "code",
        "submitit",
        "data",
        CLAIM,
        f".me.{CLAIM}.tmp",
        "job.json.damaged-1",
        "../logs",
        "../code",
    ],
    "map": [
        *CONFIGS,
        "x-info.jsonl",
        "*-info.jsonl",
        "*.data",
        "data",
        CLAIM,
        ".exca-index",
        ".exca-index-turn",
    ],
    "step": [
        *CONFIGS,
        "cache",
        "errors",
        "errors/x-info.jsonl",
        "cache/x-info.jsonl",
        "logs",
        "logs/1/items.json",
    ],
    "job": ["requeues.jsonl", "leaving", "warned", "exit", "pid"],
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
@pytest.mark.parametrize(("of", "name"), [(of, name) for of, names in NAMES.items() for name in names])
def test_planted(of: str, name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", ODD, str(tmp_path), of, name, *KINDS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stdout + done.stderr[-3000:]
