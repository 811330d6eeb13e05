"""Revenue and cost side by side, whatever order their lines come in."""

from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.cost.gpu_rates import HOUR_US
from engine.cost.lines import RequestLine
from engine.cost.margin import RUN_KEPT_US, By, Key, Margin, MarginFold, closed_at, told_apart
from engine.events import Malformed
from engine.money import amount_text

H = 500_000 * HOUR_US
CLOSE_US = 6 * HOUR_US
ALL = (By.ACCOUNT, By.MODEL, By.FEATURE, By.PLAN, By.HOUR)


def rated(offset: int, request: str, pico: int, **more: Any) -> bytes:
    line = {"partition": 0, "offset": offset, "line": 0, "epoch": 1, "account": "acme", "id": request, "time_us": H + 7}
    line |= {"amount": amount_text(pico), "currency": "USD", "cell": {"model": "m"}, "plan": "growth"}
    return orjson.dumps(line | more)


def cost(request: str, pico: int | None, **more: Any) -> RequestLine:
    line = {"kind": "request", "replica": "r", "request": request, "attempt": 0, "hour_us": H, "change": "0"}
    line |= {"amount": None if pico is None else amount_text(pico), "currency": "USD", "settled": True}
    line |= {"method": "equal", "account": "acme", "scope": "", "feature": "chat", "model": "m", "status": "ok"}
    line |= {"prompt": 10, "cached": 0, "output": 1, "epoch": 1, "seq": 1}
    return msgspec.convert(line | more, RequestLine)


def fold_of(*lines: bytes | RequestLine, append_us: int = H + 9, fold: MarginFold | None = None) -> MarginFold:
    made = MarginFold(CLOSE_US) if fold is None else fold
    for line in lines:
        if isinstance(line, bytes):
            made.apply_rated(0, line, append_us)
        else:
            made.apply_cost(line)
    return made


def only(fold: MarginFold, by: Sequence[By] = ()) -> tuple[Key, Margin]:
    (found,) = fold.sums(by)
    return found


def test_a_request_has_its_lines_and_its_executions() -> None:
    key, sums = only(fold_of(rated(1, "a", 70), rated(2, "a", 30), cost("a", 20), cost("a", 5, attempt=1)), ALL)
    assert key == Key(H, "acme", "m", "chat", "growth", "USD")
    assert (sums.revenue, sums.cost, sums.margin, sums.permille, sums.requests) == (100, 25, 75, 750, 1)


def test_each_hour_has_what_was_charged_and_cost_in_it() -> None:
    """So the hours are the sums of both topics; what one side does not say comes from the other."""
    rows = fold_of(rated(1, "a", 100), cost("a", 20), cost("a", 5, hour_us=H + HOUR_US)).sums(ALL)
    assert [(key.hour_us - H, key.feature, key.plan, sums.revenue, sums.cost, sums.requests) for key, sums in rows] == [
        (0, "chat", "growth", 100, 20, 0),
        (HOUR_US, "chat", "growth", 0, 5, 1),
    ]


def test_what_is_not_known_leaves_no_margin() -> None:
    _, sums = only(fold_of(rated(1, "a", 100), rated(2, "b", 50), cost("a", 20)))
    assert (sums.revenue, sums.known_cost, sums.cost, sums.margin, sums.permille) == (150, 20, None, None, None)
    assert sums.without_cost == 1
    _, sums = only(fold_of(rated(1, "a", 100), cost("a", 20), cost("a", None, attempt=1)))
    assert (sums.cost, sums.without_cost, sums.known_cost) == (None, 1, 20)
    _, sums = only(fold_of(rated(1, "a", 100), cost("a", None, currency=None)))
    assert (sums.revenue, sums.cost, sums.without_cost) == (100, None, 1)


def test_a_request_that_nobody_is_charged_for_still_costs() -> None:
    key, sums = only(fold_of(cost("a", 20)), [By.FEATURE, By.PLAN])
    assert (key.feature, key.plan, sums.revenue, sums.cost, sums.margin, sums.permille) == (
        "chat",
        "",
        0,
        20,
        -20,
        None,
    )
    assert (sums.requests, sums.without_revenue) == (1, 1)


def test_the_same_id_of_another_account_is_another_request() -> None:
    fold = fold_of(rated(1, "a", 10), rated(2, "a", 20, account="zen"), cost("a", 1, account="zen"))
    assert [(key.account, sums.revenue, sums.cost) for key, sums in fold.sums([By.ACCOUNT])] == [
        ("acme", 10, None),
        ("zen", 20, 1),
    ]


