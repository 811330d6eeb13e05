"""Scenarios as they are run: what each line of a table does to a partition, and whether it comes out as the line says. The
grammar stands in tests/test_scenarios.py.
"""

import json
import re
from collections.abc import Callable
from typing import Any, Final, get_args

import msgspec

from engine.admission import FieldBound
from engine.corrections import AMEND
from engine.events import Command, seal
from engine.holds import Bound, seal_token
from engine.manual_lines import Rerating
from engine.money import NANO
from engine.outcomes import APPLIED, DeadLetterReason, Refusal
from engine.snapshot import encode_account
from engine.top_up import request_id
from tests.engine.bench import DAY, KEY, MINUTE, TOPIC, Bench, cloud_time, pico_of, told
from tests.engine.desk_bench import DeskBench, nano
from tests.scenario_reader import (
    QUESTIONS,
    Scenario,
    ScenarioError,
    dollars,
    instant,
    is_money,
    plain,
    read_data,
    read_nested,
    read_price,
    reason_said,
    repetitions,
)

DONE: Final = frozenset({APPLIED, "rated", "amended", "cancelled", "tick"})
REMOVED: Final = {
    "cap": ("remove_cap", "cap"),
    "rule": ("remove_rule", "rule"),
    "recurring": ("remove_recurring_grant", "grant"),
    "units": ("void_quantity_grant", "grant"),
}
FORMS: Final[dict[str, Any]] = {form.__struct_config__.tag: form for form in get_args(Command)}


def run(scenario: Scenario) -> None:
    documents, starts = scenario.documents()
    bench = DeskBench(*documents)
    bench.currency = next(iter(documents[0].units), "USD")
    bench.now = instant(scenario.sections["EVENTS"][0][1][0])
    zone, anchor_day = (scenario.sections["ACCOUNT"] or [(0, ["UTC", "1"])])[0][1]
    applied(bench.open(zone=zone, anchor_day=int(anchor_day)))
    for version, start in enumerate(starts[1:], start=2):
        assert bench.publish(version, start) == "catalogue", f"a price from {start} comes too soon"
    scenario.each("GRANTS", lambda *columns: applied(grant(bench, *columns)))
    scenario.each("RECURRING", lambda *columns: applied(recurring(bench, *columns)))
    scenario.each("SCOPES", lambda scope: applied(bench.scope(scope)))
    scenario.each("CAPS", lambda *columns: applied(cap(bench, *columns)))
    scenario.each("RULES", lambda *columns: applied(rule(bench, *columns)))
    scenario.each("LIMITS", lambda name, what: applied(limit(bench, name, what)))
    scenario.each("EVENTS", lambda *columns: event(bench, *columns))
    if not scenario.sections["FINALLY"]:
        raise ScenarioError(f"{scenario.name}: has no section FINALLY; say what is left of each lot, and the debt")
    scenario.each("FINALLY", lambda *columns: finally_is(bench, *columns))


def applied(outcome: str) -> None:
    assert outcome == APPLIED, f"the engine answered {outcome}"


# ------------------------------------------------------------------------------------------- a line of EVENTS


def event(bench: DeskBench, time: str, what: str, charge: str, balance: str, alerts: str = "-") -> None:
    at = instant(time)
    bench.now = max(bench.now, at)
    told_before, lines_before = len(bench.partition.outputs.alerts), len(bench.partition.outputs.lines)
    reason = reason_said(what, charge)
    before = None
    if isinstance(reason, Refusal | DeadLetterReason) and alerts == "-":
        bench.tick(bench.now)  # what is due by then is not the line's
        before = kept(bench)
    for number, (each, step_us) in enumerate(repetitions(what)):
        at += step_us
        bench.now = max(bench.now, at)
        found = answer(bench, each) if each.split(" ")[0] in QUESTIONS else happens(bench, at, each)
        if isinstance(reason, Refusal):
            said = found == f"refused.{reason}"
        elif isinstance(reason, DeadLetterReason):
            said = found == f"dead_lettered.{reason}"
        elif charge == "-" or is_money(charge):
            said = found in DONE
        else:
            said = found == charge or found.startswith(f"{charge} ")
        detail = bench.letter().detail if found.startswith("dead_lettered.") else ""
        assert said, f"the engine answered {found} {detail} (after {number} times)"
    lines = [json.loads(line)["amount"] for _, line in bench.partition.outputs.lines[lines_before:]]
    charged = "-" if not lines else str(sum(map(pico_of, lines)))
    expected = str(dollars(charge)) if is_money(charge) else "-"
    assert charged == expected, f"charge: the engine says {charged} pico"
    assert bench.balance() == dollars(balance), f"balance: the engine says {bench.balance()} pico"
    crossed = [f"{row[0]} {row[3]}" for row in map(told, bench.partition.outputs.alerts[told_before:])]
    assert crossed == ([] if alerts == "-" else alerts.split(", ")), f"alerts: the engine says {crossed}"
    assert before is None or kept(bench) == before, "what was refused or set aside has changed an account"


