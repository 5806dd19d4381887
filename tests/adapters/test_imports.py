"""The other libraries are imported with the adapters, not with the package; where they are not there, it is said."""
from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import pooledhttp
for name in ("requests", "httpx", "urllib3"):
    assert name not in sys.modules, name
    sys.modules[name] = None
try:
    import pooledhttp.adapters.{library}
except ImportError as e:
    print(e)
"""


@pytest.mark.parametrize("library", ["requests", "httpx"])
def test_without_the_library(library: str) -> None:
    out = subprocess.run([sys.executable, "-c", PROGRAM.format(library=library)], capture_output=True, text=True, timeout=30, check=True).stdout
    assert out.startswith(f"pooledhttp.adapters.{library} needs {library}")
    assert "pip install" in out
