"""Commands: what they do, why they are refused, and that a refusal leaves nothing behind."""

from typing import Any

import msgspec
import pytest

from engine.alerts import CapShare, Rule, Wallet
from engine.catalog import MeterDefinition
from engine.credit import LOT_CHANGES_MAX, Lot, LotChange
from engine.limits import PER_MINUTE_MAX, RATE_LIMITS_MAX, SCOPES_MAX, TALLIES_MAX, Cap, RateLimit
from engine.outcomes import Refusal
from tests.engine.bench import DAY, DOLLAR, HOUR, MINUTE, SECOND, START, Bench, document, per_unit, us

BIG = 1 << 60
OPEN: dict[str, Any] = {"kind": "open_account", "account": "new", "plan": "plan"}
GRANT: dict[str, Any] = {
    "kind": "grant",
    "account": "acme",
    "lot": "new",
    "lot_kind": "paid",
    "amount": "1",
    "currency": "USD",
}
ROLLING = GRANT | {"expires_us": START + DAY, "rollover": {"percent": 1, "days": 1}}
VOID: dict[str, Any] = {"kind": "void_lot", "account": "acme", "lot": "old", "currency": "USD"}
ADJUST: dict[str, Any] = {"kind": "adjust", "account": "acme", "line": "l", "amount": "-3", "currency": "USD"} | {
    "reason": "goodwill",
    "by": "ann",
}
REFUND: dict[str, Any] = VOID | {"kind": "refund_lot", "amount": "3"}
CAP: dict[str, Any] = {"kind": "set_cap", "account": "acme", "cap": "new", "amount": "1", "currency": "USD"}
RULE: dict[str, Any] = {"kind": "set_rule", "account": "acme", "rule": "new"}
SCOPE: dict[str, Any] = {"kind": "set_scope", "account": "acme", "scope": "team:a/ann"}
OVERDRAFT: dict[str, Any] = {"kind": "set_overdraft", "account": "acme", "amount": "5", "currency": "USD"}
LIMIT: dict[str, Any] = {"kind": "set_rate_limit", "account": "acme", "limit": "new", "per_minute": 60}
PERCENT: dict[str, Any] = {"measure": "cap_percent", "cap": "monthly", "percent": 80}
LOW: dict[str, Any] = {"measure": "balance", "threshold": "1"}

