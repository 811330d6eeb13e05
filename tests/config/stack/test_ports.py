import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from config.stack import ports


@contextmanager
def listening(*numbers: int) -> Iterator[None]:
    with ExitStack() as stack:
        for number in numbers:
            stack.enter_context(socket.create_server(("127.0.0.1", number)))
        yield


def test_ports_are_different_and_outside_the_ephemeral_range() -> None:
    found = ports.free_ports(20)
    assert len(set(found)) == 20
    assert all(20_000 <= port < 30_000 for port in found)


def test_a_port_somebody_listens_on_is_not_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    first = next(port for port in range(24_000, 29_000, 2) if ports.is_free(port) and ports.is_free(port + 1))
    monkeypatch.setattr(ports, "LOWEST_PORT", first)
    monkeypatch.setattr(ports, "HIGHEST_PORT", first + 1)
    with listening(first):
        assert ports.free_ports(1) == [first + 1]
    with listening(first, first + 1), pytest.raises(OSError, match="no 1 free ports"):
        ports.free_ports(1)
