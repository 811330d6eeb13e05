"""Margin floors: what the margin of a model, a plan or a customer must not fall below, looked at hour by hour.

Each hour is looked at once, when its costs have settled; so a crossing is one of an hour, and has one id. An hour without
revenue, or with a request whose cost is not known, says nothing: the floor stands as it stood (R7)."""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.alerts import Level, Phase, Standing, step
from engine.cost.margin import Margin
from engine.money import amount_text

FLOORS_MAX: Final = 1_000
PERMILLE_MIN: Final = -1_000_000

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Of(StrEnum):
    """What a floor is of."""

    MODEL = "model"
    PLAN = "plan"
    ACCOUNT = "account"


class Floor(Struct, frozen=True):
    """A floor, and how it stands. Thousandths of the revenue."""

    floor: _Name
    of: Of
    subject: _Name
    permille: int
    clear_permille: int  # from here on it has recovered; at least `permille`
    level: Level
    standing: Standing = Standing()
    next_us: int = 0  # the hour to be looked at next begins here
    last_us: int | None = None  # the last hour that said something, and what its margin was
    last_permille: int | None = None


class FloorAlert(Struct, frozen=True):
    """A crossing or a recovery."""

    alert_id: str
    body: bytes


class Sight(Struct, frozen=True):
    """What an hour says of a floor."""

    standing: Standing
    permille: int | None = None  # None: it says nothing
    alert: FloorAlert | None = None


class _Data(Struct):
    account: str  # "": it is the seller's; no customer's endpoint hears of it
    rule: str  # the floor's name
    of: Of
    subject: str
    hour: str
    ordinal: int
    level: str
    percent: str
    floor_percent: str
    currency: str
    revenue: str
    cost: str
    requests: int


class _Body(Struct):
    id: str
    type: str
    data: _Data


def look(floor: Floor, hour_us: int, sums: Iterable[tuple[str, Margin]]) -> Sight:
    """How the floor stands behind this hour, whose sums are by currency: the least margin of them counts."""
    known: list[tuple[int, str, Margin]] = []
    for currency, each in sums:
        if each.cost is None:
            return Sight(floor.standing)
        if each.permille is not None:
            known.append((each.permille, currency, each))
    if not known:
        return Sight(floor.standing)
    permille, currency, worst = min(known, key=lambda found: found[:2])
    standing, phase = step(floor.standing, reached=permille < floor.permille, cleared=permille >= floor.clear_permille)
    alert = None
    if phase is not None:
        alert = _alert(replace(floor, standing=standing), phase, hour_us, permille, currency, worst)
    return Sight(standing, permille, alert)


def _alert(floor: Floor, phase: Phase, hour_us: int, permille: int, currency: str, sums: Margin) -> FloorAlert:
    ordinal = floor.standing.ordinal
    text = "\x00".join((floor.floor, str(hour_us), str(ordinal), phase))
    alert_id = "margin_" + hashlib.sha256(text.encode()).hexdigest()[:32]
    hour = (_EPOCH + timedelta(microseconds=hour_us)).isoformat().replace("+00:00", "Z")
    data = _Data(
        *("", floor.floor, floor.of, floor.subject, hour, ordinal, floor.level),
        *(percent_text(permille), percent_text(floor.permille), currency),
        *(amount_text(sums.revenue), amount_text(sums.known_cost), sums.requests),
    )
    return FloorAlert(alert_id, msgspec.json.encode(_Body(alert_id, f"margin.{phase}", data)))


def percent_text(permille: int) -> str:
    """Per cent with one digit behind the point."""
    return f"{'-' if permille < 0 else ''}{abs(permille) // 10}.{abs(permille) % 10}"
