"""Services without any server: doors that answer what a test says, a log in memory, keys in a dict."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import orjson
from pydantic import SecretStr

from actors.audit import AuditEntry
from actors.cost_store import CostStatus, CostSum
from actors.door_client import DoorUnavailable
from actors.door_client import Route as DoorRoute
from actors.door_wire import (
    AlertsView,
    Answer,
    AsOf,
    Balance,
    BalanceView,
    BindingView,
    CarriedOn,
    CarryOn,
    Check,
    Checked,
    CloseLease,
    CoveredView,
    Extend,
    ExtendLease,
    HoldView,
    LeaseAnswered,
    LeaseClosed,
    LeasedBoundView,
    LeaseView,
    NotFound,
    PartitionStatus,
    Question,
    RecentAlerts,
    Release,
    Released,
    Status,
    StatusView,
    TakeLease,
    UnitCeilingView,
    WalletView,
)
from actors.idempotency import KeptAnswer, KeyReused
from actors.keys import Key, KeyRecord, KeyScope, KeysUnavailable, KeyUnknown, new_key_text
from actors.ports import LogUnavailable, Outgoing, StoreUnavailable
from actors.web import batch_checks, dialect_routes, hot, key_routes, lease_routes, midstream_routes, otlp_routes
from actors.web.api import all_routes
from actors.web.app import App
from actors.web.health import Health, health_routes
from actors.web.stream import Streams, stream_route
from actors.web.wire import Call, Reply, Route, Services
from config.settings import KafkaSettings, Settings
from engine.holds import Bound, Hold, seal_token

CONTROL_KEY = "5a" * 32
START_US = 1_795_341_600_000_000  # 2026-11-22T10:00:00Z
AS_OF = AsOf(3, 7, 18_250, START_US, 0)
WALLET = WalletView("USD", "12.5", "0.03", "12.47", "0")
HELD = HoldView("3.7.41", "a-token", 60_000, 65_000)
ALLOWED = Checked(
    True, AS_OF, binding=BindingView("wallet", "", "", "12.47", None), wallet=WALLET, price="0.03", version=1, hold=HELD
)

LEASE = LeaseView(
    "3.7.42",
    "a-token",
    250,
    (LeasedBoundView((), "1", "250"), LeasedBoundView(("units",), "4", "1000")),
    (UnitCeilingView("p", "units", ("units",), "0.5"), UnitCeilingView("steps", "units", ("units",), None)),
    ("team:red/user:ann",),
    60_000,
    65_000,
    125_000,
)


def token(account: str = "acme", **changes: Any) -> str:
    """A hold's token that the fakes' deployment has sealed."""
    facts = {
        "account": account,
        "scope": "team:red",
        "partition": 3,
        "epoch": 7,
        "number": 41,
        "admitted_us": START_US,
        "version": 1,
        "valid_until_us": START_US + 60_000_000,
        "expires_us": START_US + 65_000_000,
        "report_until_us": START_US + 125_000_000,
        "bounds": (Bound(1_000, ("p",), ("p",)),),
    }
    return seal_token(bytes.fromhex(CONTROL_KEY), Hold(**(facts | changes)))  # type: ignore[arg-type]


class FakeClock:
    """Stands still; sleeping moves it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def wall_us(self) -> int:
        return START_US + round(self.now_s * 1e6)

    def boot_s(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        await asyncio.sleep(0)


class FakeDoors:
    """One shard that owns every partition. `answers` overrides what is said to a kind of question."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.asked: list[tuple[str, Question]] = []
        self.accounts = {"acme", "globex"}
        self.answers: dict[type, Answer | Exception | Callable[[Any], Answer]] = {}
        self.stages = ["ready"] * partitions

    async def ask(self, account: str, question: Question, within_s: float) -> Answer:
        self.asked.append((account, question))
        told = self.answers.get(type(question))
        if isinstance(told, Exception):
            raise told
        if told is not None:
            return told(question) if callable(told) else told
        return self._usual(account, question)

    def _usual(self, account: str, question: Question) -> Answer:
        if account not in self.accounts:
            if isinstance(question, Check):
                return Checked(False, AS_OF, reason="unknown_account")
            return NotFound(AS_OF)
        match question:
            case Check() | Extend():
                return ALLOWED
            case Release():
                return Released(True, AS_OF)
            case CarryOn():
                return CarriedOn("continue", (CoveredView(("units",), "1000"),), ALLOWED)
            case TakeLease() | ExtendLease():
                return LeaseAnswered(ALLOWED, LEASE)
            case CloseLease():
                return LeaseClosed(False, question.events, AS_OF)
            case Balance():
                return BalanceView(WALLET, AS_OF)
            case RecentAlerts():
                return AlertsView((), AS_OF)
        raise DoorUnavailable("not asked in these tests", 0.5)

    async def ask_every_shard(self, question: Status, within_s: float) -> list[StatusView]:
        partitions = tuple(
            PartitionStatus(
                *(number, stage, "", 7, 100, 0, START_US, 90, 0.4, 2, 5, {"rated": 42}),
                *(1, {"USD": "2.5"}, {"EUR": "0.5", "USD": "3"}),
            )
            for number, stage in enumerate(self.stages)
        )
        return [StatusView("shard-0", "shard-0.1", 123_456_789, 4.5, 0.9, {"allowed": 3}, partitions, 6, 1)]

    def routes(self) -> list[DoorRoute]:
        return [DoorRoute(number, "shard-0.1", "10.0.0.7", 7411, 7) for number in range(self.partitions)]


class FakeAppender:
    """A log in memory."""

    def __init__(self) -> None:
        self.records: list[Outgoing] = []
        self.away = False
        self.hanging = False

    async def append(self, records: Sequence[Outgoing]) -> list[int]:
        if self.hanging:
            await asyncio.Event().wait()
        if self.away:
            raise LogUnavailable("the broker is away")
        self.records += records
        return list(range(len(self.records) - len(records), len(self.records)))


class FakeKeys:
    """Keys in a dict, by text."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.by_text: dict[str, Key] = {}
        self.records: list[KeyRecord] = []
        self.fresh = True
        self.away = False

    def add(self, *scopes: KeyScope, account: str | None = None) -> str:
        key, text = self._made("test", frozenset(scopes), account, None, "test")
        self.by_text[text] = key
        return text

    def _made(
        self, name: str, scopes: frozenset[KeyScope], account: str | None, expires_us: int | None, created_by: str
    ) -> tuple[Key, str]:
        number = len(self.records)
        key = Key(f"{number:012d}", name, scopes, account, expires_us)
        self.records.append(KeyRecord(key, self._clock.wall_us() + number, created_by, None))
        return key, new_key_text("test", key.public_id, f"{number:043d}")

    async def verify(self, text: str) -> Key | None:
        if self.away:
            raise KeysUnavailable("away")
        return self.by_text.get(text)

    async def usable(self, public_id: str) -> bool:
        if self.away:
            raise KeysUnavailable("away")
        return any(key.public_id == public_id for key in self.by_text.values())

    async def create(
        self,
        name: str,
        scopes: Sequence[KeyScope],
        account: str | None = None,
        expires_us: int | None = None,
        *,
        created_by: str,
    ) -> tuple[Key, str]:
        key, text = self._made(name, frozenset(scopes), account, expires_us, created_by)
        self.by_text[text] = key
        return key, text

    async def page(self, limit: int, after: tuple[int, str] | None = None) -> list[KeyRecord]:
        newest = sorted(self.records, key=lambda record: (record.created_us, record.key.public_id), reverse=True)
        return [record for record in newest if after is None or (record.created_us, record.key.public_id) < after][
            :limit
        ]

    async def revoke(self, public_id: str) -> None:
        if all(record.key.public_id != public_id for record in self.records):
            raise KeyUnknown(public_id)
        self.by_text = {text: key for text, key in self.by_text.items() if key.public_id != public_id}


class FakeAudit:
    """An audit trail in memory."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []
        self.away = False

    async def record(self, entry: AuditEntry) -> None:
        if self.away:
            raise StoreUnavailable("the database is away")
        self.entries.append(entry)


class FakeIdempotency:
    """Kept answers in a dict."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], tuple[bytes, KeptAnswer | None]] = {}

    async def begin(self, actor: str, key: str, operation: str, digest: bytes) -> KeptAnswer | None:
        known = self._kept.setdefault((actor, key), (digest, None))
        if known[0] != digest:
            raise KeyReused
        return known[1]

    async def keep(self, actor: str, key: str, answer: KeptAnswer) -> None:
        self._kept[actor, key] = self._kept[actor, key][0], answer

    async def forget(self, actor: str, key: str) -> None:
        self._kept.pop((actor, key), None)


# Handlers that these fakes suffice for. The others are told apart from their routes, which the app enforces all the same.
OWN_PATHS = frozenset(
    route.path
    for route in (
        *hot.ROUTES,
        *batch_checks.ROUTES,
        *lease_routes.ROUTES,
        *midstream_routes.ROUTES,
        *dialect_routes.ROUTES,
        *otlp_routes.ROUTES,
        *key_routes.ROUTES,
        *health_routes(Health("own")),
        stream_route(Streams().stream),
    )
) | {"/openapi.json"}


def exemplary(route: Route) -> Route:
    """The route with its example for an answer, unless these fakes can serve it in earnest."""
    if route.path in OWN_PATHS:
        return route

    async def show(call: Call) -> Reply:
        body = None if route.example.response is None else orjson.dumps(route.example.response)
        return Reply(body, media_type=route.response_media)

    return replace(route, handler=show)


class FakeCosts:
    """What Postgres has of costs: nothing, until a test says so."""

    def __init__(self) -> None:
        self.rows: list[CostSum] = []
        self.partitions: list[CostStatus] = []
        self.away = False

    async def statuses(self) -> list[CostStatus]:
        if self.away:
            raise StoreUnavailable("away")
        return self.partitions

    async def sums(self, from_us: int, until_us: int, *, by: Sequence[str]) -> list[CostSum]:
        assert list(by) == ["model"]
        assert until_us - from_us == 86_400_000_000
        return self.rows


class Stage:
    """An app on fakes."""

    def __init__(self, **limits: Any) -> None:
        self.settings = Settings(control_key=SecretStr(CONTROL_KEY), kafka=KafkaSettings(partitions=4))
        self.clock = FakeClock()
        self.doors = FakeDoors(4)
        self.appender = FakeAppender()
        self.keys = FakeKeys(self.clock)
        self.audit = FakeAudit()
        self.costs = FakeCosts()
        self.services = Services(
            self.settings,
            self.clock,
            self.doors,
            self.appender,
            self.keys,
            audit=self.audit,
            idempotency=FakeIdempotency(),
            costs=self.costs,
        )
        self.health = Health("replica-1")
        routes = [exemplary(route) for route in all_routes(self.health)]
        self.app = App(routes, self.services, observe=self.health.observe, **limits)
