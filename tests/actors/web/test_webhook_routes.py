"""Webhook endpoints over HTTP, on a real database: what is shown once, what is confined, what is sent again."""

from collections.abc import Sequence
from typing import Any

import pytest

from actors.endpoints import PostgresEndpoints, check_secret
from actors.keys import KeyScope
from actors.ports import Attempt
from actors.receivers import Courier
from actors.webhooks import Answer
from tests.actors.test_endpoints import PUBLIC, URL, Names
from tests.actors.web.asgi_client import Client
from tests.actors.web.fakes import START_US
from tests.actors.web.house import KEY, House
from tests.actors.web.test_customers import put

ENDPOINTS = "/v1/webhook-endpoints"


class Caller:
    """Answers every call as told, and remembers it."""

    def __init__(self) -> None:
        self.answer = Answer(Attempt(True), START_US, 12, 204)
        self.called: list[tuple[str, Sequence[str], str, bytes]] = []

    async def call(self, url: str, secrets: Sequence[str], message_id: str, body: bytes) -> Answer:
        self.called.append((url, secrets, message_id, body))
        return self.answer


@pytest.fixture
async def caller(house: House) -> Caller:
    """Who makes the calls; the routes have their services now."""
    made = Caller()
    endpoints = PostgresEndpoints(house.bench.dsn, house.bench.schema, KEY, resolver=Names(PUBLIC))
    house.services.endpoints = await house.bench.started(endpoints)
    house.services.courier = Courier(house.clock, endpoints, made)  # type: ignore[arg-type]  # all it needs of one
    return made


async def create(client: Client, **body: Any) -> dict[str, Any]:
    answer = await client.post(ENDPOINTS, {"url": URL} | body)
    assert answer.status == 201, answer.body
    made: dict[str, Any] = answer.json()
    return made


async def alerted(house: House, account: str = "acme") -> str:
    """An alert of the account in the outbox; its id."""
    await house.opened(account, "5")
    await put(house.client, f"/v1/customers/{account}/rules/low", {"on": {"measure": "balance", "threshold": "9"}})
    await house.checkpoint()
    (item,) = (await house.client.get(f"/v1/customers/{account}/alerts")).json()["items"]
    return str(item["alert"]["id"])


async def test_a_secret_is_shown_once_and_stands_nowhere_else(house: House, caller: Caller) -> None:
    made = await create(house.client, account="acme", rules=["low"])
    check_secret(made["secret"])
    endpoint = made["endpoint"]
    assert (endpoint["url"], endpoint["account"], endpoint["rules"], endpoint["enabled"]) == (
        URL,
        "acme",
        ["low"],
        True,
    )
    for path in (ENDPOINTS, f"{ENDPOINTS}/{endpoint['id']}", "/v1/audit"):
        shown = (await house.client.get(path)).body
        assert endpoint["id"].encode() in shown
        assert made["secret"][6:].encode() not in shown
        assert path != "/v1/audit" or b"t0ken" not in shown
    assert (await house.client.get(f"{ENDPOINTS}/{endpoint['id']}")).json() == endpoint


async def test_a_repetition_shows_the_same_secret_and_makes_no_second_endpoint(house: House, caller: Caller) -> None:
    body, once = {"url": URL}, {"idempotency-key": "e-1"}
    answers = [await house.client.post(ENDPOINTS, body, once) for _ in range(2)]
    assert answers[0].body == answers[1].body
    assert [answer.status for answer in answers] == [201, 201]
    assert len((await house.client.get(ENDPOINTS)).json()["items"]) == 1
    other = await house.client.post(ENDPOINTS, {"url": URL, "rules": ["low"]}, once)
    assert (other.status, other.json()["type"]) == (422, "/problems/idempotency-key-reused")
    mine = house.caller(KeyScope.ADMIN)
    assert (await mine.post(ENDPOINTS, body, once)).status == 201


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"url": "http://hooks.example.com/"}, "url"),
        ({"url": "https://127.0.0.1/"}, "url"),
        ({"url": "https://169.254.169.254/latest/meta-data"}, "url"),
        ({"url": URL, "rules": []}, "rules"),
        ({"url": URL, "account": "a\tb"}, "account"),
        ({"url": URL, "secret": "whsec_mine"}, "secret"),
    ],
)
async def test_an_endpoint_that_cannot_be_is_refused_by_field_and_the_key_is_free_again(
    house: House, caller: Caller, body: dict[str, Any], field: str
) -> None:
    once = {"idempotency-key": "e-1"}
    answer = await house.client.post(ENDPOINTS, body, once)
    assert (answer.status, answer.json()["field"]) == (400, field)
    assert not answer.json()["detail"].startswith(f"{field}:"), "it is named once"
    assert (await house.client.post(ENDPOINTS, {"url": URL}, once)).status == 201


