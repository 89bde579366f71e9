"""redun: the function is a task, the database a file."""

import sys

import redun
from redun.config import Config

import compared


def main() -> None:
    _, folder, text = sys.argv[1:]
    scheduler = redun.Scheduler(Config({"backend": {"db_uri": f"sqlite:///{folder}/redun.db"}}))
    scheduler.load()
    task = redun.task(name="compute", namespace="compared")(compared.compute)
    compared.show(lambda: scheduler.run(task(compared.value(text))))
