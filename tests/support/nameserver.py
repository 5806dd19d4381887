"""A nameserver (RFC 1035, over UDP) that answers, refuses, or keeps silent, name by name; and counts.

`hangs….test` is never answered, `held….test` not before `release()`. `absent….test` does not exist, and `broken….test` is this server's
failure, as long as `addresses` has nothing for it. Any other name has the addresses that `addresses` says, else 127.0.0.1.
"""
from __future__ import annotations

import socket
import struct
import threading
from collections import Counter

A, AAAA = 1, 28
SERVFAIL, NXDOMAIN = 2, 3


class Nameserver:
    def __init__(self, host: str = "127.0.0.1", port: int = 53) -> None:
        self.addresses: dict[str, list[str]] = {}
        self.changed = threading.Condition()
        self._asked: Counter[str] = Counter()
        self._held: list[tuple[bytes, tuple[str, int]]] = []
        self._released = False
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind((host, port))
        threading.Thread(target=self._serve, name="nameserver", daemon=True).start()

    def calls(self, name: str) -> int:
        """How many lookups of `name` have come: libc asks for A and AAAA, of which A is counted."""
        return self._asked[name]

    def release(self) -> None:
        """Answer what was held, and hold no more."""
        with self.changed:
            self._released = True
            held, self._held = self._held, []
        for query, client in held:
            self._sock.sendto(self._answer(query), client)

    def _serve(self) -> None:
        while True:
            query, client = self._sock.recvfrom(4096)
            name, kind, _ = self._question(query)
            with self.changed:
                if kind == A:
                    self._asked[name] += 1
                    self.changed.notify_all()
                if name.startswith("hangs"):
                    continue
                if name.startswith("held") and not self._released:
                    self._held.append((query, client))
                    continue
            self._sock.sendto(self._answer(query), client)

    @staticmethod
    def _question(query: bytes) -> tuple[str, int, int]:
        """Its name, its type, and where it ends."""
        labels, at = [], 12
        while size := query[at]:
            labels.append(query[at + 1:at + 1 + size].decode("ascii"))
            at += 1 + size
        return ".".join(labels).lower(), struct.unpack_from(">H", query, at + 1)[0], at + 5

    def _answer(self, query: bytes) -> bytes:
        name, kind, end = self._question(query)
        addresses, code = self.addresses.get(name), 0
        if addresses is None:
            addresses = ["127.0.0.1"]
            if name.startswith("absent"):
                addresses, code = [], NXDOMAIN
            elif name.startswith("broken"):
                addresses, code = [], SERVFAIL
        packed = [socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip) for ip in addresses if (":" in ip) == (kind == AAAA)]
        records = b"".join(struct.pack(">HHHIH", 0xC00C, kind, 1, 0, len(ip)) + ip for ip in packed)
        return query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(packed), 0, 0) + query[12:end] + records
