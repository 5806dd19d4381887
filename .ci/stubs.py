"""Holds the stubs of the compiled modules true: mypy's stubtest over each .pyx, which must have a .pyi."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    modules = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in sorted((ROOT / "pooledhttp").rglob("*.pyx"))]
    missing = [m for m in modules if not (ROOT / (m.replace(".", "/") + ".pyi")).exists()]
    if missing:
        print("compiled modules without a stub: " + ", ".join(missing))
        return 1
    command = [sys.executable, "-m", "mypy.stubtest", "--concise", "--ignore-disjoint-bases",
               "--allowlist", str(ROOT / ".ci/stubtest-allowlist"), "--ignore-unused-allowlist", *modules]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
