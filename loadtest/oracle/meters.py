"""What a meter takes from an event: whether it counts, how much, and in which cell."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from loadtest.oracle.expressions import NoValueError, field_of, names_in, nano_of
from loadtest.oracle.periods import DAY_US, local_time
from loadtest.oracle.records import SECOND_US, DeadLetterError, Number, fixed_point, is_name

DIMENSION_CHARACTERS_MAX = 128


def number_of(value: object) -> int:
    """Nano-units of a number, or of a text that reads as one."""
    number = fixed_point(value, 9) if isinstance(value, str) else None
    if number is None:
        raise DeadLetterError("bad_dimension")
    return number


def means(value: object, text: str) -> bool:
    """Whether the value of an event is what a catalogue writes like this."""
    if isinstance(value, bool):
        return text == ("true" if value else "false")
    if isinstance(value, Number):
        return number_of(value) == fixed_point(text, 9)
    if not isinstance(value, str):
        raise DeadLetterError("bad_dimension")
    return value == text


def text_of(value: object) -> str:
    """A value that is to be a dimension as it is."""
    if not isinstance(value, str) or isinstance(value, Number):
        raise DeadLetterError("bad_dimension")
    if not 1 <= len(value) <= DIMENSION_CHARACTERS_MAX or "\0" in value:
        raise DeadLetterError("bad_dimension")
    return value


def band_of(number: int, bands: list[Mapping[str, Any]]) -> str:
    return next(str(band["name"]) for band in bands if "up_to" not in band or number <= number_of(band["up_to"]))


WEEK = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
RATED_AT = "\0rated at"  # where an event's data has the time at which it is rated


def minutes(text: str) -> int:
    hours, _, rest = text.partition(":")
    return int(hours) * 60 + int(rest)


def hours_of(time_us: int, body: Mapping[str, Any]) -> str:
    """What the hours are called that an instant lies in: of today's stretches, or of those that began yesterday."""
    here = local_time(body.get("zone", "UTC"), time_us)
    today = here.hour * 60 + here.minute
    for stretch in body["hours"]:
        begin, end = minutes(stretch["from"]), minutes(stretch["to"])
        length = end - begin if end > begin else end - begin + 24 * 60
        for minute, weekday in ((today, here.weekday()), (today + 24 * 60, here.weekday() - 1)):
            if WEEK[weekday] in stretch.get("days", WEEK) and begin <= minute < begin + length:
                return str(stretch["name"])
    return str(body["otherwise"])


@cache
def _quarters(text: str, day: int) -> list[tuple[int, int, str]]:
    """A day of UTC, in stretches that are called the same: clocks are looked at whenever a quarter of an hour, or an edge
    of a stretch, may begin."""
    body = json.loads(text)
    edges = {0, *(minutes(stretch[end]) % 15 for stretch in body["hours"] for end in ("from", "to"))}
    looks = [day * DAY_US + (quarter * 15 + edge) * 60 * SECOND_US for quarter in range(96) for edge in sorted(edges)]
    ends = [*looks[1:], (day + 1) * DAY_US]
    found: list[tuple[int, int, str]] = []
    for begin, end in zip(looks, ends, strict=True):
        name = hours_of(begin, body)
        if found and found[-1][2] == name:
            begin = found.pop()[0]
        found.append((begin, end, name))
    return found


