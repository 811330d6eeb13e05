"""Looks after the keys of gateways: asks the owner of each key's account whether it may spend, and tells the gateway when that
has changed. One process does it at a time; any replica of the API takes over.

What is told goes through the outbox of all alerts: it survives a crash, is told again until the gateway has taken it, and of
two acts of one key only the last is carried out."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol
from weakref import WeakValueDictionary

import msgspec

from actors.door_client import DoorUnavailable
from actors.door_wire import AccountView, Answer, Describe, Question
from actors.endpoints import SecretUnreadable
from actors.gateway_calls import gateway_call
from actors.gateways import ACTS_PARTITION, Act, ActData, Carried, GatewayKey
from actors.outbox import Deliveries, Outbox, OutboxSettings
from actors.ports import AlertRow, Attempt, Clock, CommitUnknown, Fenced, StoreRefused, StoreUnavailable
from actors.spending import why_nothing_more
from actors.webhooks import WebhookCaller

_log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0
LEASE_S: Final = 15.0  # a look that takes longer loses it to another replica
ASK_WITHIN_S: Final = 1.0
ASKED_AT_ONCE: Final = 16
TURN_MAX: Final = 100  # keys of a look: the next one goes on behind them, so that shards are asked little
CALLS_AT_ONCE: Final = 8  # of one gateway: one that hangs has no more of us, and no other waits for it
OUTBOX: Final = OutboxSettings(
    attempts_max=1_000_000,  # a key that goes on spending is never given up
    concurrent_max=16_384,  # the receivers bound what each gateway is asked at once
    pending_max=16_384,
    account_pending_max=256,  # an account is a gateway here
    back_off_factor=2.0,
    back_off_max_s=60.0,
)


class Keys(Protocol):
    """`PostgresGateways`."""

    async def claim(self, owner: str, for_s: float) -> int | None: ...

    async def keys(self, gateway: str | None = None) -> list[GatewayKey]: ...

    async def decide(self, key: GatewayKey, reason: str | None, epoch: int) -> AlertRow | None: ...

    async def to_carry_out(self, act: ActData, epoch: int) -> Carried | None: ...


class Owners(Protocol):
    """The doors of all shards."""

    async def ask(self, account: str, question: Question, within_s: float) -> Answer: ...


class Alerts(Deliveries, Protocol):
    """What of `PostgresStore` is needed."""

    async def waiting_alerts(self, partition: int) -> list[AlertRow]: ...


class GatewayReceivers:
    """The port `Receivers`: an act is one call of its gateway, behind the same guard as webhooks."""

    def __init__(self, keys: Keys, caller: WebhookCaller, epoch: Callable[[], int | None]) -> None:
        self._keys = keys
        self._caller = caller
        self._epoch = epoch
        self._orders: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._calls: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def post(self, alert: AlertRow) -> Attempt:
        """Carries the act out, unless a later one of its key has taken its place."""
        act = msgspec.json.decode(alert.body, type=Act).data
        calls = self._calls.setdefault(act.gateway, asyncio.Semaphore(CALLS_AT_ONCE))
        # One call of a key at a time: an earlier one that is under way must not arrive behind a later one.
        async with self._orders.setdefault((act.gateway, act.key), asyncio.Lock()), calls:
            epoch = self._epoch()
            if epoch is None:
                return Attempt(delivered=False, error="another replica looks after the keys")
            try:
                found = await self._keys.to_carry_out(act, epoch)
            except Fenced:
                return Attempt(delivered=False, error="another replica looks after the keys")
            except (StoreUnavailable, StoreRefused, SecretUnreadable) as error:
                return Attempt(delivered=False, error=str(error))
            if found is None:
                return Attempt(delivered=True)
            call = gateway_call(found.kind, found.url, act.key, found.budget, blocked=found.blocked)
            headers = {"Authorization": f"Bearer {found.token.get_secret_value()}"}
            attempt = (await self._caller.send(call.method, call.url, headers, call.body)).attempt
            # Whatever it answers, the key must be told: there is no "never again" as of webhooks.
            return Attempt(attempt.delivered, attempt.error, attempt.retry_after_s)


class GatewayWatch:
    """See the module's docstring. Start and stop it with its process."""

    def __init__(
        self, *, owner: str, clock: Clock, keys: Keys, owners: Owners, alerts: Alerts, caller: WebhookCaller
    ) -> None:
        """`owner` names the process, as no other is named."""
        self._owner = owner
        self._clock = clock
        self._keys = keys
        self._owners = owners
        self._alerts = alerts
        self._epoch: int | None = None
        self._resumed_at: int | None = None
        self._next = 0
        receivers = GatewayReceivers(keys, caller, lambda: self._epoch)
        self._outbox = Outbox(clock, receivers, alerts, OUTBOX, permitted=lambda: self._epoch is not None)
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look, in the background."""
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Look no more; what is under way has a moment."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await self._outbox.stop(1.0)

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                _log.exception("looking after the keys of gateways broke")
            await self._clock.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """One look at the keys, or at a part of them where there are many."""
        try:
            self._epoch = await self._keys.claim(self._owner, LEASE_S)
            if self._epoch is None:
                self._give_up()
                return
            if self._resumed_at != self._epoch:
                waiting = await self._alerts.waiting_alerts(ACTS_PARTITION)
                self._outbox.resume(ACTS_PARTITION, [_of_its_gateway(row) for row in waiting])
                self._resumed_at = self._epoch
            await self._look_at(await self._keys.keys(), self._epoch)
            await self._outbox.flush()
        except (StoreUnavailable, StoreRefused, CommitUnknown) as error:
            _log.warning("gateways wait: %s", error)
            self._resumed_at = None  # an act may be in the outbox that we do not know of
        except Fenced as error:
            _log.warning("%s", error)
            self._give_up()

    def _give_up(self) -> None:
        self._epoch = None
        self._resumed_at = None
        self._outbox.forget(ACTS_PARTITION)

    async def _look_at(self, keys: list[GatewayKey], epoch: int) -> None:
        begin = self._next if self._next < len(keys) else 0
        turn = keys[begin : begin + TURN_MAX]
        self._next = begin + len(turn)
        accounts = sorted({key.account for key in turn})
        views = await self._describe(accounts)
        for key in turn:
            view = views.get(key.account)
            if view is None:
                continue  # its owner is away: the key stands as it stands
            reason = why_nothing_more(view, key.scope)
            if (reason is not None) == key.blocked:
                continue
            row = await self._keys.decide(key, reason, epoch)
            if row is not None:
                self._outbox.offer(ACTS_PARTITION, _of_its_gateway(row))
                self._outbox.checkpointed(ACTS_PARTITION, row.offset + 1)

    async def _describe(self, accounts: list[str]) -> dict[str, AccountView]:
        places = asyncio.Semaphore(ASKED_AT_ONCE)

        async def ask(account: str) -> tuple[str, Answer | None]:
            async with places:
                try:
                    return account, await self._owners.ask(account, Describe(account), ASK_WITHIN_S)
                except DoorUnavailable:
                    return account, None

        answers = await asyncio.gather(*(ask(account) for account in accounts))
        return {account: answer for account, answer in answers if isinstance(answer, AccountView)}


def _of_its_gateway(row: AlertRow) -> AlertRow:
    """Told as if its gateway were the account: what is told to one gateway waits behind nothing that is told to another."""
    return msgspec.structs.replace(row, account=msgspec.json.decode(row.body, type=Act).data.gateway)
