"""Free TCP ports for the embedded servers."""

import random
import socket

# Below the ephemeral range (32768 and up on Linux): a client that retries a dead server on an ephemeral port may be given
# that very port as its own, connect to itself, and keep the restarted server from binding. Above Ray's worker ports
# (10002-19999) and below Serve's direct ingress (30000-31000).
LOWEST_PORT = 20_000
HIGHEST_PORT = 29_999
_TRIES = 500


def free_ports(count: int) -> list[int]:
    """`count` different ports that nothing on 127.0.0.1 listens on at this moment.

    Another process may still take one before the caller binds it, so callers start over with new ports when a bind
    fails. Raises `OSError` when no free port is found.
    """
    chooser = random.SystemRandom()
    found: list[int] = []
    for _ in range(_TRIES):
        if len(found) == count:
            return found
        port = chooser.randint(LOWEST_PORT, HIGHEST_PORT)
        if port not in found and is_free(port):
            found.append(port)
    raise OSError(
        f"no {count} free ports between {LOWEST_PORT} and {HIGHEST_PORT} on 127.0.0.1: stop other servers first"
    )


def free_port_range(count: int) -> int:
    """The first of `count` consecutive ports that are free at this moment. Raises `OSError` when there are none."""
    chooser = random.SystemRandom()
    for _ in range(_TRIES):
        first = chooser.randint(LOWEST_PORT, HIGHEST_PORT - count)
        if all(is_free(port) for port in range(first, first + count)):
            return first
    raise OSError(f"no {count} consecutive free ports between {LOWEST_PORT} and {HIGHEST_PORT} on 127.0.0.1")


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there at this moment."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Servers bind with this option too, so a port whose last connections linger in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