def kept(bench: Bench) -> dict[str, bytes]:
    """All that is kept of every account."""
    accounts = {name: bench.account(name) for name in bench.partition.account_ids()}
    return {name: encode_account(account) for name, account in accounts.items()}


def happens(bench: DeskBench, at: int, what: str) -> str:
    """What becomes of a command or a usage event."""
    word, _, rest = what.partition(" ")
    if word == "refused":
        return happens(bench, at, rest.partition(": ")[2])
    if word in COMMANDS:
        return COMMANDS[word](bench, rest)
    if seats := re.fullmatch(r"(-?\d+) seats (\S+)(?: from (.+))?", what):
        return bench.seats(int(seats[1]), instant(seats[3]) if seats[3] else None, seats[2])
    if sent := re.fullmatch(r"record(?: of (\S+))?: (.+)", what):
        return record(bench, at, sent[1] or "acme", sent[2])
    if numbered := re.fullmatch(r"(\S+) of (\S+) no\. (\d+): (.+)", what):
        event_type, name, seq, said = numbered.groups()
        return bench.use(at=at, type=event_type, id=name, seq=int(seq), data=read_data(said))
    if named := re.fullmatch(r"(\S+) as (\S+): (.+)", what):
        return bench.use(at=at, type=named[1], id=named[2], data=read_data(named[3]))
    if word.endswith(":"):
        return bench.use(at=at, type=word.removesuffix(":"), data=read_data(rest))
    return use(bench, at, plain(word), rest)


# ------------------------------------------------------------------------------------------------- commands


def recurring(bench: Bench, name: str, every: str, amount: str, rollover: str = "") -> str:
    fields: dict[str, Any] = {"rollover": rolled_over(rollover)} if rollover else {}
    return bench.recurring(name, plain(amount), every=every, **fields)


def rolled_over(rollover: str) -> dict[str, Any]:
    rolled = re.fullmatch(r"(\d+)%(?: up to (\S+))? for (\d+) days", rollover)
    assert rolled, "a rollover is `50% for 30 days` or `50% up to $9 for 30 days`"
    return {"percent": int(rolled[1]), "days": int(rolled[3])} | ({"cap": plain(rolled[2])} if rolled[2] else {})


def grant(
    bench: Bench,
    lot: str,
    kind: str,
    amount: str,
    priority: str,
    since: str,
    until: str,
    scope: str = "all",
    rollover: str = "",
) -> str:
    fields: dict[str, Any] = {"priority": int(priority), "scope": [] if scope == "all" else scope.split(", ")}
    if since != "-":
        fields["effective_us"] = instant(since)
    if until != "-":
        fields["expires_us"] = instant(until)
    if rollover:
        fields["rollover"] = rolled_over(rollover)
    kind, _, debt = kind.partition(", ")
    if debt:
        assert debt == "pays debt", "a kind is `promo`, or `promo, pays debt`"
        fields["pays_debt"] = True
    return bench.grant(lot, plain(amount), kind, **fields)


def cap(bench: Bench, name: str, amount: str, scope: str = "-", window: str = "month") -> str:
    number, _, price = plain(amount).partition(" ")
    fields: dict[str, Any] = {"currency": None, "price": price} if price else {}
    if window.endswith(", beyond waived"):
        window, fields["beyond"] = window.removesuffix(", beyond waived"), "waived"
    for words, basis in ((" before discounts", "list"), (" of debt", "due")):
        if window.endswith(words):
            window, fields["basis"] = window.removesuffix(words), basis
    length = re.fullmatch(r"(.+) (\d+) min", window)
    if length:
        fields["length_s"] = int(length[2]) * 60
        window = length[1].replace(" ", "_")
    return bench.cap(number, cap=name, scope=scope.replace("-", ""), window=window, **fields)


