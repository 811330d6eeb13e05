import asyncio

import orjson
import pytest

from actors.door_client import DoorUnavailable
from actors.door_wire import (
    BadQuestion,
    Check,
    Checked,
    Extend,
    FieldLimit,
    NotFound,
    Recovering,
    Release,
    Released,
    TooLate,
)
from actors.web import hot
from actors.web.hot import EVENTS_MAX
from engine.events import parse_usage
from tests.actors.web.asgi_client import Client
from tests.actors.web.fakes import AS_OF, START_US, Stage, token

EVENT = {
    "specversion": "1.0",
    "id": "e1",
    "source": "gateway",
    "type": "llm.tokens",
    "subject": "acme",
    "time": "2026-11-22T10:00:00Z",
    "data": {"model": "small", "input_tokens": 5},
}
CHECK = {"account": "acme", "type": "llm.tokens", "data": {"model": "small"}}


def event(**changes: object) -> dict[str, object]:
    return {name: value for name, value in (EVENT | changes).items() if value is not None}


# ------------------------------------------------------------------------------------------------------------- events


@pytest.mark.parametrize("media", ["application/json", "application/cloudevents+json"])
async def test_an_event_goes_into_the_log_as_the_bytes_that_were_sent(stage: Stage, client: Client, media: str) -> None:
    raw = b'{ "specversion":"1.0","id":"e1","source":"s","type":"t","subject":"acme",\n'
    raw += b'"time":"2026-11-22T10:00:00Z","data":{"q":1.50} }'
    answer = await client.send("POST", "/v1/events", raw, headers={"content-type": media})
    assert (answer.status, answer.json()) == (202, {"accepted": 1, "refused": []})
    (record,) = stage.appender.records
    assert (record.topic, record.key, record.value, record.partition) == ("usage", b"acme", raw, None)


@pytest.mark.parametrize(
    ("media", "joint"),
    [
        ("application/json", (b"[", b",", b"]")),
        ("application/cloudevents-batch+json", (b" [", b" , ", b"]\n")),
        ("application/x-ndjson", (b"", b"\r\n", b"\n\n")),
    ],
)
async def test_one_bad_event_refuses_only_itself(
    stage: Stage, client: Client, media: str, joint: tuple[bytes, bytes, bytes]
) -> None:
    bad = [
        event(id="no-time", time=None),
        event(id="no-subject", subject=None),
        event(id=""),
        event(id="naive", time="2026-11-22T10:00:00"),
        event(id="huge", data={"text": "x" * 8_193}),
        event(id="deep", data={"a": [[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]}),
        event(id="null-inside", data={"a": "b\x00"}),
    ]
    good = [event(id="g1"), event(id="g2", subject="globex")]
    raws = [orjson.dumps(item) for item in (good[0], *bad, good[1])]
    raws.append(orjson.dumps(event(id="twice")).replace(b'"source"', b'"id":"twice","source"'))
    raws.append(orjson.dumps(event(id="long")).replace(b":5}", b":" + b"9" * 65 + b"}"))
    body = joint[0] + joint[1].join(raws) + joint[2]
    answer = await client.send("POST", "/v1/events", body, headers={"content-type": media})
    assert answer.status == 202
    told = answer.json()
    assert told["accepted"] == 2
    assert [parse_usage(record.value or b"").id for record in stage.appender.records] == ["g1", "g2"]
    assert [record.key for record in stage.appender.records] == [b"acme", b"globex"]
    assert [(item["index"], item["reason"], item["field"]) for item in told["refused"]] == [
        (1, "missing_time", "time"),
        (2, "missing_subject", "subject"),
        (3, "malformed", "id"),
        (4, "malformed", "time"),
        (5, "malformed", ""),
        (6, "malformed", ""),
        (7, "malformed", ""),
        (9, "malformed", ""),
        (10, "malformed", ""),
    ]
    assert [item["id"] for item in told["refused"]][:2] == ["no-time", "no-subject"]


async def test_when_no_event_is_taken_the_answer_is_a_refusal_that_says_why(stage: Stage, client: Client) -> None:
    answer = await client.post("/v1/events", [event(time=None)])
    assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
    told = answer.json()
    assert (told["type"], told["field"]) == ("/problems/no-event-accepted", "[0].time")
    assert told["refused"][0]["reason"] == "missing_time"
    assert told["instance"] == answer.headers["x-request-id"]
    assert not stage.appender.records


async def test_a_line_that_is_no_json_refuses_only_itself(stage: Stage, client: Client) -> None:
    body = b'{"specversion\n' + orjson.dumps(EVENT)
    answer = await client.send("POST", "/v1/events", body, headers={"content-type": "application/x-ndjson"})
    assert answer.json()["accepted"] == 1 and answer.json()["refused"][0]["index"] == 0


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"[" + b",".join([b"{}"] * (EVENTS_MAX + 1)) + b"]", b'[{"id":1}', b"[1,]"]
)
async def test_a_batch_without_events_or_with_too_many_is_refused_whole(client: Client, body: bytes) -> None:
    answer = await client.send("POST", "/v1/events", body, headers={"content-type": "application/json"})
    assert answer.status == 400


