"""Rules and their crossings: one id per crossing, told again with the same id however often it is replayed (law A1)."""

import hashlib
from typing import Final, Literal

import msgspec
from msgspec import Struct

from engine.money import amount_text, quantity_text

WALLET_WINDOW: Final = "-"
PERCENT_MAX: Final = 1000
ID_CONFLICT: Final = "id_conflict"
CORRECTION_FAILED: Final = "correction_failed"

Phase = Literal["crossed", "recovered"]


class CapPercent(Struct, frozen=True):
    """Active once a cap's spend in a month is at least `percent` of it; clears below `clear_percent`."""

    cap: str
    percent: int
    clear_percent: int


class Balance(Struct, frozen=True):
    """Active once the balance is at or below `threshold`; clears above `clear`. Both in pico."""

    threshold: int
    clear: int


Rule = CapPercent | Balance


class Standing(Struct, frozen=True):
    """How a rule stands in one window. The ordinal counts crossings and never decreases."""

    ordinal: int = 0
    active: bool = False


class Crossing(Struct, frozen=True):
    """A rule became active, or cleared. `value` and `threshold` are pico, or nano-units of the meter or price that `unit`
    names (None for what is told of one event)."""

    account: str
    rule: str
    window: str
    ordinal: int
    phase: Phase
    value: int | None
    threshold: int | None
    unit: str = ""

    @property
    def alert_id(self) -> str:
        text = "\x00".join((self.account, self.rule, self.window, str(self.ordinal), self.phase))
        return "alert_" + hashlib.sha256(text.encode()).hexdigest()[:32]


class _AlertData(Struct):
    account: str
    rule: str
    window: str
    ordinal: int
    sequence: int
    value: str | None
    threshold: str | None
    currency: str | None
    unit: str | None
    partition: int
    offset: int
    log_time_us: int


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
            type=f"alert.{crossing.phase}",
            data=_AlertData(
                account=crossing.account,
                rule=crossing.rule,
                window=crossing.window.replace("\x00", "\n"),
                ordinal=crossing.ordinal,
                sequence=sequence,
                value=None if crossing.value is None else text(crossing.value),
                threshold=None if crossing.threshold is None else text(crossing.threshold),
                currency=None if crossing.unit else currency,
                unit=crossing.unit or None,
                partition=partition,
                offset=offset,
                log_time_us=log_time_us,
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
