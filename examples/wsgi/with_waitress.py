"""BACKEND=http://... python -m examples.wsgi.with_waitress [HOST:PORT]"""
from __future__ import annotations

import logging
import signal
import sys

from waitress import create_server  # type: ignore[import-untyped]

from examples.wsgi.app import app, finish

SHUTDOWN = 5.0          # seconds that waitress gives its threads at the end


def main(listen: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    app.seconds = min(app.seconds, 0.9 * SHUTDOWN)
    server = create_server(app, listen=listen, threads=16)
    # Waitress knows Ctrl-C and SystemExit: it waits for what it has begun, and `run` returns. SIGTERM would end the process at once.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    server.print_listen("listening on {}:{}")
    server.run()
    logging.info("client: %s", finish())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8080")
