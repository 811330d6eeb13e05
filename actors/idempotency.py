"""Answers given again: whoever repeats a request under its idempotency key gets the first answer, for 24 hours.

Commands need none of this: the log remembers them. It is for what changes the database itself, where a repetition
would make a second key, or a second endpoint. Answers are sealed at rest, since some show a secret once.
"""

from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from pydantic import SecretStr

from actors.endpoints import SecretUnreadable, Vault
from actors.postgres import OnSession, Session, session_settings
from actors.queries import read_queries

STATEMENT_S: Final = 2.0
_QUERIES: Final = read_queries((Path(__file__).parent / "sql" / "audit.sql").read_text(encoding="utf-8"))


class KeyReused(Exception):
    """The key stands for another request."""


class KeyBusy(Exception):
    """The first request under this key has not been answered: it is under way, or its answer was lost."""


class KeptAnswer(Struct, frozen=True):
    """What was answered first."""

    status: int
    body: bytes


class Idempotency(OnSession):
    """The answers of a deployment. Any method may raise `StoreUnavailable` or `StoreRefused`.

    A key belongs to its actor: two actors may use the same text."""

    def __init__(self, dsn: str, schema: str, control_key: bytes) -> None:
        settings = session_settings(schema, STATEMENT_S, STATEMENT_S, "idempotency")
        self._session = Session(dsn, settings, STATEMENT_S, STATEMENT_S)
        self._vault = Vault(control_key)

    async def begin(self, actor: str, key: str, operation: str, digest: bytes) -> KeptAnswer | None:
        """None: nobody came before; do it, then `keep` the answer or `forget` the key. Raises KeyReused, KeyBusy.

        `digest` is a SHA-256 of all that makes the request what it is."""

        async def first(connection: Any) -> Any:
            await connection.execute(_QUERIES["forget_answers"], actor, key)
            if await connection.fetchval(_QUERIES["begin_answer"], actor, key, operation, digest) is not None:
                return None
            return await connection.fetchrow(_QUERIES["find_answer"], actor, key) or {"status": None, "digest": digest}

        row = await self._run(first)
        if row is None:
            return None
        if bytes(row["digest"]) != digest:
            raise KeyReused(key)
        if row["status"] is None:
            raise KeyBusy(key)
        try:
            body = self._vault.open(_place(actor, key), row["answer"]).get_secret_value()
        except SecretUnreadable:
            raise KeyBusy(key) from None  # the control key was changed meanwhile: the answer is as good as lost
        return KeptAnswer(row["status"], body.encode())

    async def keep(self, actor: str, key: str, answer: KeptAnswer) -> None:
        """Give this answer to whoever comes again."""
        sealed = self._vault.seal(_place(actor, key), SecretStr(answer.body.decode()))

        async def keep(connection: Any) -> None:
            await connection.execute(_QUERIES["keep_answer"], actor, key, answer.status, sealed)

        await self._run(keep)

    async def forget(self, actor: str, key: str) -> None:
        """Nothing happened: the key may be used again."""

        async def forget(connection: Any) -> None:
            await connection.execute(_QUERIES["forget_answer"], actor, key)

        await self._run(forget)

    async def _run(self, work: Any) -> Any:
        return await self._session.repeatable(work)


def _place(actor: str, key: str) -> str:
    return f"idempotency\x00{actor}\x00{key}"
