"""What teams build where there is no rating engine: patterns, written by us, careful and small. None of them is a product.

They read the same events as ours, at the same price, and keep one cap and one alert threshold per customer.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from loadtest.probes import COST_PICO, TOKENS
from loadtest.workload import EVENT_TYPE

PICO_PER_TOKEN: Final = COST_PICO // TOKENS  # 0.10 USD per million input tokens: what the example catalogue says


class Use(Struct, frozen=True):
    """A usage event and what it costs."""

    account: str
    source: str
    id: str
    pico: int


class Terms(Struct, frozen=True):
    """The same for every customer."""

    cap_pico: int
    alert_pico: int  # told once, when spend has reached it


class Pattern(Protocol):
    """One consumer of the log that answers checks. `take` and `tick` are never called at the same time."""

    every_s: float  # how often `tick` is due

    async def start(self) -> dict[int, int]:
        """Where to go on reading, by partition."""

    async def take(self, uses: Sequence[Use], places: Mapping[int, int]) -> None:
        """These were read, up to these places."""

    async def spent(self, account: str) -> int:
        """What a check sees, in pico."""

    async def tick(self) -> list[str]:
        """The timer's work; the customers whose spend is seen to have reached the threshold for the first time."""

    async def stop(self) -> None: ...


class _Data(Struct):
    input_tokens: int


class _Event(Struct):
    id: str
    source: str
    type: str
    subject: str
    data: _Data


_decode = msgspec.json.Decoder(_Event).decode


def read(value: bytes | None) -> Use | None:
    """The use that a record tells of; None for what is no usage event."""
    try:
        event = _decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if event.type != EVENT_TYPE:
        return None
    return Use(event.subject, event.source, event.id, event.data.input_tokens * PICO_PER_TOKEN)
