"""What stands in a record of the topic `served`: one execution of a request on a replica, and how replicas come and go.

Wire format: README.md, "Cost". A producer is the inference server, or whoever reads its answers; nothing here rates.
"""

from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Struct

from engine.events import TEXT_MAX, VALUE_BYTES_MAX, Malformed, is_scope

DAY_US: Final = 86_400_000_000
SPAN_US_MAX: Final = DAY_US  # of one execution: longer, and its windows could not all stay open
TIME_US_MAX: Final = 1 << 52  # beyond the year 2100: a producer that sends nanoseconds is told so
TOKENS_MAX: Final = 1_000_000_000
ATTEMPTS_MAX: Final = 1_000
SEQ_MAX: Final = 1_000_000_000
GPUS_MAX: Final = 1_024
PARTS_MAX: Final = 64  # a GPU is cut into at most seven instances today
REPLICA_BYTES_MAX: Final = 256  # it is the record's key

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_MAX)]
_Instant = Annotated[int, msgspec.Meta(ge=0, le=TIME_US_MAX)]
_Tokens = Annotated[int, msgspec.Meta(ge=0, le=TOKENS_MAX)]
_Seq = Annotated[int, msgspec.Meta(ge=0, le=SEQ_MAX)]


class Status(StrEnum):
    """How an execution ended. Whatever it is, the GPU time was spent."""

    OK = "ok"
    ABORTED = "aborted"  # the caller went away, or stopped it
    FAILED = "failed"
    RUNNING = "running"  # not ended yet: `last_us` is how far it is known


class Served(Struct, tag_field="kind", tag="served", forbid_unknown_fields=True, frozen=True, gc=False):
    """One execution of a request on one replica, in [scheduled_us, last_us). Instants are microseconds since 1970 UTC.

    Of the records with one identity (request, replica, attempt) the one with the highest `seq` counts."""

    request: _Name  # the id of the usage event that bills it
    replica: _Name
    model: _Name
    scheduled_us: _Instant  # it left the queue; waiting costs nothing
    first_us: _Instant | None  # its first token; None: there was none
    last_us: _Instant  # its last token, or when it was stopped
    prompt: _Tokens  # all tokens of the prompt
    cached: _Tokens = 0  # of these, not computed anew
    output: _Tokens = 0
    status: Status = Status.OK
    account: _Name | None = None  # who pays; None: nobody is known to have asked
    scope: str = ""
    feature: _Name | None = None
    attempt: Annotated[int, msgspec.Meta(ge=0, le=ATTEMPTS_MAX)] = 0  # on this replica
    seq: _Seq = 0
    run: _Name | None = None  # that it belongs to: of an agent, say, whose requests are billed as one


class GpuPart(Struct, forbid_unknown_fields=True, frozen=True, gc=False):
    """What of a GPU belongs to a replica: all of it, or the parts [begin, end) of the `of` that it is cut into (MIG).

    Where the parts lie matters to the last pico only: adjoining ones add up to the GPU's cost exactly."""

    gpu: _Name  # its UUID, as the telemetry names it
    kind: _Name  # what the rates have an amount for, such as "h100-sxm"
    begin: Annotated[int, msgspec.Meta(ge=0, lt=PARTS_MAX)] = 0
    end: Annotated[int, msgspec.Meta(ge=1, le=PARTS_MAX)] = 1
    of: Annotated[int, msgspec.Meta(ge=1, le=PARTS_MAX)] = 1


class ReplicaUp(Struct, tag_field="kind", tag="replica", forbid_unknown_fields=True, frozen=True, gc=False):
    """A replica holds GPUs in [up_us, down_us), and takes requests from ready_us on.

    Of the records with one identity (replica, up_us) the one with the highest `seq` counts."""

    replica: _Name
    model: _Name
    gpus: Annotated[tuple[GpuPart, ...], msgspec.Meta(min_length=1, max_length=GPUS_MAX)]
    up_us: _Instant
    ready_us: _Instant | None = None  # None: not yet
    down_us: _Instant | None = None  # None: it still runs
    seq: _Seq = 0


_decoder: Final[msgspec.json.Decoder[Served | ReplicaUp]] = msgspec.json.Decoder(Served | ReplicaUp)


def parse_served(value: bytes | None, key: bytes | None) -> Served | ReplicaUp:
    """The record of the topic `served`; its key is the replica. Raises Malformed, naming the field."""
    if value is None or len(value) > VALUE_BYTES_MAX:
        raise Malformed(f"a record of {0 if value is None else len(value)} bytes: 1 to {VALUE_BYTES_MAX} are taken")
    try:
        record = _decoder.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Malformed(str(error)[:200]) from error
    if key is None or key != record.replica.encode() or len(key) > REPLICA_BYTES_MAX:
        raise Malformed(
            f"the key is not the replica {record.replica[:40]!r}, of at most {REPLICA_BYTES_MAX} bytes: send it as the key"
        )
    if b"\\u0000" in value:
        raise Malformed("a text has a NUL character")
    if isinstance(record, Served):
        _check_served(record)
    else:
        _check_replica(record)
    return record


def _check_served(record: Served) -> None:
    begun = record.scheduled_us if record.first_us is None else record.first_us
    if not record.scheduled_us <= begun <= record.last_us:
        raise Malformed("scheduled_us, first_us and last_us do not follow each other")
    if record.last_us - record.scheduled_us > SPAN_US_MAX:
        raise Malformed(f"last_us is more than {SPAN_US_MAX} us behind scheduled_us")
    if record.cached > record.prompt:
        raise Malformed(f"cached: {record.cached} of {record.prompt} tokens of the prompt")
    if record.output and record.first_us is None:
        raise Malformed("output: there are tokens, and first_us says that there was none")
    if record.scope and not is_scope(record.scope):
        raise Malformed(f"scope {record.scope[:40]!r} is not a path of 1 to 8 parts of A-Z a-z 0-9 . _ : @ -")
    if record.scope and record.account is None:
        raise Malformed("scope: a path without its account")


def _check_replica(record: ReplicaUp) -> None:
    down = TIME_US_MAX if record.down_us is None else record.down_us
    ready = record.up_us if record.ready_us is None else record.ready_us
    if not record.up_us <= ready <= down:
        raise Malformed("up_us, ready_us and down_us do not follow each other")
    for part in record.gpus:
        if not part.begin < part.end <= part.of:
            raise Malformed(f"gpus: {part.gpu[:40]!r} has the parts from {part.begin} to {part.end} of {part.of}")
    if len({(part.gpu, part.begin) for part in record.gpus}) < len(record.gpus):
        raise Malformed("gpus: a part is named twice")


_encoder: Final = msgspec.json.Encoder()


def encode_served(record: Served | ReplicaUp) -> tuple[bytes, bytes]:
    """(key, value) as `parse_served` takes them. Raises Malformed for what it would refuse."""
    key, value = record.replica.encode(), _encoder.encode(record)
    parse_served(value, key)
    return key, value
