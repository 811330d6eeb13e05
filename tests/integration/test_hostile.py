"""The API on real servers, as strangers, floods and garbage meet it: over real sockets, with real owners behind.

What the table of routes promises of fakes (`tests/actors/web/test_api.py`) is held here of the real thing.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Final

import orjson
import pytest

from actors.assembly import brokers
from actors.deployment import until
from actors.kafka import TopicReader
from actors.keys import KeyScope
from actors.ports import Record
from actors.web.openapi import document
from actors.web.wire import Route
from loadtest.readback import rated_lines, read_log
from tests.actors.web.asgi_client import Response
from tests.actors.web.test_api import HEADER_GAMES, ROUTES, filled, mutated, named
from tests.integration.front import Caller, Front, front
from tests.integration.test_tenants import event

MUTATED: Final = 2_400
CALLERS: Final = 8
ANSWER_S: Final = 60.0  # a connection that says nothing for so long hangs
PLAYED: Final = [route for route in ROUTES if not route.path.endswith("/stream")]
WHOSE: Final = {"own": "acme", "foreign": "globex", "absent": "nobody"}


@pytest.fixture(scope="module")
def promised() -> dict[str, set[int]]:
    """The statuses that the API's own document allows, by operation."""
    paths = document(ROUTES)["paths"]
    return {
        f"{method.upper()} {path}": {int(status) for status in operation["responses"]}
        for path, operations in paths.items()
        for method, operation in operations.items()
    }


async def opened(operator: Caller, *accounts: str) -> None:
    for account in accounts:
        await operator.done("POST", "/v1/customers", {"account": account, "plan": "starter"})
        grant = {"amount": "1000", "currency": "USD", "lot": "first"}
        await operator.done("POST", f"/v1/customers/{account}/grants", grant)


# ------------------------------------------------------------------------------------------------------ who is let in


async def example(caller: Caller, route: Route, account: str, **more: str) -> Response:
    """The example of the route, about this account; `more` are headers."""
    asked = route.example.request
    if isinstance(asked, dict):
        asked = dict(asked)
        asked |= {"account": account} if "account" in asked else {}
        asked |= {"subject": account} if "subject" in asked else {}
    headers = {} if asked is None else {"content-type": (route.raw_body or ("application/json",))[0]}
    if route.path == "/v1/customers/{account}/stream":
        route = replace(route, path=route.path.removesuffix("/stream"))  # an answer without an end; the same rights
    target = filled(route, account).replace("account=acme", f"account={account}")
    return await caller.ask(route.method, target, asked, headers | more)


def gate(route: Route, is_bound: bool, whose: str) -> int | None:
    """What the app answers before the handler is asked; None: it is asked."""
    if route.scope is None or not is_bound or route.confines:
        return None
    if route.account_from is None:
        return 403
    return None if whose == "own" else 404


async def test_every_operation_answers_every_key_as_it_is_declared(
    database: str, kafka: str, tmp_path: Path, promised: dict[str, set[int]]
) -> None:
    async with front(database, kafka, tmp_path) as api:
        operator = await api.operator()
        await opened(operator, "acme", "globex")
        keys = {
            (scope, account): api.caller(await api.key(scope, account=account))
            for scope in KeyScope
            for account in (None, "acme")
        }
        everything = {account: api.caller(await api.key(account=account)) for account in (None, "acme")}
        statuses: Counter[int] = Counter()
        undeclared: list[str] = []
        for route in ROUTES:
            for account, entitled in everything.items():
                answers = {}
                for whose, name in WHOSE.items():
                    answer = answers[whose] = await example(entitled, route, name)
                    wanted = gate(route, account is not None, whose)
                    where = f"{named(route)} of {whose}, bound: {account is not None}: {answer}"
                    if answer.status not in promised[named(route)]:
                        undeclared.append(where)
                    assert wanted in (None, answer.status), where
                    assert wanted is not None or answer.status not in (401, 403), where
                    statuses[answer.status] += 1
                if account is not None and (
                    route.account_from is not None or "subject" in (route.example.request or ())
                ):
                    assert answers["foreign"].without_request_id == answers["absent"].without_request_id, named(route)
            for reused in ("acme", "globex"):
                answer = await example(operator, route, reused, **{"idempotency-key": "one-for-all"})
                if answer.status not in promised[named(route)]:
                    undeclared.append(f"{named(route)}, its key used before: {answer}")
            for (scope, _), key in keys.items():
                if scope is route.scope or route.scope is None:
                    continue
                for whose, name in WHOSE.items():
                    answer = await example(key, route, name)
                    assert answer.status == 403, f"{named(route)} of {whose} as {scope}: {answer}"
        assert not undeclared, "\n".join(undeclared)
        assert statuses.keys() >= {200, 201, 202, 403, 404}, statuses
        await api.end()


