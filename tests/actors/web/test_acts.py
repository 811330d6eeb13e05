"""What every administrative act passes, where parts of it fail: nothing unrecorded, nothing twice, nothing claimed."""

from typing import Any

import pytest
from msgspec import Struct

from actors.keys import KeyScope
from actors.ports import StoreUnavailable
from actors.web.acts import _REFUSALS, Entry, administered, refusal_problem
from actors.web.app import App
from actors.web.wire import Call, Example, Problem, Reply, Route, invalid
from engine.outcomes import Refusal
from tests.actors.web.asgi_client import Client, Response
from tests.actors.web.house import House


class Wish(Struct, forbid_unknown_fields=True):
    name: str


class Acts:
    """An app with one act, which does what the test says."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.done = 0
        self.error: Exception | None = None
        route = Route(
            method="POST",
            path="/v1/things/{thing}",
            scope=KeyScope.ADMIN,
            handler=administered("thing.make", self.act, "thing"),
            summary="",
            description="",
            tags=(),
            example=Example(),
            request=Wish,
            response=Wish,
            status=201,
            confines=True,
        )
        self.client = Client(App([route], house.services), house.keys.add(KeyScope.ADMIN))

    async def act(self, call: Call, entry: Entry) -> Reply:
        if self.error is not None:
            raise self.error
        self.done += 1
        entry.after = Wish(f"made {self.done}")
        return Reply(Wish(f"made {self.done}"))

    async def post(self, name: str = "x", key: str | None = "k", thing: str = "t") -> Response:
        headers = {} if key is None else {"idempotency-key": key}
        return await self.client.post(f"/v1/things/{thing}", {"name": name}, headers)

    async def trail(self) -> list[tuple[str, str, Any]]:
        rows, _ = await self.house.audit.page(50)
        return [(row.entry.stage, row.entry.subject, row.entry.after) for row in rows]


@pytest.fixture
def acts(house: House) -> Acts:
    return Acts(house)


async def test_an_act_is_done_once_per_key_and_each_time_without(acts: Acts) -> None:
    answers = [await acts.post() for _ in range(3)]
    assert {(answer.status, answer.body) for answer in answers} == {(201, b'{"name":"made 1"}')}
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true", "true"]
    assert await acts.trail() == [("done", "t", b'{"name": "made 1"}'), ("asked", "t", b'{"name": "x"}')]
    await acts.post(key=None)
    await acts.post(key=None)
    assert acts.done == 3


async def test_another_body_or_another_thing_is_another_request(acts: Acts) -> None:
    await acts.post()
    for answer in (await acts.post(name="y"), await acts.post(thing="u")):
        assert (answer.status, answer.json()["type"]) == (422, "/problems/idempotency-key-reused")
    assert acts.done == 1


async def test_what_was_refused_may_be_corrected_under_the_same_key(acts: Acts) -> None:
    acts.error = invalid("name", "It is taken.")
    assert (await acts.post()).status == 400
    assert (await acts.trail())[0] == ("refused", "t", b'{"problem": "invalid-request"}')
    acts.error = None
    assert (await acts.post(name="y")).status == 201


@pytest.mark.parametrize(
    "error", [StoreUnavailable("away"), RuntimeError("a fault"), Problem(503, "s", "t", "d", next_step="n")]
)
async def test_when_nobody_knows_how_it_ended_a_repetition_does_not_do_it_again(acts: Acts, error: Exception) -> None:
    acts.error = error
    assert (await acts.post()).status >= 500
    assert [stage for stage, _, _ in await acts.trail()] == ["asked"]
    acts.error = None
    again = await acts.post()
    assert (again.status, again.json()["type"], acts.done) == (409, "/problems/idempotency-key-busy", 0)
    assert (await acts.post(key="another")).status == 201


async def test_an_act_stands_although_the_row_behind_it_could_not_be_written(
    acts: Acts, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = acts.house.audit.record

    async def only_asked(entry: Any) -> None:
        if entry.stage != "asked":
            raise StoreUnavailable("away")
        await record(entry)

    monkeypatch.setattr(acts.house.audit, "record", only_asked)
    assert (await acts.post()).status == 201
    assert [stage for stage, _, _ in await acts.trail()] == ["asked"]
    assert (await acts.post()).headers["idempotent-replayed"] == "true"


async def test_without_a_place_for_answers_an_act_under_a_key_is_not_done(acts: Acts) -> None:
    await acts.house.idempotency.stop()
    assert (await acts.post()).status == 503
    assert (acts.done, await acts.trail()) == (0, [])
    assert (await acts.post(key=None)).status == 201


@pytest.mark.parametrize("refusal", list(Refusal))
def test_every_refusal_of_the_engine_has_words_and_a_next_step(refusal: Refusal) -> None:
    problem = refusal_problem(refusal, {refusal: "a_field"})
    assert problem.status in (404, 409, 422)
    assert problem.detail.endswith(".") and problem.next_step.endswith(".")
    if refusal in _REFUSALS:
        assert problem.field == "a_field"
