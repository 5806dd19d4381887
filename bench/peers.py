"""The clients, each used as its documentation says is fastest for threads.

A peer is made once a process. `session()` is called in each thread and returns that thread's `get`: fetches the URL, reads the body to its end and returns
it, as whatever bytes-like object the client gives. TLS peers verify the server against the bench's authority, as their users would.
`python -m bench --variants` measures the ways of use that are listed here against each other; the first of each is what the comparison runs.
"""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sized
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from bench.scenarios import Task

Get = Callable[[], Sized]


class Peer(ABC):
    name: ClassVar[str]
    variants: ClassVar[tuple[str, ...]] = ("",)

    def __init__(self, task: Task, variant: str) -> None:
        self.url, self.ca, self.threads = task.url, task.ca, task.scenario.threads
        self.variant = variant
        self.open()

    @abstractmethod
    def open(self) -> None: ...

    @abstractmethod
    def version(self) -> str: ...

    @abstractmethod
    def session(self) -> Get: ...


class Pooledhttp(Peer):
    """One client, shared."""
    name = "pooledhttp"

    def open(self) -> None:
        import pooledhttp

        self.client = pooledhttp.Client(verify=self.ca or True)

    def version(self) -> str:
        import pooledhttp

        return pooledhttp.__version__

    def session(self) -> Get:
        get, url = self.client.get, self.url
        return lambda: get(url).content


class Pyreqwest(Peer):
    """One client, shared (its documentation: "Client should be reused"), the URL parsed once. It asks for no content coding, as the others do not.

    `multithreaded`: on that one of its two kinds of runtime; `text`: the URL as a str; `codings`: asking for all that it can decode, its default.
    """
    name = "pyreqwest"
    variants = ("", "multithreaded", "text", "codings")

    def open(self) -> None:
        builder: Any = import_module("pyreqwest.client").SyncClientBuilder().http1_only()
        if self.ca is not None:
            builder = builder.add_root_certificate_pem(Path(self.ca).read_bytes())
        if self.variant != "codings":
            builder = builder.gzip(False).brotli(False).zstd(False).deflate(False)
        if self.variant == "multithreaded":
            builder = builder.runtime_multithreaded(True)
        self.client = builder.build()
        self.target: Any = self.url if self.variant == "text" else import_module("pyreqwest.http").Url(self.url)

    def version(self) -> str:
        from importlib.metadata import version

        return version("pyreqwest")

    def session(self) -> Get:
        client, target = self.client, self.target

        def get() -> Sized:
            body: Sized = client.get(target).build().send().bytes()
            return body

        return get


class Pycurl(Peer):
    """A handle a thread, reused (curl's documentation: "reuse handles"), with NOSIGNAL as threads need it, TCP_NODELAY by libcurl's default.

    The body's pieces go into a list. `bytesio`: into a BytesIO by WRITEDATA; `perform_rb`: by pycurl's own method for that; `buffer`: into a list,
    by a receive buffer of 512 KiB instead of 16.
    """
    name = "pycurl"
    variants = ("", "bytesio", "perform_rb", "buffer")

    def open(self) -> None:
        self.pycurl: Any = import_module("pycurl")

    def version(self) -> str:
        return f"{self.pycurl.version.split()[0].split('/')[-1]} (libcurl {self.pycurl.version_info()[1]})"

    def session(self) -> Get:
        pycurl = self.pycurl
        curl = pycurl.Curl()
        curl.setopt(pycurl.URL, self.url)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.NOSIGNAL, 1)
        if self.ca is not None:
            curl.setopt(pycurl.CAINFO, self.ca)
        if self.variant == "buffer":
            curl.setopt(pycurl.BUFFERSIZE, 512 << 10)
        perform, setopt = curl.perform, curl.setopt
        if self.variant == "perform_rb":
            perform_rb: Get = curl.perform_rb
            return perform_rb
        if self.variant == "bytesio":
            def get() -> Sized:
                out = BytesIO()
                setopt(pycurl.WRITEDATA, out)
                perform()
                return out.getvalue()
        else:
            write = pycurl.WRITEFUNCTION

            def get() -> Sized:
                pieces: list[bytes] = []
                setopt(write, pieces.append)
                perform()
                return b"".join(pieces)

        return get


class Urllib3(Peer):
    """One pool, shared, that keeps a connection for each thread."""
    name = "urllib3"
    variants = ("", "manager")

    def open(self) -> None:
        urllib3: Any = import_module("urllib3")
        self.urllib3 = urllib3
        tls: dict[str, Any] = {} if self.ca is None else {"ca_certs": self.ca}
        if self.variant == "manager":
            request, target = urllib3.PoolManager(maxsize=self.threads, **tls).request, self.url
        else:
            parts = urlsplit(self.url)
            kind = urllib3.HTTPConnectionPool if self.ca is None else urllib3.HTTPSConnectionPool
            request, target = kind(parts.hostname, parts.port, maxsize=self.threads, **tls).request, parts.path
        self.get: Get = lambda: request("GET", target).data

    def version(self) -> str:
        return str(self.urllib3.__version__)

    def session(self) -> Get:
        return self.get


PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in (Pooledhttp, Pyreqwest, Pycurl, Urllib3)}


def make(client: str, task: Task) -> Peer:
    """`client`: a peer's name, or name/variant."""
    name, _, variant = client.partition("/")
    if name not in PEERS or variant not in PEERS[name].variants:
        raise LookupError(f"there is no client {client!r}")
    return PEERS[name](task, variant)


def variants() -> list[str]:
    return [f"{name}/{v}".rstrip("/") for name, peer in PEERS.items() if len(peer.variants) > 1 for v in peer.variants]
