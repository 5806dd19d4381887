"""BACKEND=http://... gunicorn -c python:examples.wsgi.gunicorn_conf [--preload] examples.wsgi.app:app"""
from __future__ import annotations

import os
from typing import Any

worker_class = "gthread"
workers = 2
threads = 16
timeout = 30
graceful_timeout = 30


def when_ready(server: Any) -> None:
    """With --preload the app was imported here, and asked its backend; the master will ask no more."""
    if server.cfg.preload_app:
        from examples.wsgi.app import client

        client.transport.close_idle_connections()


def post_worker_init(worker: Any) -> None:
    """A request's time ends before the worker's does, and before that of a worker that was told to end: so SIGTERM cuts none off."""
    from examples.wsgi.app import app

    limits = [seconds for seconds in (worker.cfg.timeout, worker.cfg.graceful_timeout) if seconds]
    app.seconds = min([app.seconds, *(0.9 * seconds for seconds in limits)])


def worker_exit(server: Any, worker: Any) -> None:
    """The worker has answered what it had begun, or `graceful_timeout` has passed."""
    if worker.pid != os.getpid():              # a master calls it too, for a worker that it finds gone; its own client is for those to come
        return
    from examples.wsgi.app import finish

    worker.log.info("client: %s", finish())


def on_exit(server: Any) -> None:
    if server.cfg.preload_app:
        from examples.wsgi.app import finish

        server.log.info("client: %s", finish())
