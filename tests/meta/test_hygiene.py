"""What may not be in any file of the project, and what the README says that must be so."""
from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.meta.sources import PACKAGE, ROOT, files

TEXT = {".py", ".pyx", ".pxd", ".pyi", ".h", ".md", ".toml", ".in", ".cfg", ".txt", ".sh", ".json", ""}
# A path of one machine, and a note to oneself. In pieces, since this file is looked at too.
MACHINE = re.compile("|".join(("/ho" "me/", "/ro" "ot/", "/Us" "ers/", "/wo" "rk/", r"/tm" r"p/\w", r"\.py" "env", "/o" "pt/")))
NOTES = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|X" r"XX|HA" r"CK)\b")


def text_files() -> list[Path]:
    return [p for p in files() if p.suffix in TEXT]


def found(pattern: re.Pattern[str]) -> list[str]:
    return [f"{path.relative_to(ROOT)}:{n}: {line.strip()}" for path in text_files()
            for n, line in enumerate(path.read_text(errors="replace").splitlines(), 1) if pattern.search(line)]


def test_no_file_names_a_machine() -> None:
    assert found(MACHINE) == []


def test_nothing_is_left_for_later_in_a_comment() -> None:
    assert found(NOTES) == []


def test_every_file_is_looked_at() -> None:
    names = {str(p.relative_to(ROOT)) for p in text_files()}
    some = {"Makefile", "setup.py", "README.md", "pooledhttp/errors.py", "pooledhttp/_net/tcp.pyx", ".ci/run", "tests/meta/test_hygiene.py"}
    assert some <= names


def test_a_file_is_one_thing() -> None:
    """Aim under 500 lines; none over a thousand."""
    assert {str(p.relative_to(ROOT)): n for p in files(PACKAGE) if (n := len(p.read_text().splitlines())) > 1000} == {}


def test_package_inits_are_empty() -> None:
    assert [str(p) for p in PACKAGE.glob("_*/__init__.py") if p.read_text().strip()] == []


def blocks(language: str) -> list[str]:
    """The README's code blocks in a language ("" for those that name none)."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def test_the_readmes_commands_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    text = (ROOT / "README.md").read_text()
    said = set(re.findall(r"(?:^|`)make ([a-z0-9-]+)", text, re.MULTILINE))
    assert {"run", "test"} <= said
    assert said <= targets
    modules = set(re.findall(r"python3? -m ([\w.]+)", text)) - {"venv", "pip", "build", "pytest"}
    for module in modules:
        importlib.import_module(module if (ROOT / (module.replace(".", "/") + ".py")).exists() else f"{module}.__main__")


def test_the_readmes_code_is_python_and_its_names_exist() -> None:
    import pooledhttp

    code = blocks("python")
    assert code
    for block in code:
        tree = ast.parse(textwrap.dedent(block))
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
                and node.value.id == "pooledhttp"}
        assert [name for name in sorted(used) if not hasattr(pooledhttp, name)] == []


IMPORT = "import sys, time; t = time.perf_counter(); import {}; t = time.perf_counter() - t; print(t); print(*sorted(sys.modules))"
# The public contract's list, and what else is dear and not needed to import the package.
HEAVY = {"ssl", "certifi", "h11", "json", "http.cookiejar", "http.client", "urllib.request", "email", "idna", "asyncio",
         "concurrent.futures", "logging", "pathlib", "tempfile", "subprocess", "dataclasses", "inspect", "decimal", "mimetypes",
         "importlib.metadata", "typing", "re", "enum", "contextlib", "socket"}


def imported(modules: str) -> tuple[float, set[str]]:
    """Seconds that a fresh interpreter needs for `import modules`, and the modules that it has then."""
    done = subprocess.run([sys.executable, "-I", "-c", IMPORT.format(modules)], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, names = done.stdout.splitlines()
    return float(seconds), set(names.split())


def test_importing_is_cheap() -> None:
    bare = imported("time")[1]
    assert (imported("pooledhttp")[1] - bare) & HEAVY == set()


@pytest.mark.slow
def test_importing_costs_less_than_twice_socket_and_ssl() -> None:
    """The best of each, taken in turn, so that it holds on a busy machine; the goal itself (15 ms) is a benchmark's."""
    ours, theirs = zip(*((imported("pooledhttp")[0], imported("socket, ssl")[0]) for _ in range(9)), strict=True)
    assert min(ours) < 2 * min(theirs), (ours, theirs)
