"""A draft is shadowed on a real broker and database, over HTTP, while usage goes on and its follower is replaced."""

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors import proofs
from actors.assembly import ShadowProcess
from actors.deployment import until
from actors.dryrun import Draft, Takings
from actors.sealed_base import base_path
from actors.shadow_store import ShadowClaim, Shadows
from config.catalogue import load_file
from engine.catalog import SKEW_US, CatalogueDocument, document_json
from engine.events import parse_time
from engine.money import amount_text, parse_amount
from loadtest.workload import cloud_time
from tests.actors.cli.calling import EXAMPLE
from tests.integration.front import Caller, front

ACCOUNTS = ("acme", "zen", "bee")


def draft_of(published: CatalogueDocument) -> CatalogueDocument:
    """Tokens in cost twice as much, and searches are not sold any more."""
    starter = published.plans["starter"]
    prices = {name: price for name, price in starter.prices.items() if name not in ("quick-search", "deep-search")}
    prices["large-input"] = msgspec.structs.replace(prices["large-input"], amount="5.00")
    return msgspec.structs.replace(
        published, plans={**published.plans, "starter": msgspec.structs.replace(starter, prices=prices)}
    )


def usage(account: str, number: int, at_us: int) -> dict[str, Any]:
    event: dict[str, Any] = {"specversion": "1.0", "source": "gw", "subject": account, "time": cloud_time(at_us)}
    event["id"] = f"e-{number}"
    if number % 5 == 4:
        return event | {"type": "web.search", "data": {"results": 10, "zone": "eu-west-1", "status": "completed"}}
    tokens = {"input_tokens": 100_000 + number, "output_tokens": 0}
    return event | {"type": "llm.request", "data": {"model": "atlas-large", **tokens}}


async def send(operator: Caller, events: list[dict[str, Any]]) -> None:
    await operator.done("POST", "/v1/events", events, content_type="application/cloudevents-batch+json")


@pytest.mark.timeout(600)
async def test_what_a_shadow_finds_is_what_a_dry_run_finds(database: str, kafka: str, tmp_path: Path) -> None:
    async with front(database, kafka, tmp_path) as house:
        operator = await house.operator()
        settings = house.at.settings
        for account in ACCOUNTS:
            await operator.done("POST", "/v1/customers", {"account": account, "plan": "starter"})
            grant = {"lot": "paid", "amount": "100", "currency": "USD", "kind": "paid"}
            await operator.done("POST", f"/v1/customers/{account}/grants", grant)
        now_us = time.time_ns() // 1_000
        await send(operator, [usage("acme", number, now_us) for number in range(10)])
        document = draft_of(load_file(EXAMPLE))
        made = await operator.done("POST", "/v1/catalogue/drafts", document_json(document))
        path = f"/v1/catalogue/drafts/{made['draft']}/shadow"
        first = ShadowProcess(0, 1, "shadow-0.1", settings)
        second = ShadowProcess(0, 1, "shadow-0.2", settings)
        store = Shadows(settings.postgres.dsn.get_secret_value(), settings.postgres.schema_name)  # type: ignore[union-attr]
        await store.start()
        try:
            await first.start()
            await operator.done("POST", path)

            async def begun() -> bool:
                places = (await operator.done("GET", path))["partitions"]
                started = [place for place in places if place["offset"] is not None]
                return len(started) == settings.kafka.partitions

            await until(begun, "every partition to have its first checkpoint")
            shown = await operator.done("GET", path)
            assert (shown["totals"], [each["trouble"] for each in shown["partitions"]]) == (
                [],
                [None] * settings.kafka.partitions,
            )
            # From the newest of them on all of it counts; an event may be five minutes ahead of the log.
            counts_us = max(parse_time(place["from"]) for place in shown["partitions"]) + 500_000
            while time.time_ns() // 1_000 < counts_us - SKEW_US + 500_000:
                await asyncio.sleep(0.1)
            await send(operator, [usage(ACCOUNTS[n % 3], n, counts_us + n) for n in range(100, 160)])

            async def counted(events: int) -> bool:
                found = [each["events"] for each in (await operator.done("GET", path))["totals"]]
                return bool(sum(found) == events)

            await until(lambda: counted(60), "the shadow to count what was used")
            await second.start()  # the first one lives on, and is refused
            await send(operator, [usage(ACCOUNTS[n % 3], n, counts_us + n) for n in range(200, 230)])
            await until(lambda: counted(90), "the second follower to go on from the same first checkpoint")
            await until(lambda: _fenced(first), "the first follower to find itself replaced")
            assert not second.actor.fenced

            shown = await operator.done("GET", f"{path}?customers=10")
            for place in shown["partitions"]:
                claim = ShadowClaim(made["draft"], 1, place["partition"], 0, None, None, None)
                await store.get_base(claim, base_path(_folder(tmp_path), place["partition"]))
            tried = [
                found
                async for found in proofs.dry_run(settings, _folder(tmp_path), None, Draft(document), lambda said: None)
            ]
            expected = {one.account: one for found in tried for one in found.customers}
            assert set(expected) == set(ACCOUNTS)
            assert {each["account"]: _takings(each) for each in shown["customers"]} == {
                account: one.takings for account, one in expected.items()
            }
            total = Takings()
            for one in expected.values():
                total.add(one.takings)
            assert [_takings(each) for each in shown["totals"]] == [total]
            assert [_takings(each) for each in shown["plans"]] == [total]
            # Golden: tokens at $2.50 and at $5.00 per million, searches at $0.01 and not at all.
            numbers = [*range(100, 160), *range(200, 230)]
            tokens = sum(100_000 + n for n in numbers if n % 5 != 4)
            searches = sum(n % 5 == 4 for n in numbers)
            assert total == Takings(
                tokens * 2_500_000 + searches * 10**10, tokens * 5_000_000, len(numbers), len(numbers) - searches
            )
            turns = [(each["outcome"], each["outcome_after"]) for each in shown["turns"]]
            assert set(turns) == {("rated", "dead_lettered.no_price")}
            assert sum(each["records"] for each in shown["turns"]) == searches
            # Nobody has paid for any of it.
            for account in ACCOUNTS:
                charged = expected[account].takings.before + (_early() if account == "acme" else 0)
                balance = (await operator.done("GET", f"/v1/customers/{account}/balance"))["balance"]["booked"]
                assert parse_amount(balance) == 100 * 10**12 - charged, (account, amount_text(charged))
            stopped = await operator.done("DELETE", path)
            assert (stopped["state"], stopped["totals"]) == ("stopped", shown["totals"])
            await until(lambda: _let_go(second), "the follower to let go")
        finally:
            await first.stop()
            await second.stop()
            await store.stop()
        await house.end()


def _early() -> int:
    """What the ten events from before it began cost."""
    return sum(10**10 if number % 5 == 4 else (100_000 + number) * 2_500_000 for number in range(10))


def _takings(shown: dict[str, Any]) -> Takings:
    before, after = parse_amount(shown["before"]), parse_amount(shown["after"])
    return Takings(before, after, shown["events"], shown["events_after"])


def _folder(folder: Path) -> Path:
    bases = folder / "bases"
    bases.mkdir(exist_ok=True)
    return bases


async def _fenced(process: ShadowProcess) -> bool:
    return process.actor.fenced


async def _let_go(process: ShadowProcess) -> bool:
    return process.actor.views() == []
