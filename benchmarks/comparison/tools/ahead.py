"""What other tools do and this one does not, or not as well: one function plays one claim of ``run.py``.

``run.py --ahead`` runs ``python ahead.py NAME FOLDER`` with the interpreter of the tool, in an empty folder, and takes
the line behind ``SEEN`` as what was seen. Only the standard library and the tool itself can be imported here.
"""

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import time
import typing as tp
import urllib.request
from collections.abc import Callable
from pathlib import Path


def until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def groups(folder: Path) -> str:
    import hydra

    (folder / "model").mkdir()
    (folder / "config.yaml").write_text("defaults:\n  - model: small\n  - _self_\nrate: 0.1\n")
    (folder / "model" / "small.yaml").write_text("layers: 2\n")
    (folder / "model" / "large.yaml").write_text("layers: 48\n")
    with hydra.initialize_config_dir(str(folder), version_base=None):
        layers = [
            hydra.compose("config", overrides=[f"model={name}"]).model.layers for name in ("small", "large")
        ]
    assert layers == [2, 48]
    return "`model=large` takes another file"


def interpolation(folder: Path) -> str:
    import hydra

    (folder / "config.yaml").write_text("rate: 0.1\nname: run_${rate}\n")
    with hydra.initialize_config_dir(str(folder), version_base=None):
        assert hydra.compose("config", overrides=["rate=0.5"]).name == "run_0.5"
    return "`${rate}` follows `rate=0.5`"


def instantiated(folder: Path) -> str:
    import hydra

    (folder / "config.yaml").write_text(
        "size: {_target_: fractions.Fraction, numerator: 1, denominator: 4}\n"
    )
    with hydra.initialize_config_dir(str(folder), version_base=None):
        assert hydra.utils.instantiate(hydra.compose("config").size) == 0.25
    return "`_target_: fractions.Fraction` is one"


def shared(_: Path) -> str:
    import joblib
    import numpy

    [kind] = joblib.Parallel(n_jobs=2)(joblib.delayed(type)(each) for each in [numpy.zeros(1_000_000)])
    assert kind is numpy.memmap
    return "workers get a `memmap`"


def compressed(folder: Path) -> str:
    import joblib
    import numpy

    sizes = []
    for compress in (False, True):
        memory = joblib.Memory(folder / str(compress), compress=compress, verbose=0)
        memory.cache(numpy.zeros)(1_000_000)
        sizes.append(size_of(folder / str(compress)))
    assert sizes[0] > 8_000_000 > 20 * sizes[1]
    return "8 MB of zeros take less than a twentieth with `compress=True`"


def reduced(folder: Path) -> str:
    import joblib
    import numpy

    memory = joblib.Memory(folder, verbose=0)
    cached = memory.cache(numpy.full)
    for k in range(10):
        cached(125_000, float(k))
    before = size_of(folder)
    memory.reduce_size(bytes_limit=3_000_000)
    assert before > 10_000_000
    assert size_of(folder) < 3_100_000
    return "10 MB are less than 3.1 MB after `reduce_size(3_000_000)`"


def expires(folder: Path) -> str:
    import joblib

    calls = []
    memory = joblib.Memory(folder, verbose=0)
    function = memory.cache(
        lambda: calls.append(1), cache_validation_callback=joblib.expires_after(microseconds=1)
    )
    function()
    function()
    assert len(calls) == 2
    return "computed again after the time that `expires_after` names"


def awaited(folder: Path) -> str:
    import asyncio

    import joblib

    calls = []

    async def double(x: int) -> int:
        calls.append(x)
        return 2 * x

    cached = joblib.Memory(folder, verbose=0).cache(double)

    async def both() -> list[int]:
        return [await cached(2), await cached(2)]

    assert asyncio.run(both()) == [4, 4]
    assert calls == [2]
    return "computed once for two awaits"


def evicted(folder: Path) -> str:
    import diskcache

    with diskcache.Cache(folder, size_limit=2_000_000, eviction_policy="least-recently-used") as cache:
        for k in range(200):
            cache[k] = os.urandom(100_000)
        kept, last = len(cache), 199 in cache
        assert last
        assert kept < 40
        assert cache.volume() < 4_000_000
    return "of 20 MB, less than 4 MB were kept, with the latest"


def counted(folder: Path) -> str:
    import diskcache

    code = f"import diskcache\nwith diskcache.Cache({str(folder)!r}) as c:\n for _ in range(100): c.incr('n')"
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    with diskcache.Cache(folder) as cache:
        assert cache["n"] == 300
    return "300 after three processes added 100 each"


def scheduler_of(folder: Path) -> tp.Any:
    import redun
    from redun.config import Config

    scheduler = redun.Scheduler(Config({"backend": {"db_uri": f"sqlite:///{folder}/redun.db"}}))
    scheduler.load()
    return scheduler


