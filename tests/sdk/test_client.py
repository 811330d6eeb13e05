"""The blocking client against the real app of the API, over a real socket."""

import socket
import threading
import time
from contextlib import suppress
from decimal import Decimal

import orjson
import pytest

from actors.door_wire import Answer, CarriedOn, CarryOn, Checked, CoveredView, Extend, FieldLimit, Recovering, Release
from actors.door_wire import Check as Asked
from tallygate_sdk import (
    OPEN,
    BadKey,
    Bound,
    Budget,
    Check,
    Client,
    NotFound,
    Overdraft,
    Refused,
    Unavailable,
    Usage,
)
from tallygate_sdk.answers import Covered
from tests.actors.web.fakes import AS_OF, token
from tests.sdk.serving import Served

WHOLE = Check(
    "acme",
    scope="team:red/user:ann",
    type="llm.tokens",
    data={"model": "small"},
    reach={"cache": ("hit", "miss")},
    bounds=(Bound(("a", "b"), 20), Bound(("c",), Decimal("1.5"))),
    n=2,
    feature="tools",
    hold_s=1.5,
)


def usage(id: str = "e1", **more: object) -> Usage:
    fields = {"account": "acme", "type": "llm.tokens", "source": "gateway", "data": {"q": Decimal("1.50")}, "id": id}
    return Usage(**(fields | more))  # type: ignore[arg-type]


def test_a_check_reaches_the_owner_as_it_was_asked_and_its_answer_is_typed(at: Served) -> None:
    with Client(at.url, at.key) as client:
        decision = client.check(WHOLE)
    assert at.stage.doors.asked == [
        (
            "acme",
            Asked(
                "acme",
                "team:red/user:ann",
                "llm.tokens",
                {"model": "small"},
                {"cache": ("hit", "miss")},
                (FieldLimit(("a", "b"), "20"), FieldLimit(("c",), "1.5")),
                2,
                "tools",
                1500,
            ),
        )
    ]
    assert decision.allowed and decision.decided_by == "service"
    assert decision.hold is not None and decision.hold.token == "a-token"
    assert decision.balance is not None and decision.balance.available == Decimal("12.47")
    assert decision.price is not None and decision.price.amount == Decimal("0.03")


def test_a_denial_is_an_answer_with_its_reason(at: Served) -> None:
    at.stage.doors.answers[Asked] = Checked(False, AS_OF, reason="credit_depleted")
    with Client(at.url, at.key) as client:
        decision = client.check(Check("acme"), on_away=OPEN)
    assert (decision.allowed, decision.reason, decision.decided_by) == (False, "credit_depleted", "service")


def test_many_checks_have_an_outcome_each(at: Served) -> None:
    with Client(at.url, at.key) as client:
        first, second = client.checks([Check("acme"), Check("nobody", feature="tools")])
    assert first.answer is not None and first.answer.allowed and first.problem is None
    assert second.answer is not None and second.answer.reason == "unknown_account"


def test_usage_is_reported_and_what_is_refused_is_named(at: Served) -> None:
    with Client(at.url, at.key) as client:
        reported = client.report([usage("e1", scope="team:red", seq=3), usage("e2", scope="bad scope!")])
        nothing = client.report([usage("e3", scope="bad scope!")])
    (record,) = at.stage.appender.records
    event = orjson.loads(record.value or b"")
    assert (event["id"], event["subject"], event["scope"], event["seq"]) == ("e1", "acme", "team:red", 3)
    assert b'"data":{"q":1.50}' in (record.value or b"")
    assert (reported.accepted, [each.id or each.index for each in reported.refused]) == (1, [1])
    assert (nothing.accepted, nothing.refused[0].reason) == (0, "malformed")


def test_a_hold_is_captured_extended_and_released(at: Served) -> None:
    with Client(at.url, at.key) as client:
        captured = client.capture(usage(hold=token(), final=False))
        extended = client.extend(token(), hold_s=5, bounds=[Bound(("p",), 7)])
        released = client.release(token())
    assert (captured.id, captured.account, captured.hold_id) == ("e1", "acme", "3.7.41")
    event = orjson.loads(at.stage.appender.records[0].value or b"")
    assert (event["hold"], event["holdfinal"]) == (token(), False)
    assert [question for _, question in at.stage.doors.asked] == [
        Extend(token(), 5000, (FieldLimit(("p",), "7"),)),
        Release(token()),
    ]
    assert extended.allowed and released.was_open


def test_a_stream_is_told_whether_it_may_go_on(at: Served) -> None:
    checked = Checked(False, AS_OF, reason="credit_depleted")
    told = CarriedOn("cheaper", (CoveredView(("output_tokens",), "12"),), checked, {"model": "small"})
    at.stage.doors.answers[CarryOn] = told
    with Client(at.url, at.key) as client:
        running = client.carry_on(
            usage(hold=token(), final=False, seq=4),
            [Bound(("output_tokens",), 100)],
            cheaper=[{"model": "small"}],
            hold_s=5,
        )
    assert (running.action, running.alternative) == ("cheaper", {"model": "small"})
    assert running.covered == (Covered(("output_tokens",), Decimal(12)),)
    assert running.check is not None and running.check.reason == "credit_depleted"
    (asked,) = [question for _, question in at.stage.doors.asked if isinstance(question, CarryOn)]
    assert (asked.token, asked.ttl_ms, asked.ahead) == (token(), 5000, (FieldLimit(("output_tokens",), "100"),))
    event = orjson.loads(at.stage.appender.records[0].value or b"")
    assert (event["seq"], event["holdfinal"]) == (4, False), "with a seq it is rated as well"


