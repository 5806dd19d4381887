"""Runs what a page shows: `python -m tests.docs.run docs/tls.md`; or an example, where the name ends with .py.

Every ```python block is run, one after the other, in one namespace; so are the cells of a table whose columns are headed by two libraries
(requests or httpx beside pooledhttp): every piece of inline code in them. What cannot run is a ```text block. The page finds `pooledhttp`
imported; a `client` (whose base_url is https://api.example), a `url`, a list of `urls` and a `token`; every host name served (see `site`), and
its authority trusted; and in the working directory the files that `site` names.
"""
from __future__ import annotations

import ast
import os
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pooledhttp
from tests.docs.site import Site

LIBRARIES = {"requests", "httpx", "pooledhttp"}
CODE = re.compile(r"(`+)(.+?)\1")


def snippets(text: str) -> Iterator[tuple[int, str]]:
    """(line, source) of each block and each cell, in order."""
    block: list[str] | None = None
    start = 0
    fenced = False                 # inside a block of another kind
    table = ""                     # what the table's columns are headed by
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            if block is not None:
                yield start, "\n".join(block)
                block = None
            elif fenced:
                fenced = line.strip() != "```"
            elif line.strip() == "```python":
                block, start = [], number + 1
            else:
                fenced = True
        elif block is not None:
            block.append(line)
        elif not fenced and line.startswith("|"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if not table:
                table = "run" if len(cells) == 2 and set(cells) <= LIBRARIES else "other"
            elif table == "run" and not set(line) <= set("|-: "):
                for cell in cells:
                    for _, code in CODE.findall(cell.replace("\\|", "|")):
                        yield number, code
        else:
            table = ""


def run(page: Path) -> int:
    """Prints what went wrong; how many did."""
    urls = [f"https://api.example/items/{n}" for n in range(3)]
    client = pooledhttp.Client(base_url="https://api.example")
    namespace: dict[str, Any] = {"__name__": "__main__", "pooledhttp": pooledhttp, "client": client, "url": urls[0], "urls": urls, "token": "t0ken"}
    wrong = ran = 0
    text = page.read_text()
    for line, source in snippets(text) if page.suffix == ".md" else [(1, text)]:
        try:
            tree = ast.parse(source, str(page))
            ast.increment_lineno(tree, line - 1)
            exec(compile(tree, str(page), "exec"), namespace)
            ran += 1
        except Exception as e:
            wrong += 1
            print(f"{page}:{line}: {source}\n{''.join(traceback.format_exception(e)[-4:])}")
    print(f"{page}: {ran} snippets ran, {wrong} failed")
    return wrong


def main(page: Path) -> int:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            del os.environ[name]
    # A snippet need not close what it shows, and may show what its library warns of.
    warnings.simplefilter("ignore", ResourceWarning)
    warnings.filterwarnings("ignore", "Unverified HTTPS request")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["HOME"] = folder
        ca = str(Site(Path(folder)).ca)
        os.environ["SSL_CERT_FILE"] = os.environ["REQUESTS_CA_BUNDLE"] = ca
        try:
            return min(1, run(page))
        finally:
            os.chdir("/")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
