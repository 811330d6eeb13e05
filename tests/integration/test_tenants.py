"""Two customers on one partition of a real deployment: nothing of the one reaches the other, a log or a figure.

Everything that the customer Acme may name holds a canary, and Bravo does the same things with plain names. All that Bravo
is told, and all that is logged or measured, is searched for the canaries and for every secret that was handed out.
"""

import asyncio
import base64
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import quote

import orjson
import pytest
from standardwebhooks import Webhook

from actors.assembly import brokers
from actors.deployment import until
from actors.kafka import TopicReader
from actors.web.api import all_routes
from actors.web.health import Health
from actors.web.wire import Route
from engine.placement import partition_for
from loadtest.deployment import ENGINE_PASSWORD, PARTITIONS
from loadtest.workload import cloud_time
from tests.actors.web.asgi_client import Response
from tests.integration.front import Caller, Front, Post, front

ROUTES: Final = all_routes(Health("test"))
ROUNDS: Final = 200  # of each of the workers
WORKERS: Final = 6  # of each customer
BOUNDS: Final = [{"fields": ["input_tokens"], "up_to": 1_000}, {"fields": ["output_tokens"], "up_to": "500"}]
SHARED: Final = "shared"  # both customers use this name for a lot, a rule, an idempotency key and an event


def event(account: str, event_id: str, source: str, **changes: Any) -> dict[str, Any]:
    """Usage worth 0.35 cents."""
    made = {"specversion": "1.0", "id": event_id, "source": source, "type": "llm.request", "subject": account}
    made["time"] = cloud_time(time.time_ns() // 1000)
    return made | {"data": {"model": "atlas-large", "input_tokens": 1_000, "output_tokens": 100}} | changes


class Tenant:
    """One customer with a bound key. `name` makes the names that it uses."""

    def __init__(self, caller: Caller, account: str, name: Callable[[str], str], post: Post) -> None:
        self.caller = caller
        self.account = account
        self.name = name
        self.post = post
        self.path = f"/v1/customers/{account}"
        self.rated = 0  # events that were sent to be rated
        self.dead = 0  # events that cannot be
        self.tokens: list[str] = []
        self.endpoint_secrets: list[str] = []
        self.endpoints: list[str] = []
        self.operations = 0
        self._number = 0

    @property
    def hook(self) -> str:
        """Where its webhooks go."""
        return f"/{self.name('url')}"

    async def did(self, status: int, method: str, target: str, document: Any = None, **headers: str) -> Any:
        """One operation with that end."""
        self.operations += 1
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.caller.ask(method, target, document, named)
        assert answer.status == status, (method, target, document, answer)
        return answer.json() if answer.body else None

    def fresh(self, what: str) -> str:
        self._number += 1
        return f"{self.name(what)}.{self._number}"

    async def open(self) -> None:
        """An account with one of everything."""
        path, name = self.path, self.name
        await self.did(201, "POST", "/v1/customers", {"account": self.account, "plan": "starter"})
        grant = {"amount": "1000", "currency": "USD", "lot": SHARED}
        await self.did(201, "POST", f"{path}/grants", grant, idempotency_key=SHARED, x_reason=name("reason"))
        await self.did(201, "POST", f"{path}/grants", grant | {"lot": name("lot")}, idempotency_key=name("idem"))
        await self.did(201, "POST", f"{path}/top-ups", {"amount": "5", "currency": "USD", "lot": name("topup")})
        await self.did(200, "PUT", f"{path}/overdraft", {"amount": "1", "currency": "USD"})
        await self.did(200, "PUT", f"{path}/scopes", {"scope": name("scope"), "standing": "active"})
        cap = {"amount": "0.5", "currency": "USD", "hard": False}
        await self.did(200, "PUT", f"{path}/caps/{name('cap')}", cap)
        await self.did(200, "PUT", f"{path}/caps/{name('scopecap')}", cap | {"scope": name("scope")})
        for rule, percent in ((name("rule"), 10), (SHARED, 20)):
            on = {"measure": "cap_percent", "cap": name("cap"), "percent": percent}
            await self.did(200, "PUT", f"{path}/rules/{rule}", {"on": on})
        await self.did(200, "PUT", f"{path}/rate-limits/{name('rate')}", {"per_minute": 100_000})
        for place, rules in ((self.hook, None), (f"{self.hook}/some", [SHARED]), (f"/dead{self.hook}", None)):
            asked: dict[str, Any] = {"url": self.post.url + place} | ({"rules": rules} if rules else {})
            made = await self.did(201, "POST", "/v1/webhook-endpoints", asked, idempotency_key=f"{name('hook')}{place}")
            self.endpoints.append(made["endpoint"]["id"])
            self.endpoint_secrets.append(made["secret"])
        made = await self.did(200, "POST", f"/v1/webhook-endpoints/{self.endpoints[0]}/rotate-secret", None)
        self.endpoint_secrets.append(made["secret"])
        await until(self._heard, "the shards to know the endpoints")
        tested = await self.did(200, "POST", f"/v1/webhook-endpoints/{self.endpoints[0]}/test")
        assert tested["delivered"], tested
        shared = event(self.account, SHARED, SHARED)
        await self.did(202, "POST", "/v1/events", shared)
        self.rated += 1

    async def _heard(self) -> bool:
        """Fire an alert; whether one has come to the endpoint that hears all rules."""
        on = {"measure": "balance", "threshold": "1000000"}
        await self.did(200, "PUT", f"{self.path}/rules/{self.fresh('probe')}", {"on": on})
        await asyncio.sleep(0.2)
        return any(came.path == self.hook for came in self.post.came)

    async def live(self, seed: int) -> None:
        """What a customer does all day, right and wrong."""
        draw = Random(seed)
        for _ in range(ROUNDS):
            await draw.choice((self._use, self._use, self._hold, self._hold, self._read, self._blunder))(draw)

    async def _use(self, draw: Random) -> None:
        name, account = self.name, self.account
        note = {"model": "atlas-large", "input_tokens": 1_000, "output_tokens": 100, "note": self.fresh("note")}
        scoped = {"scope": name("scope"), "data": note}
        events = [event(account, self.fresh("event"), name("source"), **scoped) for _ in range(draw.randrange(1, 4))]
        self.rated += len(events)
        if draw.random() < 0.3:  # what can only be set aside: the model has no price, the quantity is none
            self.dead += 2
            nameless = {"model": name("model"), "input_tokens": 5, "output_tokens": 5}
            events.append(event(account, self.fresh("dead"), name("source"), data=nameless))
            wrong = {"model": "atlas-large", "input_tokens": name("quantity"), "output_tokens": 1}
            events.append(event(account, self.fresh("dead"), name("source"), data=wrong))
        taken = await self.did(202, "POST", "/v1/events", events)
        assert taken == {"accepted": len(events), "refused": []}

    async def _hold(self, draw: Random) -> None:
        asked: dict[str, Any] = {"account": self.account, "scope": self.name("scope"), "type": "llm.request"}
        asked |= {"data": {"model": "atlas-large"}, "bounds": BOUNDS, "hold": True}
        answer = await self.did(200, "POST", "/v1/check", asked)
        if not answer["allowed"]:
            assert answer["transient"], answer
            return
        token = answer["hold"]["token"]
        self.tokens.append(token)
        if draw.random() < 0.3:
            answer = await self.did(200, "POST", "/v1/holds/extend", {"token": token, "bounds": BOUNDS[:1]})
            if answer["allowed"]:
                token = answer["hold"]["token"]
                self.tokens.append(token)
        if draw.random() < 0.2:
            await self.did(200, "POST", "/v1/holds/release", {"token": token})
            return
        used = {"model": "atlas-large", "input_tokens": 10, "output_tokens": 5, "note": self.fresh("note")}
        captured = {"id": self.fresh("capture"), "type": "llm.request", "data": used}
        await self.did(202, "POST", "/v1/holds/capture", {"token": token, "event": captured})
        self.rated += 1

    async def _read(self, draw: Random) -> None:
        lists = (
            "",
            "/scopes",
            "/caps",
            "/rules",
            "/rate-limits",
            "/grants",
            "/balance",
            "/usage",
            "/ledger",
            "/alerts",
        )
        other = [f"/v1/webhook-endpoints/{draw.choice(self.endpoints)}/deliveries", "/v1/webhook-endpoints"]
        other += [f"/v1/commands?account={self.account}", "/v1/plans", f"/v1/webhook-endpoints/{self.endpoints[0]}"]
        await self.did(200, "GET", draw.choice([self.path + part for part in lists] + other))

    async def _blunder(self, draw: Random) -> None:
        """What is wrong is told to whoever sent it, and to nobody else."""
        word = self.name("wrong")
        cap = {"amount": word, "currency": "USD"}
        wrong: list[tuple[int, str, str, Any]] = [
            (400, "POST", "/v1/check", {"account": self.account, word: word}),
            (400, "POST", "/v1/check", {"account": self.account, "bounds": [{"fields": [word], "up_to": word}]}),
            (400, "POST", "/v1/check", b'{"account": "' + word.encode()),
            (400, "POST", "/v1/check", b'{"%b": 1, "%b": 2}' % (word.encode(), word.encode())),
            (400, "POST", "/v1/events", {"specversion": word, "id": word}),
            (400, "GET", f"{self.path}/ledger?cursor={word}", None),
            (400, "GET", f"{self.path}/usage?{word}=1", None),
            (404, "POST", "/v1/holds/release", {"token": word}),
            (404, "GET", f"/v1/webhook-endpoints/{word}", None),
            (404, "GET", f"/{word}", None),
            (400, "POST", "/v1/webhook-endpoints", {"url": f"https://{word}:12/"}),
            (422, "PUT", f"{self.path}/caps/{self.name('cap')}", cap),
            (409, "POST", f"{self.path}/grants", {"amount": "1", "currency": "USD", "lot": SHARED}),
        ]
        await self.did(*draw.choice(wrong))

    async def follow(self) -> None:
        """Its stream, until the task is cancelled."""
        own = {"authorization": f"Bearer {self.caller.key}"}
        async with self.caller._session.get(f"{self.path}/stream", headers=own) as answer:
            assert answer.status == 200
            async for line in answer.content:
                self.caller.heard.append(("stream", line))


# --------------------------------------------------------------------------------------------- what one key may guess


def guesses(acme: Tenant, delivery: str, alert: str, key_id: str) -> list[tuple[str, str]]:
    """Each id of the one customer, beside one that nobody has."""
    absent_token = acme.tokens[-1][:-2] + ("AA" if acme.tokens[-1][-2:] != "AA" else "BB")
    return [
        (acme.account, "nobody"),
        (acme.endpoints[0], "we_0000000000"),
        (delivery, str(10**15)),
        (alert, "alert_00"),
        (acme.tokens[-1], absent_token),
        (key_id, "zzzzzzzzzzzz"),
    ]


def request_of(route: Route, ids: Mapping[str, str]) -> tuple[str, str, Any]:
    """The example of the route, about these ids."""
    target = route.path
    params = dict(route.example.params) | {"account": ids["account"]}
    params |= {name: ids[name] for name in ("endpoint", "delivery", "key") if name in params}
    for name, value in params.items():
        target = target.replace(f"{{{name}}}", value)
    query = dict(route.example.query)
    query |= {item.name: ids[item.name] for item in route.parameters if item.name in ("account", "alert")}
    target += "?" + "&".join(f"{name}={value}" for name, value in query.items()) if query else ""
    document: Any = route.example.request
    if isinstance(document, dict):
        document = dict(document)
        document |= {"token": ids["token"]} if "token" in document else {}
        document |= {"account": ids["account"]} if "account" in document else {}
        document |= {"subject": ids["account"]} if "subject" in document else {}
    return route.method, target, document


async def guess_everything(bravo: Caller, pairs: list[tuple[str, str]]) -> int:
    """Every route, with each id of another customer and with one that nobody has: the answers do not differ."""
    names = ("account", "endpoint", "delivery", "alert", "token", "key")
    foreign = dict(zip(names, [pair[0] for pair in pairs], strict=True))
    absent = dict(zip(names, [pair[1] for pair in pairs], strict=True))
    compared = 0
    for route in ROUTES:
        if route.path in ("/metrics", "/readyz"):
            continue
        answers: list[Response] = []
        for ids in (foreign, absent):
            method, target, document = request_of(route, ids)
            answers.append(await bravo.ask(method, target, document, {"x-reason": "guess"}))
        first, second = (answer.without_request_id for answer in answers)
        assert first == second, f"{route.method} {route.path} tells foreign from absent"
        compared += request_of(route, foreign) != request_of(route, absent)
        if route.account_from is not None or any(
            part in route.path for part in ("{endpoint}", "{delivery}", "/holds/")
        ):
            assert answers[0].status == 404, (route.method, route.path, answers[0])
    return compared


# ------------------------------------------------------------------------------------------------------------ the test


def searched(what: str, text: bytes, words: list[bytes]) -> list[str]:
    """Sentences about what must not stand there."""
    return [
        f"{what}: {word.decode()[:40]} in ...{text[max(0, text.find(word) - 200) : text.find(word) + 200]!r}"
        for word in words
        if word in text
    ]


async def webhooks_of(front: Front, tenant: Tenant) -> bool:
    """The alerts of both rules came to the endpoint that hears all rules, and that of one rule to the other."""
    told = {
        (came.path, orjson.loads(came.body)["data"].get("rule"))
        for came in tenant.post.came
        if came.path.startswith(tenant.hook)
    }
    rules = {(tenant.hook, tenant.name("rule")), (tenant.hook, SHARED), (f"{tenant.hook}/some", SHARED)}
    assert not {rule for path, rule in told if path != tenant.hook} - {SHARED}
    return rules <= told


def secrets_of(front: Front, callers: list[Caller], tenants: list[Tenant]) -> list[bytes]:
    """Everything that opens something."""
    settings = front.at.settings
    assert settings.control_key is not None and settings.webhooks.secret is not None
    found = [settings.control_key.get_secret_value(), settings.webhooks.secret.get_secret_value(), ENGINE_PASSWORD]
    found += [caller.key.split("_")[3] for caller in callers if caller.key is not None]
    for tenant in tenants:
        found += tenant.tokens + [secret.removeprefix("whsec_") for secret in tenant.endpoint_secrets]
    raw = [base64.b64decode(secret.removeprefix("whsec_")).hex() for t in tenants for secret in t.endpoint_secrets]
    return [text.encode() for text in found + raw]


async def test_nothing_of_one_customer_reaches_another(
    database: str, kafka: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    canary = f"canary{secrets.token_hex(4)}"
    account = f"{canary}-account"
    twin = next(f"bravo{n}" for n in range(1_000) if _partition(f"bravo{n}") == _partition(account))
    post = Post()
    await post.start()
    try:
        async with front(database, kafka, tmp_path, shards=2, body_deadline_s=1.0) as api:
            operator = await api.operator()
            acme = Tenant(api.caller(await api.key(account=account)), account, lambda place: f"{canary}-{place}", post)
            bravo = Tenant(api.caller(await api.key(account=twin)), twin, lambda place: f"bravo-{place}", post)
            both = [acme, bravo]
            made = await operator.done(
                "POST", "/v1/keys", {"name": f"{canary}-key", "scopes": ["read"], "account": account}
            )
            hear_all = []
            for place in ("", "/dead"):
                everybody = {"url": f"{post.url}{place}/{canary}-operator"}
                hear_all.append((await operator.done("POST", "/v1/webhook-endpoints", everybody))["endpoint"]["id"])
            for tenant in both:
                await tenant.open()
            streams = [asyncio.create_task(tenant.follow()) for tenant in both]
            await asyncio.gather(*(tenant.live(seed) for tenant in both for seed in range(WORKERS)))
            for tenant in both:
                await until(lambda tenant=tenant: webhooks_of(api, tenant), "the webhooks")  # type: ignore[misc]
            await until(lambda: rated(both), "everything to be rated")
            await _use_what_is_not_ones_own(acme, bravo)
            await until(lambda: rated(both), "everything to be rated")
            await _explain_a_charge(acme, bravo)
            await _explain_a_held_one(acme)

            told = await acme.did(200, "GET", f"/v1/webhook-endpoints/{acme.endpoints[0]}/deliveries")
            alert = next(item for item in told["items"] if item["cause"] == "alert")
            pairs = guesses(acme, alert["id"], alert["alert_id"], made["id"])
            assert await guess_everything(bravo.caller, pairs) > 25
            await _look_for_those_who_hear_all(operator, bravo, hear_all[0])
            await until(lambda: _set_aside(operator, both), "the dead letters")
            stolen = await bravo.did(404, "GET", rating_of(bravo, "stolen", "bravo"))
            assert stolen["type"] == "/problems/dead-lettered" and "(bad_hold)" in stolen["detail"]
            for page in ("/v1/audit?limit=200", "/v1/customers", "/v1/keys"):
                await operator.done("GET", page)
            metrics = await operator.send("GET", "/metrics")
            assert metrics.status == 200
            for stream in streams:
                assert not stream.done()
                stream.cancel()
            await asyncio.gather(*streams, return_exceptions=True)
            trail = await _whole_trail(operator)
            callers = [operator, acme.caller, bravo.caller]
            hidden = [*secrets_of(api, callers, both), made["key"].split("_")[3].encode()]
            in_log = await _usage(api)
            await api.end()
            logged = (api.logs() + caplog.text).encode()
    finally:
        await post.stop()

    marks = [canary.encode(), canary.upper().encode(), base64.b64encode(canary.encode())[:10]]
    unknown = [*marks, *(endpoint.encode() for endpoint in hear_all), b"we_settings"]
    faults = [fault for what, told in bravo.caller.heard for fault in searched(what, told, unknown)]
    for came in post.came:
        whole = f"{came.path} {came.headers}".encode() + came.body
        if came.path.removeprefix("/dead").startswith(bravo.hook):
            faults += searched("a webhook of bravo", whole, marks)
            assert bravo.account.encode() in came.body or b"test" in came.body
        faults += searched("a webhook", whole, hidden)
    for what, text in (("metrics", metrics.body), ("logs", logged)):
        faults += searched(what, text, marks + hidden)
    faults += searched("the audit trail", trail, hidden)
    assert not faults, f"{len(faults)} times:\n" + "\n".join(faults[:10])

    # What could not be found must have been there to be found.
    told_to_others = [told for caller in (acme.caller, operator) for _, told in caller.heard]
    told_to_others += [trail, in_log, *(came.path.encode() for came in post.came)]
    seen = set(re.findall(rf"{canary}-([a-z]+)".encode(), b"".join(told_to_others)))
    wanted = ["account", "lot", "topup", "idem", "reason", "scope", "cap", "scopecap", "rule", "rate", "url", "event"]
    wanted += ["source", "note", "capture", "dead", "model", "quantity", "wrong", "key", "operator"]
    assert {place.encode() for place in wanted} <= seen, set(wanted) - {place.decode() for place in seen}
    assert acme.operations + bravo.operations > 2_000
    assert len(logged) > 1_000 and b"is ready" in logged
    _signed(bravo, post)


async def _use_what_is_not_ones_own(acme: Tenant, bravo: Tenant) -> None:
    """Another's token in an event of one's own, another's cap in a rule, another's cursor: nothing comes of it."""
    stolen = event(bravo.account, "stolen", "bravo", hold=acme.tokens[-1])
    await bravo.did(202, "POST", "/v1/events", stolen)
    bravo.dead += 1
    for cap in (acme.name("cap"), "no-such-cap"):
        rule = {"on": {"measure": "cap_percent", "cap": cap, "percent": 50}}
        refused = await bravo.did(422, "PUT", f"{bravo.path}/rules/theirs", rule)
        assert refused["type"] == "/problems/unknown-cap"
    for part in ("ledger", "alerts"):
        page = await acme.did(200, "GET", f"{acme.path}/{part}?limit=1")
        await bravo.did(200, "GET", f"{bravo.path}/{part}?cursor={page['next_cursor']}")
    mixed = [event(acme.account, "x-1", "bravo"), event(bravo.account, "x-2", "bravo"), event("nobody", "x-1", "bravo")]
    taken = await bravo.did(202, "POST", "/v1/events", mixed)
    bravo.rated += 1
    assert taken["accepted"] == 1
    first, second = taken["refused"]
    assert first | {"index": 2} == second, "another's account is as absent as nobody's"
    await bravo.did(404, "POST", "/v1/webhook-endpoints", {"url": bravo.post.url, "account": acme.account})


def rating_of(tenant: Tenant, event_id: str, source: str) -> str:
    return f"/v1/events/{quote(event_id, safe='')}/rating?account={tenant.account}&source={quote(source)}"


async def _booked(tenant: Tenant) -> Decimal:
    return Decimal((await tenant.did(200, "GET", f"{tenant.path}/balance"))["balance"]["booked"])


async def _explain_a_charge(acme: Tenant, bravo: Tenant) -> None:
    """Three million tokens of output, sent twice: those up to 2 million cost 10 dollars a million, the others 8."""
    event_id, source = f"{acme.fresh('event')}/1", acme.name("source")
    data = {"model": "atlas-large", "input_tokens": 1_000, "output_tokens": 3_000_000}
    sent = event(acme.account, event_id, source, data=data)
    before = await _booked(acme)
    for _ in range(2):
        await acme.did(202, "POST", "/v1/events", sent)
    acme.rated += 1
    await until(lambda: rated([acme]), "the large event to be rated")
    rating = await acme.did(200, "GET", rating_of(acme, event_id, source))
    assert rating["event"]["data"] == data
    assert Decimal(rating["amount"]) == before - await _booked(acme)
    lines = {line["price"]: line for line in rating["lines"]}
    assert lines.keys() == {"large-input", "large-output"}
    assert Decimal(lines["large-input"]["amount"]) == Decimal("0.0025")
    output = lines["large-output"]
    cheap = 2_000_000 - int(output["used_before"])
    assert 0 < cheap < 2_000_000
    tiers = [(tier["quantity"], Decimal(tier["charged"])) for tier in output["tiers"]]
    dear = 3_000_000 - cheap
    assert tiers == [(str(cheap), Decimal(cheap) / 100_000), (str(dear), Decimal(dear) / 125_000)]
    assert Decimal(output["amount"]) == sum(charged for _, charged in tiers)
    await bravo.did(404, "GET", rating_of(acme, event_id, source))
    await bravo.did(404, "GET", rating_of(bravo, event_id, source))


async def _explain_a_held_one(acme: Tenant) -> None:
    """It is rated at the admission of its hold, whose token is not shown."""
    asked = {"account": acme.account, "type": "llm.request", "data": {"model": "atlas-large"}, "bounds": BOUNDS}
    hold = (await acme.did(200, "POST", "/v1/check", asked | {"hold": True}))["hold"]
    acme.tokens.append(hold["token"])
    event_id = acme.fresh("capture")
    used = {"model": "atlas-large", "input_tokens": 10, "output_tokens": 5}
    captured = {"token": hold["token"], "event": {"id": event_id, "type": "llm.request", "data": used}}
    await acme.did(202, "POST", "/v1/holds/capture", captured)
    acme.rated += 1
    await until(lambda: rated([acme]), "the held event to be rated")
    rating = await acme.did(200, "GET", rating_of(acme, event_id, "tallygate/capture"))
    assert (rating["rated_by"], rating["hold"]["id"], rating["hold"]["settled"]) == ("hold", hold["id"], "within")
    assert rating["hold"]["admitted"] == rating["rated_at"] == rating["event"]["time"].replace("+00:00", "Z")
    assert hold["token"] not in orjson.dumps(rating).decode()


async def _look_for_those_who_hear_all(operator: Caller, bravo: Tenant, endpoint: str) -> None:
    """An alert of one's own is told to the operator as well: that delivery is as absent as any."""
    theirs: list[str] = []

    async def found() -> bool:
        told = await operator.done("GET", f"/v1/webhook-endpoints/{endpoint}/deliveries?limit=200")
        known = {item["alert"]["id"] for item in (await bravo.did(200, "GET", f"{bravo.path}/alerts"))["items"]}
        theirs[:] = [item["id"] for item in told["items"] if item["alert_id"] in known]
        return bool(theirs)

    await until(found, "the operator's deliveries")
    answers = [await bravo.caller.ask("POST", f"/v1/deliveries/{number}/resend") for number in (theirs[0], 10**15)]
    assert answers[0].without_request_id == answers[1].without_request_id


async def rated(tenants: list[Tenant]) -> bool:
    """Each customer's events are rated, all of them and no more; an event of the same id is another's, or a repetition."""
    views = [await tenant.caller.done("GET", tenant.path) for tenant in tenants]
    for tenant, view in zip(tenants, views, strict=True):
        assert view["events_rated"] <= tenant.rated, (tenant.account, view, tenant.rated)
    return all(view["events_rated"] == tenant.rated for tenant, view in zip(tenants, views, strict=True))


async def _set_aside(operator: Caller, tenants: list[Tenant]) -> bool:
    """What could not be rated is there to be read, each once."""
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await operator.done("GET", "/v1/dead-letters?limit=200" + (f"&cursor={cursor}" if cursor else ""))
        found += [letter["key"] for letter in page["items"]]
        cursor = page["next_cursor"]
    assert all(found.count(tenant.account) <= tenant.dead for tenant in tenants), found
    return all(found.count(tenant.account) == tenant.dead for tenant in tenants)


async def _whole_trail(operator: Caller) -> bytes:
    pages = b""
    cursor: str | None = ""
    while cursor is not None:
        answer = await operator.ask("GET", "/v1/audit?limit=200" + (f"&cursor={cursor}" if cursor else ""))
        pages, cursor = pages + answer.body, answer.json()["next_cursor"]
    return pages


async def _usage(front: Front) -> bytes:
    """Every record of the log."""
    kafka = front.at.settings.kafka
    reader = TopicReader(brokers(front.at.settings))
    await reader.start()
    try:
        topics = [await reader.read_all(kafka.topic_usage, number) for number in range(kafka.partitions)]
    finally:
        await reader.stop()
    return b"".join(record.value or b"" for records in topics for record in records)


def _signed(tenant: Tenant, post: Post) -> None:
    """Its webhooks are signed with its secrets."""
    before, now = tenant.endpoint_secrets[0], tenant.endpoint_secrets[-1]  # the first endpoint's, which was rotated
    mine = [came for came in post.came if came.path == tenant.hook]
    assert mine
    for came in mine:
        by_now = re.findall(r"v1,\S+", came.headers["webhook-signature"])
        Webhook(before if len(by_now) == 1 else now).verify(came.body, came.headers)
    assert {orjson.loads(came.body)["data"].get("account", tenant.account) for came in mine} == {tenant.account}


def _partition(account: str) -> int:
    return partition_for(account.encode(), PARTITIONS)
