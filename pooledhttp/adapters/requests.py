"""requests over our transport: `session.mount("https://", PooledAdapter())`, and all else stays as it is.

https://requests.readthedocs.io/en/latest/user/advanced/#transport-adapters
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

try:
    from requests.adapters import DEFAULT_POOLSIZE, HTTPAdapter
    from requests.exceptions import InvalidProxyURL, InvalidSchema
    from requests.models import PreparedRequest
    from requests.utils import DEFAULT_CA_BUNDLE_PATH

    HTTPAdapter.get_connection_with_tls_context  # noqa: B018 - what an older one has not

    from pooledhttp.adapters._urllib3 import Manager, dialing_options
except (ImportError, AttributeError) as e:
    raise ImportError("pooledhttp.adapters.requests needs requests 2.32.2 or newer, and urllib3 2: pip install -U requests") from e

from pooledhttp import errors
from pooledhttp.adapters._transports import Transports
from pooledhttp.client import Client
from pooledhttp.transport import Transport
from pooledhttp.url import URL

_PROXIES = ("http", "https", "socks5", "socks5h")


class PooledAdapter(HTTPAdapter):
    """requests' adapter, its connections ours.

    `transport`: a `Transport`, a `Client` (its transport is used) or anything with `round_trip`, which stays open when the session is closed;
    or else the options of a private one. `max_retries` is an int or urllib3's `Retry`, as there. `pool_maxsize` is
    `max_idle_conns_per_host`, with `pool_block` also `max_conns_per_host`; `pool_connections * pool_maxsize` is `max_idle_conns`. Where they are not given,
    the transport's defaults hold.

    `verify`, `cert` and `proxies` are each request's, as in requests: each combination has a transport of its own, made like the main
    one; what a request leaves at its default is the main one's. A session's timeouts mean what they mean in requests: no deadline.
    """

    __attrs__ = [*HTTPAdapter.__attrs__, "_given", "_options"]

    def __init__(self, pool_connections: int | None = None, pool_maxsize: int | None = None, max_retries: Any = 0, pool_block: bool = False, *,
                 transport: Any = None, **options: Any) -> None:
        if transport is not None and (pool_connections is not None or pool_maxsize is not None or pool_block):
            raise TypeError("transport= and the pool's sizes exclude each other")
        # A client, because it knows how to travel.
        self._given = Client(transport=transport, trust_env=False) if isinstance(transport, Transport) else transport
        self._options = options
        super().__init__(pool_connections, pool_maxsize, max_retries, pool_block)  # type: ignore[arg-type]  # None: our defaults

    def init_poolmanager(self, connections: int | None, maxsize: int | None, block: bool = False, **pool_kwargs: Any) -> None:
        """Makes the transports; `pool_kwargs` as for urllib3's PoolManager, where they have a counterpart."""
        self._pool_connections = connections  # type: ignore[assignment]
        self._pool_maxsize = maxsize  # type: ignore[assignment]
        self._pool_block = block
        options = {**_sizes(connections, maxsize, block), **dialing_options(pool_kwargs), **self._options}
        self._tls = pool_kwargs
        self._transports = Transports(self._given, options)
        self.poolmanager = Manager(self._transports, pool_kwargs, DEFAULT_CA_BUNDLE_PATH)  # type: ignore[assignment]

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Manager:
        """What asks `proxy`; the headers that `proxy_headers()` returns go to it alone."""
        scheme = proxy.partition("://")[0].lower()
        if scheme not in _PROXIES:
            raise InvalidSchema(f"the proxy's scheme {scheme!r} is not one we speak ({', '.join(_PROXIES)})")
        try:
            url = URL(proxy)
        except errors.Error as e:
            raise InvalidProxyURL(str(e)) from e
        if scheme.startswith("socks"):
            return Manager(self._transports, {**self._tls, **proxy_kwargs}, DEFAULT_CA_BUNDLE_PATH, {"proxy": str(url)})
        how: dict[str, Any] = {"proxy": str(url.without_userinfo())}
        headers = self.proxy_headers(proxy)
        if headers:
            how["proxy_headers"] = headers
        return Manager(self._transports, {**self._tls, **proxy_kwargs}, DEFAULT_CA_BUNDLE_PATH, how)

    def request_url(self, request: PreparedRequest, proxies: Mapping[str, str] | None) -> str:
        """The path and query: what a proxy is told is the transport's affair."""
        return request.path_url

    @property
    def transport(self) -> Any:
        """The transport of requests that ask for no other TLS or proxy than its own."""
        return self._transports.main

    @property
    def transports(self) -> list[Any]:
        """All that are there now, the main one first."""
        return self._transports.all()


def _sizes(connections: int | None, maxsize: int | None, block: bool) -> dict[str, int]:
    sizes = {}
    if maxsize is not None:
        sizes["max_idle_conns_per_host"] = maxsize
    if connections is not None:
        sizes["max_idle_conns"] = connections * (DEFAULT_POOLSIZE if maxsize is None else maxsize)
    if block:
        sizes["max_conns_per_host"] = DEFAULT_POOLSIZE if maxsize is None else maxsize
    return sizes
