"""Builds the compiled modules: every .pyx of the package is one extension.

Warnings are errors, the C compiler's and Cython's, and Cython's performance hints too: in a checkout. A build from an sdist,
where the compiler may be any, only shows them. What the environment can say:

POOLEDHTTP_WERROR    1: warnings are errors; 0: they are not
POOLEDHTTP_JOBS      modules built at once; without it, the cores of this machine
POOLEDHTTP_ANNOTATE  1: leave Cython's annotated HTML beside each .pyx
POOLEDHTTP_DEBUG     1: assertions of the locking rules (the macro PH_DEBUG), no optimisation
POOLEDHTTP_HTTP2     0: without HTTP/2; 1: an error where libnghttp2 is not found; without it, HTTP/2 where it is
POOLEDHTTP_SANITIZE  1: with AddressSanitizer and UndefinedBehaviorSanitizer; what is built runs as `python -m tests.safety.asan` starts it
"""
from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
PACKAGE = "pooledhttp"

DIRECTIVES = {"language_level": 3, "boundscheck": False, "wraparound": False, "initializedcheck": False, "cdivision": True,
              "embedsignature": True}
WARNINGS = ["-Wall", "-Wextra"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-wrapv"]       # Python's own flags let signed numbers wrap
COMPLAINT = re.compile(r"^(warning|performance hint): ", re.MULTILINE)


def _switch(name: str, default: bool) -> bool:
    return os.environ.get(name, "1" if default else "0") not in ("", "0")


def strict() -> bool:
    """Whether warnings are errors: in a checkout, unless the environment says otherwise. An sdist has PKG-INFO."""
    return _switch("POOLEDHTTP_WERROR", not (ROOT / "PKG-INFO").exists())


def jobs() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(os.environ.get("POOLEDHTTP_JOBS") or usable)


def nghttp2() -> dict[str, list[str]] | None:
    """How to build with libnghttp2, by pkg-config; None: without."""
    wanted = os.environ.get("POOLEDHTTP_HTTP2", "")
    if wanted == "0":
        return None
    try:
        said = subprocess.run(["pkg-config", "--cflags", "--libs", "libnghttp2 >= 1.40"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        said = None
    if said is None or said.returncode:
        why = "there is no pkg-config" if said is None else "pkg-config knows no libnghttp2 of 1.40 or later"
        if wanted:
            raise SystemExit(f"setup.py: POOLEDHTTP_HTTP2={wanted}, but {why} (Debian: libnghttp2-dev, pkgconf)")
        print(f"setup.py: HTTP/2 is left out: {why} (Debian: libnghttp2-dev, pkgconf)", file=sys.stderr)
        return None
    words = said.stdout.split()
    return {"include_dirs": [w[2:] for w in words if w.startswith("-I")],
            "library_dirs": [w[2:] for w in words if w.startswith("-L")],
            "libraries": [w[2:] for w in words if w.startswith("-l")]}


def extensions() -> list[Extension]:
    h2 = nghttp2()
    debug, sanitize = _switch("POOLEDHTTP_DEBUG", False), _switch("POOLEDHTTP_SANITIZE", False)
    flags = ["-O1" if sanitize else "-O0" if debug else "-O3", "-fno-strict-aliasing", *WARNINGS]
    if sanitize:
        flags += ["-g", "-fno-omit-frame-pointer", *SANITIZERS]
    if strict():
        flags.append("-Werror")
    if sys.platform == "darwin":
        flags.append("-Wno-unreachable-code")        # clang's, for code that Cython proves dead
    headers = sorted(str(p.relative_to(ROOT)) for p in (ROOT / PACKAGE).rglob("*.h"))
    out = []
    for pyx in sorted((ROOT / PACKAGE).rglob("*.pyx")):
        rel = pyx.relative_to(ROOT)
        speaks_h2 = pyx.stem.startswith("h2")
        if speaks_h2 and h2 is None:
            continue
        found = h2 if speaks_h2 and h2 is not None else {"include_dirs": []}
        out.append(Extension(".".join(rel.with_suffix("").parts), [str(rel)], include_dirs=[f"{PACKAGE}/_core", *found["include_dirs"]],
                             library_dirs=found.get("library_dirs", []), libraries=found.get("libraries", []),
                             depends=[*headers, "setup.py"], extra_compile_args=flags,
                             extra_link_args=SANITIZERS if sanitize else [], define_macros=[("PH_DEBUG", "1")] if debug else []))
    return out


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Collects what is written to descriptor 2 meanwhile, by this process or a worker of it, and passes it on."""
    heard: list[str] = []
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as tape:
        os.dup2(tape.fileno(), 2)
        try:
            yield heard
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            tape.seek(0)
            heard.append(tape.read().decode(errors="replace"))
            sys.stderr.write(heard[0])
            sys.stderr.flush()


def cythonized(exts: list[Extension], **options: object) -> list[Extension]:
    """Cython's C for `exts`. Where it warned or hinted in a strict build, that C is removed again and the build ends."""
    from Cython.Build import cythonize

    started = time.time_ns()
    with _listening() as heard:
        out: list[Extension] = cythonize(  # type: ignore[no-untyped-call,unused-ignore]
            exts, nthreads=jobs() if len(exts) > 1 else 0, compiler_directives=DIRECTIVES,
                                         annotate="fullc" if _switch("POOLEDHTTP_ANNOTATE", False) else False, **options)
    if strict() and COMPLAINT.search(heard[0]):
        for ext in out:
            for c in (Path(s) for s in ext.sources):
                if c.suffix == ".c" and c.exists() and c.stat().st_mtime_ns >= started:
                    c.unlink()
        raise SystemExit("setup.py: Cython's warnings and performance hints are errors here (POOLEDHTTP_WERROR=0 lets them pass)")
    return out


class BuildExt(build_ext):
    """Cythonizes when it runs (so that `sdist` needs no Cython), builds on all cores, and keeps what is up to date."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.parallel is None:
            self.parallel = jobs()

    def run(self) -> None:
        sources = {ext.name: ext for ext in cythonized(self.extensions)}
        for ext in self.extensions:
            ext.sources = sources[ext.name].sources
        if not self.inplace:
            super().run()
            return
        # An editable install builds in a new directory each time; this one stays, so only what changed is compiled.
        before = self.build_lib, self.build_temp
        kind = "".join(f"-{name.lower()}" for name in ("DEBUG", "SANITIZE") if _switch(f"POOLEDHTTP_{name}", False))
        base = ROOT / "build" / f"inplace-{sys.implementation.cache_tag}-{self.plat_name}{kind}"
        self.build_lib, self.build_temp = str(base / "lib"), str(base / "temp")
        try:
            super().run()
        finally:
            self.build_lib, self.build_temp = before


if __name__ == "__main__":
    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt})