def test_cost_in_another_currency_is_not_converted() -> None:
    rows = fold_of(rated(1, "a", 10, currency="EUR"), cost("a", 1)).sums([])
    found = [
        (key.currency, sums.revenue, sums.cost, sums.known_cost, sums.without_cost, sums.foreign_cost)
        for key, sums in rows
    ]
    assert found == [("EUR", 10, None, 0, 0, 1), ("USD", 0, 1, 1, 0, 0)]


def test_cost_in_two_currencies_is_known_in_neither() -> None:
    """Else what cost little in the one would hide what cost much in the other."""
    rows = dict(
        fold_of(rated(1, "a", 100, currency="EUR"), cost("a", 5, currency="EUR"), cost("a", 50, replica="s")).sums([])
    )
    euro, dollar = (next(sums for key, sums in rows.items() if key.currency == each) for each in ("EUR", "USD"))
    assert (euro.known_cost, euro.cost, euro.foreign_cost, euro.without_cost) == (5, None, 1, 0)
    assert (dollar.cost, dollar.foreign_cost) == (50, 0)


def test_what_others_of_a_run_cost_says_nothing_of_a_charge_that_does_not_bill_the_run() -> None:
    fold = a_run(rated(1, "d", 9, currency="EUR"), cost("d", None, run="talk-1", currency=None))
    sums = next(sums for key, sums in fold.sums([By.REQUEST]) if key.request == "d" and key.currency == "EUR")
    assert (sums.without_cost, sums.foreign_cost) == (1, 0)


def test_cost_that_is_not_known_is_in_no_other_currency_either() -> None:
    ((_, sums),) = fold_of(rated(1, "a", 10, currency="EUR"), cost("a", None, currency=None)).sums([])
    assert (sums.cost, sums.without_cost, sums.foreign_cost) == (None, 1, 0)


def test_what_may_still_change_is_counted() -> None:
    _, sums = only(fold_of(rated(1, "a", 10), rated(2, "b", 10), cost("a", 5, settled=False), cost("b", 1)))
    assert (sums.provisional, sums.requests) == (1, 2)


def test_lines_of_a_takeover_replace_those_of_their_offset_as_a_set() -> None:
    told = [rated(1, "a", 5), rated(1, "b", 6, line=1), rated(1, "a", 7, epoch=2)]
    for order in (told, [*told[::-1], *told], [*told, *told]):
        (row,) = fold_of(*order).sums([By.REQUEST])
        assert (row[0].request, row[1].revenue) == ("a", 7)


def test_the_newest_line_of_an_execution_counts() -> None:
    fold = fold_of(cost("a", 9, seq=3), cost("a", 5, seq=2), cost("a", 11, epoch=2), cost("a", 4, seq=9))
    assert only(fold)[1].known_cost == 11


def test_what_a_period_owes_is_of_no_request() -> None:
    fold = fold_of(rated(1, "2026-11", 10, due="fee"), rated(2, "s", 10, accrued_us=H))
    assert (fold.sums([]), len(fold)) == ([], 0)


def test_what_a_cap_waives_is_taken_off_the_request_that_passed_it() -> None:
    fold = fold_of(rated(1, "a", 10), rated(1, "a", -4, line=1, due="waived", cell={}), cost("a", 1))
    assert only(fold)[1].margin == 5


def test_what_cannot_be_read_changes_nothing() -> None:
    fold = fold_of(b"{", rated(1, "a", 1, amount="x"), rated(2, "a", 1))
    assert (fold.unreadable, only(fold)[1].revenue) == (2, 1)
    with pytest.raises(Malformed, match="request a, amount"):
        fold.apply_cost(cost("a", 1, amount="1e3"))


def test_only_what_was_asked_for_is_held() -> None:
    fold = MarginFold(None, H, H + HOUR_US)
    fold_of(rated(1, "a", 5), rated(2, "a", 6, time_us=H + HOUR_US), rated(3, "a", 7, time_us=H - 1), fold=fold)
    fold_of(cost("a", 1), cost("a", 1, hour_us=H + HOUR_US), cost("a", 1, hour_us=H - HOUR_US), fold=fold)
    assert (only(fold)[1].revenue, only(fold)[1].cost) == (5, 1)


# --------------------------------------------------------------------------------------------------------- of a run

RUN = {"tags": {"run": "talk-1"}, "cell": {}}


def a_run(*more: bytes | RequestLine) -> MarginFold:
    """Three requests of a conversation that is billed by its outcome, and one request beside it."""
    served = [cost(name, pico, run="talk-1") for name, pico in (("a", 20), ("b", 5), ("c", 3))]
    return fold_of(*served, rated(9, "alone", 50), cost("alone", 10), *more)


