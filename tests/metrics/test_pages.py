"""What docs/metrics.md shows runs, one block after the other."""
from __future__ import annotations

import re
import subprocess
import sys

from tests.meta.sources import ROOT


def test_page() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    program = "\n".join([*blocks, "import prometheus_client", "print(prometheus_client.generate_latest().decode())", "backend.close()"])
    out = subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout
    for name in ("backend", "default"):
        assert f'pooledhttp_requests_total{{host="(others)",transport="{name}"}} 0.0' in out
