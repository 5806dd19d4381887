"""Clients whose core is compiled."""
from __future__ import annotations

from collections.abc import Callable, Sized
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

from bench.peers.base import Fetch, Get, Peer, length, pieces


class Pooledhttp(Peer):
    """One client, shared."""
    name = module = "pooledhttp"
    making = "pooledhttp.Client()"

    def open(self) -> None:
        import pooledhttp

        self.client = pooledhttp.Client(verify=self.ca or True, disable_keep_alives=self.fresh, max_idle_conns=max(200, self.hosts + 1))

    def version(self) -> str:
        import pooledhttp

        return pooledhttp.__version__

    def session(self) -> Get:
        get, url = self.client.get, self.url
        return lambda: get(url).content

    def fetch(self) -> Fetch:
        get = self.client.get
        return lambda url: get(url).content

    def upload(self, path: str) -> Sized:
        with open(path, "rb") as file:
            return self.client.post(self.url, content=file).content


class Pyreqwest(Peer):
    """One client, shared (its documentation: "Client should be reused"), the URL parsed once. It asks for no content coding, as the others do not.

    `multithreaded`: on that one of its two kinds of runtime; `text`: the URL as a str; `codings`: asking for all that it can decode, its default.
    """
    name = "pyreqwest"
    module = "pyreqwest.client"
    making = "pyreqwest.client.SyncClientBuilder().build()"
    variants = ("", "multithreaded", "text", "codings")

    def open(self) -> None:
        builder: Any = import_module("pyreqwest.client").SyncClientBuilder()
        if not self.h2:
            builder = builder.http1_only()
        if self.ca is not None:
            builder = builder.add_root_certificate_pem(Path(self.ca).read_bytes())
        if self.variant != "codings":
            builder = builder.gzip(False).brotli(False).zstd(False).deflate(False)
        if self.variant == "multithreaded":
            builder = builder.runtime_multithreaded(True)
        if self.fresh:
            builder = builder.pool_max_idle_per_host(0)
        self.client = builder.build()
        self.target: Any = self.url if self.variant == "text" else import_module("pyreqwest.http").Url(self.url)

    def session(self) -> Get:
        client, target = self.client, self.target

        def get() -> Sized:
            body: Sized = client.get(target).build().send().bytes()
            return body

        return get

    def fetch(self) -> Fetch:
        client = self.client

        def fetch(url: str) -> Sized:
            body: Sized = client.get(url).build().send().bytes()
            return body

        return fetch

    def upload(self, path: str) -> Sized:
        request = self.client.post(self.target).header("Content-Length", length(path)).body_stream(iter(pieces(path), b""))
        body: Sized = request.build().send().bytes()
        return body


class Pycurl(Peer):
    """A handle a thread, reused (curl's documentation: "reuse handles"), with NOSIGNAL as threads need it, TCP_NODELAY by libcurl's default.

    The body's pieces go into a list. `bytesio`: into a BytesIO by WRITEDATA; `perform_rb`: by pycurl's own method for that; `buffer`: into a list,
    by a receive buffer of 512 KiB instead of 16.
    """
    name = module = "pycurl"
    making = "pycurl.Curl()"
    variants = ("", "bytesio", "perform_rb", "buffer")

    def open(self) -> None:
        self.pycurl: Any = import_module("pycurl")

    def version(self) -> str:
        return f"{self.pycurl.version.split()[0].split('/')[-1]} (libcurl {self.pycurl.version_info()[1]})"

    def handle(self) -> Any:
        pycurl = self.pycurl
        curl = pycurl.Curl()
        curl.setopt(pycurl.URL, self.url)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS if self.h2 else pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.NOSIGNAL, 1)
        if self.ca is not None:
            curl.setopt(pycurl.CAINFO, self.ca)
        if self.variant == "buffer":
            curl.setopt(pycurl.BUFFERSIZE, 512 << 10)
        if self.fresh:
            curl.setopt(pycurl.FORBID_REUSE, 1)
        if self.hosts > 1:
            curl.setopt(pycurl.MAXCONNECTS, self.hosts + 1)
        return curl

    def session(self) -> Get:
        curl, write, data = self.handle(), self.pycurl.WRITEFUNCTION, self.pycurl.WRITEDATA
        perform, setopt = curl.perform, curl.setopt
        if self.variant == "perform_rb":
            perform_rb: Get = curl.perform_rb
            return perform_rb
        if self.variant == "bytesio":
            def get() -> Sized:
                out = BytesIO()
                setopt(data, out)
                perform()
                return out.getvalue()
        else:
            def get() -> Sized:
                pieces: list[bytes] = []
                setopt(write, pieces.append)
                perform()
                return b"".join(pieces)

        return get

    def fetch(self) -> Fetch:
        curl, pycurl = self.handle(), self.pycurl

        def fetch(url: str) -> Sized:
            pieces: list[bytes] = []
            curl.setopt(pycurl.URL, url)
            curl.setopt(pycurl.WRITEFUNCTION, pieces.append)
            curl.perform()
            return b"".join(pieces)

        return fetch

    def upload(self, path: str) -> Sized:
        curl, pycurl, out = self.handle(), self.pycurl, BytesIO()
        with open(path, "rb", buffering=0) as file:
            for option, value in ((pycurl.UPLOAD, 1), (pycurl.CUSTOMREQUEST, "POST"), (pycurl.READFUNCTION, file.read), (pycurl.HTTPHEADER, ["Expect:"]),
                                  (pycurl.INFILESIZE_LARGE, int(length(path))), (pycurl.UPLOAD_BUFFERSIZE, 2 << 20), (pycurl.WRITEDATA, out)):
                curl.setopt(option, value)
            curl.perform()
        return out.getvalue()


class Reqwests(Peer):
    """A client of this kind is shared. `each`: a client a thread."""
    variants = ("", "each")
    make: Callable[[], Any]

    def session(self) -> Get:
        get, url = (self.make() if self.variant == "each" else self.client).get, self.url

        def fetch() -> Sized:
            body: Sized = get(url).content
            return body

        return fetch

    def open(self) -> None:
        self.make = self.maker()
        self.client = self.make()

    def maker(self) -> Callable[[], Any]:
        options: dict[str, Any] = {"cookie_store": False, "referer": False, **({"ca_cert_file": self.ca} if self.ca else {}),
                                   **({"headers": {"Connection": "close"}} if self.fresh else {}), **self.only_http1}
        client = import_module(self.module).Client
        return lambda: client(**options)

    only_http1: dict[str, Any] = {}

    def fetch(self) -> Fetch:
        get = self.client.get

        def fetch(url: str) -> Sized:
            body: Sized = get(url).content
            return body

        return fetch


class Httpr(Reqwests):
    name = module = "httpr"
    making = "httpr.Client()"
    only_http1 = {"http1_only": True}


class Primp(Reqwests):
    """It has no option for HTTP/1.1 alone; the bench's servers offer nothing else."""
    name = module = "primp"
    making = "primp.Client()"
