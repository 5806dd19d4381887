"""The other libraries are imported with their adapters, not with the package; where they are not there, it is said."""
from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import pooledhttp
with pooledhttp.Client(max_conns_per_host=1) as client:
    try:
        client.get("http://127.0.0.1:1/")
    except pooledhttp.ConnectError:
        pass
for name in ("prometheus_client", "opentelemetry"):
    assert name not in sys.modules, name
    sys.modules[name] = None
assert not any(name.startswith("pooledhttp.adapters") for name in sys.modules)
try:
    import pooledhttp.adapters.{module}
except ImportError as e:
    print(e)
"""


@pytest.mark.parametrize(("module", "package"), [("prometheus", "prometheus_client"), ("opentelemetry", "opentelemetry-api")])
def test_without_the_library(module: str, package: str) -> None:
    out = subprocess.run([sys.executable, "-c", PROGRAM.format(module=module)], capture_output=True, text=True, timeout=30, check=True).stdout
    assert out == f"pooledhttp.adapters.{module} needs {package}: pip install 'pooledhttp[{module}]'\n"
