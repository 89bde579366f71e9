"""Submits the trainings of a night, waits for them and sends again what was lost, until all have ended."""

import collections
import json
import logging
import sys
import typing as tp
from pathlib import Path

import trainings


def main(folder: Path, count: int, length: float, at_once: int, infra: dict[str, tp.Any]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    objs = trainings.trainings(count, folder, length, **infra)
    base = objs[0]
    while True:
        with base.infra.job_array(max_workers=at_once) as array:
            array.extend(objs)
        array.wait()
        states = collections.Counter(obj.infra.status() for obj in objs)
        print("submitter:", dict(states), flush=True)
        if states["completed"] + states["failed"] == count:
            break
    print(array.summary(), flush=True)
    (folder / "collected.json").write_text(json.dumps(collect(objs)))
    return 0


def collect(objs: list[trainings.Training]) -> list[dict[str, tp.Any]]:
    """Return what a caller gets of each training: its result, or its error."""
    found: list[dict[str, tp.Any]] = []
    for obj in objs:
        try:
            found.append({"index": obj.index, "result": obj.train()})
        except Exception as e:
            found.append({"index": obj.index, "error": f"{type(e).__name__}: {e}"})
    return found


if __name__ == "__main__":
    _, where, *numbers, fields = sys.argv
    sys.exit(main(Path(where), int(numbers[0]), float(numbers[1]), int(numbers[2]), json.loads(fields)))
