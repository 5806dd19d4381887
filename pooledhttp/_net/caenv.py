"""The environment's CA variables. Imports next to nothing: each client reads them when it is made."""
from __future__ import annotations

import os
from collections.abc import Mapping

CA_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

# What `environment` returned before, and the paths and variables that it stands for; a process has few.
environments: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {}


def environment(environ: Mapping[str, str]) -> str:
    """The CA variables as they are now, as what a pool key ends with; "" where none is set.

    SSL_CERT_FILE and SSL_CERT_DIR (together), else REQUESTS_CA_BUNDLE, else CURL_CA_BUNDLE.
    """
    paths, named = ("", ""), ("", "")
    file, folder, *bundles = (environ.get(name, "") for name in CA_VARIABLES)
    if file or folder:
        paths, named = (file, folder), (CA_VARIABLES[0], CA_VARIABLES[1])
    else:
        for name, path in zip(CA_VARIABLES[2:], bundles, strict=True):
            if path:
                paths, named = ("", path) if os.path.isdir(path) else (path, ""), (name, name)
                break
        else:
            return ""
    trust = f" ({', '.join(f'{name}={path!r}' for name, path in zip(named, paths, strict=True) if path)})"
    environments[trust] = paths, named
    return trust
