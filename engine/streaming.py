"""What becomes of an event of a stream: it takes the place of the one before it (README, "Streams"). What an account keeps of
streams is in `engine/streams.py`."""

from typing import NamedTuple

from engine.account import Account, Change, NotThere, TooManyCells
from engine.alerts import Crossing
from engine.catalog import PriceBook
from engine.correcting import Step
from engine.events import UsageEvent
from engine.holds import Hold
from engine.metering import Metered, used_of
from engine.meters import tags_of
from engine.outcomes import DeadLetter, DeadLetterReason
from engine.streams import Name, Part, Stream


class Said(NamedTuple):
    """An event of a stream, as it is to be rated at this offset."""

    event: UsageEvent
    mark: bytes  # its fingerprint
    hold: Hold | None
    metered: Metered
    scopes: tuple[str, ...]  # declared ones below the root
    offset: int

    @property
    def name(self) -> Name:
        return Name(self.event.type, self.event.source, self.event.id)

    def stream(self, until_us: int, revision: int = 0) -> Stream:
        """What counts of the stream now. It stays open until that log time."""
        assert self.event.seq is not None
        return Stream(
            *(self.event.seq, revision, self.mark, until_us, self.metered.time_us, self.offset, self.scopes),
            tuple(Part(price.name, cell, quantity) for price, cell, quantity in self.metered.usages),
            None if self.hold is None else self.hold.id,
            self.metered.estimated,
            tags_of(self.event.data),
        )


def take_the_place(
    account: Account, book: PriceBook, stream: Stream, said: Said, log_time_us: int
) -> tuple[list[Step], list[Crossing]]:
    """Take out of the table what it has of the stream, and put in what the event says. Raises DeadLetter, having changed
    nothing."""
    price_at = account.contract.prices_at(book)
    then = book.at(stream.time_us)
    assert then is not None, "it was rated by it"
    back = [(price_at(stream.time_us, part.price), part.cell, -part.quantity) for part in stream.parts]
    metered = said.metered
    changes = (
        Change(stream.time_us, back, stream.scopes, stream.offset),
        Change(metered.time_us, metered.usages, said.scopes, said.offset),
    )
    try:
        (taken, added), crossings = account.change(changes, log_time_us)
    except TooManyCells as error:
        raise DeadLetter(DeadLetterReason.TOO_MANY_CELLS, str(error)) from None
    except NotThere as error:
        raise DeadLetter(DeadLetterReason.CORRECTION_MISMATCH, str(error)) from None
    names = tuple(then.meters[price.meter].group_by for price, _, _ in back)
    tags = tags_of(said.event.data)
    steps = [
        Step(stream.time_us, then.version, names, stream.estimated, stream.tags, taken),
        Step(metered.time_us, metered.catalogue.version, metered.dimensions, metered.estimated, tags, added),
    ]
    return steps, crossings


def drawn(stream: Stream, metered: Metered) -> dict[str, int]:
    """By price, what the event draws on its hold beyond what the stream has drawn by now; never less than nothing."""
    used = used_of(metered)
    for part in stream.parts:
        used[part.price] = used.get(part.price, 0) - part.quantity
    return {price: max(0, quantity) for price, quantity in used.items()}
