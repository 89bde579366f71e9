"""What the ``exca`` logger says, where to, and what silences it."""

import signal
import subprocess
from pathlib import Path

import pytest

import elsewhere
from waiting import wait_for


def run(tmp_path: Path, code: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run code in an interpreter of its own, with tasks and maps on local jobs in a folder."""
    program = f"""
import logging
from task_models import Double
infra = dict(folder={str(tmp_path / "cache")!r}, cluster="local")
here = dict(folder={str(tmp_path / "cache")!r})
{code}
"""
    (tmp_path / "cache").mkdir(exist_ok=True)
    done = elsewhere.run(program, **env)
    assert done.returncode == 0, done.stderr
    return done


ARRAY = """
task = Double(infra=infra)
with task.infra.job_array() as array:
    array.extend(task.infra.clone_obj(x=x) for x in range(3))
print([t.compute() for t in array])
"""


def test_a_submission_is_one_line_on_stderr(tmp_path: Path) -> None:
    done = run(tmp_path, ARRAY)
    assert done.stdout == "[0, 2, 4]\n"
    [line] = done.stderr.splitlines()
    assert "Submitted 3 job(s)" in line
    assert "to local: array" in line
    assert f"logs in {tmp_path / 'cache'}/task_models.Double.compute,1/logs" in line


def test_hits_and_work_in_process_are_silent(tmp_path: Path) -> None:
    run(tmp_path, ARRAY)
    done = run(tmp_path, ARRAY + "print(Double(x=50, infra=here).compute())")
    assert (done.stdout, done.stderr) == ("[0, 2, 4]\n100\n", "")


def test_a_variable_silences_it(tmp_path: Path) -> None:
    assert run(tmp_path, ARRAY, EXCA_LOG="warning").stderr == ""


@pytest.mark.parametrize(("level", "lines"), [("WARNING", 0), ("INFO", 1)])
def test_the_application_decides_where_it_has_set_up_logging(tmp_path: Path, level: str, lines: int) -> None:
    setup = f"import exca.task\nlogging.basicConfig(level='{level}', stream=sys.stdout, format='app: %(message)s')\n"
    done = run(tmp_path, setup + ARRAY)
    assert done.stderr == ""
    assert done.stdout.count("app: Submitted 3 job(s)") == lines


def test_a_handler_on_the_logger_itself_is_enough(tmp_path: Path) -> None:
    setup = "logging.getLogger('exca').addHandler(logging.StreamHandler(sys.stdout))\n"
    done = run(tmp_path, setup + ARRAY)
    assert done.stderr == ""
    assert done.stdout.count("Submitted 3 job(s)") == 1


def test_an_interruption_says_that_the_job_goes_on(tmp_path: Path) -> None:
    program = f"""
from task_models import Sleeper
infra = dict(folder={str(tmp_path)!r}, cluster="local")
Sleeper(gate={str(tmp_path / "gate")!r}, infra=infra).run()
"""
    process = elsewhere.start(program)
    wait_for((tmp_path / "gate.1.started").exists, "the job to start")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert "goes on without this interpreter" in err
    assert "To end it: job.cancel(), of a task infra.job().cancel()" in err
    (tmp_path / "gate").touch()
    wait_for(lambda: list(tmp_path.rglob("job.json")), "the job to go on to its end")


def test_messages_of_storage_alone_look_the_same(tmp_path: Path) -> None:
    (tmp_path / "damaged-info.jsonl").write_text('{"#key": "a"\n')
    done = elsewhere.run(f"from exca.cachedict import CacheDict\nlen(CacheDict({str(tmp_path)!r}))")
    assert done.stderr.startswith("exca WARNING: Skipped a damaged line at byte 0 of")
