"""The client for asyncio that goes straight to the shards' doors, for gateways inside the deployment's network."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from tallygate_sdk import calls
from tallygate_sdk.answers import AccountBalance, AsOf, Balance, Binding, Decision, Hold, Price, Released, RoutingTable
from tallygate_sdk.async_client import AsyncClient
from tallygate_sdk.door_wire import (
    Answer,
    BadQuestion,
    BalanceQuestion,
    BalanceView,
    BindingView,
    Checked,
    CheckQuestion,
    DoorAsOf,
    ExtendQuestion,
    FieldLimit,
    NoAccount,
    Question,
    ReleasedView,
    ReleaseQuestion,
    WalletView,
)
from tallygate_sdk.doors import DoorAway, Doors
from tallygate_sdk.errors import Refused
from tallygate_sdk.policy import FailurePolicy
from tallygate_sdk.questions import HOLD_S, Bound, Check, quantity_text

DOOR_S: Final = 0.5  # what a door may take of a call's deadline; the rest is for HTTP
TABLE_S: Final = 0.3

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class SmartClient(AsyncClient):
    """Checks, extensions, releases and balances go to the door of the account's owner; whatever has no answer there, and
    everything else, goes by HTTP as ever. `door_token` (`tallygate keys door`) opens every account: it is for processes
    of the deployment, and the scopes of the key hold for HTTP only.

    Extensions and releases need the `Hold` whole: a bare token does not say where it belongs, and goes by HTTP."""

    def __init__(self, url: str, key: str, door_token: str, **options: Any) -> None:
        """`options` are those of AsyncClient."""
        super().__init__(url, key, **options)
        self.answered_by_doors = 0
        self.sent_by_http = 0  # because no door answered
        self._doors = Doors(self._table, door_token)

    async def close(self) -> None:
        self._doors.close()
        await super().close()

    async def check(
        self, check: Check, *, deadline_s: float | None = None, on_away: FailurePolicy | None = None
    ) -> Decision:
        question = CheckQuestion(
            check.account,
            check.scope,
            check.type,
            dict(check.data),
            dict(check.reach),
            _limits(check.bounds),
            check.n,
            check.feature,
            None if check.hold_s is None else _milliseconds(check.hold_s),
        )
        answer, left_s = await self._ask(check.account, question, self._check_deadline(deadline_s))
        if answer is None:
            return await super().check(check, deadline_s=left_s, on_away=on_away)
        return _decision(answer)

    async def extend(
        self,
        hold: Hold | str,
        *,
        hold_s: float = HOLD_S,
        bounds: Sequence[Bound] = (),
        deadline_s: float | None = None,
    ) -> Decision:
        left_s = self._check_deadline(deadline_s)
        if isinstance(hold, Hold):
            question = ExtendQuestion(hold.token, _milliseconds(hold_s), _limits(bounds))
            answer, left_s = await self._ask(hold.partition, question, left_s)
            if answer is not None:
                return _decision(answer)
        return await super().extend(hold, hold_s=hold_s, bounds=bounds, deadline_s=left_s)

    async def release(self, hold: Hold | str, *, deadline_s: float | None = None) -> Released:
        left_s = self._deadline(deadline_s)
        if isinstance(hold, Hold):
            answer, left_s = await self._ask(hold.partition, ReleaseQuestion(hold.token), left_s)
            if isinstance(answer, ReleasedView):
                return Released(answer.was_open, _as_of(answer.as_of))
            if isinstance(answer, NoAccount):
                return Released(False, _as_of(answer.as_of))
        return await super().release(hold, deadline_s=left_s)

    async def balance(self, account: str, *, deadline_s: float | None = None) -> AccountBalance:
        answer, left_s = await self._ask(account, BalanceQuestion(account), self._deadline(deadline_s))
        if isinstance(answer, BalanceView):
            return AccountBalance(account, _balance(answer.wallet), False, _as_of(answer.as_of))
        return await super().balance(account, deadline_s=left_s)

    async def _table(self) -> RoutingTable:
        return await self._call(calls.routes_call(), TABLE_S)

    async def _ask(self, whom: str | int, question: Question, deadline_s: float) -> tuple[Answer | None, float]:
        """The door's answer, or None; and what is left of the deadline. `whom`: an account, or a partition."""
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        until_s = start_s + min(DOOR_S, deadline_s)
        try:
            if isinstance(whom, int):
                answer = await self._doors.ask_partition(whom, question, until_s)
            else:
                answer = await self._doors.ask(whom, question, until_s)
        except DoorAway:
            self.sent_by_http += 1
            return None, deadline_s - (loop.time() - start_s)
        self.answered_by_doors += 1
        return answer, deadline_s


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000) or 1


def _limits(bounds: Sequence[Bound]) -> tuple[FieldLimit, ...]:
    return tuple(FieldLimit(bound.fields, quantity_text(bound.up_to)) for bound in bounds)


def _decision(answer: Answer) -> Decision:
    if isinstance(answer, NoAccount):
        return Decision(False, "unknown_account", as_of=_as_of(answer.as_of))
    if isinstance(answer, BadQuestion):
        raise Refused(
            400,
            "/problems/invalid-request",
            answer.detail,
            field=answer.field,
            next_step="Correct the field and ask again.",
            request_id="",
        )
    assert isinstance(answer, Checked)
    wallet, hold = answer.wallet, answer.hold
    currency = None if wallet is None else wallet.currency
    return Decision(
        answer.allowed,
        answer.reason,
        answer.transient,
        _seconds(answer.retry_after_ms),
        None if answer.binding is None else _binding(answer.binding),
        None if answer.price is None else Price(Decimal(answer.price), currency, answer.version),
        None if wallet is None else _balance(wallet),
        answer.feature,
        None if hold is None else Hold(hold.id, hold.token, hold.valid_for_ms / 1000, hold.expires_in_ms / 1000),
        _as_of(answer.as_of),
        None if answer.entitlement is None else _binding(answer.entitlement),
    )


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _binding(view: BindingView) -> Binding:
    return Binding(view.kind, view.scope, view.name, _decimal(view.remaining), _seconds(view.frees_in_ms), view.unit)


def _balance(view: WalletView) -> Balance:
    return Balance(
        Decimal(view.booked), Decimal(view.held), Decimal(view.available), _decimal(view.overdraft), view.currency
    )


def _as_of(view: DoorAsOf) -> AsOf:
    log_time = (_EPOCH + timedelta(microseconds=view.log_time_us)).isoformat().replace("+00:00", "Z")
    return AsOf(view.partition, view.epoch, view.offset, log_time, view.lag_records)
