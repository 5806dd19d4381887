"""A microservice: HTTPS, HTTP/1.1 with keep-alive, and an answer in JSON after 50 ms.

    python -m examples.microservices.service NAME CHAIN.pem KEY.pem
"""
from __future__ import annotations

import asyncio
import json
import ssl
import sys
from typing import Any, cast

from examples.microservices.children import serve_until_told

TAKES = 0.050        # seconds


class Service(asyncio.Protocol):
    """One connection. Requests have no body; one that comes while another is being answered waits."""

    handshakes = 0
    requests = 0

    def __init__(self, name: str) -> None:
        self.name = name
        self.unread = b""
        self.busy = False
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio calls this once the handshake is done.
        self.transport = cast(asyncio.Transport, transport)
        Service.handshakes += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self.transport.close()          # Python 3.10 wants to be told, even now

    def data_received(self, data: bytes) -> None:
        self.unread += data
        self._next()

    def _next(self) -> None:
        head, end, rest = self.unread.partition(b"\r\n\r\n")
        if end and not self.busy:
            self.unread, self.busy = rest, True
            Service.requests += 1
            asyncio.get_running_loop().call_later(TAKES, self._answer, head)

    def _answer(self, head: bytes) -> None:
        if self.gone:
            return                      # the caller left meanwhile
        request, _, fields = head.partition(b"\r\n")
        target = request.split(b" ")[1].decode("latin-1")
        closes = b"\nconnection: close" in b"\n" + fields.lower()
        body = json.dumps({"service": self.name, "target": target, "answer": hash(target) % 1000}).encode()
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s" % (
            b"Connection: close\r\n" if closes else b"", len(body), body))
        self.busy = False
        if closes:
            self.transport.close()
        else:
            self._next()


def main() -> None:
    name, chain, key = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: Service(name), "127.0.0.1", 0, ssl=context, backlog=512))
    port = server.sockets[0].getsockname()[1]

    def facts() -> dict[str, Any]:
        return {"handshakes": Service.handshakes, "requests": Service.requests}

    serve_until_told(port, facts, loop.run_forever)


if __name__ == "__main__":
    main()
