"""Re-rating: what a price would have come to under another published version, and the difference posted as lines (law D5;
README, "Re-rating"). The checks stand in the order of the refusals' precedence."""

from typing import NamedTuple

from engine.account import Account
from engine.alerts import Crossing
from engine.catalog import Catalogue, Plan, PriceBook
from engine.charges import Table, segments
from engine.closing import whole
from engine.commands import Refused, amount_of
from engine.events import Rerate
from engine.manual_lines import LINES_MAX, ManualLine, Rerating, says_why
from engine.outcomes import Refusal
from engine.prices.price import Price
from engine.quantity_grants import Service
from engine.waivers import waiver_at


class Difference(NamedTuple):
    """Of one billing period; all but its start is pico."""

    period_us: int
    rated: int  # what the price came to as it was rated, with what came late
    posted: int  # by earlier re-ratings
    owed: int  # under the version, and those of earlier re-ratings where it does not reach

    @property
    def amount(self) -> int:
        """What is still to be posted; above 0 it is charged."""
        return self.owed - self.rated - self.posted


def differences(account: Account, price: str, asked: Rerating, book: PriceBook, log_time_us: int) -> list[Difference]:
    """Of each billing period with usage of the price in the range, in order of time. Changes nothing. Raises Refused."""
    version = _version(book, asked)
    sold = [plan.prices[price] for plan in _plans(account, version) if price in plan.prices]
    if not sold:
        raise Refused(Refusal.UNKNOWN_PRICE)
    if any(each.per_event is not None for each in sold):
        raise Refused(Refusal.BAD_PRICE)  # what each event's fee was is no longer known
    used = [
        start
        for table in (account.table, account.late)
        for start, row in table.items()
        if any(name == price for name, _ in row)
    ]
    for start_us, end_us in {account.period_around(start) for start in used}:
        for edge_us in (asked.from_us, asked.to_us):
            if start_us < edge_us < end_us and account.segment_around(edge_us)[0] != edge_us:
                raise Refused(Refusal.MID_SEGMENT)
    periods = sorted({account.period_of(start) for start in used if asked.covers(start)})
    return [_difference(account, price, asked, book, period_us, log_time_us) for period_us in periods]


def by_price(
    account: Account, price: str | None, asked: Rerating, book: PriceBook, log_time_us: int
) -> dict[str, list[Difference] | Refusal]:
    """The same of one price, or of all that the version's plan has; a price that cannot be rated again has its refusal.
    Raises Refused if none can be by such a version or range."""
    version = _version(book, asked)
    names = {price} if price is not None else {name for plan in _plans(account, version) for name in plan.prices}
    found: dict[str, list[Difference] | Refusal] = {}
    for name in sorted(names):
        try:
            found[name] = differences(account, name, asked, book, log_time_us)
        except Refused as refused:
            found[name] = refused.reason
    return found


def _difference(
    account: Account, name: str, asked: Rerating, book: PriceBook, period_us: int, log_time_us: int
) -> Difference:
    again = account.contract.priced_by(book.known(asked.version), name, period_us)
    if again is None:
        raise Refused(Refusal.UNKNOWN_PRICE)
    rows: Table = {}
    for start, row in whole(account.table, account.late, lambda each: account.period_of(each) == period_us).items():
        of_price = {place: units for place, units in row.items() if place[0] == name}
        if of_price:
            rows[start] = of_price
    if waiver_at(account.waivers, period_us) is not None:
        raise Refused(Refusal.WAIVED)  # what the difference owes depends on all that was spent
    rated_at = account.contract.prices_at(book)
    rated = [rated_at(start, name) for start in rows]
    if not all(again.counts_like(price) for price in rated):
        raise Refused(Refusal.BAD_PRICE)
    if any(price.shared is not None for price in (again, *rated)):
        raise Refused(Refusal.BAD_PRICE)  # what it owes depends on what else was used
    terms = account.period_terms(period_us)
    if any(price.floor is not None for price in (again, *rated)) or (terms and terms.plan.commits(name)):
        raise Refused(Refusal.BAD_PRICE)  # what is missing to that is posted beside, by what was sold
    earlier = [
        line for line in account.lines.values() if line.rerated and (line.period_us, line.price) == (period_us, name)
    ]
    layers = [asked, *(line.rerated for line in reversed(earlier) if line.rerated)]  # the newest first

    def owed_at(start: int, price: str) -> Price:
        rated = rated_at(start, price)
        if rated.agreed_us is not None:  # no version ends what was agreed
            return rated
        for layer in layers:
            if layer.covers(start):
                found = account.contract.priced_by(book.known(layer.version), price, start)
                assert found is not None, "it was asked for before"
                return found
        return rated

    owed = [owed_at(start, name) for start in rows]
    if not all(price.marginal for price in (*owed, *(rated_at(start, name) for start in rows))) and (
        log_time_us < account.period_around(period_us)[1] or any(price.terms is not owed[0].terms for price in owed)
    ):
        raise Refused(Refusal.MID_PERIOD)
    grants, served = account.quantity_grants.values(), account.derive().served
    before, after = (
        sum(
            sum(owes.values()) for _, _, owes, _ in segments(rows, account.period_of, price_at, Service(grants, served))
        )
        for price_at in (rated_at, owed_at)
    )
    return Difference(period_us, before, sum(line.amount for line in earlier), after)


def _version(book: PriceBook, asked: Rerating) -> Catalogue:
    if asked.from_us >= asked.to_us:
        raise Refused(Refusal.BAD_PERIOD)
    if asked.version not in dict(book.versions):
        raise Refused(Refusal.UNKNOWN_VERSION)
    return book.known(asked.version)


def _plans(account: Account, version: Catalogue) -> list[Plan]:
    """All that the account is sold at some time, as the version has them."""
    contract = account.contract
    names = {contract.plan, *(phase.plan for phase in contract.phases)}
    return [version.plans[name] for name in sorted(names) if name in version.plans]


def rerate(account: Account, command: Rerate, book: PriceBook, log_time_us: int) -> list[Crossing]:
    """Post the differences, if they are still those that the command states. Raises Refused."""
    stated = {period_us: amount_of(amount, above_zero=False) for period_us, amount in command.differences}
    if command.currency != account.currency:
        raise Refused(Refusal.CURRENCY_MISMATCH)
    prefix = f"{command.rerate}/{command.price}/"  # of the ids of its lines; then the period's start
    if any(name.startswith(prefix) for name in account.lines):
        raise Refused(Refusal.LINE_EXISTS)
    asked = Rerating(command.version, command.from_us, command.to_us)
    found = differences(account, command.price, asked, book, log_time_us)
    amounts = {each.period_us: each.amount for each in found if each.amount}
    if stated != amounts:
        raise Refused(Refusal.RERATE_CHANGED)
    if not amounts:
        raise Refused(Refusal.NO_DIFFERENCE)
    if len(account.lines) + len(amounts) > LINES_MAX:
        raise Refused(Refusal.TOO_MANY_LINES)
    if not says_why(command.reason, command.by):
        raise Refused(Refusal.NO_REASON)
    segment_us, _ = account.segment_around(log_time_us)
    why = command.reason, command.by
    return account.add_lines(
        {
            f"{prefix}{period_us}": ManualLine(log_time_us, segment_us, period_us, command.price, amount, *why, asked)
            for period_us, amount in amounts.items()
        },
        log_time_us,
    )
