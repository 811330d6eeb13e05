"""The records of the topic `served`, as they are written. The service refuses what is refused here, and more."""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum

TEXT_MAX = 256


class BadRecord(ValueError):
    """A record that the service would refuse; the message names the field."""


class Status(StrEnum):
    """How an execution ended."""

    OK = "ok"
    ABORTED = "aborted"
    FAILED = "failed"
    RUNNING = "running"


@dataclass(frozen=True)
class Served:
    """One execution of a request on one replica. Instants are microseconds since 1970 UTC."""

    request: str  # the id of the usage event that bills it
    replica: str
    model: str
    scheduled_us: int  # it left the queue
    first_us: int | None  # its first token; None: there was none
    last_us: int  # its last token, or when it was stopped
    prompt: int  # all tokens of the prompt
    cached: int = 0  # of these, not computed anew
    output: int = 0
    status: Status = Status.OK
    account: str | None = None
    scope: str = ""
    feature: str | None = None
    attempt: int = 0  # which execution of the request on this replica
    seq: int = 0  # of the records of one execution the highest counts
    run: str | None = None  # that it belongs to: of an agent, say, whose requests are billed as one

    def encoded(self) -> tuple[bytes, bytes]:
        """(key, value) for Kafka. Raises BadRecord."""
        for name in ("request", "replica", "model"):
            _check_text(name, getattr(self, name))
        if self.run is not None:
            _check_text("run", self.run)
        begun = self.scheduled_us if self.first_us is None else self.first_us
        if not 0 <= self.scheduled_us <= begun <= self.last_us:
            raise BadRecord("scheduled_us, first_us and last_us do not follow each other")
        if not 0 <= self.cached <= self.prompt:
            raise BadRecord(f"cached: {self.cached} of {self.prompt} tokens of the prompt")
        if self.output and self.first_us is None:
            raise BadRecord("output: there are tokens, and no first_us")
        return _encoded("served", self.replica, asdict(self))


@dataclass(frozen=True)
class GpuPart:
    """What of a GPU a replica holds: all of it, or the parts [begin, end) of the `of` that it is cut into (MIG)."""

    gpu: str
    kind: str
    begin: int = 0
    end: int = 1
    of: int = 1


@dataclass(frozen=True)
class ReplicaUp:
    """A replica holds GPUs in [up_us, down_us), and takes requests from ready_us on. None: not yet."""

    replica: str
    model: str
    gpus: tuple[GpuPart, ...]
    up_us: int
    ready_us: int | None = None
    down_us: int | None = None
    seq: int = 0

    def encoded(self) -> tuple[bytes, bytes]:
        """(key, value) for Kafka. Raises BadRecord."""
        for name in ("replica", "model"):
            _check_text(name, getattr(self, name))
        if not self.gpus:
            raise BadRecord("gpus: a replica holds one at least")
        return _encoded("replica", self.replica, asdict(self))


def _check_text(name: str, text: str) -> None:
    if not 1 <= len(text) <= TEXT_MAX or "\0" in text:
        raise BadRecord(f"{name}: {text[:40]!r} is no text of 1 to {TEXT_MAX} characters without NUL")


def _encoded(kind: str, replica: str, fields: dict[str, object]) -> tuple[bytes, bytes]:
    value = json.dumps({"kind": kind} | fields, separators=(",", ":"), ensure_ascii=False)
    return replica.encode(), value.encode()
