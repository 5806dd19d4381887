"""The aggregator: a threaded WSGI app that asks three services for every request it answers. This is what pooledhttp is for.

    python -m examples.microservices.aggregator CA.pem users=PORT orders=PORT prices=PORT [--disable-keep-alives]

One module-level `Client` serves all threads. There is nothing else to do: no session per thread, no pool to size, no adapter.
"""
from __future__ import annotations

import argparse
import json
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import pooledhttp
from examples.microservices.children import serve_until_told

arguments = argparse.ArgumentParser()
arguments.add_argument("ca")
arguments.add_argument("services", nargs="+")
arguments.add_argument("--disable-keep-alives", action="store_true")
options = arguments.parse_args()
PORTS = {name: int(port) for name, _, port in (s.partition("=") for s in options.services)}


def resolve(host: str, port: int) -> list[tuple[int, Any]]:
    """Service discovery: every name is this machine's."""
    return [(socket.AF_INET, ("127.0.0.1", port))]


client = pooledhttp.Client(timeout=5.0, transport=pooledhttp.Transport(
    verify=ssl.create_default_context(cafile=options.ca),          # `verify=options.ca` would do, and load it at the first request
    resolver=resolve, disable_keep_alives=options.disable_keep_alives))
workers = ThreadPoolExecutor(32, thread_name_prefix="worker")


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """`/N`: what users, orders and prices say of N, asked side by side."""
    urls = [f"https://{name}.internal:{port}/{name}{environ['PATH_INFO']}" for name, port in PORTS.items()]
    try:
        answers = [response.raise_for_status().json() for response in client.map(urls, executor=workers)]
        status, body = "200 OK", json.dumps(dict(zip(PORTS, answers, strict=True))).encode()
    except pooledhttp.Error as error:
        status, body = "502 Bad Gateway", f"{type(error).__name__}: {error}".encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 256

    def server_bind(self) -> None:
        # WSGIServer would look up the machine's name here, which can take seconds.
        socket.socket.bind(self.socket, self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]
        self.setup_environ()


class Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def facts() -> dict[str, Any]:
    stats = client.transport.stats()
    return {"open": stats.open, "dials": stats.dials, "reuses": stats.reuses, "requests": stats.requests, "retries": stats.retries,
            "descriptors": len(os.listdir("/proc/self/fd")), "cpu": time.process_time()}


def main() -> None:
    server = Server(("127.0.0.1", 0), Handler)
    server.set_app(app)
    serve_until_told(server.server_port, facts, server.serve_forever)


if __name__ == "__main__":
    main()
