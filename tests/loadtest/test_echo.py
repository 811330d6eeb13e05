"""The echo: a process of its own, reached by the bench's own line."""

import asyncio

import pytest

from actors.door_wire import Release
from loadtest.check_bench import dial
from loadtest.echo import echo


async def test_the_echo_answers_every_call_with_itself() -> None:
    async with echo() as port:
        line = await dial("127.0.0.1", port, None)
        answers = await asyncio.gather(*(line.call(Release(f"token {number}")) for number in range(100)))
        assert [answer.question.token for answer in answers] == [f"token {number}" for number in range(100)]
        line.close()
    with pytest.raises(OSError, match="Connect"):
        await dial("127.0.0.1", port, None)
