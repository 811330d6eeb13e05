"""What goes out on the topic `costs`: a line for each execution and hour, and for each window, that changed."""

from typing import Final

import msgspec
from msgspec import Struct

from engine.cost.replica import RequestCost, WindowCost
from engine.cost.served import Status
from engine.cost.window import Bucket
from engine.money import amount_text

PROFILED: Final = "profiled"
EQUAL: Final = "equal"


class RequestLine(Struct, tag_field="kind", tag="request", frozen=True, gc=False):
    """What an execution cost in one hour. It takes the place of every line of a lower (epoch, seq) with the same
    (replica, request, attempt, hour_us)."""

    replica: str
    request: str
    attempt: int
    hour_us: int
    amount: str | None  # decimal text; null: not known
    change: str  # to what this owner told before
    currency: str | None
    settled: bool
    method: str
    account: str | None
    scope: str
    feature: str | None
    model: str
    status: Status
    prompt: int
    cached: int
    output: int
    epoch: int
    seq: int
    run: str | None = None


class WindowLine(Struct, tag_field="kind", tag="window", frozen=True, gc=False):
    """What a replica cost in one window. It takes the place of those of a lower (epoch, seq)."""

    replica: str
    window_us: int
    cost: str | None
    buckets: dict[Bucket, str]
    currency: str | None
    settled: bool
    epoch: int
    seq: int


_encoder: Final = msgspec.json.Encoder()
_decoder: Final[msgspec.json.Decoder[RequestLine | WindowLine]] = msgspec.json.Decoder(RequestLine | WindowLine)


def request_line(cost: RequestCost, currency: str | None, epoch: int, seq: int) -> bytes:
    """One line of JSON, without its end. `epoch` and `seq` are those of the checkpoint that it belongs to."""
    served = cost.served
    amount = None if cost.amount is None else amount_text(cost.amount)
    # Most are told once, and the change is all of it.
    change = amount if amount is not None and cost.change == cost.amount else amount_text(cost.change)
    return _encoder.encode(
        RequestLine(
            served.replica,
            served.request,
            served.attempt,
            cost.hour_us,
            amount,
            change,
            currency,
            cost.settled,
            PROFILED if cost.profiled else EQUAL,
            served.account,
            served.scope,
            served.feature,
            served.model,
            served.status,
            served.prompt,
            served.cached,
            served.output,
            epoch,
            seq,
            served.run,
        )
    )


def window_line(cost: WindowCost, currency: str | None, epoch: int, seq: int) -> bytes:
    """One line of JSON, without its end."""
    total = None if cost.cost is None else amount_text(cost.cost)
    buckets = {bucket: amount_text(amount) for bucket, amount in cost.buckets.items()}
    return _encoder.encode(WindowLine(cost.replica, cost.begin_us, total, buckets, currency, cost.settled, epoch, seq))


def parse_line(line: bytes) -> RequestLine | WindowLine:
    """A line of the topic. Raises msgspec.MsgspecError for what is none."""
    return _decoder.decode(line)