async def test_what_belongs_to_another_account_is_as_if_it_were_not_there(house: House, caller: Caller) -> None:
    foreign = (await create(house.client, account="globex"))["endpoint"]["id"]
    for_all = (await create(house.client))["endpoint"]["id"]
    bound = house.caller(KeyScope.ADMIN, account="acme")
    for path, method in (
        ("", "GET"),
        ("", "DELETE"),
        ("/enable", "POST"),
        ("/rotate-secret", "POST"),
        ("/test", "POST"),
        ("/deliveries", "GET"),
    ):
        answers = [
            await bound.send(method, f"{ENDPOINTS}/{endpoint}{path}") for endpoint in (foreign, for_all, "we_absent")
        ]
        assert [answer.status for answer in answers] == [404] * 3, path
        assert len({answer.without_request_id[2] for answer in answers}) == 1
    assert (await bound.post(ENDPOINTS, {"url": URL, "account": "globex"})).status == 404
    own = await create(bound)
    assert own["endpoint"]["account"] == "acme"
    assert [item["id"] for item in (await bound.get(f"{ENDPOINTS}?account=globex")).json()["items"]] == [
        own["endpoint"]["id"]
    ]
    assert caller.called == []


async def test_an_endpoint_is_disabled_enabled_and_rotated_with_what_was_before_in_the_trail(
    house: House, caller: Caller
) -> None:
    made = await create(house.client, account="acme")
    place = f"{ENDPOINTS}/{made['endpoint']['id']}"
    disabled = (await house.client.send("DELETE", place)).json()
    assert (disabled["enabled"], disabled["disabled_reason"]) == (False, "by request")
    assert (await house.client.send("POST", f"{place}/test")).json()["type"] == "/problems/endpoint-disabled"
    assert (await house.client.send("POST", f"{place}/enable")).json()["enabled"] is True
    rotated = (await house.client.send("POST", f"{place}/rotate-secret")).json()
    assert rotated["secret"] != made["secret"] and rotated["endpoint"]["previous_secret_until"] is not None
    (row,) = (await house.client.get("/v1/audit?act=endpoint.disable&limit=1")).json()["items"]
    assert (row["stage"], row["subject"], row["account"]) == ("done", made["endpoint"]["id"], "acme")
    assert (row["before"]["enabled"], row["after"]["enabled"]) == (True, False)
    assert row["after"]["host"] == "hooks.example.com"


async def test_a_test_message_is_signed_and_its_outcome_told_and_listed(house: House, caller: Caller) -> None:
    made = await create(house.client)
    place = f"{ENDPOINTS}/{made['endpoint']['id']}"
    caller.answer = Answer(Attempt(False, "HTTP 500"), START_US, 7, 500)
    told = (await house.client.send("POST", f"{place}/test")).json()
    assert (told["cause"], told["delivered"], told["status"], told["error"]) == ("test", False, 500, "HTTP 500")
    ((url, secrets, message_id, _),) = caller.called
    assert (url, secrets, message_id) == (URL, [made["secret"]], told["alert_id"])
    assert (await house.client.get(f"{place}/deliveries")).json()["items"] == [told]
    again = await house.client.send("POST", f"/v1/deliveries/{told['id']}/resend")
    assert (again.status, again.json()["type"]) == (422, "/problems/not-an-alert")


async def test_an_alert_is_sent_again_under_the_same_id(house: House, caller: Caller) -> None:
    alert_id = await alerted(house)
    made = await create(house.client, account="acme")
    await house.services.courier.resend(alert_id, made["endpoint"]["id"])
    (listed,) = (await house.client.get(f"{ENDPOINTS}/{made['endpoint']['id']}/deliveries")).json()["items"]
    again = await house.client.send("POST", f"/v1/deliveries/{listed['id']}/resend")
    assert (again.status, again.json()["cause"], again.json()["alert_id"]) == (200, "resend", alert_id)
    assert caller.called[0] == caller.called[1]
    only = (await house.client.get(f"{ENDPOINTS}/{made['endpoint']['id']}/deliveries?alert=none")).json()["items"]
    assert only == []
    bound = house.caller(KeyScope.ADMIN, account="globex")
    for delivery in (listed["id"], "999", "x", "9" * 17, "9" * 30):
        assert (await bound.send("POST", f"/v1/deliveries/{delivery}/resend")).status == 404


async def test_endpoints_and_deliveries_are_paged(house: House, caller: Caller) -> None:
    made = [(await create(house.client))["endpoint"]["id"] for _ in range(3)]
    for _ in range(3):
        await house.client.send("POST", f"{ENDPOINTS}/{made[0]}/test")
    for path, wanted in ((ENDPOINTS, 3), (f"{ENDPOINTS}/{made[0]}/deliveries", 3)):
        seen: set[str] = set()
        cursor = ""
        while cursor is not None:
            page = (await house.client.get(f"{path}?limit=2{cursor and '&cursor='}{cursor}")).json()
            seen |= {item["id"] for item in page["items"]}
            cursor = page["next_cursor"]
        assert len(seen) == wanted
        bad = await house.client.get(f"{path}?cursor=!")
        assert (bad.status, bad.json()["field"]) == (400, "cursor")