# Each row is wrong in one more way than the row below it, and refused for the topmost.
PRECEDENCE: list[tuple[str, list[tuple[Refusal, dict[str, Any]]]]] = [
    (
        "open_account",
        [
            (Refusal.KEY_REUSED, {"command_key": "used"}),
            (Refusal.ACCOUNT_EXISTS, {"account": "acme"}),
            (Refusal.UNKNOWN_PLAN, {"plan": "none"}),
            (Refusal.UNKNOWN_ZONE, {"zone": "Mars/Base"}),
            (Refusal.BAD_ANCHOR, {"anchor_day": 32}),
        ],
    ),
    (
        "grant",
        [
            (Refusal.KEY_REUSED, {"command_key": "used"}),
            (Refusal.UNKNOWN_ACCOUNT, {"account": "nobody"}),
            (Refusal.BAD_AMOUNT, {"amount": "0"}),
            (Refusal.BAD_LOT, {"lot_kind": "loan"}),
            (Refusal.CURRENCY_MISMATCH, {"currency": "EUR"}),
            (Refusal.LOT_EXISTS, {"lot": "old"}),
            (Refusal.BAD_ROLLOVER, {"rollover": {"percent": 0, "days": 30}}),
            (Refusal.UNKNOWN_PRICE, {"scope": ["x", "none"]}),
            (Refusal.EXPIRES_TOO_SOON, {"expires_us": START}),
        ],
    ),
    (
        "void_lot",
        [
            (Refusal.KEY_REUSED, {"command_key": "used"}),
            (Refusal.UNKNOWN_ACCOUNT, {"account": "nobody"}),
            (Refusal.BAD_AMOUNT, {"amount": "0"}),
            (Refusal.CURRENCY_MISMATCH, {"currency": "EUR", "amount": "6"}),
            (Refusal.UNKNOWN_LOT, {"lot": "none", "amount": "6"}),
            (Refusal.EXCEEDS_LOT, {"amount": "5.000000000001"}),
        ],
    ),
    (
        "refund_lot",
        [
            (Refusal.KEY_REUSED, {"command_key": "used"}),
            (Refusal.UNKNOWN_ACCOUNT, {"account": "nobody"}),
            (Refusal.BAD_AMOUNT, {"amount": "-1"}),
            (Refusal.CURRENCY_MISMATCH, {"currency": "EUR"}),
            (Refusal.UNKNOWN_LOT, {"lot": "none"}),
            (Refusal.EXCEEDS_LOT, {"amount": "3.000000000001"}),
        ],
    ),
    (
        "adjust",
        [
            (Refusal.KEY_REUSED, {"command_key": "used"}),
            (Refusal.UNKNOWN_ACCOUNT, {"account": "nobody"}),
            (Refusal.BAD_AMOUNT, {"amount": "0"}),
            (Refusal.CURRENCY_MISMATCH, {"currency": "EUR"}),
            (Refusal.UNKNOWN_PRICE, {"price": "unheard"}),
            (Refusal.NO_REASON, {"reason": " "}),
            (Refusal.BAD_PERIOD, {"used_us": START + HOUR}),
        ],
    ),
    (
        "set_cap",
        [
            (Refusal.KEY_REUSED, {"command_key": "used"}),
            (Refusal.UNKNOWN_ACCOUNT, {"account": "nobody"}),
            (Refusal.BAD_AMOUNT, {"amount": "1e3"}),
            (Refusal.CURRENCY_MISMATCH, {"currency": "EUR"}),
            (Refusal.BAD_BASIS, {"basis": "net"}),
            (Refusal.BAD_BEYOND, {"beyond": "free"}),
            (Refusal.UNKNOWN_SCOPE, {"scope": "team:b"}),
            (Refusal.BAD_CAP, {"window": "fortnight"}),
        ],
    ),
    (
        "cap on units",
        [
            (Refusal.KEY_REUSED, {"command_key": "used"}),
            (Refusal.UNKNOWN_ACCOUNT, {"account": "nobody"}),
            (Refusal.BAD_AMOUNT, {"amount": "0"}),
            (Refusal.CURRENCY_MISMATCH, {"currency": "USD"}),
            (Refusal.UNKNOWN_SCOPE, {"scope": "team:b"}),
            (Refusal.UNKNOWN_METER, {"meter": "unheard"}),
            (Refusal.BAD_CAP, {"price": "x"}),
        ],
    ),
    (
        "set_scope",
        [
            (Refusal.KEY_REUSED, {"command_key": "used"}),
            (Refusal.UNKNOWN_ACCOUNT, {"account": "nobody"}),
            (Refusal.BAD_SCOPE, {"scope": "team:b/a b"}),
            (Refusal.UNKNOWN_SCOPE, {"scope": "team:b/ann"}),
            (Refusal.BAD_STANDING, {"standing": "Active"}),
        ],
    ),
    (
        "set_overdraft",
        [
            (Refusal.KEY_REUSED, {"command_key": "used"}),
            (Refusal.UNKNOWN_ACCOUNT, {"account": "nobody"}),
            (Refusal.BAD_AMOUNT, {"amount": "-0.000000000001"}),
            (Refusal.CURRENCY_MISMATCH, {"currency": "EUR"}),
        ],
    ),
    (
        "set_rate_limit",
        [
            (Refusal.KEY_REUSED, {"command_key": "used"}),
            (Refusal.UNKNOWN_ACCOUNT, {"account": "nobody"}),
            (Refusal.UNKNOWN_SCOPE, {"scope": "team:b"}),
            (Refusal.BAD_LIMIT, {"per_minute": -1}),
        ],
    ),
    (
        "cap_percent",
        [
            (Refusal.KEY_REUSED, {"command_key": "used"}),
            (Refusal.UNKNOWN_ACCOUNT, {"account": "nobody"}),
            (Refusal.UNKNOWN_CAP, {"on": PERCENT | {"cap": "none", "percent": 0}}),
            (Refusal.BAD_RULE, {"on": PERCENT | {"percent": 0}}),
        ],
    ),
    (
        "balance",
        [
            (Refusal.KEY_REUSED, {"command_key": "used"}),
            (Refusal.UNKNOWN_ACCOUNT, {"account": "nobody"}),
            (Refusal.BAD_AMOUNT, {"on": LOW | {"threshold": "low", "clear": "0"}}),
            (Refusal.BAD_RULE, {"on": LOW | {"clear": "0.5"}}),
        ],
    ),
]
GOOD = {"open_account": OPEN, "grant": GRANT, "set_cap": CAP, "cap_percent": RULE | {"on": PERCENT}} | {
    "balance": RULE | {"on": LOW},
    "void_lot": VOID,
    "refund_lot": REFUND,
    "adjust": ADJUST,
    "cap on units": CAP | {"currency": None, "meter": "units"},
    "set_scope": SCOPE,
    "set_overdraft": OVERDRAFT,
    "set_rate_limit": LIMIT,
}
UNITS = CAP | {"currency": None}
WRONGS = [(name, top, rows) for name, rows in PRECEDENCE for top in range(len(rows))]


