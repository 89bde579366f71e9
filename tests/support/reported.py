"""A folder with all that a report shows, and texts that would do harm in a page that does not escape them."""

import typing as tp
from pathlib import Path

import exca
import trained
from exca.catalog import sweeps

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "<img src=x onerror=alert(1)>",
    "\x1b[2J\x00\x07",
    "\u202eevil\u202c\u2028",
    "'\"`{{7*7}}{% raw %}",
    "x" * 1_000_000,
]


class Logs(trained.Train):
    """A training that logs its loss, with results that have names."""

    infra: exca.TaskInfra = exca.TaskInfra(version="2")

    @infra.apply
    def scores(self) -> dict[str, float]:
        """Log twenty steps."""
        for step in range(20):
            exca.log_metrics(step, loss=self.rate / (step + 1), odd=float("nan") if step == 3 else step)
        return {"loss": self.rate / 20, "accuracy": 1 - self.rate / 20}


def logged(folder: Path, **fields: tp.Any) -> Logs:
    """Return a training that logs, with results in a folder."""
    return Logs.model_validate({**fields, "infra": {"folder": folder}})


def make_study(folder: Path) -> Path:
    """Fill a folder: what `trained.make` makes, six trainings that log, and a sweep with a point that is missing."""
    trained.make(folder)
    made = [logged(folder, rate=rate, title=title) for rate in (0.1, 0.2, 0.4) for title in ("", "wide")]
    for each in made:
        each.scores()
    uids = [str(tp.cast(Path, each.infra.uid_folder()).relative_to(folder)) for each in made]
    found = sweeps.Sweep("wide", "/somewhere/wide.yaml", "reported:Logs.scores", [*uids, "gone,0/default"])
    sweeps.write(str(folder), found)
    return folder
