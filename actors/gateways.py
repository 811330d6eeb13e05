"""Gateways of others, and their keys, in Postgres: set by people, looked after by one process at a time.

That process decides whether a key may spend, and the decision and its act go into the outbox of all alerts in one transaction;
an act is carried out only while it is the last of its key. Tokens are at rest only sealed."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct
from pydantic import SecretStr

from actors.egress import EgressRefused, check_url
from actors.endpoints import Vault
from actors.gateway_calls import GatewayKind
from actors.ports import AlertRow, Fenced
from actors.postgres import OnSession, Session, session_settings, storable
from actors.queries import read_queries

ACTS_PARTITION: Final = -2  # of the outbox: these acts are of no log
GATEWAYS_MAX: Final = 100
GATEWAY_KEYS_MAX: Final = 5_000
_QUERIES: Final = read_queries((Path(__file__).parent / "sql" / "gateways.sql").read_text(encoding="utf-8"))


class GatewayRefused(ValueError):
    """A gateway or a key that is not taken in. `field` names the part of the request that must change."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Gateway(Struct, frozen=True):
    """A gateway, without its token."""

    gateway: str
    kind: GatewayKind
    url: str


class GatewayKey(Struct, frozen=True):
    """A key of a gateway, whose it is, and how it is to stand."""

    gateway: str
    key: str
    account: str
    scope: str
    budget: str | None  # what the gateway allows it while it may spend; None: no limit
    ordinal: int = 0
    blocked: bool = False
    reason: str = ""

    @property
    def act_id(self) -> str:
        """Of its last act."""
        return act_id(self.gateway, self.key, self.ordinal)


class ActState(Struct, frozen=True):
    """How far the carrying out of an act has come."""

    told: bool
    attempts: int
    error: str


class ActData(Struct):
    account: str
    rule: str  # the gateway
    gateway: str
    key: str
    ordinal: int
    blocked: bool
    reason: str


class Act(Struct):
    """What the outbox holds."""

    id: str
    type: str
    data: ActData


class Carried(Struct, frozen=True):
    """What an act is carried out with."""

    kind: GatewayKind
    url: str
    token: SecretStr
    budget: str | None
    blocked: bool


def act_id(gateway: str, key: str, ordinal: int) -> str:
    """One for each change of how a key is to stand."""
    text = "\x00".join((gateway, key, str(ordinal)))
    return "gateway_" + hashlib.sha256(text.encode()).hexdigest()[:32]


