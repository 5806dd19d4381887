"""Clients in Python."""
from __future__ import annotations

import ssl
from collections.abc import Sized
from http.client import HTTPConnection, HTTPSConnection
from importlib import import_module
from typing import Any, ClassVar

from bench.peers.base import Fetch, Get, Peer, length

CLOSE = {"Connection": "close"}


class HttpClient(Peer):
    """A connection a thread: there is no other way. `fresh`: opened and closed for each request."""
    name = "http.client"
    module = "http.client"
    making = "http.client.HTTPConnection('localhost')"

    def open(self) -> None:
        self.context = ssl.create_default_context(cafile=self.ca) if self.ca is not None else None

    def version(self) -> str:
        import platform

        return platform.python_version()

    def connection(self, host: str, port: int | None) -> HTTPConnection:
        return HTTPSConnection(host, port, context=self.context) if self.context is not None else HTTPConnection(host, port, blocksize=1 << 18)

    def session(self) -> Get:
        path = self.path
        if self.fresh:
            def fresh() -> Sized:
                connection = self.connection(self.host, self.port)
                connection.request("GET", path, headers=CLOSE)
                body = connection.getresponse().read()
                connection.close()
                return body

            return fresh
        connection = self.connection(self.host, self.port)

        def get() -> Sized:
            connection.request("GET", path)
            return connection.getresponse().read()

        return get

    def fetch(self) -> Fetch:
        from urllib.parse import urlsplit

        connections: dict[tuple[str | None, int | None], HTTPConnection] = {}

        def fetch(url: str) -> Sized:
            parts = urlsplit(url)
            origin = (parts.hostname, parts.port)
            connection = connections.get(origin)
            if connection is None:
                connection = connections[origin] = self.connection(parts.hostname or "", parts.port)
            connection.request("GET", parts.path)
            return connection.getresponse().read()

        return fetch

    def upload(self, path: str) -> Sized:
        connection = self.connection(self.host, self.port)
        with open(path, "rb") as file:
            connection.request("POST", self.path, body=file, headers={"Content-Length": length(path)})
            return connection.getresponse().read()


class Urllib3(Peer):
    """One pool, shared, that keeps a connection for each thread."""
    name = module = "urllib3"
    making = "urllib3.PoolManager()"
    variants = ("", "manager")

    def open(self) -> None:
        urllib3: Any = import_module("urllib3")
        self.urllib3 = urllib3
        self.options: dict[str, Any] = {"headers": CLOSE if self.fresh else None, **({} if self.ca is None else {"ca_certs": self.ca})}
        if self.variant == "manager":
            request, target = self.manager().request, self.url
        else:
            kind = urllib3.HTTPConnectionPool if self.ca is None else urllib3.HTTPSConnectionPool
            request, target = kind(self.host, self.port, maxsize=self.threads, **self.options).request, self.path
        self.get: Get = lambda: request("GET", target).data

    def manager(self) -> Any:
        return self.urllib3.PoolManager(num_pools=self.hosts + 1, maxsize=self.threads, **self.options)

    def session(self) -> Get:
        return self.get

    def fetch(self) -> Fetch:
        request = self.manager().request
        return lambda url: request("GET", url).data

    def upload(self, path: str) -> Sized:
        with open(path, "rb") as file:
            body: Sized = self.manager().request("POST", self.url, body=file, headers={"Content-Length": length(path)}).data
            return body


class Requests(Peer):
    """A session a thread; what the environment says of proxies and passwords is not read. `shared`: one session; `env`: with the environment, its default."""
    name = module = "requests"
    making = "requests.Session()"
    variants: ClassVar[tuple[str, ...]] = ("", "shared", "env")

    def open(self) -> None:
        self.requests: Any = import_module(self.module)
        self.shared = self.make() if self.variant == "shared" else None

    def make(self) -> Any:
        session = self.requests.Session()
        adapter = self.requests.adapters.HTTPAdapter(pool_connections=self.hosts + 1, pool_maxsize=self.threads)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        return self.prepared(session)

    def prepared(self, session: Any) -> Any:
        session.trust_env = self.variant == "env"
        if self.ca is not None:
            session.verify = self.ca
        if self.fresh:
            session.headers.update(CLOSE)
        return session

    def session(self) -> Get:
        get, url = (self.shared or self.make()).get, self.url
        return lambda: get(url).content

    def fetch(self) -> Fetch:
        get = self.make().get
        return lambda url: get(url).content

    def upload(self, path: str) -> Sized:
        with open(path, "rb") as file:
            body: Sized = self.make().post(self.url, data=file).content
            return body


class Niquests(Requests):
    """One session, shared (its documentation calls it thread-safe), without its HTTP/3, and by HTTP/2 where that is measured. `each`: a session a thread."""
    name = module = "niquests"
    making = "niquests.Session()"
    variants = ("", "each")

    def open(self) -> None:
        self.requests = import_module(self.module)
        self.shared = self.make() if self.variant == "" else None

    def make(self) -> Any:
        return self.prepared(self.requests.Session(pool_connections=self.hosts + 1, pool_maxsize=self.threads, disable_http2=not self.h2, disable_http3=True))


class Httpx(Peer):
    """One client, shared (its documentation: "use a Client instance"). `each`: a client a thread."""
    name = module = "httpx"
    making = "httpx.Client()"
    variants = ("", "each")

    def open(self) -> None:
        self.httpx: Any = import_module("httpx")
        self.shared = self.make() if self.variant == "" else None

    def make(self) -> Any:
        httpx = self.httpx
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0 if self.fresh else None, keepalive_expiry=None)
        verify = ssl.create_default_context(cafile=self.ca) if self.ca is not None else True
        return httpx.Client(limits=limits, verify=verify, trust_env=False, timeout=60.0, http2=self.h2)

    def session(self) -> Get:
        get, url = (self.shared or self.make()).get, self.url
        return lambda: get(url).content

    def fetch(self) -> Fetch:
        get = (self.shared or self.make()).get
        return lambda url: get(url).content

    def upload(self, path: str) -> Sized:
        client = self.shared or self.make()
        with open(path, "rb") as file:
            body: Sized = client.post(self.url, content=file).content
            return body