def correction(original: object, **fields: object) -> dict[str, object]:
    return event(**{"id": "fix", "type": "tallygate.cancel", "time": None, "data": {"original": original}} | fields)


async def test_a_correction_goes_into_the_log_as_it_is(stage: Stage, client: Client) -> None:
    sent = correction(event(id="e"))
    answer = await client.post("/v1/events", [sent])
    assert (answer.status, answer.json()["accepted"]) == (202, 1)
    assert orjson.loads(stage.appender.records[0].value or b"") == sent


@pytest.mark.parametrize(
    ("original", "reason", "field", "detail"),
    [
        (event(id=""), "malformed", "data", "data.original: Expected `str` of length >= 1 - at `$.id`"),
        (event(subject="globex"), "bad_correction", "data", "a correction stays in its account"),
        (correction(event()), "bad_correction", "data", "itself a correction"),
    ],
)
async def test_a_correction_that_can_be_seen_to_fail_is_refused(
    client: Client, original: object, reason: str, field: str, detail: str
) -> None:
    (refused,) = (await client.post("/v1/events", [correction(original)])).json()["refused"]
    assert (refused["reason"], refused["field"]) == (reason, field)
    assert detail in refused["detail"]


async def test_who_pays_may_not_correct_what_is_to_be_paid(stage: Stage, bound: Client) -> None:
    for sent, field in ((correction(event()), "type"), (event(seq=2), "seq")):
        (refused,) = (await bound.post("/v1/events", [sent])).json()["refused"]
        assert (refused["reason"], refused["field"], stage.appender.records) == ("not_allowed", field, [])


@pytest.mark.parametrize("kind", ["tallygate.cancel", "tallygate.amend"])
@pytest.mark.parametrize("path", ["capture", "meter"])
async def test_a_hold_is_settled_by_usage_and_takes_none_back(
    stage: Stage, bound: Client, client: Client, path: str, kind: str
) -> None:
    """Else whoever may check could cancel what he is to pay, by the hold that he used it on."""
    original = event(id="u1", hold=token("acme"))
    sent = {"id": "fix", "type": kind, "data": {"original": original}}
    for caller in (bound, client):
        answer = await caller.post(f"/v1/holds/{path}", {"token": token("acme"), "event": sent, "final": True})
        assert (answer.status, answer.json()["field"], stage.appender.records) == (400, "event.type", [])


async def test_nothing_is_acknowledged_that_is_not_durable(stage: Stage, client: Client) -> None:
    stage.appender.away = True
    answer = await client.post("/v1/events", EVENT)
    assert answer.status == 503 and answer.headers["retry-after"] == "1"
    captured = await client.post("/v1/holds/capture", {"token": token(), "event": USED})
    assert captured.status == 503


async def test_a_log_that_hangs_is_not_waited_for(
    stage: Stage, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot, "APPEND_S", 0.01)
    stage.appender.hanging = True
    assert (await client.post("/v1/events", EVENT)).status == 503


async def test_others_have_their_turn_between_large_events(stage: Stage, client: Client) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    large = [event(id=f"e{number}", data={"q": ["x" * 6_000] * 10}) for number in range(16)]
    assert (await client.post("/v1/events", large)).json() == {"accepted": 16, "refused": []}
    beside.cancel()
    assert turns >= 16


async def test_a_bound_key_sends_its_own_usage_only(stage: Stage, bound: Client) -> None:
    answer = await bound.post(
        "/v1/events", [event(id="own"), event(id="foreign", subject="globex"), event(id="absent", subject="x")]
    )
    assert answer.json()["accepted"] == 1
    foreign, absent = answer.json()["refused"]
    assert foreign["reason"] == "not_found"
    assert {**foreign, "id": "", "index": 0} == {**absent, "id": "", "index": 0}
    assert [record.key for record in stage.appender.records] == [b"acme"]


# ------------------------------------------------------------------------------------------------------------- checks


