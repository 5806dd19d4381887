"""pyright over the public interface: the typed examples in strict mode, and no attribute of a public class whose type must be guessed.

(basedpyright, because it comes from PyPI whole, node included.)
"""
from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pooledhttp

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [str(Path(sys.executable).with_name("basedpyright")), "--pythonpath", sys.executable]


def examples() -> int:
    return subprocess.run([*COMMAND, "--level", "error"], cwd=ROOT).returncode


def interface() -> int:
    """pyright's own measure of a package with `py.typed`, as far as it is about what `pooledhttp` exports."""
    public = {f"{cls.__module__}.{cls.__qualname__}" for name in pooledhttp.__all__ if isinstance(cls := getattr(pooledhttp, name), type)}
    with tempfile.TemporaryDirectory() as folder:
        # It looks for packages where they are installed, and not where an editable one is.
        (Path(folder) / "pooledhttp").symlink_to(ROOT / "pooledhttp")
        done = subprocess.run([*COMMAND, "--verifytypes", "pooledhttp", "--ignoreexternal", "--outputjson"], cwd=folder, capture_output=True, text=True,
                              env={**os.environ, "PYTHONPATH": folder})
    symbols = json.loads(done.stdout)["typeCompleteness"]["symbols"]
    wrong = 0
    for symbol in symbols:
        owner, _, name = symbol["name"].rpartition(".")
        if owner in public and not name.startswith("_"):
            for diagnostic in symbol["diagnostics"]:
                if "missing type annotation" in diagnostic["message"]:
                    wrong += 1
                    print(f"{symbol['name']}: {diagnostic['message'].splitlines()[0]}")
    seen = sum(symbol["name"].rpartition(".")[0] in public for symbol in symbols)
    print(f"pyright: {seen} members of {len(public)} public classes, {wrong} without a type")
    return min(1, wrong) if seen > len(public) else 1


if __name__ == "__main__":
    sys.exit(examples() or interface())
