"""This machine's own addresses: where others of the deployment find it."""

import ipaddress
import socket

import psutil

_FAMILIES = (socket.AF_INET, socket.AF_INET6)


class NoAddressThere(ValueError):
    """This machine has no address in the network; the message names both, and the setting."""


def address_in(network: str) -> str:
    """This machine's address in a network such as `10.0.0.0/16`; the lowest of several. Raises NoAddressThere."""
    within = ipaddress.ip_network(network)
    stated = [each for interface in psutil.net_if_addrs().values() for each in interface if each.family in _FAMILIES]
    own = {ipaddress.ip_address(each.address.partition("%")[0]) for each in stated}  # %: the zone of a link-local one
    there = [address for address in own if address in within]
    if not there:
        raise NoAddressThere(
            f"shard.door_network: {socket.gethostname()} has no address in {network}, but {', '.join(sorted(map(str, own)))}: "
            "set it to a network that every machine with a shard is in"
        )
    return str(min(there, key=int))
