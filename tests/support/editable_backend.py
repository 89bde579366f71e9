"""A build backend of a page (PEP 517 and 660), for tests that install packages without fetching anything.

A project of ``src`` layout is installed editable through a path in a ``.pth`` file, or, if ``finder`` is in
its name, through a finder that maps its module to its folder: the two ways in which build backends do it.
"""

import base64
import hashlib
import tomllib
import zipfile
from pathlib import Path

FINDER = """
import importlib.util
import sys


class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == {module!r}:
            return importlib.util.spec_from_file_location(
                name, {folder!r} + "/__init__.py", submodule_search_locations=[{folder!r}]
            )


sys.meta_path.append(Finder)
"""


def _project() -> tuple[str, str]:
    project = tomllib.loads(Path("pyproject.toml").read_text("utf8"))["project"]
    return project["name"].replace("-", "_"), project["version"]


def _wheel(folder: str, contents: dict[str, str]) -> str:
    module, version = _project()
    info = f"{module}-{version}.dist-info"
    contents |= {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for name, text in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(text.encode())}\n"
    filename = f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(Path(folder) / filename, "w") as wheel:
        for name, text in {**contents, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            wheel.writestr(name, text)
    return filename


def build_wheel(
    wheel_directory: str, config_settings: object = None, metadata_directory: str | None = None
) -> str:
    source = Path("src")
    modules = {str(path.relative_to(source)): path.read_text("utf8") for path in source.rglob("*.py")}
    return _wheel(wheel_directory, modules)


def build_editable(
    wheel_directory: str, config_settings: object = None, metadata_directory: str | None = None
) -> str:
    module, _ = _project()
    source = Path("src").absolute()
    if "finder" not in module:
        return _wheel(wheel_directory, {f"__editable__{module}.pth": f"{source}\n"})
    finder = f"__editable__{module}_finder"
    text = FINDER.format(module=module, folder=str(source / module))
    return _wheel(wheel_directory, {f"{finder}.py": text, f"__editable__{module}.pth": f"import {finder}\n"})