def test_an_outcome_is_joined_with_what_its_run_cost() -> None:
    fold = a_run(rated(1, "outcome", 100, **RUN))
    rows = {key.run: sums for key, sums in fold.sums([By.RUN])}
    of_run = rows["talk-1"]
    assert (of_run.revenue, of_run.cost, of_run.margin, of_run.requests) == (100, 28, 72, 4)
    assert (of_run.without_cost, of_run.without_revenue) == (0, 0), "what it cost is known, and it is charged for"
    assert (rows[""].revenue, rows[""].cost) == (50, 10)
    # Beside everything else it counts once: under what it was served by, and under the plan that bills it.
    key, sums = only(fold, ALL)
    assert (key.model, key.feature, key.plan) == ("m", "chat", "growth")
    assert (sums.revenue, sums.cost, sums.requests, sums.without_cost, sums.without_revenue) == (150, 38, 5, 0, 0)


def test_of_an_outcome_that_is_reversed_the_cost_of_its_run_is_left() -> None:
    back = rated(2, "outcome", -100, correction="amend", **RUN)
    for fold in (a_run(rated(1, "outcome", 100, **RUN), back), a_run(back, rated(1, "outcome", 100, **RUN))):
        (sums,) = (sums for key, sums in fold.sums([By.RUN]) if key.run)
        assert (sums.revenue, sums.cost, sums.margin, sums.requests, sums.without_cost) == (0, 28, -28, 4, 0)
        assert (only(fold)[1].revenue, only(fold)[1].cost) == (50, 38)


def test_a_run_without_an_outcome_costs_and_earns_nothing() -> None:
    fold = a_run(rated(3, "b", 7))  # one of its requests is billed by itself
    (sums,) = (sums for key, sums in fold.sums([By.RUN]) if key.run)
    assert (sums.revenue, sums.cost, sums.without_revenue) == (7, 28, 2)


def test_what_is_not_known_of_a_run_is_not_known_of_its_outcome() -> None:
    rows = {key.run: sums for key, sums in a_run(rated(1, "o", 9, tags={"run": "talk-2"})).sums([By.RUN])}
    sums = rows["talk-2"]
    assert (sums.revenue, sums.cost, sums.without_cost) == (9, None, 1), "nothing was served for that run"
    fold = a_run(rated(1, "outcome", 100, **RUN), cost("d", None, run="talk-1"))
    rows = {key.run: sums for key, sums in fold.sums([By.RUN])}
    assert (rows["talk-1"].cost, rows["talk-1"].known_cost, rows["talk-1"].without_cost) == (None, 28, 1)
    euro = {
        key.currency: sums for key, sums in a_run(rated(1, "o", 9, currency="EUR", **RUN)).sums([By.RUN]) if key.run
    }
    assert (euro["EUR"].cost, euro["EUR"].without_cost, euro["EUR"].foreign_cost) == (None, 0, 1)


def test_a_run_of_several_models_leaves_each_its_cost() -> None:
    fold = fold_of(cost("a", 20, run="talk-1"), cost("b", 5, run="talk-1", model="n"), rated(1, "outcome", 100, **RUN))
    rows = {key.model: (sums.revenue, sums.cost) for key, sums in fold.sums([By.MODEL])}
    assert rows == {"m": (0, 20), "n": (0, 5), "": (100, 0)}


def test_a_run_of_another_account_is_another_run() -> None:
    fold = a_run(rated(1, "outcome", 100, account="zen", **RUN))
    rows = {(key.account, key.run): sums.cost for key, sums in fold.sums([By.ACCOUNT, By.RUN])}
    assert rows == {("acme", ""): 10, ("acme", "talk-1"): 28, ("zen", "talk-1"): None}


def told_of(fold: MarginFold, rows: dict[Key, Margin]) -> dict[Key, Margin]:
    """The rows as they stand once the fold has told what changed."""
    rows |= {change.key: change.sums for change in fold.changes()}
    return rows


