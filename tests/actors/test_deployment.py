"""The small parts of a deployment's way up; the whole of it is run by tests/integration/test_up.py and the demo."""

import threading

import pytest

from actors import deployment
from actors.deployment import NotReady, until


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("postgresql://owner:secret@127.0.0.1:5432/rating", "postgresql://engine:word@127.0.0.1:5432/rating"),
        ("postgresql://owner@db.example:5432/rating?sslmode=require", "postgresql://engine:word@db.example:5432/rating?sslmode=require"),
        ("postgres://127.0.0.1/rating", "postgres://engine:word@127.0.0.1/rating"),
        ("postgresql://owner:p%40ss@[::1]:5432/rating", "postgresql://engine:word@[::1]:5432/rating"),
        ("postgresql://owner:secret@localhost/rating?options=a@b", "postgresql://engine:word@localhost/rating?options=a@b"),
    ],
)  # fmt: skip
def test_the_engine_gets_its_own_role_in_the_same_database(dsn: str, expected: str) -> None:
    assert deployment._with_user(dsn, "engine", "word") == expected


def test_the_engines_password_is_that_of_its_control_key() -> None:
    """So an `up` that comes back does not lock out what an earlier one has left in its Ray."""
    assert deployment.engine_password(b"k" * 32) == deployment.engine_password(b"k" * 32)
    assert deployment.engine_password(b"k" * 32) != deployment.engine_password(b"l" * 32)


async def test_what_does_not_come_is_named() -> None:
    async def never() -> bool:
        return False

    with pytest.raises(NotReady, match="waited 0 s for the moon"):
        await until(never, "the moon", timeout_s=0.0)


async def test_what_holds_is_not_waited_for() -> None:
    asked = []

    async def at_the_second_look() -> bool:
        asked.append(1)
        return len(asked) == 2

    await until(at_the_second_look, "the second look")
    assert len(asked) == 2


async def test_what_blocks_too_long_is_left_behind_and_what_fails_is_told() -> None:
    going_on = threading.Event()
    try:
        assert not await deployment._done_within(lambda: bool(going_on.wait()), 0.05)
    finally:
        going_on.set()
    assert await deployment._done_within(going_on.clear, 30.0)

    def broken() -> None:
        raise ValueError("no such application")

    with pytest.raises(ValueError, match="no such application"):
        await deployment._done_within(broken, 30.0)
