"""Scenarios: tables that a finance person can read, each run as a log through the engine.

A scenario is a text file in tests/scenarios/, in lines. `#` starts a comment; columns are separated by two or more
spaces, or by `|`; `-` stands for "nothing". Sections start with their name in capitals, in this order, and those but
EVENTS and FINALLY may be left out:

ACCOUNT   zone  anchor day                              (UTC and 1 if left out)
METERS    name  what  by                                `count of TYPE`, `sum of FIELD of TYPE`, or `sum of (EXPRESSION) of
                                                        TYPE` (or max, min, latest, average, unique_count in
                                                        place of sum; behind it `, keeping 1`: so many change
                                                        points); behind it conditions:
                                                        `where FIELD is A or B`, `where FIELD exists`, `and` more of
                                                        them; `by`: dimensions. Left out: PRICES are priced by name.
                                                        Of sessions: `seconds of TYPE`, or `seconds of FIELD of TYPE`,
                                                        and `, silent for 300 s` (how long an open one may be), or
                                                        `seconds at FIELD of TYPE`: each counts the level that FIELD
                                                        has said last
SHAPES    TYPE  shape                                   of the usage objects of an event type: vllm, anthropic ...
STREAMS   TYPE  how long                                of which events may have a number, and for how long: `7 days`
DIMENSIONS  name  of  what                              `up to 10: a, up to 20: b, rest: c`, or `x: a, y: a, rest: b`;
                                                        `none: d` is where the field is missing; `of hours of ZONE`:
                                                        `22:00 to 06:00: a, 08:00 to 12:00 on sat sun: b, rest: c`
UNIT      name  currency  amount per units              of credit, in which all amounts are then: `CREDITS  USD  1 per 100`
PRICES    name  model  tiers                            `10: 30, 50: 40, rest: 50` is $30 each up to 10, and so on;
                                                        `rest: 0.15 per 1000000` is a price per unit; `from TIME`
                                                        behind it makes a new version of the catalogue; with METERS
                                                        `of METER` behind it, or `of METER where x = a, y = b`; a tier
                                                        may be `10: 30 flat 5`; models are those of a catalogue;
                                                        behind the tiers `included 100`, `at most 50`, `less 20%`, `least $9`,
                                                        `commitment $9`, `beyond it times 1.5`,
                                                        `whole in short periods`, `in PLAN` (else `plan`);
                                                        and of a percentage `each 0.30`, `each at least 0.50`, `each at most 9`
FEES      name  amount                                  of a month; behind it `whole in short periods`, `in advance`,
                                                        `in PLAN`
SEATS     name  amount                                  of a month for each, in advance; behind it `in PLAN`
COMMITMENTS  name  amount  for                          of a month, for `all` or `PRICE, PRICE`; behind it the same
ALLOWANCES  name  units  for                            of a month, for `PRICE, PRICE` together, the dearest first; behind it
                                                        `as listed`, and the same as of FEES but `in advance`
SHARED TIERS  name  for                                 `PRICE, PRICE`, the dearest first; behind it `as listed`, `in PLAN`
GRANTS    lot  kind  amount  priority  from  until  for  rollover
                                                        `for`: prices, or `all`; kind: `promo`, or `promo, pays debt`;
                                                        rollover: `50% for 30 days`, `50% up to $9 for 30 days`; its
                                                        lot is `LOT~carried`
RECURRING  name  every  amount  rollover                a lot in each `period`, `month` or `week`: its id is
                                                        NAME@ and the date on which the period begins
SCOPES    path                                          parents first
CAPS      name  amount  scope  window                   the scope is left out or `-` for the account itself; the window
                                                        is a month, or `hour`, `day`, `week`, `rolling 300 min`,
                                                        `first use 300 min`; behind it `before discounts` or `of debt`,
                                                        of money, and `, beyond waived`; the amount `$5`, or `5000 PRICE`
RULES     name  what                                    `80% of CAP`, `80% of commitment NAME`,
                                                        `balance 20`, or `balance 20 clear 30`
EVENTS    time  what                 charge  balance  alerts
          what: `3 PRICE`, `3 PRICE in SCOPE`, `3 PRICE held since TIME`, or `grant LOT AMOUNT`, or
          `adjust $5 because REASON`, `adjust -$5 for TIME because REASON` (of the period of that time), or
          `rerate PRICE by 1 from TIME to TIME because REASON` (by that version of the catalogue; `for -$5 because`: what
          somebody has seen that it would come to, in the first period), or
          `units NAME 1000 PRICE` (a quantity grant), `no units NAME` (its rest is void), or
          `void LOT` (its rest), `void LOT AMOUNT`, `refund LOT AMOUNT`, or `cap NAME AMOUNT`,
          `cap NAME AMOUNT in SCOPE`, `cap NAME AMOUNT waives` (what is beyond it), `no cap NAME`, or
          `rule`, `recurring` or `limit` and what stands in that section, with one space between, `no rule NAME`,
          `no recurring NAME`, or `scope PATH`, `scope PATH suspended` (of `-`: the account itself), or
          `agree PRICE at MODEL TIERS; MODIFIER`, `agree PRICE from TIME at ...`,
          `agree PRICE as published`, `plan PLAN`, `plan PLAN from TIME`, `top-up $50 at $20` (behind it
          `every 60 min`, `2 attempts`), `no top-up`, `paid N`, `failed N` (what became of the account's request N), or
          `postpaid up to $20`, `postpaid`, `prepaid`, `due $12` (what closed periods owe of a postpaid account by then), or
          `pause`, `resume from TIME`, `5 seats NAME`, `5 seats NAME from TIME`, or `pass` (log time moves on, nothing else), or
          any command by its kind, as the API has it: `command KIND: FIELD value, FIELD.INNER value` (`-` is null; the
          account, a key of its own and the account's currency if left out; FIELD_us is a time); `forged command ...` bears
          the seal of somebody else.
          `refused REASON: COMMAND` is refused. Under charge stands why usage, a correction or a forged or unknown
          command is set aside, or what else became of it (`duplicate`, `repeated`, `outdated`, `parked`). What is refused
          or set aside leaves every account as it was, to the byte, or the line fails.
          `check 3 PRICE`, `check 3 PRICE in SCOPE`, `check 3 PRICE of ACCOUNT`, `check TYPE: FIELD 3, FIELD word` (at most
          so much), `check feature NAME`: may it run? Under charge stands `allowed` or why not, or
          `cap_reached by CAP`, or `cap_reached by CAP for 90 min` (until it frees). `hold 3 PRICE` asks the same, and holds
          it for a minute. `takeover`: another process answers from here on.
          `lease NAME of 64 requests of 2 PRICE`, `... in SCOPE`, `extend NAME by 5 requests`: under charge stands how many
          are granted (`32 requests`), or why none. `2 PRICE of lease NAME` is usage of it, `close NAME after 3` gives it
          back behind its third event.
          Usage may have a name (`3 PRICE as NAME`); then `cancel NAME` takes it back and `amend NAME to 5 PRICE` makes
          it what it should have been, once the time has come at which they are sent; `cancel NAME that was 3 PRICE`,
          `amend NAME that was ... to ...` say what it was, of an event that was not sent, or was otherwise.
          With METERS: `TYPE: FIELD 3, FIELD.INNER word`, `TYPE as NAME: FIELD 3`, `amend NAME to FIELD 3`. `FIELD 90 letters`
          is a text of that length. With STREAMS: `TYPE of NAME no. 2: FIELD 3`.
          An event by its attributes: `record: type TYPE, data.FIELD 3, time -`, `record of ACCOUNT: ...`.
          `300 times: WHAT` does it so often; `*` in it is the number, from 1. `300 times, a minute apart: WHAT; then WHAT`:
          each that much later (or `a day apart`), and so is a time that WHAT says behind `from`.
          A time before the one above is usage that arrives late. Alerts: `RULE crossed`, `RULE recovered`.
FINALLY   lot  remaining  burnt  expired  refunded  voided  carried
                                                        one line per lot (the last three may be left out), `debt  AMOUNT`,
                                                        and for each scope `spend SCOPE  AMOUNT` (of all months);
                                                        `worth  AMOUNT`: the balance in the UNIT's currency

Times are `2026-03-10 12:00`, in UTC, to the microsecond if need be. Prices, grants, scopes, caps and rules are set when the
first event is due. Amounts are dollars.
"""