@pytest.mark.parametrize("anew", [False, True], ids=["the same owner", "a new owner"])
def test_an_outcome_may_come_when_the_hours_of_its_run_have_closed(anew: bool) -> None:
    """Neither it nor its reversal is taken for something whose cost is not known, and nothing is counted again."""
    day_us = 24 * HOUR_US
    fold = a_run()
    rows = told_of(fold, {})
    fold.forget(H + HOUR_US)
    if anew:
        fold = MarginFold(CLOSE_US)
        fold.told(rows.items(), H + HOUR_US)
    fold_of(rated(1, "outcome", 100, time_us=H + day_us, **RUN), append_us=H + day_us, fold=fold)
    told_of(fold, rows)
    fold.forget(H + 2 * day_us)
    back = rated(2, "outcome", -100, time_us=H + day_us, correction="amend", **RUN)
    fold_of(back, append_us=H + 6 * day_us, fold=fold)
    told_of(fold, rows)
    of_run, whole = Margin(), Margin()
    for key, sums in rows.items():
        (of_run if key.run else whole).add(sums)
    assert (of_run.revenue, of_run.cost, of_run.requests, of_run.without_revenue) == (0, 28, 4, 3)
    assert (whole.revenue, whole.cost, whole.requests, whole.without_cost) == (50, 38, 5, 0)
    by_hour = {key.hour_us - H: (sums.revenue, sums.cost) for key, sums in rows.items() if key.run and sums != Margin()}
    assert by_hour == {0: (0, 28), day_us: (100, 0), 6 * day_us: (-100, 0)}


def test_which_runs_cost_anything_is_known_for_35_days() -> None:
    fold = a_run()
    rows = told_of(fold, {})
    later_us = H + RUN_KEPT_US
    for closed_us, cost_is in ((later_us, 0), (later_us + HOUR_US, None)):
        one = MarginFold(CLOSE_US)
        one.told([each for each in rows.items() if each[0].hour_us >= closed_us - RUN_KEPT_US], closed_us)
        other = a_run()
        other.forget(closed_us)
        for each in (one, other):
            fold_of(rated(1, "outcome", 9, time_us=closed_us, **RUN), append_us=closed_us, fold=each)
            assert only(each)[1].cost == cost_is


# -------------------------------------------------------------------------------------------------- hour by hour


def test_only_what_differs_from_what_was_told_is_told() -> None:
    fold = fold_of(rated(1, "a", 5))
    assert [(change.sums.revenue, change.sums.without_cost) for change in fold.changes()] == [(5, 1)]
    assert fold.changes() == []
    fold_of(cost("a", 2), rated(1, "a", 5), fold=fold)
    gone, known = fold.changes()  # the cost says the feature, so the charge counts there
    assert (gone.key.feature, gone.sums) == ("", Margin())
    assert (known.key.feature, known.sums.revenue, known.sums.cost) == ("chat", 5, 2)
    fold_of(cost("a", 2, seq=2), fold=fold)
    assert fold.changes() == []


def test_a_new_owner_tells_what_differs_from_the_rows_it_finds() -> None:
    lines: list[bytes | RequestLine] = [rated(1, "a", 5), cost("a", 2)]
    told = [(change.key, change.sums) for change in fold_of(*lines).changes()]
    same = fold_of(*lines)
    same.told(told, 0)
    assert same.changes() == []
    other = fold_of(lines[0])
    other.told(told, 0)
    assert sorted((change.key.feature, change.sums.revenue) for change in other.changes()) == [("", 5), ("chat", 0)]


def test_closed_hours_never_change_and_are_forgotten() -> None:
    fold = fold_of(rated(1, "a", 5), cost("a", 2), rated(2, "b", 3, time_us=H + HOUR_US))
    fold.changes()
    fold.forget(H + HOUR_US)
    assert len(fold) == 1
    fold_of(cost("a", 9, seq=2), fold=fold)
    assert (fold.changes(), fold.too_late) == ([], 1)


def test_a_charge_behind_its_closed_hour_counts_where_it_comes() -> None:
    """A correction of a month ago, say: the hour that was told stays as it was told."""
    append_us = H + 30 * 24 * HOUR_US + 5
    fold = fold_of(rated(9, "a", -5, correction="cancel"), append_us=append_us)
    assert only(fold, [By.HOUR])[0].hour_us == append_us - 5
    in_time = fold_of(rated(9, "a", -5), append_us=H + HOUR_US + CLOSE_US - 1)
    assert only(in_time, [By.HOUR])[0].hour_us == H
    assert closed_at(H + HOUR_US + CLOSE_US, CLOSE_US) == H + HOUR_US


# ----------------------------------------------------------------------------------------------------- any order


