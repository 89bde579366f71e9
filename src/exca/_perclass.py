"""What is worked out once per class, kept on the class itself, so that it dies with it.

Keys that are weak are not enough where what is kept refers to the class, as a method does by its module.
"""

import typing as tp


class Kept(dict[tp.Any, tp.Any]):
    """Empty after its class is pickled by value: every process works out its own."""

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return Kept, ()


def kept(cls: type, name: str) -> Kept:
    """What is kept under a name for a class, and not for its parents."""
    found = cls.__dict__.get(name)
    if found is None:
        found = Kept()
        type.__setattr__(cls, name, found)  # a model's own way looks at its fields first
    return tp.cast(Kept, found)
