"""The ready-made filter of addresses, table by table."""
from __future__ import annotations

import ipaddress
import pickle
import random
from typing import Any

import pytest

import pooledhttp
from pooledhttp import public_addresses_only
from pooledhttp.filters import _IPV4, _IPV6

PUBLIC4 = ["1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0", "168.63.129.15",
           "168.63.129.17", "169.253.255.255",
           "169.255.0.0", "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.0.3.0", "192.31.196.1", "192.52.193.1", "192.88.98.255",
           "192.88.100.0",
           "192.167.255.255", "192.169.0.0", "192.175.48.1", "198.17.255.255", "198.20.0.0", "198.51.99.255", "198.51.101.0", "203.0.112.255", "203.0.114.0",
           "223.255.255.255"]
OTHER4 = ["0.0.0.0", "0.0.0.1", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.100.100.200", "100.127.255.255", "127.0.0.0", "127.0.0.1",
          "127.255.255.255",
          "168.63.129.16", "169.254.0.0", "169.254.169.254", "169.254.170.2", "169.254.255.255", "172.16.0.0", "172.31.255.255", "192.0.0.0", "192.0.0.9",
          "192.0.0.170", "192.0.0.192",
          "192.0.0.255", "192.0.2.0", "192.0.2.255", "192.88.99.1", "192.168.0.0", "192.168.255.255", "198.18.0.0", "198.19.255.255", "198.51.100.1",
          "203.0.113.255", "224.0.0.0",
          "224.0.0.1", "239.255.255.255", "240.0.0.0", "255.255.255.254", "255.255.255.255"]
PUBLIC6 = ["2000::", "2001:200::", "2001:4860:4860::8888", "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::", "2003::1", "2606:4700:4700::1111",
           "2620:4f:8000::1",
           "2a00:1450:4001:81b::200e", "3ffe:ffff::", "3fff:1000::", "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2a00::5efd:10.0.0.1",
           "2a00::1:5efe:10.0.0.1", "2A00::A"]
OTHER6 = ["::", "::1", "::2", "::ffff", "::10.0.0.1", "::8.8.8.8", "::ffff:0:8.8.8.8", "::fffe:8.8.8.8", "1::", "64:ff9b:1::", "64:ff9b:1::8.8.8.8",
          "64:ff9b:1:ffff::8.8.8.8",
          "64:ff9b:2::8.8.8.8", "64:ff9b:0:0:0:1:808:808", "64:ff9a::8.8.8.8", "100::", "100::1", "100:0:0:1::1", "200::",
          "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001::",
          "2001::808:808", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:1::1", "2001:2::", "2001:3::", "2001:4:112::1", "2001:10::", "2001:20::", "2001:30::",
          "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2002::", "2002:a00:1::", "2002:808:808::808:808",
          "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "4000::", "5f00::1", "8000::", "fc00::", "fc00::1",
          "fd00:ec2::254", "fdff::1",
          "fe00::1", "fe80::", "fe80::1", "febf::1", "fec0::1", "feff::1", "ff00::", "ff02::1", "ff0e::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]
ODD: list[Any] = ["", " ", "1", "127.1", "2130706433", "0x7f.0.0.1", "0x08080808", "010.8.8.8", "8.8.8.8.", " 8.8.8.8", "8.8.8.8 ", "8.8.8", "8.8.8.8.8",
                  "8.8.8.8:80", "8.8.8.256", "-1.8.8.8",
                  "8.8.8.8\0", "8.8.8.8%eth0", "８.8.8.8", "localhost", "example.com", ":", "[::1]", "[2606:4700::1111]", "2606:4700::1111%eth0",
                  "2606:4700::1111%", "fe80::1%eth0", "fe80::1%1",
                  "2606:4700::1111/64", "2606::4700::1111", "2606:4700::g", "::ffff:8.8.8.8%1", "::ffff:127.1", "::ffff:8.8.8.8.8", None, 5, 134744072,
                  b"8.8.8.8", b"\x08\x08\x08\x08", ["8.8.8.8"],
                  "\ud800", "8.8.8.8\n"]


@pytest.mark.parametrize(("addresses", "allowed"), [(PUBLIC4, True), (OTHER4, False), (PUBLIC6, True), (OTHER6, False), (ODD, False)],
                         ids=["4", "not-4", "6", "not-6", "odd"])
def test_table(addresses: list[Any], allowed: bool) -> None:
    assert [address for address in addresses if public_addresses_only(address, 443) is not allowed] == []


HOLDERS = ["::ffff:{}", "0:0:0:0:0:FFFF:{}", "64:ff9b::{}", "2a00::5efe:{}", "2a00::200:5efe:{}", "2a00:1:2:3:0:5EFE:{}"]


@pytest.mark.parametrize("holder", HOLDERS)
def test_an_ipv4_address_inside_is_what_counts(holder: str) -> None:
    for allowed, addresses in ((True, PUBLIC4), (False, OTHER4)):
        for address in addresses:
            number = int(ipaddress.IPv4Address(address))
            for inside in (address, f"{number >> 16:x}:{number & 0xffff:x}"):
                assert public_addresses_only(holder.format(inside), 80) is allowed, holder.format(inside)


@pytest.mark.parametrize("networks", [_IPV4, _IPV6])
def test_every_network_of_the_tables_to_its_edges(networks: tuple[tuple[str, int], ...]) -> None:
    for network, prefix in networks:
        whole = ipaddress.ip_network(f"{network}/{prefix}")            # strict: no bits behind the prefix
        for address in (whole[0], whole[-1]):
            assert not public_addresses_only(str(address), 80)


def test_whatever_python_calls_private_is_refused() -> None:
    """Its tables grew from one version to the next; ours are no laxer than any of them, but for what is within one network's translation."""
    chance = random.Random(7)
    numbers = [chance.getrandbits(32) for _ in range(3000)]
    addresses: list[Any] = [ipaddress.IPv4Address(n) for n in numbers]
    addresses += [ipaddress.IPv6Address(chance.getrandbits(128)) for _ in range(1000)]
    addresses += [ipaddress.IPv6Address((chance.choice([0x2001, 0x2002, 0x3fff, 0xfd00, 0xfe80,
                                                        0x2a00]) << 112) | chance.getrandbits(112)) for _ in range(1000)]
    for address in addresses:
        if not address.is_global or address.is_multicast or address.is_reserved:
            assert not public_addresses_only(str(address), 80), address


@pytest.mark.parametrize("port", [0, 1, 22, 25, 80, 443, 6379, 65535])
def test_every_port_is_allowed(port: int) -> None:
    assert public_addresses_only("8.8.8.8", port)
    assert not public_addresses_only("10.0.0.1", port)


def test_it_is_exported_late_and_pickles() -> None:
    assert "public_addresses_only" in pooledhttp.__all__
    assert pickle.loads(pickle.dumps(public_addresses_only)) is pooledhttp.public_addresses_only
    with pooledhttp.Client(connect_filter=public_addresses_only) as client, pickle.loads(pickle.dumps(client)) as again:
        assert again.transport.options["connect_filter"] is public_addresses_only