def hours_between(body: Mapping[str, Any], begin: int, end: int) -> list[tuple[int, int, str]]:
    """What the hours are called from one instant to another."""
    text = json.dumps(body)
    return [
        (max(low, begin), min(high, end), name)
        for day in range(begin // DAY_US, end // DAY_US + 1)
        for low, high, name in _quarters(text, day)
        if low < end and high > begin
    ]


def dimension_of(data: Mapping[str, Any], name: str, declared: Mapping[str, Mapping[str, Any]]) -> str:
    if name not in declared:
        return text_of(field_of(data, name))
    body = declared[name]
    if body.get("hours"):
        return hours_of(data[RATED_AT], body)
    if "expression" in body:
        try:
            return band_of(nano_of(body["expression"], data), body["bands"])
        except NoValueError as error:
            raise DeadLetterError("bad_dimension") from error
    value = field_of(data, body.get("of", name))
    if value is None:
        if "default" not in body:
            raise DeadLetterError("bad_dimension")
        return str(body["default"])
    if "bands" in body:
        return band_of(number_of(value), body["bands"])
    for text, becomes in body.get("values", {}).items():
        if means(value, text):
            return str(becomes)
    means(value, "")  # a value of no kind that can be told apart
    if "otherwise" in body:
        return str(body["otherwise"])
    return text_of(str(value).lower() if isinstance(value, bool) else value)


def fulfils(data: Mapping[str, Any], name: str, condition: Mapping[str, Any], declared: Mapping[str, Any]) -> bool:
    value = dimension_of(data, name, declared) if name in declared else field_of(data, name)
    if value is None:
        if "exists" not in condition:
            raise DeadLetterError("bad_dimension")
        return condition["exists"] is False
    if condition.get("exists") is False:
        return False
    for key, wanted in (("one_of", True), ("none_of", False)):
        if key in condition and any(means(value, text) for text in condition[key]) is not wanted:
            return False
    limits = {key: number_of(condition[key]) for key in ("above", "at_least", "below", "at_most") if key in condition}
    if not limits:
        return True
    number = number_of(value)
    return (
        ("above" not in limits or number > limits["above"])
        and ("at_least" not in limits or number >= limits["at_least"])
        and ("below" not in limits or number < limits["below"])
        and ("at_most" not in limits or number <= limits["at_most"])
    )


OF_SESSIONS = ("duration", "time_weighted_sum")


@dataclass(frozen=True)
class Meter:
    name: str
    event_type: str
    field: str | None
    expression: str | None  # neither: a count
    group_by: list[str]
    when: Mapping[str, Mapping[str, Any]]
    declared: Mapping[str, Mapping[str, Any]]  # the catalogue's dimensions
    aggregation: str
    limit: int  # of different values
    session: str  # of sessions: the fields that say which session, and what has become of it
    state: str
    timeout_us: int
    points: int  # of a max, min or latest, how many readings behind the first are kept

    @property
    def adds_up(self) -> bool:
        return self.aggregation in ("count", "sum", *OF_SESSIONS)

    def begun(self, cell: tuple[str, ...]) -> tuple[str, ...]:
        """The cell of a session, which goes through the hours."""
        return tuple(
            "" if self.declared.get(name, {}).get("hours") else value
            for name, value in zip(self.group_by, cell, strict=True)
        )

    def cells_between(self, cell: tuple[str, ...], begin: int, end: int) -> list[tuple[int, int, tuple[str, ...]]]:
        """The cells that a session goes through from one instant to another."""
        found = [(begin, end, cell)]
        for place, name in enumerate(self.group_by):
            body = self.declared.get(name, {})
            if body.get("hours"):
                found = [
                    (start, until, (*was[:place], called, *was[place + 1 :]))
                    for low, high, was in found
                    for start, until, called in hours_between(body, low, high)
                ]
        return found

    def session_of(self, data: Mapping[str, Any]) -> tuple[str, str]:
        """Which session, and what has become of it, or that it has a level."""
        session = field_of(data, self.session)
        if self.aggregation == "time_weighted_sum" and is_name(session):
            return str(session), "level"
        state = field_of(data, self.state)
        if not is_name(session) or state not in ("start", "heartbeat", "stop"):
            raise DeadLetterError("bad_session")
        return str(session), str(state)

    def value_of(self, data: Mapping[str, Any]) -> int | str:
        """What one event says to a meter that does not add up."""
        if self.aggregation != "unique_count":
            return self._quantity(data)
        value = field_of(data, self.field or "")
        if isinstance(value, bool):
            return "text true" if value else "text false"
        if isinstance(value, Number):
            number = fixed_point(value, 9)
            if number is None:
                raise DeadLetterError("bad_quantity")
            return f"number {number}"
        if not isinstance(value, str):
            raise DeadLetterError("bad_quantity")
        return f"text {value}"

    def reads(self) -> set[str]:
        """Every field that it looks at: where it counts, whether, and how much."""
        found = {self.field} if self.field else names_in(self.expression or "")
        for name in [*self.group_by, *self.when]:
            body = self.declared.get(name, {})
            found |= names_in(body["expression"]) if "expression" in body else {str(body.get("of", name))}
        return found

    def measure(self, data: Mapping[str, Any]) -> tuple[tuple[str, ...], int | str | None] | None:
        """Cell and nano-units, or what it says (None: the field is missing); None where the event does not count here."""
        if not all(fulfils(data, name, condition, self.declared) for name, condition in sorted(self.when.items())):
            return None
        if self.aggregation in OF_SESSIONS:
            self.session_of(data)
        if not self.adds_up:
            value = self.value_of(data)
            return tuple(dimension_of(data, name, self.declared) for name in self.group_by), value
        missing = self.field is not None and field_of(data, self.field) is None
        quantity = None if missing else self._quantity(data)
        try:
            return tuple(dimension_of(data, name, self.declared) for name in self.group_by), quantity
        except DeadLetterError as error:
            if missing:  # the quantity is tested first
                raise DeadLetterError("bad_quantity") from error
            raise

    def _quantity(self, data: Mapping[str, Any]) -> int:
        if self.expression is not None:
            try:
                quantity = nano_of(self.expression, data)
            except NoValueError as error:
                raise DeadLetterError("bad_quantity") from error
            if not 0 <= quantity < 10**27:
                raise DeadLetterError("bad_quantity")
            return quantity
        if self.field is None:
            return 10**9
        value = field_of(data, self.field)
        number = fixed_point(value, 9) if isinstance(value, str) else None
        if number is None or number < 0:
            raise DeadLetterError("bad_quantity")
        return number


def read_meter(name: str, body: Mapping[str, Any], declared: Mapping[str, Mapping[str, Any]]) -> Meter:
    """A meter of a catalogue document."""
    return Meter(
        name,
        body["event_type"],
        body.get("field"),
        body.get("expression"),
        list(body.get("group_by", [])),
        body.get("when", {}),
        declared,
        body["aggregation"],
        int(body.get("limit", 1000)),
        body.get("session", ""),
        body.get("state", "state"),
        int(body.get("timeout_s", 300)) * SECOND_US,
        int(body.get("change_points", 8)),
    )
