"""API keys: who may call, for what, and for which account."""

from enum import StrEnum

from msgspec import Struct


class KeyScope(StrEnum):
    """What a key may do. None implies another: a key has a set of them."""

    INGEST = "ingest"  # send usage events
    CHECK = "check"  # ask before spending, and settle holds
    READ = "read"  # see accounts, alerts, charges, metrics
    CREDIT = "credit"  # grant credit
    ADMIN = "admin"  # accounts, limits, prices, keys, webhook endpoints


class Key(Struct, frozen=True):
    """A key as the rest of the program sees it: without its secret. Times are microseconds since 1970 UTC."""

    public_id: str
    name: str
    scopes: frozenset[KeyScope]
    account: str | None = None  # the only account it may touch; None: all
    expires_us: int | None = None