MEASURES: Final = {
    r"(?P<percent>\d+)% of included (?P<price>\S+)": "included_percent",
    r"(?P<percent>\d+)% of commitment (?P<commitment>.+)": "commitment_percent",
    r"(?P<percent>\d+)% of (?P<cap>\S+)": "cap_percent",
    r"(?P<percent>\d+)% left of (?P<lot>\S+)": "lot_percent",
    r"(?P<percent>\d+)% and \$(?P<minimum>\S+) in (?P<minutes>\d+) min": "spike",
    r"balance (?P<threshold>\S+)(?: clear (?P<clear>\S+))?": "balance",
    r"\$(?P<threshold>\S+) of a lot within (?P<days>\d+) days": "expiring",
    r"\$(?P<threshold>\S+) in a (?P<window>\S+)(?: of (?P<scope>\S+))?": "spend",
    r"(?P<threshold>\S+) (?P<price>\S+) in a (?P<window>\S+)(?: of (?P<scope>\S+))?": "quantity",
}


def rule(bench: Bench, name: str, what: str, level: str = "warning") -> str:
    for pattern, measure in MEASURES.items():
        read = re.fullmatch(pattern, what)
        if read:
            on: dict[str, Any] = {key: plain(text) for key, text in read.groupdict().items() if text is not None}
            for key, unit, seconds in (("minutes", "bucket_s", 60), ("days", "within_s", 86_400)):
                if key in on:
                    on[unit] = int(on.pop(key)) * seconds
            if "percent" in on:
                on["percent"] = int(on["percent"])
            return bench.rule(name, measure, level=level, **on)
    raise AssertionError(f"a rule is one of {', '.join(MEASURES)}")


def limit(bench: Bench, name: str, what: str) -> str:
    rate = re.fullmatch(r"(\d+) (\S+) a minute(?: of (\S+))?", what)
    if rate:
        meter = {} if rate[2] == "requests" else {"meter": rate[2]}
        return bench.command("set_rate_limit", limit=name, per_minute=int(rate[1]), scope=rate[3] or "", **meter)
    only = re.fullmatch(r"only (.+?)(?: in (\S+))?", what)
    assert only, "a limit is `20 requests a minute`, `20 units a minute of SCOPE` or `only x or y in SCOPE`"
    return bench.command("set_allowed", field=name, values=only[1].split(" or "), scope=only[2] or "")


def granted(bench: Bench, rest: str) -> str:
    lot, amount = rest.split(" ")
    return bench.grant(lot, plain(amount))


def granted_units(bench: Bench, rest: str) -> str:
    name, units, price = rest.split(" ")
    return bench.grant_units(name, price, plain(units))


def adjust(bench: Bench, rest: str) -> str:
    said = re.fullmatch(r"(\S+)(?: for (\S+ \S+))? because (.+)", rest)
    assert said, "an adjustment is `adjust $5 because REASON` or `adjust $5 for TIME because REASON`"
    used_us = instant(said[2]) if said[2] else None
    return bench.adjust(f"line {len(bench.log)}", plain(said[1]), said[3], used_us=used_us)


def void(bench: Bench, rest: str) -> str:
    lot, _, amount = rest.partition(" ")
    return bench.void(lot, plain(amount) or None)


def refund(bench: Bench, rest: str) -> str:
    lot, amount = rest.split(" ")
    return bench.refund(lot, plain(amount))


def capped(bench: Bench, rest: str) -> str:
    beyond = {"beyond": "waived"} if rest.endswith(" waives") else {}
    name, amount, *scope = rest.removesuffix(" waives").replace(" in ", " ").split(" ")
    return bench.cap(plain(amount), cap=name, scope="".join(scope), **beyond)


def scoped(bench: Bench, rest: str) -> str:
    """`PATH`, or `PATH STANDING`; `-` is the account itself."""
    scope, _, standing = rest.partition(" ")
    return bench.scope("" if scope == "-" else scope, standing=standing or "active")


def pause(bench: Bench, rest: str, *, paused: bool) -> str:
    since = rest.removeprefix("from ")
    return bench.pause(instant(since) if since else None, paused=paused)