def files(folder: Path) -> str:
    import redun

    calls = []

    def counted_words(file: redun.File) -> int:
        calls.append(file.path)
        return len(tp.cast("str", file.read()).split())

    words = redun.task(namespace="ahead", name="words")(counted_words)
    scheduler, path = scheduler_of(folder), folder / "text.txt"
    found = []
    for text in ("a b", "a b", "a b c"):
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
        found.append(scheduler.run(words(redun.File(str(path)))))
    assert found == [2, 2, 3]
    assert len(calls) == 2
    return "computed again after the file changed, and only then"


def recursion(folder: Path) -> str:
    import redun

    calls = []

    def added(a: int, b: int) -> int:
        return a + b

    def number(n: int) -> tp.Any:
        calls.append(n)
        return n if n < 2 else add(fibonacci(n - 1), fibonacci(n - 2))

    add = redun.task(namespace="ahead", name="add")(added)
    fibonacci = redun.task(namespace="ahead", name="fibonacci")(number)
    assert scheduler_of(folder).run(fibonacci(12)) == 144
    assert len(calls) == 13
    return "13 calls for the 12th number of Fibonacci's, in a graph that grew while it ran"


def lineage(folder: Path) -> str:
    script = "import redun\n\n@redun.task(namespace='ahead')\ndef inner(x: int) -> int:\n    return x + 1\n\n"
    script += "@redun.task(namespace='ahead')\ndef outer(x: int) -> int:\n    return inner(inner(x))\n"
    (folder / "flow.py").write_text(script)
    program = str(Path(sys.executable).with_name("redun"))

    def said(*words: str) -> str:
        command = [program, *words]
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout

    assert said("run", "flow.py", "ahead.outer", "--x", "1").strip().endswith("3")
    jobs = re.findall(
        r"^Job \w+", said("log", "--no-pager", "--job", "--task-name", "ahead.inner"), re.MULTILINE
    )
    assert len(jobs) == 2
    return "`redun log` finds both calls of a task within another one"


def futures(folder: Path) -> str:
    import parsl
    from parsl.config import Config
    from parsl.executors import ThreadPoolExecutor

    with parsl.load(Config(executors=[ThreadPoolExecutor()], run_dir=str(folder))):
        double = parsl.python_app(lambda x: 2 * x)
        assert double(double(double(1))).result() == 8
    return "three calls, each on the future of the one before"


def pilot(folder: Path) -> str:
    import parsl
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import SlurmProvider

    provider = SlurmProvider(
        "debug",
        init_blocks=1,
        max_blocks=1,
        cores_per_node=2,
        walltime="00:05:00",
        exclusive=False,
        worker_init=f"export PATH={Path(sys.executable).parent}:$PATH",
    )
    executor = HighThroughputExecutor(provider=provider, max_workers_per_node=2, address="127.0.0.1")
    with parsl.load(Config(executors=[executor], run_dir=str(folder))):
        where = parsl.python_app(_where)
        found = {call.result() for call in [where() for _ in range(100)]}
    jobs, processes = {job for job, _ in found}, {process for _, process in found}
    assert len(jobs) == 1
    assert len(processes) <= 2
    return "100 calls in one job and two processes"


def providers(_: Path) -> str:
    import inspect

    import parsl.providers

    found = [
        name.removesuffix("Provider")
        for name in parsl.providers.__all__
        if {"min_blocks", "max_blocks"} <= set(inspect.signature(getattr(parsl.providers, name)).parameters)
    ]
    assert {"Slurm", "PBSPro", "LSF", "Kubernetes", "AWS"} <= set(found), found
    return f"{', '.join(found)}, with the fewest and most blocks (looked up, not submitted)"


def _where() -> tuple[str, int]:
    import os

    return os.environ["SLURM_JOB_ID"], os.getpid()


def chained(folder: Path) -> str:
    import executorlib

    with executorlib.SingleNodeExecutor(max_workers=2, cache_directory=str(folder)) as executor:
        first = executor.submit(_double, 1)
        assert executor.submit(_double, executor.submit(_double, first)).result() == 8
    return "three calls, each on the future of the one before"


def _double(x: int) -> int:
    return 2 * x


def shell(folder: Path) -> str:
    from pydra.compose import shell as commands

    echo = commands.define("echo <text:str>")
    assert echo(text="hello")(cache_root=folder).stdout.strip() == "hello"
    try:
        echo(text=[1])
    except TypeError:
        return "`echo <text:str>` runs; a list for the text is refused before"
    return "`echo <text:str>` runs"


def split(folder: Path) -> str:
    from pydra.compose import python

    def double(x: int) -> int:
        return 2 * x

    task = python.define(double)
    assert list(task().split(x=[1, 2, 3]).combine("x")(cache_root=folder).out) == [2, 4, 6]
    return "`split(x=[1, 2, 3]).combine('x')` gives three results"


