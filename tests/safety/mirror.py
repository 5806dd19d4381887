"""The project's files in another directory, so that a build of another kind does not disturb the tree's own."""
from __future__ import annotations

import shutil
from pathlib import Path

from tests.meta.sources import PACKAGE, ROOT, files


def mirror(where: Path) -> None:
    """Makes `where` as the tree is: what was written, and Cython's C for it. What was built there stays, and what changed is built again."""
    wanted = list(files()) + [c for c in PACKAGE.rglob("*.c") if c.with_suffix(".pyx").exists()]
    for path in wanted:
        target = where / path.relative_to(ROOT)
        said = path.stat()
        if not target.exists() or (target.stat().st_mtime_ns, target.stat().st_size) != (said.st_mtime_ns, said.st_size):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
    kept = {where / path.relative_to(ROOT) for path in wanted}
    for path in files(where):
        if path not in kept and path.suffix != ".c":
            path.unlink()
