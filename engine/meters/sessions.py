"""What an event says to a meter of time: that a session has started, goes on, or has stopped, or its level (law R3)."""

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from msgspec import Struct

from engine.events import TEXT_MAX, is_text
from engine.meters.fields import value_at

State = Literal["start", "heartbeat", "stop", "level"]
LEVEL: Final = "level"  # of a meter whose events say what holds from then on
STATES: Final[dict[str, State]] = {"start": "start", "heartbeat": "heartbeat", "stop": "stop"}
STATE_FIELD: Final = "state"  # where a meter does not say which
TIMEOUT_S: Final = 300  # likewise
TIMEOUT_S_MAX: Final = 86_400


class BadSession(ValueError):
    """The event does not say which session it is of, or what has become of it. The message is for a person."""


class Heard(NamedTuple):
    """What an event says of one session of a meter."""

    meter: str
    session: str
    state: State
    cell: tuple[str, ...]
    weight: int  # nano-units that each second counts as; of a level, from the event on


class SessionFields(Struct, frozen=True):
    """Where events say it. `state` None: each says a level. `timeout_us`: how long a session goes on of which nothing is
    heard."""

    id: str
    state: str | None
    timeout_us: int

    @property
    def fields(self) -> frozenset[str]:
        return frozenset([self.id] if self.state is None else [self.id, self.state])

    def read(self, meter: str, data: Mapping[str, Any]) -> tuple[str, State]:
        """The session's id, and its state. Raises BadSession."""
        session = value_at(data, self.id)
        if not is_text(session):
            raise BadSession(
                f"data.{self.id} (meter {meter}) must be a string of 1 to {TEXT_MAX} characters without NUL"
            )
        if self.state is None:
            return session, LEVEL
        said = value_at(data, self.state)
        state = STATES.get(said) if type(said) is str else None
        if state is None:
            raise BadSession(f"data.{self.state} (meter {meter}) is {said!s:.40}, and must be {', '.join(STATES)}")
        return session, state