import re
from pathlib import Path
from typing import Final

import pytest

from engine.top_up import request_id
from tests.engine.bench import DAY, MINUTE
from tests.scenario_reader import Scenario, ScenarioError, repetitions
from tests.scenario_runner import run

SCENARIOS: Final = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_engine_bills_what_the_table_says(path: Path) -> None:
    run(Scenario(path.name, path.read_text()))


def test_every_lot_of_a_scenario_is_accounted_for() -> None:
    """A table that leaves out a lot, a scope or the debt would pass whatever became of it."""
    for path in SCENARIOS:
        scenario = Scenario(path.name, path.read_text())
        lots = {columns[0] for _, columns in scenario.sections["GRANTS"]}
        lots |= {f"{columns[0]}~carried" for _, columns in scenario.sections["GRANTS"] if len(columns) > 7}
        said = [each for _, (_, what, *_) in scenario.sections["EVENTS"] for each, _ in repetitions(what)]
        lots |= {each.split(" ")[1] for each in said if each.startswith("grant ")}
        lots |= {lot for each in said for lot in re.findall(r"^command grant: .*\blot ([^\s,]+)", each)}
        paid = [each for each in said if each.startswith("paid ")]
        lots |= {request_id("acme", int(what.removeprefix("paid "))) for what in paid}
        recurring = [columns[0] for _, columns in scenario.sections["RECURRING"]]
        recurring += [each.split(" ")[1] for each in said if each.startswith("recurring ")]
        lots |= {row[0] for _, row in scenario.sections["FINALLY"] if row[0].rpartition("@")[0] in recurring}
        worth = {"worth"} if scenario.sections["UNIT"] else set()
        scopes = {f"spend {columns[0]}" for _, columns in scenario.sections["SCOPES"]}
        assert {columns[0] for _, columns in scenario.sections["FINALLY"]} == lots | scopes | {"debt"} | worth, (
            path.name
        )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2026-03-10 12:00  3 x  $4  -$3", r"s\.txt:4:.*\n.*charge: the engine says 3000000000000 pico"),
        ("2026-03-10 12:00  3 x  $3  -$4", r"s\.txt:4:.*\n.*balance"),
        ("2026-03-10 12:00  3 x  $3  -$3  low crossed", r"s\.txt:4:.*\n.*alerts"),
        ("2026-03-10 12:00  3 y  $3  -$3", r"s\.txt:4:.*\n.*no_price"),
        ("2026-03-10 12:00  3 x", r"s\.txt:4:"),
        ("2026-03-10 12:00  refused bad_amount: grant a $1  -  $1", r"s\.txt:4:.*\n.*answered applied"),
        ("2026-03-10 12:00  refused lot_exists: grant a $0  -  $0", r"s\.txt:4:.*\n.*answered refused\.bad_amount"),
        ("2026-03-10 12:00  refused too_poor: grant a $0  -  $0", r"s\.txt:4:.*\n.*too_poor"),
        ("2026-03-10 12:00  grant a $0  -  $0", r"s\.txt:4:.*\n.*answered refused\.bad_amount"),
        ("2026-03-10 12:00  3 x  no_price  $0", r"s\.txt:4:.*\n.*answered rated"),
        ("2026-03-10 12:00  3 y  no_meter  $0", r"s\.txt:4:.*\n.*answered dead_lettered\.no_price"),
        ("2026-03-10 12:00  3 y  no_pric  $0", r"s\.txt:4:.*\n.*answered dead_lettered\.no_price"),
        ("2026-03-10 12:00  check 3 x  allowed  $0", r"s\.txt:4:.*\n.*answered credit_depleted"),
        (
            "2026-03-10 12:00  3 times: grant same $1  -  $1",
            r"s\.txt:4:.*\n.*answered refused\.lot_exists.*after 1 times",
        ),
    ],
)
def test_a_wrong_table_fails_and_names_file_and_line(line: str, message: str) -> None:
    text = f"PRICES\nx  per_unit  rest: 1\nEVENTS\n{line}\nFINALLY\ndebt  $3\n"
    with pytest.raises(ScenarioError, match=message):
        run(Scenario("s.txt", text))


def test_a_line_is_done_as_often_as_it_says_and_each_time_later() -> None:
    assert repetitions("3 x") == [("3 x", 0)]
    assert repetitions("2 times: grant l-* $1") == [("grant l-1 $1", 0), ("grant l-2 $1", 0)]
    assert repetitions("2 times, a minute apart: plan pro; then plan plan") == [
        ("plan pro", 0),
        ("plan plan", MINUTE),
        ("plan pro", MINUTE),
        ("plan plan", MINUTE),
    ]
    assert repetitions("1,000 times, a day apart: resume from 2026-02-28 12:00")[1] == (
        "resume from 2026-03-01 12:00",
        DAY,
    )


def test_wrong_lots_and_debt_fail() -> None:
    head = "PRICES\nx  per_unit  rest: 1\nGRANTS\nl  paid  $2  1  -  -\nEVENTS\n2026-03-10 12:00  3 x  $3  -$1\n"
    run(Scenario("s.txt", head + "FINALLY\nl  $0  $2  $0\ndebt  $1\n"))
    for last in ("l  $0  $1  $0", "debt  $2"):
        with pytest.raises(ScenarioError, match=r"s\.txt:8:"):
            run(Scenario("s.txt", head + f"FINALLY\n{last}\n"))
