"""What can go wrong, as types to catch. Every message names the field or the thing, and the next step."""


class TallygateError(Exception):
    """Any error of this package."""


class Unavailable(TallygateError):
    """Nobody answered within the deadline, or what is needed is away for now. What was asked may have happened."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s  # what the service asked for; None: it said nothing


class Refused(TallygateError):
    """The service said no: asking the same again would not help."""

    def __init__(
        self, status: int, type: str, detail: str, *, field: str | None, next_step: str, request_id: str
    ) -> None:
        parts = (f"{field}:" if field else "", detail, next_step, f"(request {request_id})" if request_id else "")
        super().__init__(" ".join(part for part in parts if part))
        self.status = status
        self.type = type  # "/problems/<slug>": stable, to branch on
        self.detail = detail
        self.field = field
        self.next_step = next_step
        self.request_id = request_id


class BadKey(Refused):
    """401, 403: the key is not valid, or may not do this."""


class NotFound(Refused):
    """404: there is no such account or hold, or the key may not see it."""


class BadEvent(TallygateError, ValueError):
    """A usage event that the service could never take. It has not been kept."""


class SpoolFull(TallygateError):
    """The spool has no room: the event has not been kept, and it is for the caller to decide what that means."""


class SpoolBusy(TallygateError):
    """Another process, or another spool of this one, holds the folder."""