def drawn(random: Random) -> list[bytes | RequestLine]:
    """Lines of a few requests: takeovers, settled in stages, unknown, of two currencies, over two hours."""
    lines: list[bytes | RequestLine] = []
    for offset in range(random.randrange(1, 12)):
        for epoch in range(1, random.choice((2, 2, 3))):
            for number in range(random.randrange(3)):
                request, account = f"r{random.randrange(5)}", random.choice("ab")
                hour = random.choice((0, HOUR_US))
                more = {"line": number, "epoch": epoch, "account": account, "time_us": H + hour + 7}
                more |= {"currency": "USD" if account == "a" else "EUR", "plan": random.choice(("growth", "starter"))}
                due = {"due": "fee"} if random.random() < 0.1 else {}
                more |= {"tags": {"run": random.choice("uv")}} if random.random() < 0.3 else {}
                lines.append(rated(offset, request, random.randrange(-50, 100), **more, **due))
    for number in range(random.randrange(1, 20)):
        amount = random.choice((None, 0, 3, 5))
        more = {"seq": number, "account": random.choice(("a", "b", None)), "settled": random.random() < 0.5}
        more |= {
            "hour_us": H + random.choice((0, HOUR_US)),
            "replica": random.choice("xy"),
            "model": random.choice("mn"),
        }
        more |= {"feature": random.choice(("chat", None)), "currency": random.choice(("USD", "USD", None))}
        more |= {"run": random.choice(("u", "v", None))}
        line = cost(f"r{random.randrange(5)}", amount, **more)
        lines.append(line)
        if random.random() < 0.5:  # and told anew, with one thing changed
            name, value = random.choice([("amount", None), ("amount", "7"), ("settled", True), ("run", "u")])
            lines.append(replace(line, seq=20 + number, **{name: value}))
    return lines


@given(st.integers(0, 1 << 32).map(Random))
def test_any_order_and_repetition_gives_the_same_rows(random: Random) -> None:
    lines = drawn(random)
    whole = fold_of(*lines)
    rows = {change.key: change.sums for change in whole.changes() if change.sums != Margin()}
    mixed, told = MarginFold(CLOSE_US), dict[Key, Margin]()
    again = lines + random.choices(lines, k=len(lines) // 2)
    random.shuffle(again)
    for line in again:
        fold_of(line, fold=mixed)
        if random.random() < 0.3:
            told |= {change.key: change.sums for change in mixed.changes()}
    told |= {change.key: change.sums for change in mixed.changes()}
    assert {key: sums for key, sums in told.items() if sums != Margin()} == rows
    of_all = {key: sums for key, sums in rows.items() if not key.run}
    assert [each for each in mixed.sums(ALL) if each[1] != Margin()] == sorted(of_all.items(), key=lambda each: each[0])
    of_runs = {key: replace(sums, charges=0, costs=0) for key, sums in rows.items() if key.run}
    found = [each for each in mixed.sums([*ALL, By.RUN]) if each[0].run and each[1] != Margin()]
    assert found == [each for each in sorted(of_runs.items(), key=lambda each: each[0]) if each[1] != Margin()]


@given(st.integers(0, 1 << 32).map(Random), st.lists(st.sampled_from(list(By)), unique=True))
def test_however_it_is_told_apart_the_sums_are_those_of_the_topics(random: Random, by: list[By]) -> None:
    lines = drawn(random)
    fold = fold_of(*lines)
    charged: dict[tuple[int, int, int], tuple[str, int]] = {}
    newest: dict[int, int] = {}
    runs: dict[tuple[Any, ...], RequestLine] = {}
    for line in lines:
        if isinstance(line, RequestLine):
            run = (line.account or "", line.request, line.replica, line.hour_us)
            if run not in runs or line.seq >= runs[run].seq:
                runs[run] = line
            continue
        said = orjson.loads(line)
        newest[said["offset"]] = max(newest.get(said["offset"], 0), said["epoch"])
        place = (said["offset"], said["epoch"], said["line"])
        amount = 0 if "due" in said else round(float(said["amount"]) * 10**12)
        charged.setdefault(place, (said["currency"], amount))
    rows = fold.sums(by)
    for currency in ("USD", "EUR"):
        revenue = sum(
            pico for (offset, epoch, _), (of, pico) in charged.items() if epoch == newest[offset] and of == currency
        )
        assert sum(sums.revenue for key, sums in rows if key.currency == currency) == revenue
    known = sum(round(float(line.amount) * 10**12) for line in runs.values() if line.amount is not None)
    assert sum(sums.known_cost for _, sums in rows) == known
    merged: dict[Key, Margin] = {}
    for key, sums in fold.sums(list(By)):
        merged.setdefault(told_apart(key, by, key.request), Margin()).add(sums)
    assert sorted(merged.items(), key=lambda each: each[0]) == rows
