"""API keys over HTTP: made, listed, revoked. A key's text is in one answer only, and never again."""

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from msgspec import Meta, Struct

from actors.keys import (
    NAME_CHARACTERS_MAX,
    REFRESH_EVERY_S,
    TRUSTED_FOR_S,
    KeyRecord,
    KeyRefused,
    KeyScope,
    KeyUnknown,
)
from actors.web.acts import ACT_DEADLINE_S, ACT_REFUSALS, ACT_TEXT, Entry, administered
from actors.web.wire import Call, Example, Reply, Route, absent, invalid
from engine.events import Malformed, parse_time

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class KeyRequest(Struct, forbid_unknown_fields=True):
    """The key wanted."""

    name: Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS_MAX)]  # for people: who or what uses it
    scopes: Annotated[tuple[KeyScope, ...], Meta(min_length=1, max_length=len(KeyScope))]
    account: Annotated[str, Meta(min_length=1, max_length=256)] | None = None  # the only one it may touch
    expires: Annotated[str, Meta(max_length=64)] | None = None  # RFC 3339; absent: never


class KeyView(Struct):
    """A key without its secret. Times are RFC 3339."""

    id: str
    name: str
    scopes: list[KeyScope]
    account: str | None
    created: str
    created_by: str
    expires: str | None
    revoked: str | None


class KeyMade(Struct):
    """A new key. `key` is shown this once and kept nowhere."""

    id: str
    key: str
    scopes: list[KeyScope]
    account: str | None
    expires: str | None


class KeyPage(Struct):
    items: list[KeyView]
    next_cursor: str | None


async def create(call: Call, entry: Entry) -> Reply:
    """POST /v1/keys."""
    asked: KeyRequest = call.body
    entry.account = asked.account
    try:
        expires_us = None if asked.expires is None else parse_time(asked.expires)
        key, text = await call.services.keys.create(
            asked.name, asked.scopes, asked.account, expires_us, created_by=call.actor
        )
    except Malformed as error:
        raise invalid("expires", str(error)) from None
    except KeyRefused as error:
        raise invalid(error.field, error.message) from None
    entry.subject, entry.after = key.public_id, asked
    # Every replica has looked at the table once more by then, so that the key works wherever it is used first.
    await call.services.clock.sleep(REFRESH_EVERY_S)
    return Reply(KeyMade(key.public_id, text, sorted(key.scopes), key.account, _text(key.expires_us)))


async def page(call: Call) -> Reply:
    """GET /v1/keys."""
    limit: int = call.query["limit"]
    records: list[KeyRecord] = await call.services.keys.page(limit + 1, _after(call.query["cursor"]))
    shown = records[:limit]
    more = len(records) > limit
    return Reply(KeyPage([_view(record) for record in shown], _cursor(shown[-1]) if more else None))


async def revoke(call: Call, entry: Entry) -> Reply:
    """DELETE /v1/keys/{key}."""
    try:
        await call.services.keys.revoke(call.params["key"])
    except KeyUnknown:
        raise absent("key") from None
    # No replica trusts a memory older than this: when the answer comes, the key is dead everywhere.
    await call.services.clock.sleep(TRUSTED_FOR_S)
    return Reply()


def _view(record: KeyRecord) -> KeyView:
    key = record.key
    return KeyView(
        key.public_id,
        key.name,
        sorted(key.scopes),
        key.account,
        _instant(record.created_us),
        record.created_by,
        _text(key.expires_us),
        _text(record.revoked_us),
    )


def _instant(us: int) -> str:
    return (_EPOCH + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")


def _text(us: int | None) -> str | None:
    return None if us is None else _instant(us)


def _cursor(record: KeyRecord) -> str:
    return base64.urlsafe_b64encode(f"{record.created_us}.{record.key.public_id}".encode()).rstrip(b"=").decode()


def _after(cursor: str | None) -> tuple[int, str] | None:
    if cursor is None:
        return None
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        created, _, public_id = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").partition(".")
        if created.isdecimal() and len(created) < 17 and public_id.isalnum():
            return int(created), public_id
    except (binascii.Error, UnicodeError):
        pass
    raise invalid("cursor", "It is no cursor of this list.", "Take `next_cursor` of the page before, unchanged.")


_ID: Final = "k3x9a0b1c2d4"
_MADE: Final = "2026-11-22T10:00:00Z"

ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/keys",
        scope=KeyScope.ADMIN,
        handler=administered("create_key", create),
        summary="Make an API key",
        description=(
            "The answer shows the key, once: only a hash of it is kept. To rotate a key make a second one, move its users, "
            "then revoke the first. A key with an `account` can touch that account only. The answer comes when every "
            "replica knows the key." + ACT_TEXT
        ),
        tags=("keys",),
        example=Example(
            request={"name": "gateway eu-1", "scopes": ["check", "ingest"], "expires": "2027-11-22T00:00:00Z"},
            response={
                "id": _ID,
                "key": f"tg_live_{_ID}_<secret>_<crc>",
                "scopes": ["check", "ingest"],
                "account": None,
                "expires": "2027-11-22T00:00:00Z",
            },
        ),
        request=KeyRequest,
        response=KeyMade,
        status=201,
        deadline_s=ACT_DEADLINE_S,
        also=ACT_REFUSALS,
    ),
    Route(
        method="GET",
        path="/v1/keys",
        scope=KeyScope.ADMIN,
        handler=page,
        summary="List API keys",
        description="Newest first, revoked ones too. No secret is shown: none is kept.",
        tags=("keys",),
        example=Example(
            response={
                "items": [
                    {
                        "id": _ID,
                        "name": "gateway eu-1",
                        "scopes": ["check", "ingest"],
                        "account": None,
                        "created": _MADE,
                        "created_by": "command line",
                        "expires": None,
                        "revoked": None,
                    }
                ],
                "next_cursor": None,
            }
        ),
        response=KeyPage,
        paginated=True,
    ),
    Route(
        method="DELETE",
        path="/v1/keys/{key}",
        scope=KeyScope.ADMIN,
        handler=administered("revoke_key", revoke, subject="key"),
        summary="Revoke an API key",
        description="For good. When the answer comes, no replica takes the key any more. Again is harmless." + ACT_TEXT,
        tags=("keys",),
        example=Example(params={"key": _ID}),
        status=204,
        deadline_s=ACT_DEADLINE_S,
        also={404: "There is no such key.", **ACT_REFUSALS},
    ),
)
