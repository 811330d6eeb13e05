"""What a route is made of, and what its handler is given. `app.py` runs the table of routes; `openapi.py` describes it.

A handler gets a `Call` that is authenticated, in scope, within every limit and decoded, and returns a `Reply` or raises
a `Problem`. It never sees a key's secret, another account's data, or a body that was not declared.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from msgspec import Struct

from actors.door_client import Route as DoorRoute
from actors.door_wire import Answer, Question, Status, StatusView
from actors.keys import Key, KeyScope
from actors.ports import Clock, Outgoing
from config.settings import Settings

__all__ = ["Key", "KeyScope"]

IDEMPOTENCY_KEY_MAX: Final = 128
PAGE_DEFAULT: Final = 50
PAGE_MAX: Final = 200


# ----------------------------------------------------------------------------------------------------------- problems


class Problem(Exception):
    """A refusal as RFC 9457 has it. `detail` and `next_step` are for the caller: no internals, nothing secret in them."""

    def __init__(
        self,
        status: int,
        slug: str,  # stable: programs branch on it; type = "/problems/<slug>"
        title: str,  # the same for every problem of this slug
        detail: str,
        *,
        next_step: str,
        field: str | None = None,  # which part of the request must change, e.g. "bounds[0].up_to"
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{slug}: {detail}")
        self.status = status
        self.slug = slug
        self.title = title
        self.detail = detail
        self.next_step = next_step
        self.field = field
        self.headers = dict(headers or {})


def absent(what: str) -> Problem:
    """404. Byte for byte the same for what does not exist and for what another account has: so it names no id."""
    return Problem(
        404,
        "not-found",
        "Not found",
        f"There is no such {what}, or this key may not see it.",
        next_step=f"Check the {what} in the request, and which account the key is bound to.",
    )


def invalid(field: str, detail: str, next_step: str = "Correct the field and send the request again.") -> Problem:
    """400, naming the field."""
    return Problem(400, "invalid-request", "Invalid request", detail, next_step=next_step, field=field)


def unavailable(detail: str, retry_after_s: int = 1) -> Problem:
    """503: what is needed is away for now; nothing is known to have happened unless `detail` says so."""
    return Problem(
        503,
        "unavailable",
        "Temporarily unavailable",
        detail,
        next_step=f"Send the same request again in {retry_after_s} s.",
        headers={"Retry-After": str(retry_after_s)},
    )


# -------------------------------------------------------------------------------------------------------------- calls


@dataclass(slots=True)
class Call:
    """One request, as its handler sees it."""

    key: Key | None  # None on public routes only
    params: dict[str, str]  # of the path, percent-decoded: 1 to 256 characters, no control characters
    query: dict[str, Any]  # every declared parameter, of its declared kind; None where absent without a default
    body: Any  # an instance of the route's `request`; the bytes as they came for `raw_body`; None without a body
    headers: Mapping[bytes, bytes]  # as ASGI has them: lower-case names; of a repeated header the last value
    request_id: str
    idempotency_key: str | None  # of the header, when sent; present on every call of an `idempotent` route
    services: "Services"

    @property
    def actor(self) -> str:
        """Who asks, for the audit trail: the key's public id."""
        return "public" if self.key is None else f"key:{self.key.public_id}"

    def header(self, name: str) -> str | None:
        """A request header, by its lower-case name."""
        value = self.headers.get(name.encode("ascii"))
        return None if value is None else value.decode("latin-1")

    @property
    def account(self) -> str | None:
        """The account the key is bound to; None: every account."""
        return None if self.key is None else self.key.account


@dataclass(slots=True)
class Reply:
    """A whole answer. A Struct is encoded as JSON; bytes go out as they are, under `media_type`."""

    body: Struct | bytes | None = None
    status: int | None = None  # None: the route's
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = "application/json"


@dataclass(slots=True)
class Stream:
    """An answer without an end: server-sent events, each already formatted, until the iterator stops."""

    events: AsyncGenerator[bytes, None]  # closed when the caller hangs up
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Call], Awaitable[Reply | Stream]]


# ------------------------------------------------------------------------------------------------------------- routes


class QueryParameter(Struct, frozen=True):
    """A declared query parameter. Undeclared ones are refused by name."""

    name: str
    kind: Literal["text", "integer", "boolean"]
    description: str
    default: str | int | bool | None = None
    minimum: int | None = None  # of an integer; of a text its shortest length
    maximum: int | None = None  # of an integer; of a text its greatest length (256 when absent)
    choices: tuple[str, ...] = ()
    required: bool = False


