"""What is asked, and what is reported."""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Struct, field

from tallygate_sdk.errors import BadEvent

EVENT_BYTES_MAX: Final = 65_536  # of one event, as the service takes it
HOLD_S: Final = 60.0

Quantity = int | str | Decimal  # never a float: what is billed is exact

_encoder: Final = msgspec.json.Encoder(decimal_format="number")
_reader: Final = msgspec.json.Decoder(msgspec.Raw)
_DIGITS_MAX: Final = 64  # beyond it a number is none that the service takes, however it is written


def quantity_text(quantity: Quantity) -> str:
    """Plain digits: Python writes Decimal("0.0000001") with an exponent, which is no quantity to the service."""
    if isinstance(quantity, Decimal) and quantity.is_finite() and abs(quantity.adjusted()) < _DIGITS_MAX:
        return f"{quantity:f}"
    return str(quantity)


def plain_numbers(value: Any) -> Any:
    """The same JSON, with each Decimal in it in plain digits."""
    if isinstance(value, Decimal):
        return msgspec.Raw(quantity_text(value).encode())
    if isinstance(value, Mapping):
        return {name: plain_numbers(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_numbers(each) for each in value]
    return value


class Bound(Struct, frozen=True):
    """The sum of these fields of the usage event's `data` will be at most `up_to`."""

    fields: tuple[str, ...]
    up_to: Quantity


class Check(Struct, frozen=True):
    """May this request run? Without `hold_s` nothing is reserved."""

    account: str  # who pays
    scope: str = ""  # a path inside the account: "team:red/user:ann"
    type: str | None = None  # of the usage event to come
    data: Mapping[str, str] = {}  # its dimensions, as far as they are known
    reach: Mapping[str, tuple[str, ...]] = {}  # the others' possible values
    bounds: tuple[Bound, ...] = ()
    n: int = 1  # how many requests at once
    feature: str | None = None
    hold_s: float | None = None  # reserve what the bounds allow, for so many seconds


def new_id() -> str:
    """An id for a usage event, unlike any other."""
    return uuid.uuid4().hex


def _now() -> datetime:
    return datetime.now(UTC)


class Usage(Struct, frozen=True, kw_only=True):
    """One usage event. (account, source, id) is billed once, however often it is sent."""

    account: str
    type: str
    data: Mapping[str, Any]  # numbers as int, Decimal or text; a float is written as Python shows it
    source: str
    id: str = field(default_factory=new_id)
    time: datetime = field(default_factory=_now)  # when the usage was, with a zone
    scope: str = ""
    hold: str | None = None  # the token of the hold it settles
    final: bool = True  # nothing more will come for that hold
    seq: int | None = None  # which event of its stream it is

    def cloud_event(self) -> bytes:
        """As it crosses the wire. Raises BadEvent."""
        if self.time.tzinfo is None:
            raise BadEvent(f"time of event {self.id!r} has no zone: use datetime.now(UTC)")
        for name, value in (("account", self.account), ("type", self.type), ("source", self.source), ("id", self.id)):
            if not 0 < len(value) <= 256:
                raise BadEvent(f"{name} {value[:40]!r} must have 1 to 256 characters")
        event: dict[str, Any] = {
            "specversion": "1.0",
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "subject": self.account,
            "time": self.time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        }
        if self.scope:
            event["scope"] = self.scope
        if self.hold is not None:
            event["hold"] = self.hold
            event["holdfinal"] = self.final
        if self.seq is not None:
            event["seq"] = self.seq
        try:
            event["data"] = plain_numbers(self.data)
            encoded = _encoder.encode(event)
            _reader.decode(encoded)  # a Decimal may be no number, which would spoil every batch that it is sent in
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise BadEvent(f"data of event {self.id!r} is no JSON: {error}") from None
        if len(encoded) > EVENT_BYTES_MAX:
            raise BadEvent(f"event {self.id!r} has {len(encoded)} bytes; {EVENT_BYTES_MAX} is the limit")
        return encoded
