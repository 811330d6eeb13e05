"""Margin over HTTP: sums as they were told, what is not known is null, and no customer's key sees any of it."""

from msgspec.structs import replace

from actors.keys import KeyScope
from actors.margin import TooMuch
from actors.margin_store import MarginCheckpoint, MarginStore
from actors.ports import LogUnavailable
from engine.cost.gpu_rates import HOUR_US
from engine.cost.margin import Key, Margin, RowChange
from tests.actors.web.fakes import START_US
from tests.actors.web.house import House

DOLLAR = 10**12
HOURS = "from=2026-11-22T10:20:00Z&to=2026-11-22T10:40:00Z"


async def told(house: House, rows: dict[Key, Margin]) -> None:
    store = MarginStore(house.bench.dsn, house.bench.schema, 1.2, 5.0)
    await house.bench.started(store)
    claim = await store.claim(0, "a")
    changes = [RowChange(key, sums) for key, sums in rows.items()]
    await store.commit([MarginCheckpoint(0, claim.epoch, claim.ckpt_seq + 1, 1, (), 0, 0, 0, changes)])


def key(account: str, hour_us: int = START_US, feature: str = "chat") -> Key:
    return Key(hour_us, account, "large", feature, "growth", "USD")


async def test_revenue_and_cost_stand_side_by_side(house: House) -> None:
    await told(
        house,
        {
            key("acme"): Margin(9 * DOLLAR, 3 * DOLLAR, 2, 0, 0, 1),
            key("acme", feature="search"): Margin(DOLLAR, DOLLAR // 3, 1),
            key("zen"): Margin(5 * DOLLAR, DOLLAR, 2, 1),
            key("late", START_US + HOUR_US): Margin(DOLLAR, 0, 1),
        },
    )
    answer = (await house.client.get(f"/v1/margin?{HOURS}")).json()
    assert (answer["begin"], answer["end"], answer["gpus"]) == ("2026-11-22T10:00:00Z", "2026-11-22T11:00:00Z", [])
    acme, zen = answer["items"]
    assert acme == {
        "account": "acme",
        "model": None,
        "feature": None,
        "plan": None,
        "hour": None,
        "run": None,
        "currency": "USD",
        "requests": 3,
        "revenue": "10",
        "cost": "3.333333333333",
        "margin": "6.666666666667",
        "percent": "66.6",
        "known_cost": "3.333333333333",
        "without_cost": 0,
        "foreign_cost": 0,
        "without_revenue": 0,
        "provisional": 1,
    }
    assert answer["rates"] == []
    assert (zen["revenue"], zen["known_cost"], zen["without_cost"]) == ("5", "1", 1)
    assert (zen["cost"], zen["margin"], zen["percent"]) == (None, None, None)
    by = (await house.client.get(f"/v1/margin?{HOURS}&by=model,feature,plan,hour&account=acme")).json()["items"]
    assert [(each["feature"], each["plan"], each["hour"], each["account"]) for each in by] == [
        ("chat", "growth", "2026-11-22T10:00:00Z", None),
        ("search", "growth", "2026-11-22T10:00:00Z", None),
    ]
    # Without a stretch: the hours of a day, up to now.
    house.clock.now_s += 30 * 60
    day = (await house.client.get("/v1/margin")).json()
    assert (day["begin"], day["end"]) == ("2026-11-21T10:00:00Z", "2026-11-22T11:00:00Z")


async def test_a_loss_is_so_many_percent_below_nothing(house: House) -> None:
    await told(
        house,
        {key("acme"): Margin(40 * DOLLAR, 41 * DOLLAR, 1), key("zen"): Margin(1_000 * DOLLAR, 1_005 * DOLLAR, 1)},
    )
    items = (await house.client.get(f"/v1/margin?{HOURS}")).json()["items"]
    assert [(each["margin"], each["percent"]) for each in items] == [("-1", "-2.5"), ("-5", "-0.5")]


async def test_what_makes_no_sense_is_refused_by_its_field(house: House) -> None:
    for query, field in (
        ("by=colour", "by"),
        ("by=request", "by"),
        ("by=", "by"),
        ("from=2026-11-22T11:00:00Z&to=2026-11-22T10:00:00Z", "to"),
        ("from=2020-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
        ("from=yesterday", "from"),
    ):
        answer = await house.client.get(f"/v1/margin?{query}")
        assert (answer.status, answer.json()["field"]) == (400, field), query


async def test_more_rows_than_an_answer_has_are_refused(house: House) -> None:
    await told(house, {key(f"c-{number}"): Margin(1) for number in range(2_001)})
    answer = await house.client.get(f"/v1/margin?{HOURS}")
    assert (answer.status, answer.json()["field"]) == (422, "by")
    assert (await house.client.get(f"/v1/margin?{HOURS}&by=plan")).json()["items"][0]["revenue"] == "0.000000002001"


async def test_costs_are_shown_to_the_seller_alone(house: House) -> None:
    for scopes, account in (
        ((KeyScope.READ, KeyScope.CHECK, KeyScope.INGEST, KeyScope.CREDIT), None),
        (tuple(KeyScope), "acme"),
    ):
        assert (await house.caller(*scopes, account=account).get(f"/v1/margin?{HOURS}&account=acme")).status == 403


async def test_a_single_request_is_shown_with_what_is_known_of_it(house: House) -> None:
    class Says:
        """What the topics say, or what stands in the way."""

        def __init__(self) -> None:
            self.asked: list[tuple[str, str, int]] = []
            self.found = [(key("acme"), Margin(3 * DOLLAR, DOLLAR, 1))]
            self.trouble: Exception | None = None

        async def of(self, account: str, request: str, at_us: int) -> list[tuple[Key, Margin]]:
            self.asked.append((account, request, at_us))
            if self.trouble is not None:
                raise self.trouble
            return self.found

    says = house.services.request_margins = Says()
    path = "/v1/events/req-1/margin?account=acme"
    shown = (await house.client.get(f"{path}&at=2026-11-22T10:00:00Z")).json()
    assert (shown["account"], shown["model"], shown["feature"], shown["plan"]) == ("acme", "large", "chat", None)
    assert (shown["revenue"], shown["cost"], shown["margin"], shown["percent"]) == ("3", "1", "2", "66.6")
    assert says.asked == [("acme", "req-1", START_US)]
    assert (shown["run"], shown["of_run"]) == ("", None)
    says.found = []
    assert (await house.client.get(path)).status == 404
    assert says.asked[-1][2] == START_US - HOUR_US // 2
    says.trouble = TooMuch("more than 5 records were appended in this time")
    refused = await house.client.get(path)
    assert (refused.status, refused.json()["field"]) == (422, "at")
    says.trouble = LogUnavailable("away")
    assert (await house.client.get(path)).status == 503
    assert (await house.client.get(f"{path}&at=then")).json()["field"] == "at"
    assert (await house.caller(*KeyScope, account="acme").get(path)).status == 403


async def test_an_event_that_bills_a_run_is_shown_with_all_that_the_run_cost(house: House) -> None:
    def of_run(account: str, hours: int, run: str = "talk-1") -> Key:
        return replace(key(account, START_US + hours * HOUR_US), run=run)

    await told(
        house,
        {
            of_run("acme", 0): Margin(0, 3 * DOLLAR, 3, costs=3),
            of_run("acme", 40): Margin(9 * DOLLAR, 0, 1, charges=1),
            of_run("acme", 0, "talk-2"): Margin(0, DOLLAR, 1, costs=1),
            of_run("zen", 0): Margin(0, 5 * DOLLAR, 1, costs=1),
        },
    )

    class Says:
        async def of(self, account: str, request: str, at_us: int) -> list[tuple[Key, Margin]]:
            return [(of_run(account, 0, "talk-9" if request == "later" else "talk-1"), Margin(9 * DOLLAR, 0, 1, 1))]

    house.services.request_margins = Says()
    shown = (await house.client.get("/v1/events/outcome-1/margin?account=acme")).json()
    assert (shown["revenue"], shown["cost"], shown["run"]) == ("9", None, "talk-1")
    run = shown["of_run"]
    assert (run["run"], run["revenue"], run["cost"], run["margin"], run["requests"]) == ("talk-1", "9", "3", "6", 4)
    assert (await house.client.get("/v1/events/later/margin?account=acme")).json()["of_run"] is None
    rows = (await house.client.get(f"/v1/margin?{HOURS}&by=account,run")).json()["items"]
    assert [(each["account"], each["run"], each["cost"]) for each in rows] == [
        ("acme", "talk-1", "3"),
        ("acme", "talk-2", "1"),
        ("zen", "talk-1", "5"),
    ]
    assert (await house.client.get(f"/v1/margin?{HOURS}")).json()["items"] == [], "rows of runs add to no others"
