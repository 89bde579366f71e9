"""A grid of experiments on handwritten digits, each computed once: run it twice.

python examples/digits/study.py                  # on this machine, one process an experiment
CLUSTER=slurm python examples/digits/study.py    # on Slurm, as one job array
python examples/digits/study.py --folder DIR     # keep the results in DIR instead of ./demo-cache
"""

import argparse
import os
import sys
import time
import typing as tp

from rich.console import Console
from rich.live import Live
from rich.table import Table

import exca.cli
from digits import Experiment

NOISES = [0.0, 4.0]
MODELS: list[dict[str, tp.Any]] = [
    *({"name": "svm", "penalty": penalty} for penalty in (0.1, 1.0, 10.0)),
    *({"name": "forest", "trees": trees} for trees in (10, 50, 200)),
]
COLOURS = {"from cache": "cyan", "running": "yellow", "completed": "green", "failed": "red"}
DONE = ("from cache", "completed")


class Study:
    """The experiments of the grid and the last known state of each; what is missing is submitted at once."""

    def __init__(self, folder: str, cluster: str) -> None:
        infra = {"folder": folder, "cluster": cluster, "mode": "retry", "timeout_min": 10, "mem_gb": 1}
        base = Experiment.model_validate({"infra": infra})
        patches = [{"model": model, "data.noise": noise} for noise in NOISES for model in MODELS]
        self.experiments = [base.infra.clone_obj(patch) for patch in patches]
        known = [experiment.infra.status() == "completed" for experiment in self.experiments]
        self.states = ["from cache" if there else "submitted" for there in known]
        self.pending = [k for k, there in enumerate(known) if not there]
        with base.infra.job_array(max_workers=os.cpu_count() or 1, allow_empty=True) as array:
            array.extend(self.experiments[k] for k in self.pending)

    def ended(self) -> list[int]:
        """Ask for the states of what is pending, and return the indices of the experiments that just ended."""
        for k in self.pending:
            self.states[k] = self.experiments[k].infra.status()
        ended = [k for k in self.pending if self.states[k] in ("completed", "failed")]
        self.pending = [k for k in self.pending if k not in ended]
        return ended

    def row(self, k: int) -> list[str]:
        """Return the texts of one row: model, noise, state, seconds, accuracy."""
        experiment, state = self.experiments[k], self.states[k]
        name, *parameters = experiment.model.model_dump(exclude_none=True).items()
        model = " ".join([name[1], *(f"{key}={value}" for key, value in parameters)])
        row = [model, f"{experiment.data.noise:g}", f"[{COLOURS.get(state, 'default')}]{state}[/]"]
        if state not in DONE:
            return [*row, "", ""]
        score = experiment.score()  # computed already: read from the folder
        return [*row, f"{score['seconds']:.2f}", f"{score['accuracy']:.1%}"]

    def table(self) -> Table:
        """Return all rows as a table."""
        table = Table("model", "noise", "state", "seconds", "accuracy", title="Handwritten digits")
        for k in range(len(self.states)):
            table.add_row(*self.row(k))
        return table


def run(folder: str, cluster: str) -> bool:
    """Compute what is missing in `folder` on `cluster`, show it meanwhile, and return whether all went well."""
    console = Console()
    start = time.perf_counter()
    study = Study(folder, cluster)
    cached = study.states.count("from cache")
    with Live(study.table(), console=console, transient=True, auto_refresh=False) as live:
        while study.pending:
            time.sleep(0.1)
            for k in study.ended():
                if not console.is_terminal:  # a pipe or a file has no table to update in place
                    console.print(", ".join(study.row(k)))
            live.update(study.table(), refresh=console.is_terminal)
    console.print(study.table())
    console.print(
        f"{len(study.states)} experiments in {time.perf_counter() - start:.2f} s: "
        f"{cached} from the cache, {study.states.count('completed')} computed, "
        f"{study.states.count('failed')} failed (results and logs: {folder})",
        soft_wrap=True,
    )
    return "failed" not in study.states


def main() -> None:
    """Read the command line and run the study."""
    parser = argparse.ArgumentParser(description="A grid of experiments on handwritten digits.")
    parser.add_argument("--folder", default="demo-cache", help="where results and logs are kept")
    parser.add_argument("--report", help="where the page with all results goes (default: beside the folder)")
    parser.add_argument("--cluster", default=os.environ.get("CLUSTER", "local"), help="local, slurm or auto")
    options = parser.parse_args()
    went_well = run(options.folder, options.cluster)
    # the same as on the command line: exca report demo-cache -o demo-cache.html
    exca.cli.main(["report", options.folder, "-o", options.report or f"{options.folder.rstrip('/')}.html"])
    sys.exit(0 if went_well else 1)


if __name__ == "__main__":
    main()