def billed(bench: Bench, billing: str, rest: str) -> str:
    limit = plain(rest.removeprefix("up to ")) or None
    return bench.command("set_billing", billing=billing, credit_limit=limit, currency=bench.currency)


def removed(bench: Bench, rest: str) -> str:
    """`top-up`, or what, and its name."""
    if rest == "top-up":
        return bench.command("remove_top_up")
    what, name = rest.split(" ", 1)
    kind, field = REMOVED[what]
    return bench.command(kind, **{field: name})


def command(bench: Bench, text: str, key: bytes = KEY) -> str:
    """`KIND: FIELD value, FIELD value`, sealed by that key: whatever the line leaves out of account, key and currency is
    said for it."""
    kind, _, said = text.partition(": ")
    fields: dict[str, Any] = {"account": "acme", "command_key": f"line {len(bench.log)}"}
    for path, value in read_nested(said):
        *outer, last = path
        inside = fields
        for name in outer:
            inside = inside.setdefault(name, {})
        at = value not in ("", "-") and last.endswith("_us")
        inside[last] = None if value == "-" else instant(value) if at else plain(value) if "$" in value else value
    form = FORMS.get(kind)
    body = {"kind": kind} | fields
    if form is not None:  # its numbers are told from its texts by what it declares
        if "currency" in form.__struct_fields__:
            body.setdefault("currency", bench.currency)
        body = msgspec.to_builtins(msgspec.convert(body, form, strict=False))
    return bench.record(None, seal(key, TOPIC, bench.number, json.dumps(body).encode()))


def forged(bench: Bench, text: str) -> str:
    return command(bench, text.removeprefix("command "), b"a key of somebody else")


def passed(bench: Bench, _: str) -> str:
    return bench.tick(bench.now)


def due(bench: Bench, amount: str) -> str:
    assert bench.tick(bench.now) == "tick"
    assert sum(bench.account().due.values()) == dollars(amount), f"due: the engine says {bench.account().due}"
    return APPLIED


def taken_over(bench: DeskBench, _: str) -> str:
    bench.take_over()
    return APPLIED


def closed(bench: DeskBench, rest: str) -> str:
    name, events = rest.split(" after ")
    bench.close_lease(bench.leases[name], int(events))
    return APPLIED


def rerate(bench: Bench, text: str) -> str:
    said = re.fullmatch(r"(\S+) by (\d+) from (\S+ \S+) to (\S+ \S+)(?: for (\S+))? because (.+)", text)
    assert said, "a re-rating is `rerate PRICE by 1 from TIME to TIME because REASON`"
    asked = Rerating(int(said[2]), instant(said[3]), instant(said[4]))
    seen: dict[str, Any] = (
        {"differences": [(bench.account().period_of(asked.from_us), plain(said[5]))]} if said[5] else {}
    )
    return bench.rerate(said[1], asked, f"rerate {len(bench.log)}", reason=said[6], **seen)


def sell(bench: Bench, what: str) -> str:
    """`PLAN`, or `PLAN from TIME`."""
    plan, _, since = what.partition(" from ")
    return bench.sell(plan, instant(since) if since else None)


def agree(bench: Bench, what: str) -> str:
    """`PRICE at MODEL TIERS; MODIFIER`, `PRICE from TIME at ...`, or `PRICE as published`."""
    read = re.fullmatch(r"(\S+)(?: from (\S+ \S+))? (?:at (\S+) (.+)|as published)", what)
    assert read, agree.__doc__
    name, since, model, said = read.groups()
    terms = None
    if model:
        tiers, *around = said.split("; ")
        sold = read_price(name, model, tiers, around)
        stated = msgspec.to_builtins(sold).items()
        terms = {key: value for key, value in stated if key not in ("meter", "where") and value is not None}
    return bench.agree(name, terms, from_us=instant(since) if since else None)


def top_up(bench: Bench, rest: str) -> str:
    """`$50 at $20`, with `every 60 min` and `2 attempts` behind it."""
    read = re.fullmatch(r"(\S+) at (\S+)(?: every (\d+) min)?(?: (\d+) attempts)?", rest)
    assert read, top_up.__doc__
    terms: dict[str, Any] = {} if read[3] is None else {"cooldown_s": int(read[3]) * 60}
    terms |= {} if read[4] is None else {"attempts": int(read[4])}
    return bench.top_up(plain(read[2]), plain(read[1]), **terms)


