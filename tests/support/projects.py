"""Small projects whose code is digested: written to a folder, imported anew, changed."""

import importlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import textwrap
import typing as tp
from pathlib import Path

from exca.codedigest import CodeDigest, digest_of

SOURCE = str(Path(__file__).parents[2] / "src")
_number = itertools.count()

SHOW = """
import importlib, json, sys
from exca.codedigest import digest_of
module, _, name = sys.argv[1].partition(":")
cls_name, _, method = name.rpartition(".")
cls = importlib.import_module(module)
for each in cls_name.split("."):
    cls = vars(cls)[each]
code = digest_of(cls, next(vars(c)[method] for c in cls.__mro__ if method in vars(c)))
found = "exca.codedigest.reach" not in sys.modules
content = code.content
assert content.digest() == code.digest
print(json.dumps([code.digest, code.method, content.parts, content.unresolved, content.sources, found]))
"""


def interpreters() -> dict[str, str]:
    """Return the interpreters of this machine, from Python 3.11 on, by their versions."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    paths = [shutil.which(f"python3.{minor}") for minor in range(11, 20)]
    paths += [str(path) for path in sorted(pyenv.glob("3.*/bin/python"))]
    found: dict[str, str] = {}
    for path in filter(None, [sys.executable, *paths]):
        ran = subprocess.run(
            [path, "-c", "import sys; print(*sys.version_info[:3])"],
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode == 0 and (version := tuple(map(int, ran.stdout.split()))) >= (3, 11):
            found.setdefault(".".join(map(str, version)), path)
    return found


class Shown(tp.NamedTuple):
    """What another process found."""

    digest: str
    method: str
    parts: dict[str, str]
    unresolved: dict[str, list[str]]
    sources: dict[str, str]
    found: bool  # whether an earlier process had found it


def unresolved(code: CodeDigest | Shown) -> dict[str, list[str]]:
    """Return what is unresolved, but for what is so since a test has just written the file."""
    found = code.unresolved if isinstance(code, Shown) else code.content.unresolved
    kept = {name: [each for each in texts if "changed after" not in each] for name, texts in found.items()}
    return {name: texts for name, texts in kept.items() if texts}


class Project:
    """A folder with modules.

    Parameters
    ----------
    folder
        where they are
    """

    def __init__(self, folder: Path) -> None:
        self.folder: Path = folder
        folder.mkdir(exist_ok=True, parents=True)

    def write(self, files: dict[str, str]) -> None:
        """Write modules; one is written under another inode, as editors do."""
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(exist_ok=True, parents=True)
            draft = path.with_name(f"draft-{next(_number)}")
            draft.write_text(textwrap.dedent(text), encoding="utf-8")
            os.replace(draft, path)

    def forget(self) -> None:
        """Have all modules imported anew."""
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None) or ""
            if file.startswith(f"{self.folder}/"):
                del sys.modules[name]
        importlib.invalidate_caches()

    def load(self, name: str, module: str = "model") -> type:
        """Import a class."""
        before = sys.dont_write_bytecode
        sys.dont_write_bytecode = True  # a file that changes twice a second has one time
        sys.path.insert(0, str(self.folder))
        try:
            found: tp.Any = importlib.import_module(module)
        finally:
            sys.path.remove(str(self.folder))
            sys.dont_write_bytecode = before
        for part in name.split("."):
            found = getattr(found, part)
        return tp.cast("type", found)

    def digest(
        self, method: str = "Model.run", module: str = "model", held: tp.Iterable[str] = (), **options: tp.Any
    ) -> CodeDigest:
        """Return the digest of a method of a class, of what is on disk; ``held`` names classes in the object."""
        self.forget()
        sys.path.insert(0, str(self.folder))
        try:
            name, _, attribute = method.rpartition(".")
            cls = self.load(name, module)
            function = next(vars(each)[attribute] for each in cls.__mro__ if attribute in vars(each))
            extra = [self.load(each, module) for each in held]
            code = digest_of(cls, function, extra_classes=extra, **options)
        finally:
            sys.path.remove(str(self.folder))
        return code

    def elsewhere(
        self, method: str = "model:Model.run", python: str = sys.executable, **variables: str
    ) -> Shown:
        """Return what a process of its own finds."""
        environment = {**os.environ, **variables, "PYTHONPATH": f"{self.folder}{os.pathsep}{SOURCE}"}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"  # a file that changes twice a second has one time
        command = [python, "-c", SHOW, method]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")
        assert ran.returncode == 0, ran.stderr
        return Shown(*json.loads(ran.stdout))
