"""Answers given again, on a real database: once per actor and key, sealed at rest, for a day."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import asyncpg
import pytest

from actors.idempotency import Idempotency, KeptAnswer, KeyBusy, KeyReused
from tests.contracts.benches import RealBench, real_bench

KEY = bytes(range(32))
FIRST, SECOND = (hashlib.sha256(text).digest() for text in (b"first", b"second"))
ANSWER = KeptAnswer(201, b'{"secret":"whsec_only-once"}')


@pytest.fixture
async def bench(database: str) -> AsyncIterator[RealBench]:
    async with real_bench(database) as opened:
        yield opened


@pytest.fixture
async def answers(bench: RealBench) -> Idempotency:
    return await bench.started(Idempotency(bench.dsn, bench.schema, KEY))


async def sql(bench: RealBench, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(bench.owner_dsn, server_settings={"search_path": bench.schema})
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


async def test_the_first_does_it_and_whoever_repeats_gets_that_answer(answers: Idempotency) -> None:
    assert await answers.begin("a", "k", "op", FIRST) is None
    with pytest.raises(KeyBusy):
        await answers.begin("a", "k", "op", FIRST)
    await answers.keep("a", "k", ANSWER)
    assert await answers.begin("a", "k", "op", FIRST) == ANSWER
    with pytest.raises(KeyReused):
        await answers.begin("a", "k", "op", SECOND)
    assert await answers.begin("b", "k", "op", SECOND) is None, "another actor's key is another key"


async def test_of_many_at_once_one_is_the_first(bench: RealBench) -> None:
    several = [await bench.started(Idempotency(bench.dsn, bench.schema, KEY)) for _ in range(4)]
    begun = [each.begin("a", "k", "op", FIRST) for each in several for _ in range(5)]
    outcomes = await asyncio.gather(*begun, return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 1
    assert sum(isinstance(outcome, KeyBusy) for outcome in outcomes) == 19


async def test_when_nothing_happened_the_key_is_free_and_an_answer_stays(answers: Idempotency) -> None:
    assert await answers.begin("a", "k", "op", FIRST) is None
    await answers.forget("a", "k")
    assert await answers.begin("a", "k", "op", SECOND) is None
    await answers.keep("a", "k", ANSWER)
    await answers.forget("a", "k")
    assert await answers.begin("a", "k", "op", SECOND) == ANSWER


async def test_an_answer_is_sealed_at_rest_for_its_actor_and_key(bench: RealBench, answers: Idempotency) -> None:
    for key in ("k", "other"):
        assert await answers.begin("a", key, "op", FIRST) is None
        await answers.keep("a", key, ANSWER)
    for row in await sql(bench, "SELECT * FROM idempotency"):
        assert b"only-once" not in row["answer"]
    await sql(
        bench,
        "UPDATE idempotency SET answer = (SELECT answer FROM idempotency WHERE idempotency_key = 'other') "
        "WHERE idempotency_key = 'k'",
    )
    with pytest.raises(KeyBusy):
        await answers.begin("a", "k", "op", FIRST)
    under_another_key = await bench.started(Idempotency(bench.dsn, bench.schema, bytes(32)))
    with pytest.raises(KeyBusy):
        await under_another_key.begin("a", "other", "op", FIRST)


async def test_after_a_day_a_key_is_free_and_old_ones_are_cleared_away(bench: RealBench, answers: Idempotency) -> None:
    for key in ("k", "l", "m"):
        assert await answers.begin("a", key, "op", FIRST) is None
        await answers.keep("a", key, ANSWER)
    await sql(
        bench,
        "UPDATE idempotency SET begun_at = begun_at - interval '24 hours 1 second' WHERE idempotency_key <> 'm'",
    )
    assert await answers.begin("a", "k", "op", SECOND) is None
    rows = await sql(bench, "SELECT idempotency_key FROM idempotency ORDER BY 1")
    assert [row["idempotency_key"] for row in rows] == ["k", "m"]
