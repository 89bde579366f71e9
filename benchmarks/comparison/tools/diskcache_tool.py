"""diskcache: the function is memoized."""

import sys

import diskcache

import compared


def main() -> None:
    _, folder, text = sys.argv[1:]
    cache = diskcache.Cache(folder, eviction_policy="none")
    compared.show(lambda: cache.memoize()(compared.compute)(compared.value(text)))
