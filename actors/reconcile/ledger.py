"""R-ledger: the sums of an account's postings are what its lots and its debt say, lot by lot and period by period (C1),
and each names a period that it can have been made in.

In which period something is posted is the one choice that the log does not make: it is that of the log time at which the
checkpoint was cut. So it is held against what must be so of any cut: it is a period of the account, begun by log time, none
before that of the usage (but for usage ahead of log time), and none before that of an earlier checkpoint."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from actors.checkpoints import Posted
from actors.drift import ABSENT, Drift
from actors.ports import AccountRow
from engine.account import Account
from engine.catalog import SKEW_US
from engine.money import amount_text

CHECK = "ledger"
Place = tuple[str, str, int | None]  # lot ("" for debt), kind, usage period
Sums = dict[Place, int]  # pico
GIVES = ("grant", "refund")  # what a lot has more by these, it has less by every other kind


def ledger_drifts(
    partition: int,
    accounts: Mapping[str, Account],
    rows: Mapping[str, AccountRow],
    postings: Iterable[Posted],
    log_time_us: int,
    plan_changes: Iterable[tuple[str, int]] = (),
) -> Iterator[Drift]:
    """`accounts` as their snapshots say; `rows` what stands beside the snapshots, for people. `log_time_us` is the
    partition's, `plan_changes` (account, log time) of each."""
    changed: dict[str, set[int]] = {}
    for name, at_us in plan_changes:
        changed.setdefault(name, set()).add(at_us)
    posted: dict[str, list[Posted]] = {}
    for line in postings:
        posted.setdefault(line.account, []).append(line)
    for name in sorted(accounts.keys() | posted.keys()):
        account = accounts.get(name)
        if account is None:
            if name not in rows:  # else its snapshot cannot be read, which is told elsewhere
                yield Drift(CHECK, partition, name, "postings", "no postings, since it is not open", "postings")
            continue
        yield from _of_account(partition, account, posted.get(name, []))
        yield from _periods(partition, account, posted.get(name, []), log_time_us, changed.get(name, set()))
        yield from _beside(partition, account, rows[name])


def sums_of(postings: Iterable[Posted]) -> Sums:
    """What the postings of one account come to, place by place."""
    sums: Sums = {}
    for line in postings:
        place = line.lot, line.kind, line.usage_period_us
        sums[place] = sums.get(place, 0) + line.amount
    return sums


def _of_account(partition: int, account: Account, postings: Sequence[Posted]) -> Iterator[Drift]:
    allocation = account.derive().allocation
    expected, posted = allocation.postings(account.billed_us), sums_of(postings)
    for place in sorted(expected.keys() | posted.keys(), key=lambda place: (place[0], place[1], place[2] or 0)):
        lot, kind, period = place
        what = (
            kind + (f" of lot {lot}" if lot else "") + (f" in the period from {period}" if period is not None else "")
        )
        yield from _money(partition, account.account, what, expected.get(place, 0), posted.get(place, 0))
    kinds = {"": ""} | {name: lot.kind for name, lot in account.lots.items()}
    for lot, said in sorted({(line.lot, line.lot_kind) for line in postings}):
        known = kinds.get(lot, said)  # of a lot that the account does not have, the sums are told above
        if said != known:
            what = f"kind of lot {lot}" if lot else "kind of lot of debt"
            yield Drift(CHECK, partition, account.account, what, known or ABSENT, said or ABSENT)
    for name in sorted(account.lots):
        lines = [(kind, amount) for (of, kind, _), amount in posted.items() if of == name]
        kept = sum(amount if kind in GIVES else -amount for kind, amount in lines)
        yield from _money(partition, account.account, f"remaining of lot {name}", allocation.remaining[name], kept)


def _periods(
    partition: int, account: Account, postings: Sequence[Posted], log_time_us: int, changed: set[int]
) -> Iterator[Drift]:
    """`changed`: a period that began with a plan, and that another plan has replaced at the very same log time, is none of
    the account's any more."""
    spans: dict[int, tuple[int, int]] = {}  # of each period: the first and the last checkpoint that posted in it
    for line in postings:
        said, of = line.posting_period_us, line.usage_period_us
        what = f"posting period of {line.kind}" + (f" of lot {line.lot}" if line.lot else "")
        if not 0 <= said <= log_time_us:
            yield Drift(CHECK, partition, account.account, what, f"one begun by {log_time_us}", str(said))
            continue
        period = account.period_of(said)
        if said != period and said not in changed:
            yield Drift(CHECK, partition, account.account, what, str(period), str(said))
        first, last = spans.get(period, (line.first_seq, line.last_seq))
        spans[period] = min(first, line.first_seq), max(last, line.last_seq)
        if of is not None and of <= log_time_us + SKEW_US and period < (least := account.period_of(of - SKEW_US)):
            yield Drift(CHECK, partition, account.account, f"{what} in the period from {of}", str(least), str(said))
    newest = -1
    for period, (first, last) in sorted(spans.items()):
        if first <= newest:
            what = f"first checkpoint that posts in the period from {period}"
            yield Drift(CHECK, partition, account.account, what, f"one behind {newest}", str(first))
        newest = max(newest, last)


def _beside(partition: int, account: Account, row: AccountRow) -> Iterator[Drift]:
    derived = account.derive()
    spend = derived.spend[max(derived.spend)] if derived.spend else 0
    yield from _money(partition, account.account, "balance shown", derived.allocation.balance, row.balance)
    yield from _money(partition, account.account, "spend shown", spend, row.spend)
    for what, expected, found in (
        ("currency shown", account.currency, row.currency),
        ("next wake-up", account.wake_us(), row.wake_us),
    ):
        if expected != found:
            told = [ABSENT if side is None else str(side) for side in (expected, found)]
            yield Drift(CHECK, partition, account.account, what, *told)


def _money(partition: int, account: str, what: str, expected: int, found: int) -> Iterator[Drift]:
    if expected != found:
        yield Drift(CHECK, partition, account, what, amount_text(expected), amount_text(found))
