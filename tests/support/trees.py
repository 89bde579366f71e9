"""Trees of files, for tests that copy and look for them."""

from pathlib import Path


def write(root: Path, **files: str) -> None:
    """Write files: ``a__b_py`` is ``a/b.py``."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_py", ".py").replace("_txt", ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def tree(folder: Path) -> list[str]:
    """Return the files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
