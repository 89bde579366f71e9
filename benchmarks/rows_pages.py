"""Pages: the report of a folder, and the same served live."""

import asyncio
import contextlib
import io
import random
import re
import typing as tp
from pathlib import Path

import pydantic

import exca
from registry import row, seconds

RUNS = 5_000


class Study(pydantic.BaseModel):
    rate: float = 0.01
    dropout: float = 0.0
    width: int = 64
    optimizer: str = "adam"
    seed: int = 0
    infra: exca.TaskInfra = exca.TaskInfra(version="1")

    @infra.apply
    def run(self) -> dict[str, float]:
        if self.rate > 0.5:
            raise ValueError(f"the loss is not finite at step {self.seed % 90}")
        for step in range(20):
            exca.log_metrics(step, loss=1 / (step + 1) + self.rate)
        return {"loss": self.rate + self.dropout, "accuracy": 1 - self.rate}


def a_study(folder: Path) -> None:
    """Write runs that differ in five parameters, some of which failed."""
    chance = random.Random(1)  # noqa: S311 # a study that is the same each time
    for seed in range(RUNS):
        fields = {
            "rate": 10 ** chance.uniform(-4, 0),
            "dropout": chance.choice([0.0, 0.1, 0.2]),
            "width": chance.choice([16, 32, 64]),
            "optimizer": chance.choice(["adam", "sgd", "lion"]),
        }
        study = Study.model_validate({**fields, "seed": seed, "infra": {"folder": folder}})
        with contextlib.suppress(ValueError):
            study.run()


def report(folder: Path) -> Path:
    """Write a report with the command, and return its path."""
    from exca.cli import main

    target = folder.parent / "report.html"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["report", str(folder), "-o", str(target)]) == 0
    assert f"{RUNS:,} runs" in said.getvalue()
    return target


@row("exca report of 5,000 runs", limit=5.0, stage=a_study, rounds=3, beside=False)
def report_time(folder: Path) -> float:
    return seconds(lambda: report(folder))


@row("exca report of 5,000 runs: size", unit="MB", limit=5.0, stage=a_study, rounds=1, beside=False)
def report_size(folder: Path) -> float:
    return report(folder).stat().st_size / 1e6


async def ask(app: tp.Any, path: str) -> bytes:
    """Ask the live page, behind its gate, for an address."""
    parts: list[bytes] = []

    async def send(message: tp.Any) -> None:
        parts.append(message.get("body", b""))

    async def receive() -> tp.Any:
        return {"type": "http.request", "body": b""}

    await app(
        {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [], "root_path": ""},
        receive,
        send,
    )
    return b"".join(parts)


@row("exca ui of 5,000 runs: the table of a method, again", limit=1.0, stage=a_study, rounds=3, beside=False)
def live_table(folder: Path) -> float:
    """A look at the folder, the latest 1,000 runs with all their pictures."""
    from exca.pages.gate import Keys
    from exca.pages.live import make_app

    app = make_app(str(folder), Keys(), pause=0)
    link = re.search(rb"/runs/\w+", asyncio.run(ask(app, "/")))
    assert link is not None
    path = link[0].decode()
    assert b"5,000 of 5,000 runs fit" in asyncio.run(ask(app, path))
    return seconds(lambda: asyncio.run(ask(app, path)))
