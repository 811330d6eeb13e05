"""One account, live: its balance whenever it changes, its alerts as they are told, as server-sent events.

Each stream asks the account's owner four times a second, over the same door as checks do. What a client missed while
it was away it reads from the lists; a stream begins with the present.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
from msgspec import Struct

from actors.door_wire import AlertsView, Answer, Balance, BalanceView, NotFound, Question, RecentAlerts
from actors.keys import KeysUnavailable
from actors.web.hot import AsOfAnswer, BalanceAnswer, as_of_answer, put
from actors.web.wire import Call, Example, Handler, KeyScope, Problem, Route, Stream, absent, unavailable

POLL_S: Final = 0.25
HEARTBEAT_S: Final = 15.0  # proxies cut what is silent for a minute
STREAMS_MAX: Final = 200  # of a replica: 800 questions a second
KEY_STREAMS_MAX: Final = 16
AWAY_MAX_S: Final = 30.0  # without a word of the account's owner; then the client had better connect again

_encoder: Final = msgspec.json.Encoder()


class BalanceEvent(Struct):
    """`event: balance`."""

    balance: BalanceAnswer
    as_of: AsOfAnswer


class _Told(Struct):
    sequence: int


class _Alert(Struct):
    data: _Told


_alert_decoder: Final = msgspec.json.Decoder(_Alert)


class Streams:
    """The open streams of a replica, counted."""

    def __init__(self, poll_s: float = POLL_S, streams_max: int = STREAMS_MAX, key_streams_max: int = KEY_STREAMS_MAX):
        self.open: Counter[str] = Counter()  # by key
        self._opening: Counter[str] = Counter()  # those whose account's owner has not answered yet
        self._poll_s = poll_s
        self._streams_max = streams_max
        self._key_streams_max = key_streams_max

    async def stream(self, call: Call) -> Stream:
        """GET /v1/customers/{account}/stream."""
        assert call.key is not None
        public_id, account = call.key.public_id, call.params["account"]
        own = self.open[public_id] + self._opening[public_id]
        if own >= self._key_streams_max or self.open.total() + self._opening.total() >= self._streams_max:
            raise unavailable(f"As many streams are open as are taken ({own} of this key).", retry_after_s=5)
        with _counted_in(self._opening, public_id):
            first = await put(call.services, account, Balance(account))
            if isinstance(first, NotFound):
                raise absent("account")
            alerts = await put(call.services, account, RecentAlerts(account, 0))
        return Stream(self._counted(call, first, _newest(alerts, 0)))

    async def _counted(self, call: Call, first: Answer, sequence: int) -> AsyncGenerator[bytes, None]:
        assert call.key is not None
        with _counted_in(self.open, call.key.public_id):
            async for event in self._events(call, first, sequence):
                yield event

    async def _events(self, call: Call, answer: Answer | None, sequence: int) -> AsyncGenerator[bytes, None]:
        account, clock = call.params["account"], call.services.clock
        shown = b""
        said_s = heard_s = clock.boot_s()
        while await _still_allowed(call):
            if isinstance(answer, BalanceView):
                heard_s = clock.boot_s()
                wallet = answer.wallet
                balance = BalanceAnswer(wallet.booked, wallet.held, wallet.available, wallet.overdraft, wallet.currency)
                if (state := _encoder.encode(balance)) != shown:
                    shown, said_s = state, heard_s
                    yield _event("balance", _encoder.encode(BalanceEvent(balance, as_of_answer(answer.as_of))))
                told = await _asked(call, RecentAlerts(account, sequence))
                if isinstance(told, AlertsView):
                    for body in told.bodies:
                        yield _event("alert", body)
                    sequence = _newest(told, sequence)
            elif isinstance(answer, NotFound) or clock.boot_s() - heard_s > AWAY_MAX_S:
                return
            if clock.boot_s() - said_s >= HEARTBEAT_S:
                said_s = clock.boot_s()
                yield b": still here\n\n"
            await clock.sleep(self._poll_s)
            answer = await _asked(call, Balance(account))


@contextmanager
def _counted_in(counts: Counter[str], public_id: str) -> Iterator[None]:
    counts[public_id] += 1
    try:
        yield
    finally:
        counts[public_id] -= 1
        if not counts[public_id]:
            del counts[public_id]


async def _still_allowed(call: Call) -> bool:
    assert call.key is not None
    try:
        return bool(await call.services.keys.usable(call.key.public_id))
    except KeysUnavailable:
        return False


async def _asked(call: Call, question: Question) -> Answer | None:
    try:
        return await put(call.services, call.params["account"], question)
    except Problem:
        return None  # away for now


def _newest(answer: Answer | None, sequence: int) -> int:
    if not isinstance(answer, AlertsView):
        return sequence
    return max([sequence, *(_alert_decoder.decode(body).data.sequence for body in answer.bodies)])


def _event(name: str, body: bytes) -> bytes:
    """JSON holds no line break, so one `data` line carries it."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), body)


def stream_route(handler: Handler) -> Route:
    """The route, with the replica's own count of streams behind it."""
    return Route(
        method="GET",
        path="/v1/customers/{account}/stream",
        scope=KeyScope.READ,
        handler=handler,
        summary="Follow one account live",
        description=(
            "Server-sent events, until the caller hangs up or the key ends: `balance` at once and at every change (looked "
            "at four times a second), `alert` with the very body that webhooks carry, and a comment line every 15 s. There "
            "is no replay: read the lists for what was before."
        ),
        tags=("customers",),
        example=Example(params={"account": "acme"}),
        account_from="path",
        response_media="text/event-stream",
        also={404: "There is no such account.", 503: "Too many streams are open, or the account's owner is away."},
    )
