"""One of the two sides: does what it is asked on standard input with the exca of its interpreter, and says the outcome.

Run by `search.py`, in a process of its own for each release. Only the public interface is used.
"""

import sys

sys.tracebacklimit = 0  # messages of the release are compared, its source is not shown

import importlib.util  # noqa: E402
import json  # noqa: E402
import logging  # noqa: E402
import shutil  # noqa: E402
import tempfile  # noqa: E402
import types  # noqa: E402
import typing as tp  # noqa: E402
import warnings  # noqa: E402
from pathlib import Path  # noqa: E402

Json = dict[str, tp.Any]

FOLDER = "<folder>"
FILES = ("uid.yaml", "full-uid.yaml", "config.yaml")


def module_of(source: str, folder: Path) -> types.ModuleType:
    """Run the source of a case as the module `case`."""
    module = types.ModuleType("case")
    module.__dict__["FOLDER"] = str(folder)
    sys.modules["case"] = module
    exec(compile(source, "case.py", "exec"), module.__dict__)
    return module


def written(folder: Path) -> dict[str, str]:
    """Return the configuration files below a folder."""
    paths = sorted(path for name in FILES for path in folder.rglob(name))
    return {
        str(path.relative_to(folder)): path.read_text("utf8").replace(str(folder), FOLDER) for path in paths
    }


def _without(value: tp.Any, names: tp.Collection[str]) -> tp.Any:
    """Return a configuration without fields of infras, wherever these are."""
    if isinstance(value, dict):
        return {key: _without(each, names) for key, each in value.items() if key not in names}
    return [_without(each, names) for each in value] if isinstance(value, list) else value


def config(case: Json, folder: Path) -> Json:
    """Build the object `obj` of a module; return its uid, its configurations and the files beside its result."""
    obj = module_of(case["source"], folder).__dict__["obj"]
    infra = obj.infra
    out: Json = {"uid": infra.uid()}
    out["uid_config"] = infra.config(uid=True, exclude_defaults=True).to_yaml()
    out["full_uid_config"] = infra.config(uid=True, exclude_defaults=False).to_yaml()
    shown = infra.config(uid=False, exclude_defaults=False)
    new = getattr(infra, "_exca_new_fields", ())  # which the release does not know
    known = type(shown)(_without(dict(shown), new))
    out["config"] = known.to_yaml().replace(str(folder), FOLDER)
    flat = infra.config(uid=True, exclude_defaults=True).flat()
    out["flat"] = json.dumps(flat, default=str)  # a copy of the release has lists in place of tuples
    if case["run"]:
        list(obj.run(["item"])) if case["run"] == "map" else obj.run()
        out["files"] = written(folder)
    return out


def items(case: Json, folder: Path) -> Json:
    """Return the keys of the values in a module's list `values`."""
    from exca.confdict import UidMaker
    from exca.utils import ShortItemUid

    out = []
    for value in module_of(case["source"], folder).__dict__["values"]:
        try:
            maker = UidMaker(value)
            key = maker.format()
            short = [ShortItemUid(str, length)(maker.hash) for length in case["lengths"]]
            out.append([maker.string, maker.hash, key, short])
        except Exception as error:  # a value that has no key is an outcome too
            out.append([type(error).__name__])
    return {"keys": out}


def short(case: Json, folder: Path) -> Json:
    """Return long texts as keys."""
    from exca.utils import ShortItemUid

    return {"keys": [ShortItemUid(str, length)(text) for text in case["texts"] for length in case["lengths"]]}


def confdict(case: Json, folder: Path) -> Json:
    """Do to a ConfDict what the statements of a case say; return what it is after each."""
    import exca

    module = module_of(case["source"], folder)
    known: Json = {**module.__dict__, "ConfDict": exca.ConfDict}
    said: list[tp.Any] = []
    for statement in case["statements"]:
        try:
            if statement.startswith("="):
                result = repr(eval(statement[1:], known))
            else:
                exec(statement, known)
                result = ""
        except Exception as error:
            said.append([type(error).__name__])
            break
        said.append([result, repr(known["config"])])
    return {"said": said}


_library: list[types.ModuleType] = []


def chain(case: Json, folder: Path) -> Json:
    """Run the pipeline of a case; return its value, and where it was kept under which keys."""
    if not _library:
        path = Path(__file__).with_name("step_library.py")
        spec = importlib.util.spec_from_file_location("step_library", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["step_library"] = module
        spec.loader.exec_module(module)
        _library.append(module)
    made = module_of("from step_library import *\n" + case["source"], folder).__dict__
    values = [made["step"].run(*arguments) for arguments in made["inputs"]]
    keys: Json = {}
    for path in sorted(folder.rglob("*-info.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        place = keys.setdefault(str(path.parent.relative_to(folder)), [])
        place.extend(line["#key"] for line in lines if "#key" in line)
    return {
        "values": repr(values),
        "folders": sorted(str(p.parent.relative_to(folder)) for p in folder.rglob("cache") if p.is_dir()),
        "keys": {place: sorted(set(found)) for place, found in keys.items()},
        "files": written(folder),
    }


KINDS: dict[str, tp.Callable[[Json, Path], Json]] = {
    "config": config,
    "items": items,
    "short": short,
    "confdict": confdict,
    "chain": chain,
}


def answer(case: Json, home: Path) -> Json:
    """Return what becomes of a case, in a folder of its own."""
    folder = Path(tempfile.mkdtemp(dir=home))
    try:
        return KINDS[case["kind"]](case, folder)
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error).replace(str(folder), FOLDER)[:1000]}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Answer one line of JSON with another, until there is no more."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    answers = sys.stdout
    sys.stdout = sys.stderr
    home = Path(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps([answer(case, home) for case in json.loads(line)]), file=answers, flush=True)


if __name__ == "__main__":
    main()
