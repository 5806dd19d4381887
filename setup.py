"""Builds the compiled modules: every .pyx of the package is one extension. Warnings are errors."""
from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).resolve().parent


def extensions() -> list[Extension]:
    flags = ["-O3", "-fno-strict-aliasing", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unused-function",
             "-Wno-missing-field-initializers", "-Wno-cast-function-type", "-Wno-sign-compare"]
    if os.environ.get("POOLEDHTTP_WERROR", "1") != "0":
        flags.append("-Werror")
    if sys.platform == "darwin":
        flags.append("-Wno-unreachable-code")
    out = []
    for pyx in sorted((ROOT / "pooledhttp").rglob("*.pyx")):
        rel = pyx.relative_to(ROOT)
        out.append(Extension(".".join(rel.with_suffix("").parts), [str(rel)], include_dirs=["pooledhttp/_core"],
                             depends=["pooledhttp/_core/compat.h"], extra_compile_args=flags))
    return out


def cythonized() -> list[Extension]:
    from Cython.Build import cythonize

    return cythonize(extensions(), nthreads=int(os.environ.get("POOLEDHTTP_JOBS", "2")), annotate="fullc" if os.environ.get("POOLEDHTTP_ANNOTATE") else False,
                     compiler_directives={"language_level": 3, "boundscheck": False, "wraparound": False, "initializedcheck": False, "cdivision": True,
                                           "embedsignature": True})


setup(ext_modules=cythonized())
