"""The options that requests, clients and transports take, for type checkers. Nothing imports it when it runs."""
from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict

from pooledhttp.auth import AuthTypes
from pooledhttp.context import Context
from pooledhttp.cookies import CookieTypes
from pooledhttp.headers import HeaderTypes
from pooledhttp.multipart import RequestFiles
from pooledhttp.retry import RetryTypes
from pooledhttp.timeout import TimeoutTypes
from pooledhttp.url import URL, Params


class BuildOptions(TypedDict, total=False):
    """What makes a request."""

    params: Params | None
    headers: HeaderTypes
    cookies: CookieTypes
    content: Any
    data: Any
    files: RequestFiles | None
    json: Any


class _SendOptions(TypedDict, total=False):
    auth: AuthTypes
    timeout: TimeoutTypes
    context: Context | None
    follow_redirects: bool | None
    max_response_bytes: int | None
    retries: RetryTypes


class SendOptions(_SendOptions, total=False):
    """How a request is sent."""

    stream: bool


class StreamOptions(BuildOptions, _SendOptions, total=False):
    """What `stream()` takes: all but `stream`."""


class Options(StreamOptions, total=False):
    """What `request()` and its kin take."""

    stream: bool


class TransportOptions(TypedDict, total=False):
    """What `Transport` takes, and `Client` for a transport of its own."""

    max_idle_conns: int
    max_idle_conns_per_host: int
    max_conns_per_host: int
    idle_conn_timeout: float | None
    max_conn_lifetime: float | None
    disable_keep_alives: bool
    disable_compression: bool
    reuse: str
    verify: bool | str | os.PathLike[str] | ssl.SSLContext
    cert: str | os.PathLike[str] | tuple[Any, ...] | None
    server_hostname: str | None
    fingerprint: str | None
    http2: bool | str
    proxy: str | Callable[[URL], str | None] | None
    proxy_headers: Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]] | None
    uds: str | os.PathLike[str] | None
    local_address: str | tuple[str, int] | None
    resolver: Callable[[str, int], Iterable[tuple[int, Any]]] | None
    dns_cache_ttl: float
    happy_eyeballs_delay: float | None
    connect_filter: Callable[[str, int], bool] | None
    socket_options: Iterable[tuple[int, int, int | bytes]] | None
    tcp_keepalive: float | None
    expect_continue_timeout: float
    max_response_header_bytes: int
    retry_stale: bool
    http2_ping_interval: float
    http2_ping_timeout: float
    http2_max_conns_per_host: int
    trace: object
