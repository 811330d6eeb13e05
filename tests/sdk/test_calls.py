import httpx2
import pytest

from tallygate_sdk import BadKey, Check, NotFound, Refused, Unavailable
from tallygate_sdk.calls import EventsCall, balance_call, check_call

PROBLEM = b'{"type":"/problems/x","title":"T","status":4,"detail":"D","instance":"r-9","next_step":"N","field":"f"}'


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_nobody_there_is_no_refusal(status: int) -> None:
    with pytest.raises(Unavailable) as away:
        check_call(Check("acme")).read(status, httpx2.Headers({"Retry-After": "2"}), PROBLEM)
    assert away.value.retry_after_s == 2.0
    with pytest.raises(Unavailable) as away:
        check_call(Check("acme")).read(status, {"retry-after": "Wed, 21 Oct"}, b"<html>")
    assert away.value.retry_after_s is None


@pytest.mark.parametrize(("status", "kind"), [(400, Refused), (401, BadKey), (403, BadKey), (404, NotFound)])
def test_a_refusal_says_what_the_problem_says(status: int, kind: type[Refused]) -> None:
    with pytest.raises(kind) as refused:
        check_call(Check("acme")).read(status, {}, PROBLEM)
    assert str(refused.value) == "f: D N (request r-9)"
    assert (refused.value.type, refused.value.status) == ("/problems/x", status)


def test_a_refusal_without_a_problem_still_says_its_status() -> None:
    with pytest.raises(Refused, match="status 418"):
        check_call(Check("acme")).read(418, {"x-request-id": "r"}, b"\xff")


def test_a_name_with_a_slash_stays_one_name() -> None:
    assert balance_call("a/b c").path == "/v1/customers/a%2Fb%20c/balance"


def test_that_no_event_was_taken_is_an_answer() -> None:
    body = b'{"type":"t","refused":[{"index":0,"id":null,"reason":"malformed","field":"id","detail":"D"}]}'
    reported = EventsCall([b"{}"]).read(400, {}, body)
    assert (reported.accepted, reported.refused[0].field) == (0, "id")
    with pytest.raises(Refused):
        EventsCall([b"{}"]).read(400, {}, PROBLEM)
