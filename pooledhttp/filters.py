"""Filters of addresses, for `Transport(connect_filter=...)`.

The tables are IANA's special-purpose registries (RFC 6890) as of 2025, and stricter. They are our own: what `ipaddress` calls private or global
differs from one Python to the next.
"""
from __future__ import annotations

import socket

# What is not a host of the public Internet, though some of it can be reached.
_IPV4 = (
    ("0.0.0.0", 8),              # this network (RFC 791 section 3.2); connecting to 0.0.0.0 means this machine
    ("10.0.0.0", 8),             # private (RFC 1918)
    ("100.64.0.0", 10),          # shared: carrier-grade NAT (RFC 6598)
    ("127.0.0.0", 8),            # loopback (RFC 1122 section 3.2.1.3)
    ("168.63.129.16", 32),       # a public number that is Azure's own service inside its machines
    ("169.254.0.0", 16),         # link-local (RFC 3927), where clouds have their metadata
    ("172.16.0.0", 12),          # private (RFC 1918)
    ("192.0.0.0", 24),           # protocol assignments (RFC 6890 section 2.1)
    ("192.0.2.0", 24),           # documentation (RFC 5737)
    ("192.88.99.0", 24),         # relays of 6to4 (RFC 7526)
    ("192.168.0.0", 16),         # private (RFC 1918)
    ("198.18.0.0", 15),          # benchmarking (RFC 2544)
    ("198.51.100.0", 24),        # documentation (RFC 5737)
    ("203.0.113.0", 24),         # documentation (RFC 5737)
    ("224.0.0.0", 4),            # multicast (RFC 5771)
    ("240.0.0.0", 4),            # reserved (RFC 1112 section 4), and the broadcast address (RFC 919)
)
# Within 2000::/3, outside of which nothing is public (RFC 4291 section 2.4): no ::, ::1, ::/96, fc00::/7, fe80::/10, fec0::/10, ff00::/8, ...
_IPV6 = (
    ("2001::", 23),              # protocol assignments (RFC 2928): Teredo (4380), benchmarking (5180), ORCHID (7343), ...
    ("2001:db8::", 32),          # documentation (RFC 3849)
    ("2002::", 16),              # 6to4 (RFC 3056), which holds an IPv4 address
    ("3fff::", 20),              # documentation (RFC 9637)
)


def _ranges(family: int, networks: tuple[tuple[str, int], ...]) -> tuple[tuple[int, int], ...]:
    """(first, last) of each, as numbers."""
    out = []
    for network, prefix in networks:
        packed = socket.inet_pton(family, network)
        first = int.from_bytes(packed, "big")
        out.append((first, first | (1 << (len(packed) * 8 - prefix)) - 1))
    return tuple(out)


_RANGES4 = _ranges(socket.AF_INET, _IPV4)
_RANGES6 = _ranges(socket.AF_INET6, _IPV6)
_MAPPED = 0xFFFF                                        # ::ffff:0:0/96 (RFC 4291 section 2.5.5.2), as its upper 96 bits
_NAT64 = 0x0064FF9B << 64                               # 64:ff9b::/96 (RFC 6052 section 2.1)
_ISATAP = 0x5EFE                                        # in the middle of an interface's number (RFC 5214 section 6.1), with or without its "u" bit


def _public4(number: int) -> bool:
    return not any(first <= number <= last for first, last in _RANGES4)


def _public6(number: int) -> bool:
    upper = number >> 32
    if upper in (_MAPPED, _NAT64):
        return _public4(number & 0xFFFFFFFF)
    if number >> 125 != 1:                              # 2000::/3
        return False
    if any(first <= number <= last for first, last in _RANGES6):
        return False
    return upper & 0xFDFFFFFF != _ISATAP or _public4(number & 0xFFFFFFFF)


def public_addresses_only(ip: str, port: int) -> bool:
    """A `connect_filter` against requests to where they should not go (SSRF): whether `ip` is a public unicast address.

    False for private, loopback, link-local, multicast, unspecified, reserved, shared (carrier-grade NAT), benchmarking, documentation and
    broadcast addresses, and for unique-local and site-local ones of IPv6. An IPv6 address that holds an IPv4 address is judged by that where a
    network's own translation leads to it (v4-mapped, NAT64's 64:ff9b::/96, ISATAP), and refused otherwise (v4-compatible, 6to4, Teredo,
    64:ff9b:1::/48). So are addresses with a zone, and what is no IP address. Every port is allowed.
    """
    try:
        if ":" in ip:
            return _public6(int.from_bytes(socket.inet_pton(socket.AF_INET6, ip), "big"))
        return _public4(int.from_bytes(socket.inet_pton(socket.AF_INET, ip), "big"))
    except (OSError, ValueError, TypeError):
        return False
