"""The documentation is true: what its pages show runs, and its links lead somewhere."""
from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.run import snippets

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", [p for p in PAGES if list(snippets(p.read_text()))], ids=lambda p: p.name)
def test_snippets_run(page: Path) -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-m", "tests.docs.run", page], cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_what_is_found() -> None:
    text = "\n".join(["a `b`", "```python", "x = 1", "", "y", "```", "```text", "```python", "```", "| requests | pooledhttp |", "|---|---|",
                      "| `a(1)` or `b` | `` c `d` `` |", "", "| name | pooledhttp |", "|---|---|", "| `e` | `f` |"])
    assert list(snippets(text)) == [(3, "x = 1\n\ny"), (12, "a(1)"), (12, "b"), (12, " c `d` ")]


def test_a_wrong_snippet_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nr = client.get('/x')\nassert r.status_code == 201\n```\n\n```python\nassert r.json()['path'] == '/x'\n```\n")
    done = subprocess.run([sys.executable, "-m", "tests.docs.run", page], cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert f"{page}:2:" in done.stdout
    assert "line 3" in done.stdout
    assert "1 snippets ran, 1 failed" in done.stdout
