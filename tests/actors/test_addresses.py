"""The address of this machine in a network."""

import ipaddress
from collections import namedtuple
from socket import AF_INET, AF_INET6

import psutil
import pytest

from actors.addresses import NoAddressThere, address_in

Address = namedtuple("Address", "family address")


def test_by_default_it_is_the_loopback() -> None:
    assert ipaddress.ip_address(address_in("127.0.0.0/8")).is_loopback


@pytest.mark.parametrize(
    ("network", "address"),
    [
        ("10.1.0.0/16", "10.1.0.7"),
        ("10.0.0.0/8", "10.1.0.7"),
        ("fd00::/8", "fd00::7"),
        ("fe80::/10", "fe80::1"),
    ],
)
def test_of_several_it_is_the_one_in_the_network(network: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    interfaces = {
        "lo": [Address(AF_INET, "127.0.0.1")],
        "eth0": [Address(AF_INET, "10.1.0.7"), Address(AF_INET6, "fe80::1%eth0"), Address(AF_INET6, "fd00::7")],
        "eth1": [Address(AF_INET, "10.20.0.1"), Address(17, "02:42:ac:11:00:02")],
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: interfaces)
    assert address_in(network) == address


def test_a_machine_outside_it_is_told_what_it_has() -> None:
    with pytest.raises(
        NoAddressThere, match=r"shard\.door_network: .* no address in 203\.0\.113\.0/24, but .*127\.0\.0\.1"
    ):
        address_in("203.0.113.0/24")
