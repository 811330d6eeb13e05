"""The API on a real database and a real fold: what is appended is folded at once, and its owner answers from the fold."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace
from pydantic import SecretStr

from actors.account_view import account_view, checked_view, rerated_view, wallet_view
from actors.audit import Audit
from actors.billed_usage import BilledUsages
from actors.catalogues import PostgresCatalogues
from actors.commands import CommandDesk
from actors.cost_store import CostStore
from actors.door_client import DoorUnavailable
from actors.door_client import Route as DoorRoute
from actors.door_wire import (
    Answer,
    Applied,
    AppliedView,
    AsOf,
    Balance,
    BalanceView,
    Check,
    Describe,
    NotFound,
    Question,
    Recovering,
    ShowRerated,
    Status,
    StatusView,
)
from actors.drafts import Drafts
from actors.gateways import PostgresGateways
from actors.idempotency import Idempotency
from actors.keys import KeyScope
from actors.margin_floors import PostgresFloors
from actors.margin_rates import PostgresRates
from actors.ports import Checkpoint, Claim, LastRecord, LogUnavailable, Outgoing, record_digest
from actors.postgres import PostgresStore
from actors.records import Records
from actors.reported_costs import ReportedCosts
from actors.shadow_store import Shadows
from actors.training_runs import PostgresTraining
from actors.web.api import all_routes
from actors.web.app import App
from actors.web.health import Health
from actors.web.wire import Services
from config.settings import KafkaSettings, Settings, ShadowSettings
from engine.admission import Decision, FieldBound
from engine.admission import Question as Asked
from engine.catalog import (
    CatalogueDocument,
    MeterDefinition,
    PlanDefinition,
    PriceDefinition,
    SeatDefinition,
    compile_catalogue,
    document_json,
)
from engine.events import CatalogueMarker, seal
from engine.money import parse_quantity
from engine.outcomes import Refusal
from engine.partition import Partition
from tests.actors.web.asgi_client import Client
from tests.actors.web.fakes import START_US, FakeClock, FakeKeys
from tests.contracts.benches import RealBench

CONTROL_KEY = "6b" * 32
KEY = bytes.fromhex(CONTROL_KEY)
TOPIC = "usage"


def document(amount: str = "0.5", **features: bool | str) -> CatalogueDocument:
    """Plan `starter`: a token of any model costs that many dollars; `growth`: a quarter."""
    return CatalogueDocument(
        {"tokens": MeterDefinition("llm.request", "sum", "tokens", ("model",))},
        {
            "starter": PlanDefinition(
                "USD",
                {"tokens": PriceDefinition("tokens", "per_unit", amount=amount)},
                features,
                seats={"editor": SeatDefinition("18")},
            ),
            "growth": PlanDefinition("USD", {"tokens": PriceDefinition("tokens", "per_unit", amount="0.25")}),
        },
    )


class Owner:
    """The one partition: log, fold and door in one."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.library = {number: compile_catalogue(number, document()) for number in range(1, 9)}
        self.fold = Partition(0, 1, TOPIC, KEY, self.library)
        self.log: list[Outgoing] = []
        self.away = False  # the log
        self.silent = False  # the door
        self.recovering: Recovering | None = None

    async def append(self, records: Sequence[Outgoing]) -> list[int]:
        if self.away:
            raise LogUnavailable("the broker is away")
        return [self._take(record) for record in records]

    def _take(self, record: Outgoing) -> int:
        offset = len(self.log)
        self.log.append(record)
        self.fold.apply(offset, self.clock.wall_us() // 1000, record.key, record.value)
        return offset

    async def ask(self, account: str, question: Question, within_s: float) -> Answer:
        if self.silent:
            raise DoorUnavailable("no shard owns it", 0.5)
        if self.recovering is not None:
            return self.recovering
        as_of = AsOf(0, 1, len(self.log), self.fold.log_time_us, 0)
        match question:
            case Applied():
                return AppliedView(self._answer(question), as_of)
            case Balance():
                wallet = self.fold.wallet(account, self.clock.wall_us())
                return NotFound(as_of) if wallet is None else BalanceView(wallet_view(wallet), as_of)
            case Check():
                bounds = tuple(FieldBound(bound.fields, parse_quantity(bound.up_to)) for bound in question.bounds)
                asked = Asked(account, question.scope, question.type, question.data, question.reach, bounds)
                decision = self.fold.check(replace(asked, feature=question.feature), self.clock.wall_us())
                assert isinstance(decision, Decision), "nothing is held here, so no slice is needed"
                return checked_view(decision, None, as_of)
            case Describe():
                wallet, opened = self.fold.wallet(account, self.clock.wall_us()), self.fold.account(account)
                if wallet is None or opened is None:
                    return NotFound(as_of)
                return account_view(opened, wallet, 0, self.fold.log_time_us, as_of)
            case ShowRerated():
                return rerated_view(self.fold, question, as_of)
        raise AssertionError(question)

    async def publish(self, version: int, catalogue: CatalogueDocument) -> None:
        """Another version, in force an hour later."""
        self.library[version] = compile_catalogue(version, catalogue)
        marker = msgspec.json.encode(CatalogueMarker(version, self.clock.wall_us() + 3_600_000_000))
        await self.append([Outgoing("usage", seal(KEY, TOPIC, 0, marker), partition=0)])

    def _answer(self, question: Applied) -> str | None:
        assert question.account is not None and question.command_key is not None
        remembered = self.fold.answer_to(question.account, question.command_key)
        if remembered is None:
            return None
        digest, answer = remembered
        return answer if question.digest in (None, digest) else Refusal.KEY_REUSED.value

    async def ask_every_shard(self, question: Status, within_s: float) -> list[StatusView]:
        return []

    def routes(self) -> list[DoorRoute]:
        return []

    async def use(self, account: str, event_id: str, tokens: int, **changes: Any) -> None:
        """A usage event arrives."""
        event = {
            "specversion": "1.0",
            "id": event_id,
            "source": "gateway-1",
            "type": "llm.request",
            "subject": account,
            "time": "2026-11-22T10:00:00Z",
            "data": {"model": "atlas", "tokens": tokens},
        }
        await self.append([Outgoing("usage", msgspec.json.encode(event | changes), account.encode())])


class _Checkpoints:
    def __init__(self, blobs: dict[int, bytes]) -> None:
        self._blobs = blobs

    async def blobs(self) -> dict[int, bytes]:
        return dict(self._blobs)


class House:
    """Everything one replica needs, on the real database of a test."""

    def __init__(self, bench: RealBench, *, sandbox: bool = False) -> None:
        self.bench = bench
        self.clock = FakeClock()
        self.owner = Owner(self.clock)
        self.keys = FakeKeys(self.clock)
        kafka = KafkaSettings(partitions=1)
        settings = Settings(
            control_key=SecretStr(CONTROL_KEY), sandbox=sandbox, kafka=kafka, shadow=ShadowSettings(actors=1)
        )
        self.records = Records(bench.dsn, bench.schema, 1)
        self.audit = Audit(bench.dsn, bench.schema)
        self.idempotency = Idempotency(bench.dsn, bench.schema, KEY)
        self.catalogues = PostgresCatalogues(bench.dsn, bench.schema)
        self.drafts = Drafts(bench.dsn, bench.schema)
        self.shadows = Shadows(bench.dsn, bench.schema)
        self.floors = PostgresFloors(bench.dsn, bench.schema, 1.2, 5.0)
        self.rates = PostgresRates(bench.dsn, bench.schema, 1.2, 5.0)
        self.gpu_rates: dict[int, bytes] = {}  # checkpoints of cost actors, by partition
        self.training = PostgresTraining(bench.dsn, bench.schema, 1.2, 5.0, _Checkpoints(self.gpu_rates))
        self.costs = CostStore(bench.dsn, bench.schema, 1.2, 5.0)
        self.billed = BilledUsages(bench.dsn, bench.schema, 1.2, 5.0, self.costs)
        self.gateways = PostgresGateways(bench.dsn, bench.schema, 1.2, 5.0, KEY)
        self.reported = ReportedCosts(bench.dsn, bench.schema, 1.2, 5.0)
        self.services = Services(
            settings,
            self.clock,
            self.owner,
            self.owner,
            self.keys,
            records=self.records,
            commands=CommandDesk(self.owner, self.owner, KEY, TOPIC, 1),
            audit=self.audit,
            idempotency=self.idempotency,
            catalogues=self.catalogues,
            drafts=self.drafts,
            shadows=self.shadows,
            floors=self.floors,
            rates=self.rates,
            training=self.training,
            billed=self.billed,
            gateways=self.gateways,
            reported=self.reported,
        )
        self.app = App(all_routes(Health("test")), self.services)
        self.client = self.caller(*KeyScope)
        self._claim: Claim | None = None
        self._sequence = 0

    async def open(self) -> None:
        stores = (self.records, self.audit, self.idempotency, self.catalogues, self.drafts, self.floors, self.training)
        for part in (*stores, self.shadows, self.rates, self.costs, self.billed, self.gateways, self.reported):
            await self.bench.started(part)
        await self.catalogues.publish_catalogue(1, document_json(document()))
        marker = msgspec.json.encode(CatalogueMarker(1, START_US))
        await self.owner.append([Outgoing("usage", seal(KEY, TOPIC, 0, marker), partition=0)])

    def caller(self, *scopes: KeyScope, account: str | None = None) -> Client:
        """A client with a key of its own."""
        return Client(self.app, self.keys.add(*scopes, account=account))

    async def checkpoint(self) -> None:
        """What was folded so far goes into the database, as an owner would write it."""
        store = await self._store()
        assert self._claim is not None
        cut = self.owner.fold.begin_cut()
        assert cut.encode(10_000)
        self.owner.fold.end_cut()
        self._sequence += 1
        end = len(self.owner.log)
        await store.commit(
            Checkpoint(
                0,
                self._claim.epoch,
                self._claim.ckpt_seq + self._sequence,
                end,
                LastRecord(end - 1, self.clock.wall_us() // 1000, record_digest(None, None)),
                cut.blob,
                cut.accounts,
                cut.dedup,
                cut.dedup_bucket_min,
                cut.commands,
                cut.postings,
                cut.alerts,
                cut.dead_letters,
            )
        )

    async def _store(self) -> PostgresStore:
        if self._claim is None:
            roster = await self.bench.roster()
            term = await roster.take_office("controller", 60.0)
            assert term is not None
            await roster.assign(term, {0: "a"})
            self._kept = await self.bench.store()
            self._claim = await self._kept.claim(0, "a")
        return self._kept

    async def opened(self, account: str = "acme", dollars: str | None = None) -> None:
        """An account, with credit."""
        answer = await self.client.post("/v1/customers", {"account": account, "plan": "starter"})
        assert answer.status == 201, answer.body
        if dollars is not None:
            body = {"amount": dollars, "currency": "USD", "lot": "first"}
            assert (await self.client.post(f"/v1/customers/{account}/grants", body)).status == 201
