import pytest

from actors.door_client import DoorUnavailable
from actors.door_wire import BadQuestion, Check, Checked, Question
from actors.web import batch_checks
from actors.web.batch_checks import CHECKS_MAX, WITHIN_S
from tests.actors.web.asgi_client import Client
from tests.actors.web.fakes import ALLOWED, AS_OF, Stage
from tests.actors.web.house import House
from tests.actors.web.test_customers import ACME, put


def by_feature(check: Check) -> Checked:
    if check.feature is None:
        return ALLOWED
    return Checked(check.feature == "tools", AS_OF, reason=None if check.feature == "tools" else "feature_denied")


async def test_each_check_has_its_own_answer_in_the_order_asked(stage: Stage, client: Client) -> None:
    stage.doors.answers[Check] = by_feature
    asked = [
        {"account": "globex", "feature": "vision"},
        {"account": "acme", "feature": "tools", "hold": {"ttl_s": 2}},
        {"account": "globex", "feature": "tools"},
    ]
    answer = await client.post("/v1/checks", {"checks": asked})
    assert answer.status == 200
    outcomes = answer.json()["outcomes"]
    assert [each["answer"]["allowed"] for each in outcomes] == [False, True, True]
    assert [each["problem"] for each in outcomes] == [None] * 3
    single = (await client.post("/v1/check", asked[0])).json()
    assert outcomes[0]["answer"] == single
    assert ("acme", Check("acme", feature="tools", ttl_ms=2000)) in stage.doors.asked


async def test_checks_of_one_account_are_asked_one_after_the_other(stage: Stage, client: Client) -> None:
    asked = [{"account": account, "n": n} for n in (1, 2, 3) for account in ("acme", "globex")]
    assert (await client.post("/v1/checks", {"checks": asked})).status == 200
    for account in ("acme", "globex"):
        own = [question for name, question in stage.doors.asked if name == account]
        assert [question.n for question in own if isinstance(question, Check)] == [1, 2, 3]


async def test_one_without_an_answer_leaves_the_others_theirs(stage: Stage, client: Client) -> None:
    async def ask(account: str, question: Question, within_s: float) -> Checked | BadQuestion:
        assert isinstance(question, Check)
        if account == "away":
            raise DoorUnavailable("away", 1.2)
        return BadQuestion("bounds.0.fields", "stands in two bounds") if question.feature == "twice" else ALLOWED

    stage.doors.ask = ask  # type: ignore[method-assign]
    checks = [{"account": "away"}, {"account": "acme", "feature": "twice"}, {"account": "acme"}]
    answer = await client.post("/v1/checks", {"checks": checks})
    away, twice, good = answer.json()["outcomes"]
    assert answer.status == 200 and good["answer"]["allowed"] and good["problem"] is None
    assert (away["answer"], away["problem"]["status"], away["problem"]["type"]) == (None, 503, "/problems/unavailable")
    assert away["problem"]["next_step"] == "Send the same request again in 2 s."
    assert (twice["problem"]["status"], twice["problem"]["field"]) == (400, "bounds.0.fields")


async def test_the_checks_of_an_account_share_one_deadline(stage: Stage, client: Client) -> None:
    left: list[float] = []

    async def ask(account: str, question: Question, within_s: float) -> Checked:
        left.append(within_s)
        return ALLOWED

    stage.doors.ask = ask  # type: ignore[method-assign]
    await client.post("/v1/checks", {"checks": [{"account": "acme"}] * 3})
    assert WITHIN_S >= left[0] > left[1] > left[2]


async def test_a_check_that_no_time_is_left_for_is_not_asked(
    stage: Stage, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_checks, "WITHIN_S", 0.0)
    (outcome,) = (await client.post("/v1/checks", {"checks": [{"account": "acme"}]})).json()["outcomes"]
    assert outcome["problem"]["status"] == 503 and "not asked" in outcome["problem"]["detail"]
    assert not stage.doors.asked


async def test_a_bound_key_is_told_the_same_of_a_foreign_account_as_of_an_absent_one(
    stage: Stage, bound: Client
) -> None:
    checks = [{"account": account} for account in ("globex", "nobody", "acme")]
    foreign, absent, own = (await bound.post("/v1/checks", {"checks": checks})).json()["outcomes"]
    assert foreign == absent and foreign["problem"]["status"] == 404
    assert own["answer"]["allowed"] and [account for account, _ in stage.doors.asked] == ["acme"]


@pytest.mark.parametrize(
    ("checks", "field"),
    [
        ([], "checks"),
        ([{"account": "acme"}] * (CHECKS_MAX + 1), "checks"),
        ([{"account": "acme"}, {"account": "acme", "n": 0}], "checks[1].n"),
        ([{"account": "acme"}, {"acount": "acme"}], "checks[1].acount"),
    ],
)
async def test_a_body_that_breaks_the_form_is_refused_whole(
    stage: Stage, client: Client, checks: list[object], field: str
) -> None:
    answer = await client.post("/v1/checks", {"checks": checks})
    assert (answer.status, answer.json()["field"]) == (400, field)
    assert not stage.doors.asked


async def test_an_earlier_check_of_an_account_counts_for_a_later_one(house: House) -> None:
    """A rate limit of 10 tokens a minute: 8, then 3, then 2."""
    await house.opened("acme", "10")
    assert (await put(house.client, f"{ACME}/rate-limits/tpm", {"per_minute": 10, "meter": "tokens"})).status == 200
    question = {"account": "acme", "type": "llm.request", "data": {}}
    checks = [question | {"bounds": [{"fields": ["tokens"], "up_to": tokens}]} for tokens in (8, 3, 2)]
    outcomes = (await house.client.post("/v1/checks", {"checks": checks})).json()["outcomes"]
    assert [each["answer"]["reason"] for each in outcomes] == [None, "rate_limited", None]
