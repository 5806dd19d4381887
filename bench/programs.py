"""The bench's own programs, compiled when they are first needed, once a run."""
from __future__ import annotations

import shutil
import subprocess
import sysconfig
import tempfile
from functools import lru_cache
from pathlib import Path

from bench.processes import Failed, find

HERE = Path(__file__).parent


@lru_cache(None)
def _directory() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="bench-programs-")          # removed at exit


@lru_cache(None)
def c(name: str) -> Path:
    """bench/c/NAME.c. Failed where it cannot be compiled."""
    gcc, program = find("gcc", "gcc libc6-dev"), Path(_directory().name) / name
    done = subprocess.run([gcc, "-O2", "-pthread", "-o", program, HERE / "c" / f"{name}.c"], capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{name}.c does not compile: {done.stderr}")
    return program


@lru_cache(None)
def module(name: str) -> Path:
    """bench/c/NAME.c as a module for this Python. Failed where it cannot be compiled."""
    gcc, made = find("gcc", "gcc libc6-dev"), Path(_directory().name) / f"{name}.so"
    done = subprocess.run([gcc, "-O2", "-shared", "-fPIC", "-I", sysconfig.get_path("include"), "-o", made, HERE / "c" / f"{name}.c"],
                          capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{name}.c does not compile: {done.stderr}")
    return made


@lru_cache(None)
def go() -> Path:
    """bench/go. Failed where it cannot be compiled."""
    compiler, program = shutil.which("go"), Path(_directory().name) / "load"
    if compiler is None:
        raise Failed("there is no go on PATH")
    done = subprocess.run([compiler, "build", "-o", program, "."], cwd=HERE / "go", capture_output=True, text=True)
    if done.returncode:
        raise Failed("bench/go does not compile: " + done.stderr)
    return program