@pytest.fixture
def bench() -> Bench:
    """An account with a lot, a scope, a cap, a rule, a used command key, and an event a minute ahead of the log."""
    bench = Bench()
    bench.open()
    bench.grant("old", "5", command_key="used")
    bench.grant("old", "5", account="nobody", command_key="used")  # refused, and remembered all the same
    bench.scope("team:a")
    bench.cap("10")
    bench.cap_rule(80)
    bench.use(3, at=START + MINUTE)
    return bench


def state_without_memory(bench: Bench) -> list[Any]:
    """Everything but what a partition remembers and counts of commands."""
    header, accounts, identities, _ = msgspec.msgpack.decode(bench.partition.state_bytes())
    return [msgspec.msgpack.decode(header)[:4], accounts, identities]


@pytest.mark.parametrize(
    ("name", "top", "rows"), WRONGS, ids=[f"{name} {rows[top][0].value}" for name, top, rows in WRONGS]
)
def test_the_first_reason_in_the_order_of_the_law_is_told(
    bench: Bench, name: str, top: int, rows: list[tuple[Refusal, dict[str, Any]]]
) -> None:
    body = GOOD[name] | {"command_key": "unused"}
    for _, wrong in reversed(rows[top:]):
        body |= wrong
    before = state_without_memory(bench)
    assert bench.control(body) == f"refused.{rows[top][0].value}"
    assert state_without_memory(bench) == before
    assert bench.partition.outputs.alerts == []


@pytest.mark.parametrize("name", GOOD)
def test_without_a_fault_the_command_is_applied(bench: Bench, name: str) -> None:
    assert bench.control(GOOD[name] | {"command_key": "unused"}) == "applied"


