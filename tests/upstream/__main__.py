"""Fetches requests' and httpx's source distributions from PyPI, and runs their own tests over our adapters.

`make upstream-suites` makes the environment first (an interpreter of its own: their tests want plugins that ours do not). Arguments name the
suites; those after "--" go to pytest. Everything they write is under build/upstream.
"""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
WORK = ROOT / "build" / "upstream"
# The version whose differences are known, and how many of its tests send a request through the adapter at least.
SUITES = {"requests": ("2.34.2", 144), "httpx": ("0.28.1", 45)}


def sources(name: str, version: str) -> Path:
    """The unpacked source distribution."""
    folder = WORK / f"{name}-{version}"
    if not folder.is_dir():
        WORK.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps", "--no-binary", name,
                        "--dest", WORK, f"{name}=={version}"], check=True)
        fresh = WORK / "unpacked"
        shutil.rmtree(fresh, ignore_errors=True)
        with tarfile.open(WORK / f"{name}-{version}.tar.gz") as archive:
            archive.extractall(fresh, filter="data")
        (fresh / f"{name}-{version}").rename(folder)
    return folder


def run(name: str, arguments: list[str]) -> int:
    """pytest's exit status."""
    version, reached = SUITES[name]
    folder = sources(name, version)
    # `tests` is theirs in there: nothing of ours but the plugin and the package may be found.
    links = WORK / "path"
    links.mkdir(exist_ok=True)
    for target in (ROOT / "pooledhttp", HERE / "pooledhttp_upstream.py"):
        if not (links / target.name).is_symlink():
            (links / target.name).symlink_to(target)
    variables = {**os.environ, "PYTHONPATH": str(links), "POOLEDHTTP_UPSTREAM": name, "POOLEDHTTP_REACHED": str(0 if arguments else reached),
                 "POOLEDHTTP_DIFFERENCES": str(HERE / f"{name}.txt")}
    print(f"{name} {version}", flush=True)
    command = [sys.executable, "-m", "pytest", "-p", "pooledhttp_upstream", "-p", "no:cacheprovider", "-W", "ignore", "-q", "--tb=short"]
    return subprocess.run([*command, *(arguments or ["tests"])], cwd=folder, env=variables).returncode


def main(arguments: list[str]) -> int:
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return max([run(name, arguments[at + 1:]) for name in arguments[:at] or SUITES])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
