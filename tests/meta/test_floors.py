"""Imports and cimports go down only. Read from the sources, so that an import inside a function counts too."""
from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.meta.sources import ROOT, files, module_name

FLOORS: dict[int, tuple[str, ...]] = {
    0: ("_typing", "_supported", "errors", "conninfo", "stats", "trace", "_core"),
    1: ("_proto",),
    2: ("_net", "_pool"),
    3: ("_conn",),
    4: ("_trip", "proxies", "transport", "url"),
    5: ("__init__", "__main__", "_version", "api", "auth", "challenges", "cli", "client", "content", "context", "cookies", "decoders", "digest", "events",
        "fanout", "filters", "flow", "headers", "interned", "lines", "mock", "mounts", "multipart", "netrc", "option_types", "progress", "reach", "redirects",
        "renewed", "replies", "request",
        "response", "retry", "set_cookie", "timeout", "wsgi"),
    6: ("adapters",),
}
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names}
# What a part may not know although it is on its own floor, or not of the package.
STRANGERS = {"_pool": ("_net",), "_net": ("_pool",), "_proto": ("socket", "ssl", "select", "os"), "_core": ("errors",), "errors": ("*",)}
SOURCES = (".py", ".pyx", ".pxd", ".pxi", ".pyi")
WORD = re.compile(r"^[ \t]*(?:from[ \t]+([.\w]+)[ \t]+c?import[ \t]+(\([^)]*\)|[^\n#]*)|c?import[ \t]+([^\n#]+))", re.MULTILINE)
LATE = re.compile(r"""import_module\(\s*["']([\w.]+)""")


def part_of(module: str) -> str:
    """`pooledhttp._net.tcp` → `_net`."""
    return module.split(".")[1] if "." in module else "__init__"


def _cython(text: str, module: str, package: str) -> Iterator[str]:
    bare = re.sub(r'"""(?:.|\n)*?"""', "", text)
    for source, names, plain in WORD.findall(bare):
        if plain:
            yield from (p.split(" as ")[0].strip() for p in plain.split(","))
            continue
        base = source.lstrip(".")
        if source.startswith("."):
            up = package.split(".")[: len(package.split(".")) - (len(source) - len(base) - 1)]
            base = ".".join([*up, base]) if base else ".".join(up)
        yield from _names(base, [n.split(" as ")[0].strip() for n in names.strip("()").split(",") if n.strip()])


def _python(text: str, package: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - (node.level - 1)]
                base = ".".join([*up, base]) if base else ".".join(up)
            yield from _names(base, [alias.name for alias in node.names])


def _names(base: str, names: list[str]) -> Iterator[str]:
    """`from pooledhttp import url` names a module; `from pooledhttp.url import URL` does not."""
    if base == "pooledhttp":
        yield from (f"pooledhttp.{n}" if n in FLOOR else "pooledhttp" for n in names)
    else:
        yield base


def imports(path: Path, root: Path = ROOT) -> set[str]:
    """The modules that a source file imports or cimports, by full name."""
    module = module_name(path, root)
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    text = path.read_text()
    found = _cython(text, module, package) if path.suffix in (".pyx", ".pxd", ".pxi") else _python(text, package)
    return {m for m in (*found, *LATE.findall(text)) if m}


def breaches(root: Path = ROOT) -> list[str]:
    """A line for each import that goes up, or to a stranger, and each module that has no floor."""
    out = []
    for path in files(root / "pooledhttp"):
        if path.suffix not in SOURCES:
            continue
        own = part_of(module_name(path, root))
        if own not in FLOOR:
            out.append(f"{path.relative_to(root)}: {own} has no floor")
            continue
        for target in sorted(imports(path, root)):
            inside = target == "pooledhttp" or target.startswith("pooledhttp.")
            other = part_of(target) if inside else target.split(".")[0]
            if other == "_typing" and inside:
                continue                 # stands for the standard library's typing
            if inside and other not in FLOOR:
                out.append(f"{path.relative_to(root)}: imports {target}, which has no floor")
            elif inside and FLOOR[other] > FLOOR[own]:
                out.append(f"{path.relative_to(root)}: floor {FLOOR[own]} imports {target} of floor {FLOOR[other]}")
            elif other != own and (other in STRANGERS.get(own, ()) or (inside and "*" in STRANGERS.get(own, ()))):
                out.append(f"{path.relative_to(root)}: {own} must not know {target}")
    return out


def test_imports_go_down_only() -> None:
    assert breaches() == []


def test_every_source_is_read() -> None:
    seen = {p.suffix for p in files(ROOT / "pooledhttp") if p.suffix in SOURCES and imports(p)}
    assert {".py", ".pyx", ".pxd"} <= seen
    assert "pooledhttp._core.compat" in imports(ROOT / "pooledhttp/_net/tcp.pyx")


@pytest.mark.parametrize(("name", "text", "says"), [
    ("_net/tcp.pyx", "from pooledhttp._conn.h1 cimport H1", "floor 2 imports pooledhttp._conn.h1 of floor 3"),
    ("_net/tcp.pyx", "cimport pooledhttp._trip.trip as t", "floor 2 imports pooledhttp._trip.trip of floor 4"),
    ("_net/tcp.pxd", "from pooledhttp._conn.h1 cimport (\n    A, B,\n)", "floor 2 imports pooledhttp._conn.h1 of floor 3"),
    ("_net/dial.py", "def f():\n    from pooledhttp import client", "floor 2 imports pooledhttp.client of floor 5"),
    ("_net/dial.py", "from .. import client", "floor 2 imports pooledhttp.client of floor 5"),
    ("_net/dial.py", "from ..url import URL", "floor 2 imports pooledhttp.url of floor 4"),
    ("_net/dial.pyx", "from ..url import URL", "floor 2 imports pooledhttp.url of floor 4"),
    ("_net/dial.py", "import importlib\nimportlib.import_module('pooledhttp.client')", "floor 2 imports pooledhttp.client of floor 5"),
    ("_pool/pool.pyx", "from pooledhttp._net.tcp cimport TcpStream", "_pool must not know pooledhttp._net.tcp"),
    ("_proto/h1.py", "import socket", "_proto must not know socket"),
    ("errors.py", "from pooledhttp._core import runtime", "errors must not know pooledhttp._core"),
    ("surprise.py", "import os", "surprise has no floor"),
    ("client.py", "import pooledhttp.surprise", "imports pooledhttp.surprise, which has no floor"),
    ("adapters/x.py", "from pooledhttp import Client", None),
    ("client.py", '"""Text\nfrom pooledhttp import adapters\n"""\nfrom pooledhttp import transport', None),
    ("_net/x.pyx", '"""Text\nfrom pooledhttp._conn.h1 import H1\n"""\nfrom pooledhttp._core.clock cimport MS', None),
])
def test_a_breach_is_found(tmp_path: Path, name: str, text: str, says: str | None) -> None:
    path = tmp_path / "pooledhttp" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    found = breaches(tmp_path)
    assert (len(found), says is None or says in found[0]) == (0 if says is None else 1, True), found