@pytest.mark.parametrize(
    ("reason", "body"),
    [
        ("unknown_zone", OPEN | {"zone": "../UTC"}),
        ("unknown_zone", OPEN | {"zone": "Europe"}),
        ("unknown_zone", OPEN | {"zone": "z" * 256}),
        ("bad_anchor", OPEN | {"anchor_day": 0}),
        ("bad_anchor", OPEN | {"anchor_day": -1}),
        ("bad_amount", GRANT | {"amount": "-1"}),
        ("bad_amount", GRANT | {"amount": "0.0000000000001"}),
        ("bad_amount", GRANT | {"amount": "NaN"}),
        ("bad_amount", GRANT | {"amount": "1" + "0" * 18}),
        ("bad_lot", GRANT | {"effective_us": BIG + 1}),
        ("bad_lot", GRANT | {"effective_us": -BIG - 1}),
        ("bad_lot", GRANT | {"expires_us": BIG + 1}),
        ("bad_lot", GRANT | {"pays_debt": False}),
        ("bad_rollover", GRANT | {"rollover": {"percent": 50, "days": 30}}),
        ("bad_rollover", ROLLING | {"rollover": {"percent": 101, "days": 30}}),
        ("bad_rollover", ROLLING | {"rollover": {"percent": 50, "days": 0}}),
        ("bad_rollover", ROLLING | {"rollover": {"percent": 50, "days": 3661}}),
        ("bad_rollover", ROLLING | {"rollover": {"percent": 50, "days": 30, "cap": "0"}}),
        ("bad_rollover", ROLLING | {"lot": "l" * 201}),
        ("unknown_price", GRANT | {"scope": ["X"]}),
        ("bad_rule", RULE | {"on": PERCENT | {"percent": 1001}}),
        ("bad_rule", RULE | {"on": PERCENT | {"clear_percent": 81}}),
        ("bad_rule", RULE | {"on": PERCENT | {"clear_percent": 0}}),
        ("bad_amount", RULE | {"on": LOW | {"clear": "high"}}),
        ("bad_scope", SCOPE | {"scope": "team:a/"}),
        ("bad_scope", SCOPE | {"scope": "/team:a"}),
        ("bad_scope", SCOPE | {"scope": "team:a/" + "n" * 65}),
        ("bad_scope", SCOPE | {"scope": "team:a/é"}),
        ("bad_scope", SCOPE | {"scope": "team:a/ann\n"}),
        ("bad_scope", SCOPE | {"scope": "/".join(["team:a", *"bcdefghi"])}),
        ("unknown_scope", SCOPE | {"scope": "/".join(["team:a", *"bcdefgh"])}),
        ("unknown_scope", CAP | {"scope": "team:a/ann"}),
        ("bad_amount", UNITS | {"price": "x", "amount": "0.0000000001"}),
        ("unknown_price", UNITS | {"price": "unheard", "scope": "team:b"}),
        ("bad_cap", UNITS | {"price": "x", "meter": "units"}),
        ("bad_cap", CAP | {"window": "rolling"}),
        ("bad_cap", CAP | {"window": "day", "length_s": 86_400}),
        ("bad_cap", CAP | {"window": "rolling", "length_s": 90}),
        ("bad_cap", CAP | {"window": "first_use", "length_s": 2_592_060}),
        ("bad_amount", OVERDRAFT | {"amount": "much"}),
        ("bad_limit", LIMIT | {"per_minute": PER_MINUTE_MAX + 1}),
    ],
)
def test_a_fault_is_refused(bench: Bench, reason: str, body: dict[str, Any]) -> None:
    assert bench.control(body | {"command_key": "unused"}) == f"refused.{reason}"


@pytest.mark.parametrize("of", [{"meter": "peak"}, {"price": "peak"}])
def test_a_window_adds_no_units_up_that_do_not_add_up(of: dict[str, str]) -> None:
    plain = document(peak=per_unit("1", meter="peak"))
    meters = plain.meters | {"peak": MeterDefinition("storage", "max", "gigabytes")}
    bench = Bench(msgspec.structs.replace(plain, meters=meters))
    assert bench.open() == "applied"
    assert bench.control(UNITS | of | {"command_key": "peak"}) == "refused.bad_cap"
    assert bench.control(UNITS | {"meter": "units", "command_key": "units"}) == "applied"


