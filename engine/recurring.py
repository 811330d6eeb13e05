"""Recurring grants (law C3): what an account is granted anew in each period, and which lots follow from that by a log time
(README, "Recurring grants")."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from engine.contract import Contract
from engine.credit import DAY_US, Carry, Lot, carried
from engine.periods import EPOCH, month_around, week_around, zone_of

AHEAD_US: Final = 300_000_000  # as far as usage may be ahead of log time: a lot is there before anything it can pay

LOTS_A_YEAR_MAX: Final = 120  # of one account: each lot stays, and who pays is worked out of all that there were

Every = Literal["period", "month", "week"]


class Recurring(Struct, frozen=True):
    """What is granted in each period. No lot begins before `next_us`: the start of the first period that has not had
    its own, or the instant at which the grant was set."""

    name: str
    every: Every
    next_us: int
    kind: str
    amount: int  # pico
    priority: int
    scope: tuple[str, ...]
    pays_debt: bool
    expires: bool  # False: its lots never do
    days: int | None = None  # of 24 hours that a lot lives; None: to the end of its period
    rollover: tuple[int, int, int | None] | None = None  # percent, days, cap in pico

    def around(self, contract: Contract, time_us: int) -> tuple[int, int]:
        """[start, end) of the period in which an instant lies; of billing periods as they are without changes of the plan."""
        match self.every:
            case "period":
                return month_around(contract.zone, contract.anchor_day, time_us)
            case "month":
                return month_around(contract.zone, 1, time_us)
            case "week":
                return week_around(contract.zone, time_us)

    @property
    def lots_a_year(self) -> int:
        """At most; what is carried is a lot too."""
        return (53 if self.every == "week" else 12) * (1 if self.rollover is None else 2)

    def lots(self, zone: str, period: tuple[int, int], effective_us: int) -> list[Lot]:
        """Of a period: the lot, and the one that has its rest later."""
        start_us, end_us = period
        ends_us = end_us if self.days is None else effective_us + self.days * DAY_US
        lot = Lot(
            f"{self.name}@{_day(zone, start_us)}",
            self.kind,
            self.amount,
            self.priority,
            effective_us,
            ends_us if self.expires else None,
            self.scope,
            self.pays_debt,
        )
        if self.rollover is None:
            return [lot]
        percent, days, cap = self.rollover
        return [lot, carried(lot, Carry(lot.lot, percent, cap), days)]


def _day(zone: str, instant_us: int) -> str:
    return (EPOCH + timedelta(microseconds=instant_us)).astimezone(zone_of(zone)).date().isoformat()


def is_of(lot: str, recurring: Mapping[str, Recurring]) -> bool:
    """Whether the id is one that a recurring grant may give to a lot."""
    return lot.rpartition("@")[0] in recurring


def due(
    recurring: Mapping[str, Recurring], contract: Contract, lots: Mapping[str, Lot], now_us: int, behind_us: int
) -> tuple[dict[str, Recurring], dict[str, Lot]]:
    """What stands at this log time, and all lots with those that have come into being by it. `behind_us`: the first
    instant behind all usage."""
    after, all_lots = dict(recurring), dict(lots)
    for name, each in recurring.items():
        begins_us = _begins_us(each, contract, behind_us)
        while begins_us is not None and begins_us - AHEAD_US <= now_us:
            period = each.around(contract, begins_us)
            made = {lot.lot: lot for lot in each.lots(contract.zone, period, begins_us)}
            if not made.keys() & all_lots.keys():
                all_lots |= made
            each = replace(each, next_us=period[1])
            begins_us = contract.unpaused_from(each.next_us)
        after[name] = each
    return after, all_lots


def wakes_us(recurring: Mapping[str, Recurring], contract: Contract, behind_us: int) -> list[int]:
    """When the next lots come into being, as far as that is known: by what `due` asks, so behind what it has looked at."""
    begin = (_begins_us(each, contract, behind_us) for each in recurring.values())
    return [begins_us - AHEAD_US for begins_us in begin if begins_us is not None]


def _begins_us(each: Recurring, contract: Contract, behind_us: int) -> int | None:
    """When the next lot of a grant begins; None: nobody has said when the pause ends."""
    return contract.unpaused_from(max(each.next_us, behind_us))
