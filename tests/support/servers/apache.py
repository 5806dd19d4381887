from __future__ import annotations

import os
from typing import ClassVar

from tests.support.servers.base import BRIEF, FEW, LONG, Server, keeps, secure

MODULES = ("mpm_event", "authz_core", "setenvif", "rewrite", "proxy", "proxy_http", "http2", "ssl")


class Apache(Server):
    name = "apache"
    package = "apache2-bin"
    binary = "apache2"
    doors: ClassVar[tuple[str, ...]] = ("main", "brief", "few")
    speaks = ("h1", "h2c", "h2")
    apart = True

    def commands(self) -> list[list[str]]:
        lasts = {"main": f"KeepAliveTimeout {LONG}", "brief": f"KeepAliveTimeout {BRIEF}",
                 "few": f"KeepAliveTimeout {LONG}\n    MaxKeepAliveRequests {FEW - 1}"}        # it does not count a connection's first
        tls = "SSLEngine on\n    SSLCertificateFile {}\n    SSLCertificateKeyFile {}\n    Protocols h2 http/1.1".format(*self.certificate or ("", ""))
        speaks = {door: tls if secure(door) else "Protocols h2c" if door.startswith("h2c-") else "" for door in self.port}
        load = "".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n" for name in MODULES)
        hosts = "".join(f"""
Listen 127.0.0.1:{port}
<VirtualHost 127.0.0.1:{port}>
    DocumentRoot {self.files}
    {lasts[keeps(door)]}
    {speaks[door]}
    RewriteEngine on
    RewriteRule ^/204$ - [R=204,L]
    RewriteRule ^/(?:echo|mirror|worker|chunked/.*)$ http://127.0.0.1:{self.backend}%{{REQUEST_URI}} [P,L]
    SetEnvIf Request_URI ^/close/ nokeepalive
    <Location /deny>
        Require all denied
    </Location>
</VirtualHost>
""" for door, port in self.port.items())
        config = self.write("httpd.conf", f"""
{load}
ServerName 127.0.0.1
ServerRoot {self.directory}
{"User nobody" if os.geteuid() == 0 else ""}
{"Group nogroup" if os.geteuid() == 0 else ""}
PidFile {self.directory}/httpd.pid
ErrorLog {self.directory}/error.log
Mutex file:{self.directory} default
StartServers 1
ServerLimit 1
ThreadsPerChild 64
MaxRequestWorkers 64
MaxKeepAliveRequests 0
KeepAlive On
<Directory {self.files}>
    Require all granted
</Directory>
{hosts}
""")
        return [["-DFOREGROUND", "-f", config]]
