"""The clock of a sandbox over HTTP, on a real database and a real fold."""

from actors.keys import KeyScope
from tests.actors.web.asgi_client import Client
from tests.actors.web.house import House

CLOCK = "/v1/sandbox/clock"


async def moved(client: Client, until: str) -> int:
    return (await client.post(CLOCK, {"until": until})).status


async def test_a_month_of_credit_passes_in_a_sandbox(sandbox: House) -> None:
    await sandbox.opened()
    body = {"amount": "10", "currency": "USD", "lot": "november", "expires": "2026-12-01T00:00:00Z"}
    assert (await sandbox.client.post("/v1/customers/acme/grants", body)).status == 201
    answer = await sandbox.client.post(CLOCK, {"until": "2026-12-01T00:00:00Z"})
    assert (answer.status, answer.json()) == (202, {"until": "2026-12-01T00:00:00Z", "partitions": 1})
    balance = (await sandbox.client.get("/v1/customers/acme/balance")).json()
    assert balance["balance"]["booked"] == "0"
    assert balance["as_of"]["log_time"] == "2026-12-01T00:00:00Z"
    await sandbox.owner.use("acme", "new-year", 4, time="2026-12-01T00:00:00Z")
    assert (await sandbox.client.get("/v1/customers/acme/balance")).json()["balance"]["booked"] == "-2"


async def test_where_money_is_real_the_clock_is_nobodys(house: House) -> None:
    before = house.owner.fold.log_time_us
    answer = await house.client.post(CLOCK, {"until": "2027-01-01T00:00:00Z"})
    assert (answer.status, answer.json()["type"]) == (409, "/problems/no-sandbox")
    assert "TALLYGATE_SANDBOX" in answer.json()["next_step"]
    assert house.owner.fold.log_time_us == before


async def test_an_instant_that_is_none_or_a_key_that_may_not_moves_nothing(sandbox: House) -> None:
    before = len(sandbox.owner.log)
    assert await moved(sandbox.client, "tomorrow") == 400
    assert await moved(sandbox.caller(KeyScope.READ, KeyScope.INGEST), "2027-01-01T00:00:00Z") == 403
    assert await moved(sandbox.caller(KeyScope.ADMIN, account="acme"), "2027-01-01T00:00:00Z") == 403
    assert len(sandbox.owner.log) == before


async def test_a_log_that_is_away_is_told(sandbox: House) -> None:
    sandbox.owner.away = True
    assert await moved(sandbox.client, "2027-01-01T00:00:00Z") == 503
