"""When a call is put again, and when it is given up."""

import random
from typing import Any, Final

from tenacity import RetryCallState, retry_if_exception_type, stop_before_delay, wait_exponential_jitter

from tallygate_sdk.answers import Decision
from tallygate_sdk.errors import Unavailable

FIRST_PAUSE_S: Final = 0.05
PAUSE_MAX_S: Final = 1.0
SHORTEST_TRY_S: Final = 0.001  # a client with no time left is told so by its own time-out

_back_off: Final = wait_exponential_jitter(multiplier=FIRST_PAUSE_S, max=PAUSE_MAX_S, jitter=FIRST_PAUSE_S)


class Recovering(Unavailable):
    """The account's owner is being replaced: for a second or two nobody decides."""

    def __init__(self, decision: Decision) -> None:
        super().__init__("the account's owner is being replaced", decision.retry_after_s)
        self.decision = decision


def settled(decision: Decision) -> Decision:
    """The decision, if one was made. Raises Recovering."""
    if decision.reason == "recovering":
        raise Recovering(decision)
    return decision


def _pause(state: RetryCallState) -> float:
    """Back-off with jitter, and not before the service wants to be asked again."""
    error = None if state.outcome is None else state.outcome.exception()
    asked_s = error.retry_after_s if isinstance(error, Unavailable) else None
    if asked_s is None:
        return _back_off(state)
    return max(asked_s * random.uniform(1.0, 1.1), _back_off(state))  # noqa: S311 so that not all come back at once


def until(deadline_s: float) -> dict[str, Any]:
    """The arguments of a tenacity controller: what nobody answered is put again, as long as the deadline leaves time."""
    return {
        "retry": retry_if_exception_type(Unavailable),
        "wait": _pause,
        "stop": stop_before_delay(deadline_s),
        "reraise": True,
    }