# --------------------------------------------------------------------------------- usage events and corrections


def use(bench: DeskBench, at: int, units: str, rest: str) -> str:
    used = re.fullmatch(r"(\S+)(?: in (\S+))?(?: held since (.+))?(?: of lease (\S+))?(?: as (\S+))?", rest)
    assert used, "usage is `3 PRICE`, `3 PRICE in SCOPE` or `3 PRICE held since TIME`, and may end in `as NAME`"
    price, scope, since, lease, name = used.groups()
    more: dict[str, Any] = {"scope": scope} if scope else {}
    if since:
        number = len(bench.log)
        hold = bench.hold(Bound(1000 * NANO, (price,), (price,)), at=instant(since), number=number, ttl_us=10 * DAY)
        more["hold"] = seal_token(KEY, hold)
    if lease:
        more["hold"] = seal_token(KEY, bench.leases[lease])
    if name:
        more["id"] = name
    return bench.use(at=at, data={"units": units, "price": price}, **more)


def usage_data(text: str) -> dict[str, Any]:
    """`3 PRICE`, which more fields may follow, or `FIELD 3, FIELD word`."""
    first, _, more = text.partition(", ")
    used = re.fullmatch(r"(-?[\d,.]+) (\S+)", first)
    return {"units": plain(used[1]), "price": used[2]} | read_data(more) if used else read_data(text)


def record(bench: Bench, at: int, account: str, text: str) -> str:
    """A usage event by its attributes; one that is `-` is not there."""
    said = {name: None if value == "-" else value for name, value in read_data(text).items()}
    if (time := said.get("time")) is not None:
        said["time"] = cloud_time(instant(time))
    return bench.record(account.encode(), bench.event(at=at, **({"data": {}} | said)))


def correct(bench: Bench, word: str, rest: str) -> str:
    """`NAME`, or `NAME to DATA`: cancel or amend the newest revision of the event with this id. `NAME that was DATA` says
    what it was, of an event that was never sent or was otherwise."""
    read = re.fullmatch(r"(\S+)(?: that was (.+?))?(?: to (.+))?", rest)
    assert read, correct.__doc__
    name, was, other = read.groups()
    sent = [json.loads(record.value) for record in bench.log if record.value and record.value[:1] == b"{"]
    found = [event for event in sent if event["id"] == name] or [json.loads(bench.event(id=name))]
    amends = [event["data"]["amended"] for event in sent if event["type"] == AMEND]
    revisions = [found[0], *(event for event in amends if event["id"] == name)]
    original = revisions[-1] | ({"data": usage_data(was)} if was else {})
    amended = None if word == "cancel" else json.dumps(original | {"data": usage_data(other)}).encode()
    return bench.correct(json.dumps(original).encode(), amended, len(revisions) - 1)


COMMANDS: Final[dict[str, Callable[[DeskBench, str], str]]] = {
    "grant": granted,
    "units": granted_units,
    "recurring": lambda bench, rest: recurring(bench, *rest.split(" ", 3)),
    "void": void,
    "refund": refund,
    "adjust": adjust,
    "rerate": rerate,
    "cap": capped,
    "rule": lambda bench, rest: rule(bench, *rest.split(" ", 1)),
    "limit": lambda bench, rest: limit(bench, *rest.split(" ", 1)),
    "scope": scoped,
    "plan": sell,
    "agree": agree,
    "pause": lambda bench, rest: pause(bench, rest, paused=True),
    "resume": lambda bench, rest: pause(bench, rest, paused=False),
    "prepaid": lambda bench, rest: billed(bench, "prepaid", rest),
    "postpaid": lambda bench, rest: billed(bench, "postpaid", rest),
    "top-up": top_up,
    "paid": lambda bench, number: bench.answer(request_id("acme", int(number)), paid=True),
    "failed": lambda bench, number: bench.answer(request_id("acme", int(number)), paid=False),
    "no": removed,
    "command": command,
    "forged": forged,
    "cancel": lambda bench, rest: correct(bench, "cancel", rest),
    "amend": lambda bench, rest: correct(bench, "amend", rest),
    "close": closed,
    "takeover": taken_over,
    "pass": passed,
    "due": due,
}


