"""Corrections at work: what becomes of one, and what it changes in its account (law D3; README, "Corrections"). What a
correction says is in `engine/corrections.py`."""

from collections.abc import Iterator
from typing import NamedTuple

from engine.account import Account, Change, NotThere, TooManyCells
from engine.alerts import CORRECTION_FAILED, Crossing
from engine.catalog import TOO_OLD_US
from engine.corrections import PARKED_BYTES_MAX, Correction, Parked, read_parked
from engine.dedup import OFFSETS, identity
from engine.holds import Hold
from engine.metering import Metered, Metering, scopes_of
from engine.meters import Forgotten, NotCounted, TooManyValues, tags_of
from engine.outcomes import DeadLetter, DeadLetterReason, Line

Known = tuple[bytes, int] | None  # of an identity in the duplicate memory: mark, and offset modulo 2^32


class Identities(NamedTuple):
    """By which the duplicate memory knows what a correction is about."""

    corrected: bytes  # the revision that it corrects
    next: bytes  # the revision behind that
    cancelled: bytes  # that the event is cancelled


class Step(NamedTuple):
    """What is taken back, or put in its place, and what that charges."""

    time_us: int  # the instant it is rated at
    version: int  # in force then
    dimensions: tuple[tuple[str, ...], ...]  # names of each line's cell
    estimated: bool
    tags: dict[str, str] | None
    lines: tuple[Line, ...]


class Corrected(NamedTuple):
    """What a correction has changed. `made`: identity and mark of the next revision, or of that the event is cancelled."""

    correction: Correction
    hold: Hold | None
    made: tuple[bytes, bytes]
    steps: list[Step]
    crossings: list[Crossing]


def identities(account: str, correction: Correction) -> Identities:
    return Identities(*(identity(account, correction.original.source, name) for name in correction.names))


def rated_at(correction: Correction, known: tuple[bytes, int], following: Known, cancelled: Known) -> int | None:
    """Where the revision that it corrects was rated, modulo 2^32; None if the same was corrected before. Raises DeadLetter."""
    original, amended = correction.original, correction.amended
    if known[0] != correction.mark:
        raise _mismatch(correction)
    made = cancelled if amended is None else following
    if made is not None and (amended is None or made[0] == correction.becomes):
        return None
    if following is not None or cancelled is not None:
        what = "amended" if following else "cancelled"
        detail = f"revision {correction.revision} of event {original.id!r} was {what} before"
        raise DeadLetter(DeadLetterReason.SUPERSEDED, detail)
    return known[1]


def park(account: Account, correction: Correction, value: bytes) -> bool:
    """Keep the record `value` until what it corrects is rated; False if it waits already. Raises DeadLetter."""
    original, mark = correction.original, identities(account.account, correction).corrected
    if mark in account.parked:
        other = read_parked(account.account, account.parked[mark])
        if (other.kind, other.mark, other.becomes) == (correction.kind, correction.mark, correction.becomes):
            return False
        raise DeadLetter(
            DeadLetterReason.SUPERSEDED, f"another correction of event {original.id!r} waits for it already"
        )
    if sum(len(parked.value) for parked in account.parked.values()) + len(value) > PARKED_BYTES_MAX:
        detail = f"more than {PARKED_BYTES_MAX} bytes of corrections would wait; send the events first"
        raise DeadLetter(DeadLetterReason.TOO_MANY_PARKED, detail)
    assert original.time_us is not None, "time_of comes first"
    account.park(mark, Parked(original.time_us + TOO_OLD_US + 1, value))
    return True


def correct(
    account: Account, correction: Correction, metering: Metering, rated: int, offset: int, log_time_us: int
) -> Corrected:
    """Take the original back, which was rated at the offset `rated` (modulo 2^32), and add what it is amended to. Raises
    DeadLetter, having changed nothing."""
    original, amended = correction.original, correction.amended
    rated = offset - (offset - rated) % OFFSETS
    hold = metering.hold_of(account.account, original)
    found: list[tuple[Metered, dict[str, str] | None, Change]] = []
    for event, sign, until in ((original, -1, rated), (amended, 1, offset)):
        if event is not None:
            metered = metering.metered(account.contract, event, hold)
            _can_be_taken_back(original.id, metered)
            usages = [(price, cell, sign * quantity) for price, cell, quantity in metered.usages]
            scopes = scopes_of(account.scopes, event, hold)
            scopes = tuple(scope for scope in scopes if account.scopes[scope].since < until)
            change = Change(metered.time_us, usages, scopes, until, metered.readings, sign < 0)
            found.append((metered, tags_of(event.data), change))
    try:
        charged, crossings = account.change([change for *_, change in found], log_time_us)
    except TooManyCells as error:
        raise DeadLetter(DeadLetterReason.TOO_MANY_CELLS, str(error)) from None
    except TooManyValues as error:
        raise DeadLetter(DeadLetterReason.TOO_MANY_VALUES, str(error)) from None
    except Forgotten as error:
        detail = f"event {original.id!r}: {error}; its meter may keep more change_points"
        raise DeadLetter(DeadLetterReason.NOT_CANCELLABLE, detail) from None
    except (NotThere, NotCounted):
        raise _mismatch(correction) from None
    about = identities(account.account, correction)
    made = about.cancelled if amended is None else about.next, correction.becomes
    steps = [
        Step(metered.time_us, metered.catalogue.version, metered.dimensions, metered.estimated, tags, lines)
        for (metered, tags, _), lines in zip(found, charged, strict=True)
    ]
    return Corrected(correction, hold, made, steps, crossings)


def take_up(
    account: Account, made: tuple[bytes, bytes], metering: Metering, offset: int, log_time_us: int
) -> Iterator[Corrected | Correction]:
    """A revision was rated, at this offset: apply the correction that waits for it, then the one that waits for what that
    makes, and so on. One that cannot be applied is the last. They need no look into the memory: nothing was known of
    them."""
    key, mark = made
    while (parked := account.parked.pop(key, None)) is not None:
        correction = read_parked(account.account, parked)
        try:
            if correction.mark != mark:
                raise _mismatch(correction)
            done = correct(account, correction, metering, offset, offset, log_time_us)
        except DeadLetter:
            yield correction
            return
        yield done
        if correction.amended is None:
            return
        key, mark = done.made


def failed(account: str, correction: Correction) -> Crossing:
    """What is told of a parked correction that is dropped."""
    window = f"{correction.original.source}\x00{correction.original.id}"
    return Crossing(account, CORRECTION_FAILED, window, correction.revision + 1, "crossed", None, None)


def _can_be_taken_back(name: str, metered: Metered) -> None:
    if metered.heard:
        sessions = ", ".join(f"session {each.session!r} of {each.meter}" for each in metered.heard)
        detail = f"event {name!r} tells of {sessions}; a later stop, or another level, corrects that"
        raise DeadLetter(DeadLetterReason.NOT_CANCELLABLE, detail)


def _mismatch(correction: Correction) -> DeadLetter:
    detail = f"event {correction.original.id!r} was rated with other billing fields than data.original has"
    return DeadLetter(DeadLetterReason.CORRECTION_MISMATCH, detail)
