"""Installed packages that register a backend, as folders to be put on the path."""

from pathlib import Path


def installed(folder: Path, name: str, cluster: str, value: str, code: str = "") -> Path:
    """Lay out an installed package.

    Parameters:
        folder: where, to be put on ``sys.path``.
        name: of the distribution, and of its one module.
        cluster: the name of the backend that it registers.
        value: what the entry point names, "module:object".
        code: of the module.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(code)
    about = folder / f"{name}-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(f"[exca.backends]\n{cluster} = {value}\n")
    return folder
