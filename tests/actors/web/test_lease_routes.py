import pytest

from actors.door_wire import (
    BadQuestion,
    Check,
    Checked,
    CloseLease,
    ExtendLease,
    FieldLimit,
    LeaseAnswered,
    Recovering,
    TakeLease,
    TooLate,
)
from tests.actors.web.asgi_client import Client
from tests.actors.web.fakes import ALLOWED, AS_OF, Stage, token

ASKED = {"account": "acme", "type": "llm.tokens", "requests": 500}


async def test_a_lease_is_put_to_the_owner_as_it_was_asked(stage: Stage, client: Client) -> None:
    asked = ASKED | {
        "scope": "team:red",
        "data": {"tier": "standard"},
        "reach": {"model": ["small", "large"]},
        "bounds": [{"fields": ["input_tokens"], "up_to": 4000}],
        "least": 10,
        "ttl_s": 1.5,
    }
    assert (await client.post("/v1/leases", asked)).status == 200
    bounds = (FieldLimit(("input_tokens",), "4000"),)
    reach: dict[str, tuple[str, ...]] = {"model": ("small", "large")}
    of = Check("acme", "team:red", "llm.tokens", {"tier": "standard"}, reach, bounds, ttl_ms=1500)
    assert stage.doors.asked == [("acme", TakeLease(of, 500, 10))]


async def test_a_grant_shows_all_that_its_holder_needs(client: Client) -> None:
    answer = (await client.post("/v1/leases", ASKED)).json()
    assert answer["lease"] == {
        "id": "3.7.42",
        "token": "a-token",
        "requests": 250,
        "bounds": [
            {"fields": [], "up_to": "1", "granted": "250"},
            {"fields": ["units"], "up_to": "4", "granted": "1000"},
        ],
        "prices": [
            {"price": "p", "meter": "units", "fields": ["units"], "unit": "0.5"},
            {"price": "steps", "meter": "units", "fields": ["units"], "unit": None},
        ],
        "owner_decides": ["team:red/user:ann"],
        "valid_for_s": 60.0,
        "expires_in_s": 65.0,
        "report_within_s": 125.0,
    }
    assert (answer["allowed"], answer["price"]["amount"], answer["balance"]["held"]) == (True, "0.03", "0.03")
    assert answer["as_of"]["epoch"] == AS_OF.epoch


async def test_a_denial_is_an_answer(stage: Stage, client: Client) -> None:
    stage.doors.answers[TakeLease] = LeaseAnswered(Checked(False, AS_OF, reason="strict", transient=True))
    answer = await client.post("/v1/leases", ASKED)
    assert answer.status == 200
    told = answer.json()
    assert (told["allowed"], told["reason"], told["transient"], told["lease"]) == (False, "strict", True, None)
    stage.doors.answers[TakeLease] = Recovering(3, 200, "1.5")
    told = (await client.post("/v1/leases", ASKED)).json()
    assert (told["reason"], told["balance"]["booked"], told["lease"]) == ("recovering", "1.5", None)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"requests": 0}, "requests"),
        ({"requests": 1_000_001}, "requests"),
        ({"least": 0}, "least"),
        ({"ttl_s": 0}, "ttl_s"),
        ({"type": None}, "type"),
        ({"feature": "f"}, "feature"),
    ],
)
async def test_a_question_that_cannot_be_read_is_refused_by_field(
    stage: Stage, client: Client, change: dict[str, object], field: str
) -> None:
    answer = await client.post("/v1/leases", ASKED | change)
    assert answer.status == 400
    assert field in answer.json()["field"] + answer.json()["detail"]
    assert not stage.doors.asked


async def test_what_the_owner_cannot_read_is_named_and_silence_is_no_decision(stage: Stage, client: Client) -> None:
    stage.doors.answers[TakeLease] = BadQuestion("least", "must be 1 to `requests`")
    refused = await client.post("/v1/leases", ASKED | {"least": 501})
    assert (refused.status, refused.json()["field"]) == (400, "least")
    stage.doors.answers[TakeLease] = TooLate()
    assert (await client.post("/v1/leases", ASKED)).status == 503


async def test_extending_and_closing_go_to_the_owner_of_the_lease(stage: Stage, client: Client) -> None:
    text = token("globex", requests=10)
    extended = await client.post("/v1/leases/extend", {"token": text, "requests": 5, "least": 9, "ttl_s": 2})
    assert extended.json()["lease"]["token"] == "a-token"
    assert (await client.post("/v1/leases/extend", {"token": text})).status == 200
    closed = await client.post("/v1/leases/close", {"token": text, "events": 7})
    assert closed.json() == {"open": False, "events_rated": 7, "as_of": closed.json()["as_of"]}
    assert stage.doors.asked == [
        ("globex", ExtendLease(text, 5, 5, 2000)),
        ("globex", ExtendLease(text, 0, 1, 60_000)),
        ("globex", CloseLease(text, 7)),
    ]


@pytest.mark.parametrize(("path", "more"), [("extend", {}), ("close", {"events": 1})])
async def test_a_foreign_lease_is_as_absent_as_one_that_was_never_sealed(
    stage: Stage, bound: Client, path: str, more: dict[str, object]
) -> None:
    foreign = await bound.post(f"/v1/leases/{path}", {"token": token("globex", requests=1), **more})
    absent = await bound.post(f"/v1/leases/{path}", {"token": "x" * 80, **more})
    assert foreign.status == 404
    assert foreign.without_request_id == absent.without_request_id
    assert not stage.doors.asked
    assert (await bound.post(f"/v1/leases/{path}", {"token": token("acme", requests=1), **more})).status == 200


async def test_a_bound_key_takes_leases_of_its_own_account_only(stage: Stage, bound: Client) -> None:
    stage.doors.answers[TakeLease] = LeaseAnswered(ALLOWED)
    assert (await bound.post("/v1/leases", ASKED | {"account": "globex"})).status == 404
    assert not stage.doors.asked
    assert (await bound.post("/v1/leases", ASKED)).status == 200


async def test_a_close_that_nobody_heard_is_not_called_done(stage: Stage, client: Client) -> None:
    stage.doors.answers[CloseLease] = Recovering(3, 200)
    assert (await client.post("/v1/leases/close", {"token": token(requests=1), "events": 0})).status == 503
