"""A task whose publication is recorded."""

import numpy as np
import numpy.typing as npt
import pydantic

import exca


class Task(pydantic.BaseModel):
    """Counts, and returns something small and something in a file of its own."""

    x: int = 1
    infra: exca.TaskInfra = exca.TaskInfra()

    @infra.apply
    def run(self) -> tuple[str, npt.NDArray[np.float64]]:
        return "done", np.arange(self.x, dtype=float)
