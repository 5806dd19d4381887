"""Servers that let in a user with a password: Apache by digest and basic authentication, nginx by basic. Beside the matrix; one door each.

/digest  digest, each nonce good for long (Apache alone)
/next    digest, each answer names the next nonce (Apache alone)
/basic   basic
Beneath each the files of the routes.
"""
from __future__ import annotations

import hashlib
import os
import shutil
from base64 import b64encode
from typing import ClassVar

from tests.support.servers.base import SYSTEM, Server

USER, PASSWORD, REALM = "zo\xeb", "p\xe4ss: w\xf6rd", "the inner, ring"        # Apache takes no answer to a realm with a quote in it


def _users() -> str:
    return f"{USER}:{{SHA}}{b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()}\n"


class GuardedApache(Server):
    name = "apache-guarded"
    package = "apache2-bin"
    binary = "apache2"
    doors: ClassVar[tuple[str, ...]] = ("main",)

    def commands(self) -> list[list[str]]:
        known = hashlib.md5(f"{USER}:{REALM}:{PASSWORD}".encode()).hexdigest()
        digests = self.write("digests", f"{USER}:{REALM}:{known}\n")
        users = self.write("users", _users())
        modules = ("mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_basic", "auth_digest", "alias")
        load = "".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n" for name in modules)
        digest = f"AuthType Digest\n AuthName '{REALM}'\n AuthDigestProvider file\n AuthUserFile {digests}\n Require valid-user"
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
ThreadsPerChild 16
MaxRequestWorkers 16
MaxKeepAliveRequests 0
KeepAlive On
Listen 127.0.0.1:{self.port["main"]}
Alias /digest {self.files}
Alias /next {self.files}
Alias /basic {self.files}
<Directory {self.files}>
    Require all denied
</Directory>
<Location /digest>
    {digest}
    AuthDigestNonceLifetime 600
</Location>
<Location /next>
    {digest}
    AuthDigestNonceLifetime 20
</Location>
<Location /basic>
    AuthType Basic
    AuthName "{REALM}"
    AuthBasicProvider file
    AuthUserFile {users}
    Require valid-user
</Location>
""")
        return [["-DFOREGROUND", "-f", config]]

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot be tried here."""
        return None if cls.find() else f"{cls.binary} of the Debian package {cls.package} is not installed"


class GuardedNginx(Server):
    name = "nginx-guarded"
    package = "nginx-light"
    binary = "nginx"
    doors: ClassVar[tuple[str, ...]] = ("main",)

    def commands(self) -> list[list[str]]:
        users = self.write("users", _users())
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"    {kind}_temp_path {self.directory}/{kind};\n" for kind in kinds)
        config = self.write("nginx.conf", f"""
{"user root;" if os.geteuid() == 0 else ""}
daemon off;
worker_processes 1;
pid {self.directory}/nginx.pid;
error_log {self.directory}/error.log;
events {{ worker_connections 128; }}
http {{
    access_log off;
{temporary}
    server {{
        listen 127.0.0.1:{self.port["main"]};
        location /basic/ {{
            alias {self.files}/;
            auth_basic "ring";
            auth_basic_user_file {users};
        }}
    }}
}}
""")
        return [["-p", str(self.directory), "-c", config, "-e", f"{self.directory}/error.log"]]

    @classmethod
    def find(cls) -> str | None:
        return shutil.which(cls.binary, path=SYSTEM)
