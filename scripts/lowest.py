"""Print each requirement of pyproject.toml at the lowest version that it allows, as constraints for pip.

Transitive requirements are not among them: pip takes their newest versions that fit.
"""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = project["optional-dependencies"]
for requirement in sorted({*project["dependencies"], *(each for extra in extras.values() for each in extra)}):
    bound = re.fullmatch(r"([\w.-]+)>=([\w.]+)", requirement)
    if bound is not None:
        print(f"{bound[1]}=={bound[2]}")