def schedule(folder: Path) -> str:
    marks = folder / "marks.txt"
    marks.touch()
    script = f"import prefect\n\n@prefect.flow\ndef mark():\n    with open({str(marks)!r}, 'a') as f: f.write('x')\n\n"
    (folder / "flow.py").write_text(
        script + "if __name__ == '__main__':\n    mark.serve(name='marks', interval=2)\n"
    )
    env = os.environ | {"PREFECT_HOME": str(folder / "home"), "PREFECT_LOGGING_LEVEL": "CRITICAL"}
    port, python = "4299", sys.executable
    env["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    server = [python, "-m", "prefect", "server", "start", "--port", port]
    started = [subprocess.Popen(server, cwd=folder, env=env, start_new_session=True)]
    try:
        assert until(lambda: bool(answers(f"{env['PREFECT_API_URL']}/health")), 100)
        assert "<html" in answers(f"http://127.0.0.1:{port}/")
        started.append(subprocess.Popen([python, "flow.py"], cwd=folder, env=env, start_new_session=True))
        assert until(lambda: len(marks.read_text()) >= 2, 100)
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return "its server shows a page, and `flow.serve(interval=...)` ran a flow twice"


def answers(address: str) -> str:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310 # always http
            return str(answer.read().decode())
    except OSError:
        return ""


def sections(folder: Path) -> str:
    from seml.experiment.config import generate_configs

    config = {
        "fixed": {"seed": 1},
        "grid": {"rate": {"type": "choice", "options": [0.1, 0.2]}},
        "small": {
            "fixed": {"layers": 2},
            "grid": {"width": {"type": "range", "min": 1, "max": 4, "step": 1}},
        },
        "large": {
            "fixed": {"layers": 48},
            "random": {"samples": 2, "seed": 1, "drop": {"type": "uniform", "min": 0, "max": 1}},
        },
    }
    found = generate_configs(config)
    assert len(found) == 2 * 3 + 2 * 2
    return f"{len(found)} configurations of two sections: a grid in one, random points in the other"


def database(folder: Path) -> str:
    (folder / "config.yaml").write_text("seml: {executable: main.py, project_root_dir: .}\nfixed: {x: 1}\n")
    (folder / "main.py").write_text("")
    command = [str(Path(sys.executable).with_name("seml")), "study", "add", "config.yaml"]
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    text = done.stdout + done.stderr
    assert done.returncode, text
    assert re.search("mongo", text, re.IGNORECASE), text
    return "not played to its end: without a MongoDB server, `seml add` asks for one and ends"


def grid(folder: Path) -> str:
    package = folder / "study"
    (package / "grids").mkdir(parents=True)
    for name in ("__init__.py", "grids/__init__.py"):
        (package / name).touch()
    (package / "train.py").write_text(
        "import argparse\n\nimport dora\n\nparser = argparse.ArgumentParser()\n"
        "parser.add_argument('--rate', type=float, default=0.1)\n\n\n"
        f"@dora.argparse_main(dir={str(folder / 'runs')!r}, parser=parser)\n"
        "def main():\n    pass\n\n\nif __name__ == '__main__':\n    main()\n"
    )
    (package / "grids" / "rates.py").write_text(
        "from dora import Explorer\n\n\n@Explorer\ndef explorer(launcher):\n"
        "    for rate in (0.1, 0.2, 0.3):\n        launcher(rate=rate)\n"
    )
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "study"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    dora = Path(sys.executable).with_name("dora")
    done = subprocess.run(
        [dora, "-P", "study", "grid", "rates", "--dry_run", "--no_monitoring"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(folder)},
    )
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    assert len(set(re.findall(r"rate=0\.\d", text))) >= 2, text
    return "`dora grid` reads a function that yields points (not submitted)"


def requirements() -> str:
    """Return how many packages the tool of this environment needs, which Python, and the systems it names."""
    from pip._vendor.packaging.requirements import Requirement

    tool = sys.argv[2]
    needed, rest = set[str](), [tool]
    while rest:
        name = rest.pop()
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            key = re.sub(r"[-_.]+", "-", requirement.name).lower()
            if key not in needed and (
                requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            ):
                needed.add(key)
                rest.append(requirement.name)
    metadata = importlib.metadata.metadata(tool)
    systems = [
        text.rpartition(" :: ")[2]
        for text in metadata.get_all("Classifier") or []
        if text.startswith("Operating System")
    ]
    return f"{len(needed - {tool})}; {metadata['Requires-Python'] or 'any'}; {', '.join(systems) or 'none named'}"


def main() -> None:
    name, folder = sys.argv[1:]
    seen = requirements() if name == "requirements" else globals()[name](Path(folder))
    print(f"SEEN {seen}", flush=True)


if __name__ == "__main__":
    main()
