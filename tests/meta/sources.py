"""The project's own files, for the tests that read them."""
from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "pooledhttp"
MADE = {".git", ".venv", "build", "dist", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"}


def files(root: Path = ROOT) -> Iterator[Path]:
    """Every file below `root` that somebody wrote: not what builds and tools leave."""
    for path in sorted(root.iterdir()):
        if path.name in MADE or path.name.endswith(".egg-info"):
            continue
        if path.is_dir():
            yield from files(path)
        elif path.suffix not in (".so", ".html", ".pyc") and not (path.suffix == ".c" and path.with_suffix(".pyx").exists()):
            yield path


def module_name(path: Path, root: Path = ROOT) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def compiled() -> list[str]:
    """The names of the compiled modules."""
    return [module_name(p) for p in files(PACKAGE) if p.suffix == ".pyx"]


def load_setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pooledhttp_setup", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
