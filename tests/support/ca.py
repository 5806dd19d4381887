"""A certificate authority made on the fly, and server contexts from it."""
from __future__ import annotations

import ssl
from datetime import datetime, timedelta, timezone
from pathlib import Path

import trustme

NAMES = ("localhost", "127.0.0.1", "::1")


class Authority:
    """`pem` is the path of the authority's certificate, for `verify=`; `server()` makes server contexts that it vouches for."""

    def __init__(self, directory: Path) -> None:
        self._dir = directory
        self._ca = trustme.CA()
        self._contexts: dict[tuple[str, ...], ssl.SSLContext] = {}
        self._issued = 0
        self.pem = directory / "ca.pem"
        self._ca.cert_pem.write_to_path(self.pem)

    def issue(self, *names: str, expired: bool = False) -> tuple[Path, Path]:
        """A certificate chain and its key, as files."""
        until = datetime.now(timezone.utc) - timedelta(days=1) if expired else None
        since = datetime.now(timezone.utc) - timedelta(days=30) if expired else None
        leaf = self._ca.issue_cert(*(names or NAMES), not_before=since, not_after=until)
        self._issued += 1
        chain, key = self._dir / f"leaf{self._issued}.pem", self._dir / f"leaf{self._issued}.key"
        chain.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(key)
        return chain, key

    def new_server(self, *names: str, expired: bool = False) -> ssl.SSLContext:
        """A server's context of its own, which a test may change."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(*names, expired=expired))
        return context

    def server(self, *names: str) -> ssl.SSLContext:
        """A server's context for `names` (without any: localhost, 127.0.0.1, ::1), made once and shared."""
        if names not in self._contexts:
            self._contexts[names] = self.new_server(*names)
        return self._contexts[names]

    def client(self) -> ssl.SSLContext:
        """A client's context that trusts this authority alone."""
        return ssl.create_default_context(cafile=str(self.pem))
