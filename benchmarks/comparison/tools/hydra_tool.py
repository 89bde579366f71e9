"""hydra: a structured configuration, submitted by the submitit plugin; points drawn by the Optuna plugin."""

import dataclasses
import os
import sys

import hydra
from hydra.core.config_store import ConfigStore

import compared


@dataclasses.dataclass
class Config:
    x: int = 0
    scale: float = compared.SCALE


ConfigStore.instance().store(name="config", node=Config)


def app(config: Config) -> float:
    result = compared.compute(config.x, config.scale)
    compared.show(lambda: result)
    return float(config.x)


def main() -> None:
    mode, folder, text = sys.argv[1:]
    arguments = {
        "here": [f"x={text}"],
        "slurm": ["-m", f"x={text}", "hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=5"],
        "search": [
            "-m",
            "hydra/sweeper=optuna",
            "hydra.sweeper.n_trials=3",
            "hydra.sweeper.n_jobs=1",
            "x=range(1,9)",
        ],
    }[mode]
    arguments += [f"hydra.run.dir={folder}/run", f"hydra.sweep.dir={folder}/sweep"]
    # hydra wants to be the program
    os.execv(sys.executable, [sys.executable, "program.py", *arguments])  # noqa: S606 # no shell on purpose


if __name__ == "__main__":
    hydra.main(version_base=None, config_path=None, config_name="config")(app)()