def test_without_an_answer_the_policy_decides_whether_a_stream_goes_on(at: Served) -> None:
    ahead = [Bound(("output_tokens",), 100)]
    with Client(at.url, at.key, check_deadline_s=0.2) as client:
        at.script = [503] * 100
        closed = client.carry_on(usage(hold=token(), final=False), ahead)
        opened = client.carry_on(usage(hold=token(), final=False), ahead, on_away=OPEN)
    assert (closed.action, opened.action) == ("stop", "continue")
    assert opened.check is not None and (opened.check.decided_by, opened.covered) == ("policy", ())


def test_the_policy_that_decides_on_a_stream_is_told_its_model(at: Served) -> None:
    told: list[Check] = []

    def worst_case(check: Check) -> Decimal:
        told.append(check)
        return {"small": Decimal("0.5"), "large": Decimal(9)}[check.data["model"]]

    at.script = [503] * 100
    with Client(at.url, at.key, check_deadline_s=0.2, on_away=Overdraft(Budget(5, every_s=60), worst_case)) as client:
        ran = {
            model: client.carry_on(
                usage(hold=token(), final=False, scope="team:red", data={"model": model, "q": 4, "usage": {"x": 1}}),
                [Bound(("output_tokens",), 100)],
            ).action
            for model in ("small", "large")
        }
    assert ran == {"small": "continue", "large": "stop"}
    asked = Check("acme", "team:red", "llm.tokens", {"model": "small"}, bounds=(Bound(("output_tokens",), 100),))
    assert told[0] == asked


def test_a_capture_put_again_is_the_same_event(at: Served) -> None:
    event = usage(hold=token())
    with Client(at.url, at.key) as client:
        client.capture(event)
        at.script = [503]
        client.capture(event)
    first, second = at.stage.appender.records
    assert first == second


def test_a_balance_is_read(at: Served) -> None:
    with Client(at.url, at.key) as client:
        told = client.balance("a/b")
    assert at.paths[-1] == "/v1/customers/a/b/balance" and told.balance.booked is not None


@pytest.mark.parametrize("fault", [503, 500, "cut"])
def test_what_nobody_answered_is_put_again(at: Served, fault: int | str) -> None:
    at.script = [fault, fault]
    with Client(at.url, at.key) as client:
        assert client.check(Check("acme")).decided_by == "service"
        assert client.report([usage()]).accepted == 1
    assert at.paths == ["/v1/check"] * 3 + ["/v1/events"]


def test_the_deadline_ends_it(at: Served) -> None:
    at.script = ["silent"]
    with Client(at.url, at.key) as client, pytest.raises(Unavailable, match="nobody answered"):
        client.report([usage()], deadline_s=0.2)


def test_a_service_that_answers_in_drops_is_left_at_the_deadline() -> None:
    """Each of its pieces comes soon enough: who waits only so long for the next one is there to the end."""
    whole = b'{"refused": [], "accepted": 0, "padding": "' + b"x" * 400 + b'"}'
    listener = socket.create_server(("127.0.0.1", 0))
    told: list[bytes] = []

    def drip() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(whole))
            for place in range(len(whole)):
                connection.sendall(whole[place : place + 1])
                told.append(whole[place : place + 1])
                time.sleep(0.02)

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with Client(url, "key") as client, pytest.raises(Unavailable, match="ReadTimeout"):
        client.report([usage()], deadline_s=0.5)
    thread.join(30)
    listener.close()
    assert not thread.is_alive() and len(told) < len(whole)


def test_without_an_answer_the_policy_decides_closed_unless_said_otherwise(at: Served) -> None:
    with Client(at.url, at.key, check_deadline_s=0.2) as client:
        at.script = [503] * 100
        closed = client.check(Check("acme"))
        opened = client.check(Check("acme"), on_away=OPEN)
    assert (closed.allowed, closed.reason, closed.transient, closed.decided_by) == (
        False,
        "unavailable",
        True,
        "policy",
    )
    assert (opened.allowed, opened.decided_by) == (True, "policy")


def test_an_owner_that_is_being_replaced_is_waited_for(at: Served) -> None:
    answers: list[Answer] = [Recovering(3, 10, "12.5"), Checked(True, AS_OF)]
    at.stage.doors.answers[Asked] = lambda question: answers.pop(0)
    with Client(at.url, at.key) as client:
        assert client.check(Check("acme")).as_of is not None
    assert not answers


def test_an_owner_that_stays_away_leaves_it_to_the_policy(at: Served) -> None:
    at.stage.doors.answers[Asked] = Recovering(3, 10, "12.5")
    with Client(at.url, at.key, check_deadline_s=0.2) as client:
        closed = client.check(Check("acme"))
        opened = client.check(Check("acme"), on_away=OPEN)
    assert (closed.allowed, closed.reason) == (False, "recovering")
    assert closed.balance is not None and closed.balance.booked == Decimal("12.5")
    assert opened.allowed and opened.decided_by == "policy"


def test_what_is_refused_is_raised_at_once_with_field_and_next_step(at: Served) -> None:
    with Client(at.url, at.key) as client:
        with pytest.raises(Refused, match=r"n: .*>= 1.*request") as refused:
            client.check(Check("acme", n=0), on_away=OPEN)
        with pytest.raises(NotFound):
            client.release("no token")
    assert (refused.value.status, refused.value.type, refused.value.field) == (400, "/problems/invalid-request", "n")
    assert refused.value.next_step and refused.value.request_id
    with Client(at.url, "tg_test_wrong") as client, pytest.raises(BadKey):
        client.check(Check("acme"), on_away=OPEN)
    assert len(at.paths) == 3


def test_what_is_not_tallygate_is_not_believed(at: Served) -> None:
    at.script = [200]
    with Client(at.url, at.key) as client, pytest.raises(Refused, match="is not tallygate"):
        client.check(Check("acme"), on_away=OPEN)
