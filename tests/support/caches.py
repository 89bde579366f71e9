"""Caches that tests of several files fill."""

import pathlib
import typing as tp

from exca.cachedict import CacheDict


def fill(folder: pathlib.Path, **values: tp.Any) -> CacheDict[tp.Any]:
    """Return a cache that holds what is given."""
    cd = CacheDict[tp.Any](folder)
    with cd.write():
        for key, value in values.items():
            cd[key] = value
    return cd