class PostgresGateways(OnSession):
    """One session. Any method may raise `StoreUnavailable` or `StoreRefused`."""

    def __init__(
        self,
        dsn: str,
        schema: str,
        lease_s: float,
        statement_timeout_s: float,
        control_key: bytes,
        *,
        loopback: bool = False,
    ) -> None:
        """`loopback`: a gateway on this machine is allowed, as in development."""
        settings = session_settings(schema, lease_s, statement_timeout_s, "gateways")
        self._session = Session(dsn, settings, statement_timeout_s, statement_timeout_s)
        self._vault = Vault(control_key)
        self._loopback = loopback

    # ----------------------------------------------------------------------------------------------------- management

    async def put(self, gateway: Gateway, token: SecretStr) -> None:
        """Set or replace it; its keys go on as they stand. Raises GatewayRefused."""
        try:
            check_url(gateway.url, allow_loopback=self._loopback)
        except EgressRefused as error:
            raise GatewayRefused("url", str(error)) from error
        sealed = self._vault.seal(gateway.gateway, token)

        async def work(connection: Any) -> bool:
            values = (gateway.gateway, gateway.kind.value, gateway.url, sealed, GATEWAYS_MAX)
            return await connection.fetchval(_QUERIES["set_gateway"], *values) is not None

        if not await self._session.repeatable(work):
            raise GatewayRefused(
                "gateway", f"there are {GATEWAYS_MAX:,} already: remove one that is not needed any more"
            )

    async def remove(self, gateway: str) -> bool:
        """Whether there was one. Its keys stay as it has them."""

        async def work(connection: Any) -> bool:
            return await connection.fetchval(_QUERIES["remove_gateway"], storable(gateway)) is not None

        return await self._session.repeatable(work)

    async def all(self) -> list[Gateway]:
        """In the order of their names."""

        async def work(connection: Any) -> list[Gateway]:
            rows = await connection.fetch(_QUERIES["gateways"])
            return [Gateway(row["gateway"], GatewayKind(row["kind"]), row["url"]) for row in rows]

        return await self._session.repeatable(work)

    async def put_key(self, key: GatewayKey) -> None:
        """Look after a key, from how it stands. Raises GatewayRefused."""

        async def work(connection: Any) -> bool:
            values = (key.gateway, key.key, key.account, key.scope, key.budget, GATEWAY_KEYS_MAX)
            return await connection.fetchval(_QUERIES["set_key"], *values) is not None

        if not await self._session.repeatable(work):
            raise GatewayRefused("key", f"there is no such gateway, or there are {GATEWAY_KEYS_MAX:,} keys already")

    async def remove_key(self, gateway: str, key: str) -> bool:
        """Whether there was one. It stays as the gateway has it."""

        async def work(connection: Any) -> bool:
            return await connection.fetchval(_QUERIES["remove_key"], storable(gateway), storable(key)) is not None

        return await self._session.repeatable(work)

    async def keys(self, gateway: str | None = None) -> list[GatewayKey]:
        """All that are looked after, of one gateway or of all."""

        async def work(connection: Any) -> list[GatewayKey]:
            return [GatewayKey(*row.values()) for row in await connection.fetch(_QUERIES["keys"], gateway)]

        return await self._session.repeatable(work)

    async def acts(self, ids: Sequence[str]) -> dict[str, ActState]:
        """How far some acts have come; one that never was is not there."""

        async def work(connection: Any) -> dict[str, ActState]:
            rows = await connection.fetch(_QUERIES["acts"], list(ids))
            return {row["alert_id"]: ActState(row["told"], row["attempts"], row["error"]) for row in rows}

        return await self._session.repeatable(work)

    # ------------------------------------------------------------------------------------------------- looking after

    async def claim(self, owner: str, for_s: float) -> int | None:
        """Look after the keys for so long; the epoch. None: somebody else does."""

        async def work(connection: Any) -> int | None:
            epoch: int | None = await connection.fetchval(_QUERIES["claim"], owner, for_s)
            return epoch

        return await self._session.repeatable(work)

    async def decide(self, key: GatewayKey, reason: str | None, epoch: int) -> AlertRow | None:
        """From now on it may spend nothing, for this reason, or may again (None); the act, in the outbox already.

        None: it stands so, or was changed meanwhile. Raises Fenced, CommitUnknown."""

        async def work(connection: Any) -> AlertRow | None:
            await _check_owner(connection, epoch)
            blocked = reason is not None
            place = (key.gateway, key.key, key.ordinal, blocked, reason or "")
            ordinal = await connection.fetchval(_QUERIES["decide"], *place)
            if ordinal is None:
                return None
            name = act_id(key.gateway, key.key, ordinal)
            data = ActData(key.account, key.gateway, key.gateway, key.key, ordinal, blocked, reason or "")
            body = msgspec.json.encode(Act(name, "gateway.blocked" if blocked else "gateway.lifted", data))
            await connection.execute(_QUERIES["write_act"], name, ordinal, body)
            return AlertRow(name, "", ordinal, body)

        return await self._session.transaction(work)

    async def to_carry_out(self, act: ActData, epoch: int) -> Carried | None:
        """None: another act of the key has taken its place, or key or gateway are gone. Raises Fenced, SecretUnreadable."""

        async def work(connection: Any) -> Carried | None:
            await _check_owner(connection, epoch)
            row = await connection.fetchrow(_QUERIES["act_of"], act.gateway, act.key, act.ordinal)
            if row is None:
                return None
            token = self._vault.open(act.gateway, row["token"])
            return Carried(GatewayKind(row["kind"]), row["url"], token, row["budget"], row["blocked"])

        return await self._session.repeatable(work)


async def _check_owner(connection: Any, epoch: int) -> None:
    if await connection.fetchval(_QUERIES["owns"], epoch) is None:
        raise Fenced(f"gateways: no longer at epoch {epoch}")
