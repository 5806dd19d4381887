"""What `import pooledhttp` gives, and what it costs."""
from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import pooledhttp

ROOT = Path(__file__).resolve().parents[2]

# Heavy, and not needed before something asks for it.
HEAVY = {"ssl", "certifi", "h11", "json", "idna", "concurrent.futures", "email", "logging", "http", "http.client", "http.cookiejar",
         "urllib.request", "urllib.parse", "asyncio", "argparse", "datetime", "importlib.metadata", "subprocess", "tempfile", "hashlib"}


def test_the_import_is_cheap() -> None:
    code = "import sys; before = set(sys.modules); import pooledhttp; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    loaded = set(done.stdout.split())
    assert "pooledhttp.client" in loaded
    assert loaded & HEAVY == set()


def test_nothing_runs_after_the_import() -> None:
    code = ("import threading, os, pooledhttp\n"
            "pooledhttp.Client(); pooledhttp.Client(max_idle_conns=3); pooledhttp.default_client()\n"
            "assert threading.active_count() == 1 and len(os.listdir('/proc/self/task')) == 1\n")
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=30, check=True)


def test_everything_named_exists_and_has_its_module() -> None:
    for name in pooledhttp.__all__:
        assert getattr(pooledhttp, name) is not None
    assert pooledhttp.JSONDecodeError is pooledhttp.errors.JSONDecodeError
    with pytest.raises(AttributeError, match="Biscuits"):
        pooledhttp.Biscuits  # noqa: B018 - it raises


def test_every_exception_is_exported() -> None:
    from pooledhttp import errors

    named = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.Error)}
    assert named - set(pooledhttp.__all__) == set()


def test_the_version_is_the_projects() -> None:
    found = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found
    assert found[1] == pooledhttp.__version__


def test_features() -> None:
    import ssl

    features = pooledhttp.features()
    assert features["http2"] is False or str(features["http2"]).startswith("nghttp2 1.")
    assert features["tls"]
    assert str(features["tls"]) in ssl.OPENSSL_VERSION
    assert features["truststore"]