@pytest.mark.parametrize(
    "body",
    [
        OPEN | {"anchor_day": 31, "zone": "America/Argentina/Buenos_Aires"},
        GRANT | {"amount": "0.000000000001"},
        GRANT | {"amount": "9" * 18},
        GRANT | {"effective_us": -BIG, "expires_us": BIG},
        GRANT | {"effective_us": BIG},
        GRANT | {"pays_debt": True},
        GRANT | {"lot_kind": "promo", "pays_debt": False},
        ROLLING | {"lot": "l" * 200},
        ROLLING | {"rollover": {"percent": 100, "days": 3660, "cap": "0.000000000001"}},
        VOID | {"amount": "5"},
        VOID | {"amount": None},
        RULE | {"on": PERCENT | {"percent": 1000, "clear_percent": 1}},
        RULE | {"on": LOW | {"threshold": "-5", "clear": "-5"}},
        SCOPE | {"scope": "team:a/" + "n" * 64},
        SCOPE | {"scope": "A-Z.a_z:0@9"},
        SCOPE | {"scope": "", "standing": "suspended"},
        UNITS | {"price": "x", "amount": "0.000000001"},
        UNITS | {"meter": "units", "window": "week"},
        CAP | {"window": "rolling", "length_s": 60},
        CAP | {"window": "first_use", "length_s": 2_592_000},
        OVERDRAFT | {"amount": "0"},
        OVERDRAFT | {"amount": None},
        LIMIT | {"per_minute": PER_MINUTE_MAX, "scope": "team:a"},
        LIMIT | {"per_minute": 0},
    ],
)
def test_what_stands_at_a_limit_is_accepted(bench: Bench, body: dict[str, Any]) -> None:
    assert bench.control(body | {"command_key": "unused"}) == "applied"
    assert bench.replay().state_bytes() == bench.partition.state_bytes()


# ------------------------------------------------------------------------------------------------------ what they do


def test_an_account_opens_with_the_currency_of_its_plan(bench: Bench) -> None:
    bench.open("eu", plan="calls", zone="Europe/Berlin", anchor_day=31)
    account = bench.account("eu")
    assert (account.currency, account.zone, account.anchor_day) == ("EUR", "Europe/Berlin", 31)
    assert (account.woken_us, account.rated, account.table) == (START, 0, {})


def test_an_account_opens_with_utc_and_the_first_of_the_month(bench: Bench) -> None:
    assert (bench.account().zone, bench.account().anchor_day) == ("UTC", 1)


def test_a_lot_is_kept_as_it_was_granted(bench: Bench) -> None:
    bench.grant(
        "l", "0.5", "promo", priority=7, effective_us=START + HOUR, expires_us=START + DAY, scope=["y", "x", "y"]
    )
    expected = Lot("l", "promo", DOLLAR // 2, 7, START + HOUR, START + DAY, ("x", "y"))
    assert bench.account().lots["l"] == expected


def test_without_an_instant_a_lot_is_effective_at_log_time() -> None:
    bench = Bench()
    bench.open()
    bench.now = START + 5 * SECOND
    bench.grant("l", "1")
    assert (bench.account().lots["l"].effective_us, bench.account().lots["l"].priority) == (bench.now, 100)


def test_a_lot_never_reaches_back_to_usage_that_was_rated_before_it(bench: Bench) -> None:
    """Three dollars were used before the grant: the old lot paid them, and the new one leaves them alone."""
    bench.grant("l", "9", priority=1, effective_us=START - DAY)
    assert bench.account().lots["l"].effective_us == START + MINUTE + 1
    assert bench.allocation().remaining == {"old": 2 * DOLLAR, "l": 9 * DOLLAR}


def test_a_lot_is_changed_behind_the_newest_usage_that_was_rated(bench: Bench) -> None:
    """The event is a minute ahead of the log: usage of before the change is still paid by the lot, also when it comes late."""
    bench.refund("old", "1")
    bench.void("old")
    behind = START + MINUTE + 1
    assert bench.account().lots["old"].changes == (LotChange(behind, "refund", DOLLAR), LotChange(behind, "void", None))
    bench.use(2, at=START + 30 * SECOND)
    bench.tick(behind + 999)  # append times are milliseconds
    assert bench.allocation().voided == {"old": DOLLAR}
    bench.use(2, at=START + MINUTE + 2)
    assert bench.debt() == 2 * DOLLAR


def test_a_lot_that_is_over_is_neither_refunded_nor_voided_again(bench: Bench) -> None:
    bench.grant("brief", "5", expires_us=START + HOUR)
    assert bench.void("old") == "applied"
    assert (bench.void("old"), bench.refund("old", "1")) == ("refused.lot_over", "refused.lot_over")
    bench.tick(START + HOUR)
    before = state_without_memory(bench)
    assert (bench.void("brief"), bench.refund("brief", "1")) == ("refused.lot_over", "refused.lot_over")
    assert state_without_memory(bench) == before


def test_what_will_be_carried_is_no_lot_before_it_is(bench: Bench) -> None:
    """Its id is taken all the same: nothing else may come to stand in its place."""
    assert bench.control(ROLLING | {"command_key": "unused"}) == "applied"
    assert bench.void("new~carried") == "refused.unknown_lot"
    assert bench.grant("new~carried", "1") == "refused.lot_exists"
    bench.grant("other~carried", "1")
    assert bench.control(ROLLING | {"command_key": "more", "lot": "other"}) == "refused.lot_exists"
    bench.tick(START + DAY)
    assert bench.void("new~carried") == "applied"


def test_a_lot_is_changed_a_hundred_times_at_most(bench: Bench) -> None:
    for _ in range(LOT_CHANGES_MAX):
        assert bench.void("old", "0.01") == "applied"
    before = state_without_memory(bench)
    for outcome in (bench.void("old", "0.01"), bench.void("old"), bench.refund("old", "0.01")):
        assert outcome == "refused.too_many_changes"
    assert state_without_memory(bench) == before


def test_before_any_usage_a_lot_may_begin_in_the_past() -> None:
    bench = Bench()
    bench.open()
    bench.grant("l", "9", effective_us=START - DAY)
    assert bench.account().lots["l"].effective_us == START - DAY


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        (
            {"expires_us": START + MINUTE + 1, "effective_us": START - DAY},
            "refused.expires_too_soon",
        ),  # the moved start
        ({"expires_us": START + MINUTE + 2, "effective_us": START - DAY}, "applied"),
        ({"expires_us": START + HOUR, "effective_us": START + HOUR}, "refused.expires_too_soon"),
        ({"expires_us": START + HOUR + 1, "effective_us": START + HOUR}, "applied"),
    ],
)
def test_an_expiry_lies_behind_the_effective_instant(bench: Bench, fields: dict[str, Any], outcome: str) -> None:
    assert bench.grant("l", "1", **fields) == outcome