# ------------------------------------------------------------------------------------------------- questions


def answer(bench: DeskBench, what: str) -> str:
    """What the owner says to a question, once it has let go of what has ended."""
    word, _, rest = what.partition(" ")
    bench.wait(0)
    if word in ("lease", "extend"):
        return leased(bench, word, rest)
    return checked(bench, rest, MINUTE if word == "hold" else None)


def checked(bench: DeskBench, rest: str, hold_us: int | None) -> str:
    """Whether such a request may run, as a scenario says it."""
    asked = re.fullmatch(r"(\S+) (\S+)(?: in (\S+))?(?: of (\S+))?", rest)
    fields: dict[str, Any]
    if typed := re.fullmatch(r"(\S+): (.+)", rest):
        said = {name: str(value) for name, value in read_data(typed[2]).items()}
        bounds = {name: value for name, value in said.items() if value[0].isdigit()}
        fields = {"type": typed[1], "data": {name: value for name, value in said.items() if name not in bounds}}
        fields["bounds"] = tuple(FieldBound((name,), nano(value)) for name, value in bounds.items())
    elif rest.startswith("feature "):
        fields = {"type": None, "feature": rest.removeprefix("feature ")}
    else:
        assert asked, (
            "a check is `check 3 PRICE`, `check 3 PRICE in SCOPE`, `check TYPE: FIELD 3` or `check feature NAME`"
        )
        fields = {"type": "use", "data": {"price": asked[2]}, "bounds": bench.bounds(plain(asked[1]))}
        fields |= {"scope": asked[3] or "", "account": asked[4] or "acme"}
    decision = bench.check(hold_us=hold_us, **fields)
    if decision.reason is None:
        return "allowed"
    binding = decision.binding
    if binding is None or binding.kind not in ("cap", "rate", "list"):
        return decision.reason.value
    frees = "" if binding.frees_in_us is None else f" for {binding.frees_in_us // MINUTE} min"
    return f"{decision.reason.value} by {binding.name}{frees}"


def leased(bench: DeskBench, word: str, rest: str) -> str:
    """How many requests a lease is granted, or is extended by, or why none."""
    said = re.fullmatch(r"(\S+) (?:of|by) (\d+) requests(?: of (\S+) (\S+))?(?: in (\S+))?", rest)
    assert said, "a lease is `lease NAME of 64 requests of 2 PRICE in SCOPE`, or `extend NAME by 5 requests`"
    name, number, units, price, scope = said.groups()
    before = 0
    if word == "extend":
        before = bench.leases[name].requests
        decision = bench.extend_lease(bench.leases[name], int(number))
    else:
        decision = bench.lease(int(number), plain(units), data={"price": price}, scope=scope or "")
    if decision.reason is None and decision.hold is not None:
        bench.leases[name] = decision.hold
        return f"{decision.hold.requests - before} requests"
    binding = decision.binding
    if binding is None or binding.kind not in ("cap", "rate"):
        return str(decision.reason)
    return f"{decision.reason} by {binding.name}"


# --------------------------------------------------------------------------------------------------- FINALLY


def finally_is(bench: Bench, name: str, *amounts: str) -> None:
    allocation = bench.allocation()
    if name == "debt":
        assert bench.debt() == dollars(amounts[0]), f"debt: the engine says {bench.debt()} pico"
        return
    if name == "worth":
        unit = bench.account().unit
        assert unit is not None
        assert unit.worth(bench.balance()) == dollars(amounts[0]), (
            f"worth: the engine says {unit.worth(bench.balance())}"
        )
        return
    if name.startswith("spend "):
        spent = sum(bench.account().scopes[name.removeprefix("spend ")].spend.values())
        assert spent == dollars(amounts[0]), f"spend: the engine says {spent} pico"
        return
    burnt = sum(pico for (lot, _), pico in allocation.burnt.items() if lot == name)
    refunded = sum(pico for (lot, _), pico in allocation.refunded.items() if lot == name)
    found = [allocation.remaining[name], burnt, allocation.expired.get(name, 0)]
    found += [refunded, allocation.voided.get(name, 0), allocation.carried.get(name, 0)]
    expected = [dollars(amount) for amount in amounts]
    expected += [0] * (6 - len(expected))
    assert found == expected, f"remaining, burnt, expired, refunded, voided, carried: the engine says {found} pico"