_PAGING: Final = (
    QueryParameter("limit", "integer", "how many items at most", PAGE_DEFAULT, 1, PAGE_MAX),
    QueryParameter("cursor", "text", "`next_cursor` of the page before; absent: the first page", None, 1, 512),
)


class Example(Struct, frozen=True):
    """One request and its answer: printed in the docs, and run by a test. Values are plain JSON."""

    request: Any = None
    response: Any = None
    params: Mapping[str, str] = {}
    query: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation. Everything the app enforces and the documents say about it stands here.

    A key that is bound to an account may use a route only if `account_from` says where the account stands (the app then
    compares), or if `confines` says that the handler keeps such a key to its account itself; else it is refused (403)."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str  # template: "/v1/customers/{account}/grants"
    scope: KeyScope | None  # None: public
    handler: Handler
    summary: str  # one line
    description: str
    tags: tuple[str, ...]
    example: Example
    request: type[Struct] | None = None  # declare it with forbid_unknown_fields=True; a list goes into a field
    response: type[Struct] | None = None
    status: int = 200
    account_from: Literal["path", "body"] | None = None  # the parameter {account}, or the field `account` of the body
    confines: bool = False
    query: tuple[QueryParameter, ...] = ()
    paginated: bool = False  # adds `limit` and `cursor`; the response has `items` and `next_cursor`
    idempotent: bool = False  # the header Idempotency-Key is required
    body_bytes_max: int = 65_536
    raw_body: tuple[str, ...] = ()  # content types whose bytes the handler reads itself, instead of `request`
    deadline_s: float = 2.0
    response_media: str = "application/json"
    also: Mapping[int, str] = field(default_factory=dict)  # statuses beside `status`, each with what it means

    @property
    def parameters(self) -> tuple[QueryParameter, ...]:
        """Of the query, with those of paging."""
        return (*self.query, *(_PAGING if self.paginated else ()))

    @property
    def operation_id(self) -> str:
        """The same for ever: clients are generated from it."""
        parts = [part.strip("{}").replace(".", "_") for part in self.path.split("/") if part and part != "v1"]
        return "_".join([self.method.lower(), *parts])


# ----------------------------------------------------------------------------------------------------------- services


class Doors(Protocol):
    """The owners of the accounts (`actors/door_client.py`)."""

    async def ask(self, account: str, question: Question, within_s: float) -> Answer:
        """The answer of the account's owner; follows moved partitions. Raises `DoorUnavailable`."""

    async def ask_every_shard(self, question: Status, within_s: float) -> list[StatusView]:
        """What the living shards said in time."""

    def routes(self) -> list[DoorRoute]:
        """Who owns what, as this client knows it; by partition."""


class Appender(Protocol):
    """The durable way into the log."""

    async def append(self, records: Sequence[Outgoing]) -> list[int]:
        """Offsets, once all are durable. Raises `LogUnavailable`; some may be in the log."""


@dataclass(slots=True)
class Services:
    """All that handlers may use. One per replica; the app builds none of it."""

    settings: Settings
    clock: Clock
    doors: Doors
    appender: Appender
    keys: Any  # actors/keys.py: Keys
    records: Any = None  # actors/records.py
    commands: Any = None  # actors/commands.py
    audit: Any = None  # actors/audit.py
    idempotency: Any = None  # actors/idempotency.py
    endpoints: Any = None  # actors/endpoints.py
    courier: Any = None  # actors/receivers.py
    catalogues: Any = None  # actors/catalogues.py
    charges: Any = None  # actors/explain.py
    drafts: Any = None  # actors/drafts.py
    shadows: Any = None  # actors/shadow_store.py
    floors: Any = None  # actors/margin_floors.py
    rates: Any = None  # actors/margin_rates.py
    advisor: Any = None  # actors/advice.py
    training: Any = None  # actors/training_runs.py
    billed: Any = None  # actors/billed_usage.py
    gateways: Any = None  # actors/gateways.py
    reported: Any = None  # actors/reported_costs.py
    request_margins: Any = None  # actors/margin.py
    whatif: Any = None  # actors/whatif.py
    costs: Any = None  # actors/cost_store.py
