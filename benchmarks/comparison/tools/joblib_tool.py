"""joblib.Memory: the function is decorated."""

import sys

import joblib

import compared


def main() -> None:
    _, folder, text = sys.argv[1:]
    memory = joblib.Memory(folder, verbose=0)
    compared.show(lambda: memory.cache(compared.compute)(compared.value(text)))
