"""The start of the comparison, in another environment."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from loadtest.peers.__main__ import PeerFailed, compare


def test_the_last_line_is_the_figures_and_a_redis_is_named_by_its_port() -> None:
    asked: list[Sequence[str]] = []

    def run(command: Sequence[str]) -> bytes:
        asked.append(command)
        return b"a warning of the peer\n" + b'{"in_memory": 1}\n'

    assert compare(Path("env/python"), 7, ("--calls", "3"), run) == {"in_memory": 1}
    assert compare(Path("env/python"), None, (), run) == {"in_memory": 1}
    assert asked[0] == ["env/python", "-m", "loadtest.peers.side_by_side", "--calls", "3", "--redis-port", "7"]
    assert "--redis-port" not in asked[1]


def test_a_comparison_that_says_nothing_failed() -> None:
    with pytest.raises(PeerFailed, match="printed nothing"):
        compare(Path("env/python"), None, (), lambda _: b"")
