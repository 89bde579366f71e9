"""exca: a configuration with a TaskInfra (also the published release)."""

import os
import sys

import pydantic

import compared
import exca


class Compute(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    x: int
    scale: float = compared.SCALE
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> object:
        return compared.compute(self.x, self.scale)


def main() -> None:
    mode, folder, text = sys.argv[1:]
    infra = {"folder": folder, "cluster": "slurm" if mode == "slurm" else None}
    if os.environ["CODE"]:
        infra["code"] = os.environ["CODE"]
    compared.show(lambda: Compute.model_validate({"x": compared.value(text), "infra": infra}).run())
