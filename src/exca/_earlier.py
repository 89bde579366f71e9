"""Names of the published releases, for the modules that they could be imported from."""

import importlib
import typing as tp


def earlier_names(module: str) -> tp.Callable[[str], tp.Any]:
    """Make the ``__getattr__`` of a module, which asks `kept` for what the module does not hold itself.

    Kept for dependants; it costs nothing until such a name is looked for.
    """

    def look_up(name: str) -> tp.Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return importlib.import_module("exca.kept").lookup(module, name)

    return look_up
