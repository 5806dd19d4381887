"""A gibibyte in a process of its own, whose peak memory is then the transfer's.

    python -m tests.interop.memory {stream|whole|file} URL CA.pem [FILE]

prints as JSON what came, and by how many bytes the peak rose above what a small request needs.
"""
from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from pooledhttp import Client


def peak() -> int:
    """The greatest resident size of this process so far, in bytes. (getrusage's is inherited from whoever started us.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def main(kind: str, url: str, small: str, ca: str, *path: str) -> dict[str, Any]:
    with Client(verify=ca, timeout=60.0) as client:
        # Everything that is imported and made once.
        warm = client.post(small, content=iter([bytes(300_000)])) if kind == "file" else client.get(small)
        before = peak()
        seen: dict[str, Any] = {}
        if kind == "stream":
            size = zeros = 0
            block = bytes(1 << 18)
            with client.stream("GET", url) as r:
                buffer = bytearray(1 << 18)
                while n := r.readinto(buffer):
                    size += n
                    zeros += n * (buffer == block if n == len(block) else buffer[:n] == block[:n])
            seen = {"size": size, "zeros": zeros, "status": r.status_code}
        elif kind == "whole":
            r = client.get(url)
            risen = peak() - before
            body = r.content
            seen = {"size": len(body), "status": r.status_code, "first": body[:16].hex(), "last": body[-16:].hex(), "risen": risen}
        else:
            with open(path[0], "rb") as f:
                r = client.put(url, content=f)
            seen = {"status": r.status_code, "text": r.text, "conn": r.conn.requests}
        seen.setdefault("risen", peak() - before)
        after = client.get(small)
        seen["again"] = after.conn.requests
        seen["opened"] = client.transport.stats().opened
        assert warm.status_code == after.status_code == 200, hashlib.sha256(after.content).hexdigest()
    return seen


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