async def test_a_check_is_put_to_the_owner_as_it_was_asked(stage: Stage, client: Client) -> None:
    asked = {
        "account": "acme",
        "scope": "team:red/user:ann",
        "type": "llm.tokens",
        "data": {"model": "small"},
        "reach": {"cache": ["hit", "miss"]},
        "bounds": [{"fields": ["a", "b"], "up_to": 20}, {"fields": ["c"], "up_to": "1.5"}],
        "n": 2,
        "feature": "tools",
        "hold": {"ttl_s": 1.5},
    }
    answer = await client.post("/v1/check", asked)
    assert answer.status == 200
    bounds = (FieldLimit(("a", "b"), "20"), FieldLimit(("c",), "1.5"))
    wanted = Check(
        "acme",
        "team:red/user:ann",
        "llm.tokens",
        {"model": "small"},
        {"cache": ("hit", "miss")},
        bounds,
        2,
        "tools",
        1500,
    )
    assert stage.doors.asked == [("acme", wanted)]


@pytest.mark.parametrize(
    ("hold", "ttl_ms"), [(True, 60_000), (False, None), (None, None), ({}, 60_000), ({"ttl_s": 0.0001}, 1)]
)
async def test_a_hold_is_for_a_minute_unless_said_otherwise(
    stage: Stage, client: Client, hold: object, ttl_ms: int | None
) -> None:
    assert (await client.post("/v1/check", CHECK | {"hold": hold})).status == 200
    (question,) = [question for _, question in stage.doors.asked if isinstance(question, Check)]
    assert question.ttl_ms == ttl_ms


async def test_an_admission_shows_price_balance_hold_and_the_state_it_rests_on(client: Client) -> None:
    assert (await client.post("/v1/check", CHECK)).json() == {
        "allowed": True,
        "reason": None,
        "transient": False,
        "retry_after_s": None,
        "binding": {"kind": "wallet", "scope": "", "name": "", "remaining": "12.47", "frees_in_s": None, "unit": ""},
        "price": {"amount": "0.03", "currency": "USD", "version": 1},
        "balance": {"booked": "12.5", "held": "0.03", "available": "12.47", "overdraft": "0", "currency": "USD"},
        "feature": None,
        "entitlement": None,
        "advice": None,
        "hold": {"id": "3.7.41", "token": "a-token", "valid_for_s": 60.0, "expires_in_s": 65.0},
        "as_of": {
            "partition": 3,
            "epoch": 7,
            "offset": 18250,
            "log_time": "2026-11-22T10:00:00Z",
            "lag_records": 0,
        },
    }


async def test_a_denial_is_an_answer(stage: Stage, client: Client) -> None:
    stage.doors.answers[Check] = Checked(False, AS_OF, reason="rate_limited", transient=True, retry_after_ms=250)
    answer = await client.post("/v1/check", CHECK)
    assert answer.status == 200
    told = answer.json()
    assert (told["allowed"], told["reason"], told["transient"], told["retry_after_s"]) == (
        False,
        "rate_limited",
        True,
        0.25,
    )
    assert told["hold"] is None


async def test_an_owner_that_is_not_ready_denies_with_the_last_balance_it_knows(stage: Stage, client: Client) -> None:
    stage.doors.answers[Check] = Recovering(3, 200, "12.5")
    told = (await client.post("/v1/check", CHECK)).json()
    assert (told["allowed"], told["reason"], told["transient"], told["retry_after_s"]) == (
        False,
        "recovering",
        True,
        0.2,
    )
    assert told["balance"]["booked"] == "12.5" and told["as_of"] is None


@pytest.mark.parametrize("reply", [NotFound(AS_OF), Checked(False, AS_OF, reason="unknown_account")])
async def test_an_account_that_is_not_open_is_denied(stage: Stage, client: Client, reply: NotFound | Checked) -> None:
    stage.doors.answers[Check] = reply
    told = (await client.post("/v1/check", CHECK)).json()
    assert (told["allowed"], told["reason"]) == (False, "unknown_account")
    assert told["as_of"]["offset"] == 18250


@pytest.mark.parametrize("reply", [DoorUnavailable("away", 1.2), TooLate()])
async def test_without_an_answer_of_the_owner_there_is_no_decision(
    stage: Stage, client: Client, reply: DoorUnavailable | TooLate
) -> None:
    stage.doors.answers[Check] = reply
    answer = await client.post("/v1/check", CHECK)
    assert answer.status == 503
    assert answer.headers["retry-after"] == ("2" if isinstance(reply, DoorUnavailable) else "1")


