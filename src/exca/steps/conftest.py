"""Helpers for the tests of packages that build on steps."""

import random
import typing as tp
from pathlib import Path

from .base import Chain, Step


def extract_cache_folders(folder: Path | str) -> tuple[str, ...]:
    """Return the folders below a folder that hold results.

    Parameters
    ----------
    folder: Path or str
        folder of an infra

    Returns
    -------
    tuple of str
        sorted, relative to the folder: those in which a ``cache`` lies
    """
    folder = Path(folder)
    return tuple(
        sorted(str(path.parent.relative_to(folder)) for path in folder.rglob("cache") if path.is_dir())
    )


class Add(Step):
    """Adds a number."""

    value: float = 1.0

    def _run(self, x: float) -> float:
        return x + self.value


class Mult(Step):
    """Multiplies by a number."""

    coeff: float = 2.0

    def _run(self, x: float) -> float:
        return x * self.coeff


class RandomGenerator(Step):
    """Gives a number that is another one each time it is computed, unless it is seeded."""

    seed: int | None = None

    def _run(self) -> float:
        return random.Random(self.seed).random()  # noqa: S311 - nothing secret


class AddWithTransforms(Add):
    """Adds a number, then runs its transforms: stands for a chain of them."""

    transforms: list[Step] = []

    def _resolve_step(self) -> Step:
        if not self.transforms:
            return self
        return Chain(
            steps=[self.model_copy(update={"transforms": tp.cast("list[Step]", [])}), *self.transforms]
        )
