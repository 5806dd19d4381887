"""The process-wide client, and the functions that work on it."""
from __future__ import annotations

from threading import RLock

from pooledhttp._core.runtime import at_fork
from pooledhttp._typing import TYPE_CHECKING
from pooledhttp._version import __version__
from pooledhttp.client import Client, StreamContext

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from pooledhttp.option_types import Options, StreamOptions
    from pooledhttp.response import Response

_default: Client | None = None
_lock = RLock()


def default_client() -> Client:
    """The process's shared client, made on first use, and anew in a forked child. It keeps no cookies. Not to be closed."""
    global _default
    client = _default
    if client is None or client.closed:
        with _lock:
            client = _default
            if client is None or client.closed:
                client = Client()
                client._keeps_cookies = False              # one end user's would reach another
                if _default is None or _default.closed:    # a signal's handler may have made one meanwhile
                    _default = client
                client = _default
    return client


def _after_fork_in_child() -> None:
    global _default, _lock
    _default = None
    _lock = RLock()                  # another thread of the parent may have held it


at_fork(_after_fork_in_child)


def get(url: str, **options: Unpack[Options]) -> Response:
    """The response to a GET of `url`, whatever its status, by the process-wide client.

    Options: params, headers, cookies, content, data, json, auth, timeout, context, follow_redirects, retries, stream, max_response_bytes; see `Client.request`.
    """
    return default_client().get(url, **options)


def head(url: str, **options: Unpack[Options]) -> Response:
    """The response to a HEAD, which has no body, by the process-wide client.

    Options: params, headers, cookies, content, data, json, auth, timeout, context, follow_redirects, retries, stream, max_response_bytes; see `Client.request`.
    """
    return default_client().head(url, **options)


def options(url: str, **options: Unpack[Options]) -> Response:
    """The response to an OPTIONS, by the process-wide client.

    Options: params, headers, cookies, content, data, json, auth, timeout, context, follow_redirects, retries, stream, max_response_bytes; see `Client.request`.
    """
    return default_client().options(url, **options)


def post(url: str, **options: Unpack[Options]) -> Response:
    """The response to a POST; the body is `json=`, `data=` or `content=`, by the process-wide client.

    Options: params, headers, cookies, content, data, json, auth, timeout, context, follow_redirects, retries, stream, max_response_bytes; see `Client.request`.
    """
    return default_client().post(url, **options)


def put(url: str, **options: Unpack[Options]) -> Response:
    """The response to a PUT; the body is `json=`, `data=` or `content=`, by the process-wide client.

    Options: params, headers, cookies, content, data, json, auth, timeout, context, follow_redirects, retries, stream, max_response_bytes; see `Client.request`.
    """
    return default_client().put(url, **options)


def patch(url: str, **options: Unpack[Options]) -> Response:
    """The response to a PATCH; the body is `json=`, `data=` or `content=`, by the process-wide client.

    Options: params, headers, cookies, content, data, json, auth, timeout, context, follow_redirects, retries, stream, max_response_bytes; see `Client.request`.
    """
    return default_client().patch(url, **options)


def delete(url: str, **options: Unpack[Options]) -> Response:
    """The response to a DELETE, by the process-wide client.

    Options: params, headers, cookies, content, data, json, auth, timeout, context, follow_redirects, retries, stream, max_response_bytes; see `Client.request`.
    """
    return default_client().delete(url, **options)


def request(method: str, url: str, **options: Unpack[Options]) -> Response:
    """The response to a request by the process-wide client. Options as for `get`; see `Client.request`."""
    return default_client().request(method, url, **options)


def stream(method: str, url: str, **options: Unpack[StreamOptions]) -> StreamContext:
    """A context manager: the response with its body unread. Options as for `request`; see `Client.stream`."""
    return default_client().stream(method, url, **options)


def features() -> dict[str, str | bool]:
    """The optional parts that this build has: the version of what does it, or False."""
    import ssl
    from importlib.metadata import version
    from importlib.util import find_spec

    from pooledhttp.decoders import versions

    return {"pooledhttp": __version__, "tls": " ".join(ssl.OPENSSL_VERSION.split()[:2]), "h11": version("h11"), "idna": version("idna"),
            "certifi": version("certifi"), "truststore": version("truststore") if find_spec("truststore") else False,
            "http2": _nghttp2(), **versions()}


def _nghttp2() -> str | bool:
    from pooledhttp.transport import http2_available

    if not http2_available():
        return False
    from pooledhttp._proto.h2 import version

    return f"nghttp2 {version()}"