# --------------------------------------------------------------------------------------------------------------- keys


async def test_a_revoked_key_is_dead_at_every_replica(database: str, kafka: str, tmp_path: Path) -> None:
    async with front(database, kafka, tmp_path, replicas=2) as api:
        operator = await api.operator()
        await opened(operator, "acme", "globex")
        wanted = {"name": "gateway", "scopes": ["read", "check"], "account": "acme"}
        first = await operator.done("POST", "/v1/keys", wanted)
        second = await operator.done("POST", "/v1/keys", wanted)  # for rotation: both live

        async def told(made: Any, account: str = "acme") -> list[int]:
            """What each replica says to this key."""
            callers = [api.caller(made["key"], number) for number in range(2)]
            path = f"/v1/customers/{account}/balance"
            return [answer.status for answer in await asyncio.gather(*(caller.ask("GET", path) for caller in callers))]

        assert await told(first) == await told(second) == [200, 200]
        assert await told(first, "globex") == await told(first, "nobody") == [404, 404]
        streams = [asyncio.create_task(_followed(api, first["key"], number)) for number in range(2)]
        await asyncio.sleep(0)
        await operator.done("DELETE", f"/v1/keys/{first['id']}")
        assert await told(first) == [401, 401], "when the answer comes, no replica takes the key any more"
        assert await told(second) == [200, 200]
        async with asyncio.timeout(ANSWER_S):
            assert await asyncio.gather(*streams) == [None, None]  # the open streams have ended as well

        await api.keys.revoke(second["id"])  # as the command line does: the replicas find out by themselves

        async def dead() -> bool:
            return await told(second) == [401, 401]

        await until(dead, "the key to be dead everywhere")
        await api.end()


async def _followed(api: Front, key: str, replica: int) -> None:
    """An account's stream, to its end."""
    answer = await api.caller(key, replica).send("GET", "/v1/customers/acme/stream")
    assert answer.status == 401 or b"event: balance" in answer.body


# ----------------------------------------------------------------------------------------------------------- overload


async def test_a_key_that_floods_waits_for_itself_alone(database: str, kafka: str, tmp_path: Path) -> None:
    async with front(database, kafka, tmp_path, key_in_flight_max=4) as api:
        operator = await api.operator()
        await opened(operator, "acme", "globex")
        flooding = api.caller(await api.key(account="acme"))
        modest = api.caller(await api.key(account="globex"))
        over = asyncio.Event()
        statuses: Counter[int] = Counter()

        async def flood() -> None:
            while not over.is_set():
                answer = await flooding.send("GET", "/v1/customers/acme")
                statuses[answer.status] += 1
                if answer.status == 503:
                    assert answer.headers["retry-after"] == "1"
                    assert answer.json()["type"] == "/problems/unavailable", answer
                assert len(flooding.heard) < 200_000

        floods = [asyncio.create_task(flood()) for _ in range(32)]
        try:
            await until(lambda: _reached(statuses, 503), "the flood to be refused")
            before = statuses[503]
            for number in range(100):
                sent = event("globex", f"modest-{number}", "gateway")
                answers = [await modest.send("GET", "/v1/customers/globex/balance")]
                answers.append(
                    await modest.send("POST", "/v1/events", orjson.dumps(sent), {"content-type": "application/json"})
                )
                assert [answer.status for answer in answers] == [200, 202], answers
            assert statuses[503] > before, "the flood went on meanwhile"
            assert statuses.keys() == {200, 503}, statuses
        finally:
            over.set()
            await asyncio.gather(*floods)
        assert (await flooding.send("GET", "/v1/customers/acme")).status == 200, "it is served again at once"
        await api.end()


async def _reached(statuses: Counter[int], status: int) -> bool:
    return statuses[status] > 0


# ------------------------------------------------------------------------------------------------------------ garbage


