"""Rules and their crossings: one id per crossing, told again with the same id however often it is replayed (law A1).

What a rule's measure comes to is worked out in `engine/measures.py`."""

import hashlib
from typing import Final, Literal

import msgspec
from msgspec import Struct

from engine.money import amount_text, quantity_text

WALLET_WINDOW: Final = "-"
PERCENT_MAX: Final = 1000
ID_CONFLICT: Final = "id_conflict"
CORRECTION_FAILED: Final = "correction_failed"

LEVELS: Final = ("info", "warning", "critical")

Phase = Literal["crossed", "recovered", "requested"]  # requested: credit (engine/top_up.py)
Level = Literal["info", "warning", "critical"]


# ------------------------------------------------------------------------------- what a rule looks at: README, "Rules"


class CapShare(Struct, frozen=True, array_like=True, tag="cap_percent"):
    """What a cap has counted, as percent of it, in each of its windows."""

    cap: str


class Counted(Struct, frozen=True, array_like=True, tag="counted"):
    """What the rule has counted itself, in each of its windows; it has a count for that (engine/limits.py, `own_count`)."""


class Spike(Struct, frozen=True, array_like=True, tag="spike"):
    """What the rule has counted itself in the bucket of this moment, as percent of an average bucket before it."""


class Wallet(Struct, frozen=True, array_like=True, tag="balance"):
    """The balance."""


class IncludedShare(Struct, frozen=True, array_like=True, tag="included_percent"):
    """What is used of a price in each billing period, as percent of the quantity that it includes."""

    price: str


class CommitmentShare(Struct, frozen=True, array_like=True, tag="commitment_percent"):
    """What the usage of a billing period comes to of what the period commits to, as percent of it. The commitment is one of
    the plan, or that of the price of this name."""

    commitment: str


class LotShare(Struct, frozen=True, array_like=True, tag="lot_percent"):
    """What usage and voids have left of a lot, as percent of what it was granted."""

    lot: str


class Expiring(Struct, frozen=True, array_like=True, tag="expiring"):
    """What is left of each lot that expires in `within_us` or less."""

    within_us: int


Measure = CapShare | Counted | Spike | Wallet | IncludedShare | CommitmentShare | LotShare | Expiring


class Rule(Struct, frozen=True):
    """Active once its measure is at or above `threshold`, until it is below `clear`; where it `falls`, once it is at or
    below, until it is above. Both are pico or nano-units; of a measure in percent, whole percents."""

    measure: Measure
    threshold: int
    clear: int
    falls: bool = False
    level: Level = "warning"

    def limits(self, whole: int | None) -> tuple[int, int]:
        """(threshold, clear) in the measure's unit, where `whole` is 100 percent; None: it is not in percent."""
        if whole is None:
            return self.threshold, self.clear
        if self.falls:
            return whole * self.threshold // 100, whole * self.clear // 100
        return -(-whole * self.threshold // 100), -(-whole * self.clear // 100)


class Standing(Struct, frozen=True):
    """How a rule stands in one window. The ordinal counts crossings and never decreases."""

    ordinal: int = 0
    active: bool = False


class Crossing(Struct, frozen=True):
    """A rule became active, or cleared; or credit is asked for. `value` and `threshold` are pico, or nano-units of the
    meter or price that `unit` names (None for what is told of one event, and of a rule that looks at something else from
    now on)."""

    account: str
    rule: str
    window: str
    ordinal: int
    phase: Phase
    value: int | None
    threshold: int | None
    unit: str = ""
    level: Level = "warning"
    amount: int | None = None  # pico that are asked for
    attempt: int | None = None  # how often in a row

    @property
    def alert_id(self) -> str:
        text = "\x00".join((self.account, self.rule, self.window, str(self.ordinal), self.phase))
        return ("topup_" if self.phase == "requested" else "alert_") + hashlib.sha256(text.encode()).hexdigest()[:32]


class _AlertData(Struct, omit_defaults=True):
    account: str
    rule: str
    window: str
    ordinal: int
    level: str
    sequence: int
    value: str | None
    threshold: str | None
    currency: str | None
    unit: str | None
    partition: int
    offset: int
    log_time_us: int
    amount: str | None = None
    attempt: int | None = None


class _AlertBody(Struct):
    id: str
    type: str
    data: _AlertData


def alert_body(
    crossing: Crossing, *, sequence: int, currency: str | None, partition: int, offset: int, log_time_us: int
) -> bytes:
    """The JSON that is signed and sent. `sequence` grows by one per alert of the account: receivers drop older ones."""
    text = quantity_text if crossing.unit else amount_text
    return msgspec.json.encode(
        _AlertBody(
            id=crossing.alert_id,
            type=f"{'top_up' if crossing.phase == 'requested' else 'alert'}.{crossing.phase}",
            data=_AlertData(
                account=crossing.account,
                rule=crossing.rule,
                window=crossing.window.replace("\x00", "\n"),
                ordinal=crossing.ordinal,
                level=crossing.level,
                sequence=sequence,
                value=None if crossing.value is None else text(crossing.value),
                threshold=None if crossing.threshold is None else text(crossing.threshold),
                currency=None if crossing.unit else currency,
                unit=crossing.unit or None,
                partition=partition,
                offset=offset,
                log_time_us=log_time_us,
                amount=None if crossing.amount is None else amount_text(crossing.amount),
                attempt=crossing.attempt,
            ),
        )
    )


def step(standing: Standing, *, reached: bool, cleared: bool) -> tuple[Standing, Phase | None]:
    """The next standing, and what to tell. `reached` and `cleared` are never both true."""
    if not standing.active and reached:
        return Standing(standing.ordinal + 1, True), "crossed"
    if standing.active and cleared:
        return Standing(standing.ordinal, False), "recovered"
    return standing, None
