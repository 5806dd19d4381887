"""A run over HTTP/2 (`pytest --http2`): transports speak it unless a test says otherwise, the scripted servers do by `front`."""
from __future__ import annotations

from pooledhttp import Transport
from pooledhttp.adapters.httpx import PooledTransport
from tests.support import front


def begin() -> None:
    front.ON = True
    assert Transport.__init__.__kwdefaults__ is not None
    Transport.__init__.__kwdefaults__["http2"] = "prior-knowledge"