async def test_what_the_owner_cannot_read_is_named(stage: Stage, client: Client) -> None:
    stage.doors.answers[Check] = BadQuestion("bounds[0].up_to", "is no quantity")
    answer = await client.post("/v1/check", CHECK)
    assert (answer.status, answer.json()["field"]) == (400, "bounds[0].up_to")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"account": ""}, "account"),
        ({"account": 5}, "account"),
        ({"acount": "x"}, "acount"),
        ({"bounds": [{"fields": ["a"], "up_to": 1.5}]}, "bounds[0].up_to"),
        ({"bounds": [{"fields": ["a"], "up_to": -1}]}, "bounds[0].up_to"),
        ({"bounds": [{"fields": []}]}, "bounds[0].fields"),
        ({"bounds": [{"fields": ["a"]}]}, "bounds[0].up_to"),
        ({"hold": {"ttl_s": 0}}, "hold.ttl_s"),
        ({"hold": {"ttl_s": 3601}}, "hold.ttl_s"),
        ({"hold": {"ttl": 1}}, "hold.ttl"),
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"data": {"a": 1}}, "data[...]"),
    ],
)
async def test_a_question_that_cannot_be_read_is_refused_by_field(
    stage: Stage, client: Client, change: dict[str, object], field: str
) -> None:
    answer = await client.post("/v1/check", CHECK | change)
    assert (answer.status, answer.json()["field"]) == (400, field)
    assert not stage.doors.asked


# -------------------------------------------------------------------------------------------------------------- holds

USED = {"id": "u1", "type": "llm.tokens", "data": {"input_tokens": 1.50}}


async def test_a_capture_is_an_event_of_the_hold(stage: Stage, client: Client) -> None:
    text = token()
    body = b'{"token":"%b","event":{"id":"u1","type":"llm.tokens","data":{"q": 1.50}},"final":false}' % text.encode()
    answer = await client.send("POST", "/v1/holds/capture", body, headers={"content-type": "application/json"})
    assert (answer.status, answer.json()) == (202, {"id": "u1", "account": "acme", "hold_id": "3.7.41"})
    (record,) = stage.appender.records
    assert record.key == b"acme" and record.value is not None
    assert orjson.loads(record.value) == {
        "specversion": "1.0",
        "id": "u1",
        "source": "tallygate/capture",
        "type": "llm.tokens",
        "subject": "acme",
        "time": "2026-11-22T10:00:00+00:00",
        "data": {"q": 1.5},
        "hold": text,
        "holdfinal": False,
        "scope": "team:red",
    }
    assert b'{"q": 1.50}' in record.value, "numbers stay as they were written"
    assert parse_usage(record.value).time_us == START_US


async def test_a_capture_sent_again_is_the_same_event_whenever_it_comes(stage: Stage, client: Client) -> None:
    body = {"token": token(), "event": USED}
    await client.post("/v1/holds/capture", body)
    stage.clock.now_s += 30
    await client.post("/v1/holds/capture", body)
    first, second = stage.appender.records
    assert first == second


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"time": "yesterday"}, "event.time"),
        ({"data": 5}, "event.data"),
        ({"data": {f"k{number}": 1 for number in range(65)}}, "body"),
        ({"subject": "globex"}, "event.subject"),
        ({"id": ""}, "event.id"),
    ],
)
async def test_a_capture_that_could_not_be_rated_is_refused(
    stage: Stage, client: Client, change: dict[str, object], field: str
) -> None:
    answer = await client.post("/v1/holds/capture", {"token": token(), "event": USED | change})
    assert (answer.status, answer.json()["field"]) == (400, field)
    assert not stage.appender.records


async def test_extending_and_releasing_go_to_the_owner_of_the_hold(stage: Stage, client: Client) -> None:
    text = token("globex")
    answer = await client.post(
        "/v1/holds/extend", {"token": text, "ttl_s": 2, "bounds": [{"fields": ["a"], "up_to": 1}]}
    )
    assert answer.status == 200 and answer.json()["hold"]["token"] == "a-token"
    answer = await client.post("/v1/holds/release", {"token": text})
    assert answer.json()["was_open"] is True
    assert stage.doors.asked == [
        ("globex", Extend(text, 2000, (FieldLimit(("a",), "1"),))),
        ("globex", Release(text)),
    ]


@pytest.mark.parametrize("path", ["capture", "extend", "release"])
async def test_a_foreign_hold_is_as_absent_as_one_that_was_never_sealed(stage: Stage, bound: Client, path: str) -> None:
    extra = {"event": USED} if path == "capture" else {}
    foreign = await bound.post(f"/v1/holds/{path}", {"token": token("globex"), **extra})
    absent = await bound.post(f"/v1/holds/{path}", {"token": "x" * 80, **extra})
    assert foreign.status == 404
    assert foreign.without_request_id == absent.without_request_id
    assert not stage.doors.asked and not stage.appender.records
    assert (await bound.post(f"/v1/holds/{path}", {"token": token("acme"), **extra})).status in (200, 202)


async def test_a_release_that_nobody_heard_is_not_called_done(stage: Stage, client: Client) -> None:
    stage.doors.answers[Release] = Recovering(3, 200)
    assert (await client.post("/v1/holds/release", {"token": token()})).status == 503
    stage.doors.answers[Release] = Released(False, AS_OF)
    assert (await client.post("/v1/holds/release", {"token": token()})).json()["was_open"] is False
