"""What the computed function calls, in a module of its own."""

import os
import typing as tp

import numpy


class Numbers:
    """What has no format of its own, and is pickled."""

    def __init__(self, numbers: tp.Any) -> None:
        self.numbers = numbers

    def tolist(self) -> list[float]:
        return [float(number) for number in self.numbers]


def result(x: int, factor: float) -> tp.Any:
    numbers = numpy.full(1000, x * factor * 1)
    return numbers if os.environ["KIND"] == "array" else Numbers(numbers)
