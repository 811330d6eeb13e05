"""What is spent beyond a cap in its month, and is not owed."""

from loadtest.oracle.accounts import Account, Waiver
from loadtest.oracle.contract import VersionAt
from loadtest.oracle.credit import Amounts
from loadtest.oracle.period_lines import closings
from loadtest.oracle.periods import period_of


def waive(account: Account, version_at: VersionAt, log_us: int, cap: str, amount: int | None) -> None:
    """All periods that are open have this cap from now on, and those that are closed what they had."""
    first_open = next(start for closes, start in closings(account, version_at) if closes > log_us)
    account.waivers = [each for each in account.waivers if each.start < first_open]
    if amount is not None or in_force(account, first_open) is not None:
        account.waivers.append(Waiver(first_open, cap, amount))


def in_force(account: Account, instant: int) -> Waiver | None:
    last = max((each for each in account.waivers if each.start <= instant), default=None, key=lambda each: each.start)
    return None if last is None or last.amount is None else last


def owed(account: Account, amounts: Amounts) -> Amounts:
    """In each month, price by price in order of their names, what there is up to the cap."""
    owed_in: dict[int, int] = {}
    found: Amounts = {}
    for segment in sorted(amounts):
        month, waiver = period_of(account.zone, 1, segment), in_force(account, segment)
        for price, amount in sorted(amounts[segment].items()):
            if waiver is not None and waiver.amount is not None:
                amount = min(amount, max(0, waiver.amount - owed_in.get(month, 0)))
            owed_in[month] = owed_in.get(month, 0) + amount
            found.setdefault(segment, {})[price] = amount
    return found


def waived(account: Account, amounts: Amounts) -> dict[tuple[int, str], int]:
    """By period and price, all that is not owed."""
    found: dict[tuple[int, str], int] = {}
    for segment, prices in owed(account, amounts).items():
        for price, amount in prices.items():
            place = account.period_of(segment), price
            found[place] = found.get(place, 0) + amounts[segment][price] - amount
    return found
