from __future__ import annotations

from typing import ClassVar

from tests.support.servers.base import BRIEF, LONG, Server


class Varnish(Server):
    """In front of nginx; nothing is cached but what a GET brings."""

    name = package = "varnish"
    binary = "varnishd"
    before = "nginx"
    speaks = ("h1", "h2c")
    asks_version: ClassVar[tuple[str, ...]] = ("-V",)

    def commands(self) -> list[list[str]]:
        config = self.write("default.vcl", f"""
vcl 4.1;
backend default {{
    .host = "127.0.0.1";
    .port = "{self.backend}";
}}
sub vcl_recv {{
    if (local.socket == "brief") {{
        set sess.timeout_idle = {BRIEF}s;
    }}
    if (req.url == "/204") {{
        return (synth(204));
    }}
    if (req.url == "/deny") {{
        return (synth(403));
    }}
    if (req.url ~ "^/worker" || req.method != "GET" && req.method != "HEAD") {{
        return (pass);
    }}
    return (hash);
}}
sub vcl_deliver {{
    if (req.url ~ "^/close/") {{
        set resp.http.Connection = "close";
    }}
}}
""")
        listen = [word for door, port in self.port.items() for word in ("-a", f"{door}=127.0.0.1:{port}")]
        return [["-F", *listen, "-f", config, "-n", f"{self.directory}/work", "-s", "malloc,64m", "-T", "none", "-j", "none",
                 "-p", f"timeout_idle={LONG}", "-p", "feature=+http2", "-p", "thread_pools=1", "-p", "thread_pool_min=20", "-p", "vsl_space=1m"]]
