"""Was every answer backed by the log? The oracle replays a partition, and stops where the answers say they looked.

An answer states the offset it was given at. There, what it calls booked must be the oracle's balance, as of the record
before or with the time that passed until the next: whoever answers knows by the clock that a lot has begun, and log time
comes with the next record, which an outage may keep away. A hold must lie
within a slice that the log had shown by then under the hold's own epoch, together with all holds of that epoch that
were certainly open; and what a hold's usage came to is read from the log alone.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson
from msgspec import Struct

from loadtest.journal import Decided, Journal
from loadtest.oracle.fold import Oracle
from loadtest.oracle.records import CONTROL_PREFIX, MAC_BYTES, HoldToken, fixed_point, read_hold

SENTENCES_MAX: Final = 50
NANO_DIGITS: Final = 9

Row = tuple[int, int, bytes | None, bytes | None]  # offset, append time in ms, key, value


class Backing(Struct):
    """How the answers about one partition stand; `sentences` holds the first SENTENCES_MAX."""

    checked: int = 0  # answers held against the oracle
    holds: int = 0  # of them, those that reserved
    sentences: list[str] = []

    def say(self, sentence: str) -> None:
        if len(self.sentences) < SENTENCES_MAX:
            self.sentences.append(sentence)


class _Slices:
    """What the owner of the highest epoch may have in open holds, as the log shows it."""

    def __init__(self) -> None:
        self.epoch = 0
        self._slices: dict[str, tuple[int, dict[str, int]]] = {}

    def read(self, value: bytes | None) -> None:
        """A record that the oracle did not turn away."""
        if value is None or not value.startswith(CONTROL_PREFIX):
            return
        body = orjson.loads(value[len(CONTROL_PREFIX) + MAC_BYTES :])
        if body["kind"] == "owner":
            self.epoch = max(self.epoch, body["epoch"])
        elif body["kind"] == "slices" and body["epoch"] >= self.epoch:
            for account, quantities in body["of"]:
                nano = {price: fixed_point(text, NANO_DIGITS) or 0 for price, text in quantities.items()}
                self._slices[account] = (body["epoch"], nano)

    def of(self, account: str) -> dict[str, int]:
        epoch, quantities = self._slices.get(account, (0, {}))
        return quantities if epoch == self.epoch else {}


def back(journal: Journal, partition: int, rows: Iterable[Row], oracle: Oracle, control_key: bytes) -> Backing:
    """Hold the journal's answers about this partition against its log. `oracle` has not yet been fed."""
    asked: dict[int, list[Decided]] = defaultdict(list)
    for decided in journal.decided:
        if decided.answer.partition == partition and decided.answer.offset is not None:
            asked[decided.answer.offset].append(decided)
    book = _Book(journal, control_key)
    waiting = sorted(asked, reverse=True)
    slices = _Slices()
    for offset, append_ms, key, value in rows:
        while waiting and waiting[-1] <= offset:
            book.look(asked[waiting.pop()], oracle, slices, append_ms * 1_000)
        outcome = oracle.feed(partition, offset, append_ms, key, value)
        if not outcome.startswith(("dead_lettered", "void", "refused")):
            slices.read(value)
        book.settle(value, outcome)
    while waiting:
        book.look(asked[waiting.pop()], oracle, slices, 0)
    return book.backing


class _Book:
    """The holds of one partition as the callers know them."""

    def __init__(self, journal: Journal, control_key: bytes) -> None:
        self.backing = Backing()
        self._control_key = control_key
        self._open: dict[str, dict[str, HoldToken]] = defaultdict(dict)  # account -> id -> hold certainly open
        # Only a hold with usage behind it was certainly open until that usage: others may have been released.
        self._with_usage = {sent.hold for sent in journal.sent if sent.acknowledged}

    def look(self, answers: list[Decided], oracle: Oracle, slices: _Slices, until_us: int) -> None:
        """Answers given at the state that the oracle stands at, before that instant."""
        for decided in answers:
            answer = decided.answer
            self.backing.checked += 1
            balances = (oracle.balance(decided.account), oracle.balance(decided.account, until_us))
            if answer.booked is not None and answer.booked not in balances:
                self.backing.say(
                    f"account {decided.account}, offset {answer.offset}: booked is said to be {answer.booked}, "
                    f"the oracle has {balances[0]}"
                )
        holds = [read_hold(self._control_key, decided.answer.token) for decided in answers if decided.answer.token]
        for hold in sorted(holds, key=lambda hold: hold.number):
            self._admit(hold, slices)

    def _admit(self, hold: HoldToken, slices: _Slices) -> None:
        self.backing.holds += 1
        if hold.epoch != slices.epoch:
            self.backing.say(f"hold {hold.id}: of epoch {hold.epoch}, while the log had shown {slices.epoch}")
            return
        open_holds = self._open[hold.account]
        if any(other.epoch != hold.epoch for other in open_holds.values()):
            open_holds.clear()  # of an earlier owner: its slice counts against the balance, not against this slice
        total = dict(hold.held)
        for other in open_holds.values():
            for price, quantity in other.held.items():
                total[price] = total.get(price, 0) + quantity
        covered = slices.of(hold.account)
        for price, quantity in total.items():
            if quantity > covered.get(price, 0):
                self.backing.say(
                    f"hold {hold.id} of account {hold.account}: {quantity} of {price} are held, the log had shown a "
                    f"slice of {covered.get(price, 0)}"
                )
        if hold.id in self._with_usage:
            open_holds[hold.id] = hold

    def settle(self, value: bytes | None, outcome: str) -> None:
        """The hold that a rated event names is no longer certainly open."""
        if outcome != "rated" or value is None or b'"hold"' not in value:
            return
        event: Mapping[str, Any] = orjson.loads(value)
        if "hold" in event:
            hold = read_hold(self._control_key, event["hold"])
            self._open[hold.account].pop(hold.id, None)