def test_an_expiry_lies_behind_log_time() -> None:
    bench = Bench()
    bench.open()
    for expires_us, outcome in ((START, "refused.expires_too_soon"), (START + 1, "applied")):
        assert bench.grant(f"l{expires_us}", "1", effective_us=START - DAY, expires_us=expires_us) == outcome


def test_a_cap_and_a_rule_are_kept_as_they_were_set(bench: Bench) -> None:
    bench.cap("2.5", cap="c")
    bench.command("set_rule", rule="p", on=PERCENT | {"cap": "c"})
    bench.command("set_rule", rule="q", on=PERCENT | {"cap": "c", "clear_percent": 50})
    bench.command("set_rule", rule="b", on=LOW)
    bench.command("set_rule", rule="d", on=LOW | {"threshold": "-1", "clear": "3"})
    account = bench.account()
    assert account.caps["c"].amount == 5 * DOLLAR // 2
    assert account.rules["p"] == Rule(CapShare("c"), 80, 80)
    assert account.rules["q"] == Rule(CapShare("c"), 80, 50)
    assert account.rules["b"] == Rule(Wallet(), DOLLAR, DOLLAR, falls=True)
    assert account.rules["d"] == Rule(Wallet(), -DOLLAR, 3 * DOLLAR, falls=True)


def test_a_rule_is_evaluated_when_it_is_set(bench: Bench) -> None:
    bench.cap_rule(30)
    assert bench.told() == [("cap-30", str(us("2026-03-01T00:00:00+00:00")), 1, "crossed")]


def test_setting_a_rule_again_keeps_its_ordinals(bench: Bench) -> None:
    for threshold in ("5", "1", "5"):
        bench.balance_rule(threshold)
    assert bench.told() == [("low", "-", 1, "crossed"), ("low", "-", 1, "recovered"), ("low", "-", 2, "crossed")]


def test_a_command_wakes_its_account_to_log_time(bench: Bench) -> None:
    bench.now = START + HOUR
    bench.cap("3")
    assert bench.account().woken_us == START + HOUR


