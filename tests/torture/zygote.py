"""A process that has imported everything and forks a worker a line: a crowd would spend its time importing otherwise.

Reads one JSON object a line on stdin and answers with one line: {"plan": {...}} with the worker's pid, {} with
the exit codes of those that have ended since, by pid.
"""

import faulthandler
import json
import os
import signal
import sys
import traceback
import typing as tp

import worker


def main() -> None:
    """Fork until stdin ends."""
    for line in sys.stdin:
        order = json.loads(line)
        answer: tp.Any = fork(order["plan"]) if "plan" in order else ended()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def fork(plan: dict[str, tp.Any]) -> int:
    """Start a worker."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        log = os.open(plan["out"] + ".log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(log, 1)
        os.dup2(log, 2)
        faulthandler.register(signal.SIGUSR1, all_threads=True)  # where a stuck one stands
        worker.run(plan)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended() -> dict[int, int]:
    """Reap those that have ended."""
    codes: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return codes
        if not pid:
            return codes
        codes[pid] = os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    main()