async def raw(port: int, method: str, target: str, headers: list[tuple[str, str]], body: bytes) -> tuple[int, bytes]:
    """One request as it is written here, on a connection of its own; (status, the whole answer)."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(ANSWER_S):
            try:
                writer.write("\r\n".join(lines).encode("latin-1") + body)
                await writer.drain()
                answer = await reader.read()
            except ConnectionError:
                return 0, b""  # the server had said what it thought, and did not wait for the rest
    finally:
        writer.close()
    status = answer.split(b" ", 2)[1:2]
    assert status, (method, target, headers, body[:200], answer)
    return int(status[0]), answer


def garbage(draw: Random, key: str) -> tuple[Route, str, list[tuple[str, str]], bytes]:
    """A request of the table, damaged."""
    route = draw.choice(PLAYED)
    target = filled(route, "acme")
    body = b"" if route.example.request is None else mutated(draw, orjson.dumps(route.example.request))
    headers = [("host", "x"), ("authorization", f"Bearer {key}"), ("connection", "close")]
    headers += [("content-type", (route.raw_body or ("application/json",))[0])] if body else []
    game = draw.choice(HEADER_GAMES) if draw.random() < 0.2 else ("", "")
    if game[0] not in ("content-length", "transfer-encoding"):
        headers.append(("content-length", str(len(body))))
    if game[0]:
        headers = [item for item in headers if item[0] != game[0] or draw.random() < 0.1] + [game]
    if draw.random() < 0.1:
        at = draw.randrange(1, len(target) + 1)
        broken = draw.choice(["%00", "%FF", "/", "?a=1", "%2e%2e", "\xff", "?" + "x" * 3_000])
        target = target[:at] + broken + target[at:]
    return route, target, headers, body


class Garbage:
    """Damaged requests from many callers, and good events in between."""

    def __init__(self, api: Front, operator: Caller) -> None:
        self._api = api
        self._operator = operator
        self._draw = Random(20261122)
        self._numbers = iter(range(MUTATED))
        self.good: dict[str, int] = {}  # event -> how often it was sent
        self.statuses: Counter[int] = Counter()

    async def throw(self) -> None:
        assert self._operator.key is not None
        for number in self._numbers:
            if number % 6 == 0:
                await self._good_beside_bad(number)
                continue
            route, target, headers, body = garbage(self._draw, self._operator.key)
            status, answer = await raw(self._api.replicas[0].port, route.method, target, headers, body)
            honest = status == 503 and b"retry-after: " in answer
            assert status < 500 or honest or target.startswith("/readyz"), (route.path, body[:300], headers, answer)
            self.statuses[status] += 1

    async def _good_beside_bad(self, number: int) -> None:
        good = [orjson.dumps(event("acme", f"good-{number}-{place}", "garden")) for place in range(2)]
        bad = mutated(self._draw, orjson.dumps(event("acme", f"bad-{number}", "garden"))).replace(b"\n", b" ")
        lines = b"\n".join([good[0], bad, good[1]])
        for place in range(2):
            self.good[f"good-{number}-{place}"] = 0
        while True:
            for place in range(2):
                self.good[f"good-{number}-{place}"] += 1
            answer = await self._operator.send("POST", "/v1/events", lines, {"content-type": "application/x-ndjson"})
            if answer.status != 503:
                break
        assert answer.status == 202, answer
        assert answer.json()["accepted"] >= 2


async def test_thousands_of_damaged_requests_find_no_fault_and_lose_no_event(
    database: str, kafka: str, tmp_path: Path
) -> None:
    async with front(database, kafka, tmp_path, body_deadline_s=0.5) as api:
        operator = await api.operator()
        await opened(operator, "acme", "globex")
        thrown = Garbage(api, operator)
        await asyncio.gather(*(thrown.throw() for _ in range(CALLERS)))
        assert thrown.statuses.keys() >= {200, 202, 400, 401, 404, 413, 414, 415}, thrown.statuses
        assert thrown.statuses.total() >= 2_000
        assert thrown.statuses[0] < 50, "hardly ever is a connection cut instead of answered"
        await until(api.at.rated_to_the_end, "everything to be rated")
        await api.end()
        usage, rated = [Counter(names) async for names in _ids_of(api)]
        for name, sent in thrown.good.items():
            assert 1 <= usage[name] <= sent, f"{name} was sent {sent} times and is in the log {usage[name]} times"
            assert rated[name] == 1, f"{name} was rated {rated[name]} times"
        assert sum(sent == 1 for sent in thrown.good.values()) > 0.9 * len(thrown.good)


async def _ids_of(api: Front) -> AsyncIterator[list[str]]:
    """The ids of the good events: in the log, and as they were rated, each once for each rated event."""
    kafka = api.at.settings.kafka
    reader = TopicReader(brokers(api.at.settings))
    await reader.start()
    try:
        usage = await read_log(reader, kafka.topic_usage, kafka.partitions)
        rated = await read_log(reader, kafka.topic_rated, kafka.partitions)
    finally:
        await reader.stop()
    yield list(_good_ids(usage))
    yield list({(line["offset"], line["id"]): line["id"] for line in rated_lines(rated)}.values())


def _good_ids(usage: dict[int, list[Record]]) -> Iterator[str]:
    for records in usage.values():
        for record in records:
            if record.value is not None and b"good-" in record.value:
                yield orjson.loads(record.value)["id"]
