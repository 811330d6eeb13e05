"""What crosses a shard's door, as far as an application asks: frames of msgpack, pipelined, answered in any order.

A frame is a 4-byte big-endian length and a body. The first frame is `Hello`, answered by `Welcome` or by closing; every
other is `Asked`, answered by `Answered` of the same number. Deadlines are intervals, so that no two clocks are compared.
"""

from typing import Final

import msgspec
from msgspec import Struct

PROTOCOL: Final = 1
LENGTH_BYTES: Final = 4
REPLY_BYTES_MAX: Final = 8 * 1024 * 1024


class Hello(Struct, array_like=True):
    protocol: int
    token: str


class Welcome(Struct, array_like=True):
    protocol: int
    incarnation: str


class FieldLimit(Struct, array_like=True):
    fields: tuple[str, ...]
    up_to: str


class CheckQuestion(Struct, tag_field="op", tag="check"):
    account: str
    scope: str
    type: str | None
    data: dict[str, str]
    reach: dict[str, tuple[str, ...]]
    bounds: tuple[FieldLimit, ...]
    n: int
    feature: str | None
    ttl_ms: int | None


class ExtendQuestion(Struct, tag_field="op", tag="extend"):
    token: str
    ttl_ms: int
    bounds: tuple[FieldLimit, ...]


class ReleaseQuestion(Struct, tag_field="op", tag="release"):
    token: str


class BalanceQuestion(Struct, tag_field="op", tag="balance"):
    account: str


Question = CheckQuestion | ExtendQuestion | ReleaseQuestion | BalanceQuestion


class Asked(Struct, array_like=True):
    number: int
    within_ms: int
    question: Question


class DoorAsOf(Struct):
    partition: int
    epoch: int
    offset: int
    log_time_us: int
    lag_records: int | None


class WalletView(Struct):
    currency: str
    booked: str
    held: str
    available: str
    overdraft: str | None


class BindingView(Struct):
    kind: str
    scope: str
    name: str
    remaining: str | None
    frees_in_ms: int | None
    unit: str = ""


class HoldView(Struct):
    id: str
    token: str
    valid_for_ms: int
    expires_in_ms: int


class Checked(Struct, tag_field="op", tag="checked"):
    allowed: bool
    as_of: DoorAsOf
    reason: str | None = None
    transient: bool = False
    retry_after_ms: int | None = None
    binding: BindingView | None = None
    wallet: WalletView | None = None
    price: str | None = None
    version: int | None = None
    feature: bool | str | None = None
    hold: HoldView | None = None
    entitlement: BindingView | None = None


class ReleasedView(Struct, tag_field="op", tag="released"):
    was_open: bool
    as_of: DoorAsOf


class WorthView(Struct):
    """What credits are worth in a currency."""

    currency: str
    amount: str  # for so many of them:
    per: str
    booked: str
    held: str
    available: str


class BalanceView(Struct, tag_field="op", tag="balance"):
    wallet: WalletView
    as_of: DoorAsOf
    worth: WorthView | None = None  # of an account that is billed in a unit of credit


class NoAccount(Struct, tag_field="op", tag="not_found"):
    as_of: DoorAsOf


class WrongOwner(Struct, tag_field="op", tag="wrong_owner"):
    partition: int


class NotReady(Struct, tag_field="op", tag="recovering"):
    partition: int
    retry_after_ms: int
    booked: str | None = None


class BadQuestion(Struct, tag_field="op", tag="bad_question"):
    field: str
    detail: str


class TooLate(Struct, tag_field="op", tag="too_late"):
    pass


Answer = Checked | ReleasedView | BalanceView | NoAccount | WrongOwner | NotReady | BadQuestion | TooLate


class Answered(Struct, array_like=True):
    number: int
    answer: Answer


_encoder: Final = msgspec.msgpack.Encoder()
welcome_decoder: Final = msgspec.msgpack.Decoder(Welcome)
answered_decoder: Final = msgspec.msgpack.Decoder(Answered)


def frame(message: Struct) -> bytes:
    """A message with its length in front."""
    body = _encoder.encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


class BadFrame(ValueError):
    """The other side sent what no door would send."""


class Frames:
    """Cuts a stream of bytes into the bodies of frames."""

    def __init__(self) -> None:
        self._rest = bytearray()  # of a frame that has begun

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that are complete by now. Raises BadFrame."""
        rest = self._rest
        if rest:
            rest += data
        stream = rest or data  # mostly whole frames come, and nothing is copied but their bodies
        bodies = []
        start, have = 0, len(stream)
        while have - start >= LENGTH_BYTES:
            length = int.from_bytes(stream[start : start + LENGTH_BYTES], "big")
            if not 0 < length <= REPLY_BYTES_MAX:
                raise BadFrame(f"a frame of {length} bytes")
            end = start + LENGTH_BYTES + length
            if have < end:
                break
            bodies.append(bytes(stream[start + LENGTH_BYTES : end]))
            start = end
        if rest:
            del rest[:start]
        elif start < have:
            rest += data[start:]
        return bodies
