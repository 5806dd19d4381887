"""A process that has no descriptor left."""
from __future__ import annotations

import errno
import resource
import threading

from pooledhttp import Client, Error


def test_it_is_an_error_of_ours_and_nothing_is_counted_on(client: Client) -> None:
    caught: list[BaseException] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def request() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            client.get("http://127.0.0.1:1/")
        except BaseException as e:
            caught.append(e)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    thread = threading.Thread(target=request)              # which has no wake descriptor yet
    thread.start()
    thread.join()
    (error,) = caught
    assert isinstance(error, Error) and error.request is not None and "open files" in str(error)
    assert error.errno == errno.EMFILE
    stats = client.transport.stats()
    assert stats.dialing == stats.open == 0
