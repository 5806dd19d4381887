"""Where pooledhttp cannot work, the import says why."""
from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
{first}
made = interpreters.create()
code = "try:\\n    import pooledhttp\\nexcept ImportError as e:\\n    print(e, flush=True)"
interpreters.run_string(made, code)
interpreters.destroy(made)
"""


@pytest.mark.parametrize("first", ["", "import pooledhttp"], ids=["alone", "beside the main one"])
def test_a_subinterpreter_is_told_why_not(first: str) -> None:
    done = subprocess.run([sys.executable, "-c", CODE.format(first=first)], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "not in a subinterpreter" in done.stdout


@pytest.mark.parametrize(("change", "says"), [("sys.platform = 'win32'", "not on win32"), ("sys.implementation.name = 'pypy'", "this is pypy")])
def test_another_system_or_python_is_told_why_not(change: str, says: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import sys; {change}; import pooledhttp"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1 and "ImportError" in done.stderr and says in done.stderr