def test_scopes_are_declared_to_any_depth_and_change_their_standing(bench: Bench) -> None:
    deep = "/".join(["team:a", *"bcdefgh"])
    for parts in range(2, 9):
        assert bench.scope("/".join(deep.split("/")[:parts])) == "applied"
    bench.use(1, scope=deep)
    assert bench.scope(deep, standing="past_due") == "applied"
    declared = bench.account().scopes[deep]
    assert (declared.standing, declared.spend) == ("past_due", {us("2026-03-01T00:00:00+00:00"): DOLLAR})
    assert bench.scope("", standing="suspended") == "applied"
    assert bench.account().scopes[""].standing == "suspended"


def test_an_account_has_so_many_scopes_and_no_more(bench: Bench) -> None:
    for number in range(SCOPES_MAX - 1):
        assert bench.scope(f"s{number}") == "applied"
    assert bench.scope("one:more") == "refused.too_many_scopes"
    assert bench.scope("s0", standing="suspended") == "applied"
    assert len(bench.account().scopes) == SCOPES_MAX + 1  # and the root


def test_an_account_has_so_many_rate_limits_and_no_more(bench: Bench) -> None:
    def limit(name: str, per_minute: int = 60) -> str:
        return bench.command("set_rate_limit", limit=name, per_minute=per_minute)

    for number in range(RATE_LIMITS_MAX):
        assert limit(str(number)) == "applied"
    assert limit("one more") == "refused.bad_limit"
    assert limit("0", 61) == "applied"
    assert bench.account().rate_limits["0"] == RateLimit("0", "", 61)
    assert limit("0", 0) == "applied"
    assert limit("one more") == "applied"
    assert "0" not in bench.account().rate_limits


def test_an_overdraft_is_kept_as_it_was_set(bench: Bench) -> None:
    assert bench.account().overdraft == 0
    for amount, kept in (("5.5", 5 * DOLLAR + DOLLAR // 2), (None, None), ("0", 0)):
        assert bench.command("set_overdraft", amount=amount, currency="USD") == "applied"
        assert bench.account().overdraft == kept


def test_a_cap_is_hard_and_the_accounts_own_unless_it_says_otherwise(bench: Bench) -> None:
    bench.cap("7", "team", scope="team:a", hard=False)
    caps = bench.account().caps
    assert caps["monthly"] == Cap("monthly", 10 * DOLLAR, "", hard=True)
    assert caps["team"] == Cap("team", 7 * DOLLAR, "team:a", hard=False)


@pytest.mark.parametrize("body", [SCOPE, OVERDRAFT, LIMIT], ids=lambda body: body["kind"])
def test_a_command_that_binds_checks_only_wakes_its_account_too(bench: Bench, body: dict[str, Any]) -> None:
    bench.now += HOUR
    assert bench.control(body | {"command_key": "unused"}) == "applied"
    assert bench.account().woken_us == bench.now


def test_a_plan_that_the_newest_version_does_not_sell_cannot_be_opened() -> None:
    first = document()
    without = type(first)(first.meters, {"calls": first.plans["calls"]})
    bench = Bench(first, without)
    bench.publish(2, START + HOUR)
    bench.now = START + HOUR
    assert bench.open() == "refused.unknown_plan"


def test_an_account_has_at_most_a_hundred_caps_that_count_for_themselves(bench: Bench) -> None:
    for number in range(TALLIES_MAX):
        assert bench.cap("1", f"daily-{number}", window="day") == "applied"
    assert bench.cap("1", "one more", window="day") == "refused.too_many_caps"
    assert bench.cap("2", "daily-0", window="hour") == "applied"
    assert bench.cap("1", "of a month") == "applied"


def test_a_cap_goes_on_counting_when_it_is_set_again_for_the_same(bench: Bench) -> None:
    bench.cap("10", "daily", window="day")
    bench.use(3)
    bench.cap("20", "daily", window="day", hard=False)
    assert list(bench.account().tallies["daily"].values()) == [3 * DOLLAR]
    bench.cap("20", "daily", window="hour")
    assert bench.account().tallies == {"daily": {}}
    bench.cap("20", "daily")
    assert bench.account().tallies == {}
