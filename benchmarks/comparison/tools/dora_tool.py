"""dora: an experiment with a signature of its arguments."""

import argparse
import sys
from pathlib import Path

import dora

import compared


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    made.add_argument("--x", type=int)
    made.add_argument("--scale", type=float, default=compared.SCALE)
    return made


def main() -> None:
    _, folder, text = sys.argv[1:]
    sys.argv[1:] = [f"--x={text}"]

    def app() -> None:
        options = dora.get_xp().cfg
        result = compared.compute(options.x, options.scale)
        compared.show(lambda: result)

    dora.argparse_main(dir=Path(folder), parser=parser())(app)()
