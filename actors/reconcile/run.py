"""One partition through every reconciler: its newest checkpoint, read in one snapshot, and the log folded anew beside it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct, field

from actors.checkpoints import Posted, StoredCheckpoint
from actors.drift import Drift, digit
from actors.ports import AlertRow, CommandRow, DeadLetterRow
from actors.rebuild import Fold, Stored, read_stored, settle
from actors.reconcile.forwards import Forwards
from actors.reconcile.ledger import ledger_drifts, sums_of
from actors.reconcile.offsets import Stretch, beyond_drifts, counted_in, end_drifts, stretch_drifts
from actors.reconcile.outbox import outbox_drifts, told_drifts
from actors.reconcile.rated import RatedTopic
from actors.reconcile.rerate import CHECK as RERATE
from actors.reconcile.rerate import LotTerms, Prices, Rerated, Table, Terms, UnitTerms, read_agreed, sample_of
from engine.account import Account
from engine.outcomes import APPLIED
from engine.partition import Partition
from engine.snapshot import UnknownSnapshot, decode_partition

STRETCH: Final = 20_000  # offsets compared at a time: what bounds the memory
FORWARDED: Final = "forwarded"  # the outcome
KEPT_MAX: Final = 100  # drifts of one check that are kept whole; the rest are counted

Row = TypeVar("Row")


class Facts(Struct):
    """What else a checkpoint's snapshot holds."""

    postings: list[Posted]
    plan_changes: list[tuple[str, int]]
    alerts: list[AlertRow]
    letters: list[DeadLetterRow]
    commands: list[CommandRow]  # from the fold's start on


class Report(Struct):
    """How one partition stands."""

    partition: int
    start: int
    end: int
    records: int = 0
    rated_lines: int = 0
    forwarded: int = 0  # records that belong to other partitions
    skipped: int = 0  # records that are stored as engine errors: not billed, and not tried
    accounts: int = 0
    sampled: list[str] = field(default_factory=list)
    found: dict[str, int] = field(default_factory=dict)  # drifts by check
    drifts: list[Drift] = field(default_factory=list)
    note: str = ""

    @property
    def drift(self) -> int:
        """How many differences there are."""
        return sum(self.found.values())

    def as_json(self) -> dict[str, Any]:
        """For programs; each kept drift with its digit."""
        drifts = [msgspec.to_builtins(each) | {"digit": digit(each.expected, each.found)} for each in self.drifts]
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain | {"drift": self.drift, "drifts": drifts}

    def take(self, drifts: "Iterator[Drift] | list[Drift]") -> None:
        for drift in drifts:
            count = self.found[drift.check] = self.found.get(drift.check, 0) + 1
            if count <= KEPT_MAX:
                self.drifts.append(drift)


async def read_facts(checkpoint: StoredCheckpoint, start: int) -> tuple[Stored, Facts]:
    """All that the reconcilers need, of one moment."""
    stored = await read_stored(checkpoint)
    return stored, Facts(
        await checkpoint.postings(),
        await checkpoint.plan_changes(),
        await checkpoint.alerts(),
        await checkpoint.dead_letters(),
        await checkpoint.commands(start),
    )


class Reconciler:
    """See the module's docstring."""

    def __init__(
        self,
        fold: Fold,
        stored: Stored,
        facts: Facts,
        rated: RatedTopic,
        forwards: Forwards,
        *,
        share: float,
        seed: int,
    ) -> None:
        """`share` of the accounts are re-rated, those that `seed` picks. `forwards` is told what the partition has sent on
        to others; whether it is there is for its caller to ask, once all are folded."""
        self._fold = fold
        self._stored = stored
        self._facts = facts
        self._rated = rated
        self._forwards = forwards
        self._number = fold.number
        self._letters = {row.offset: row for row in facts.letters}
        self._commands = {row.offset: row for row in facts.commands}
        self._lines: dict[str, list[CommandRow]] = {}  # what posted lines, by account
        for row in facts.commands:
            if row.kind in ("adjust", "rerate") and row.answer == APPLIED:
                self._lines.setdefault(row.account, []).append(row)
        self._alerts = {row.alert_id: row for row in facts.alerts}
        self._made: dict[str, AlertRow] = {}  # what the fold told, by id; the first telling stands
        self._rows = {row.account: row for row in stored.accounts}
        self._before = fold.partition.header()
        self._checkpoint = fold.stored_partition()
        self._accounts = dict(_readable(self._checkpoint))
        self.report = Report(fold.number, fold.start, fold.end, accounts=len(self._rows), note=fold.note)
        self.report.skipped = fold.skipped
        self.report.sampled = sample_of(self._accounts, share, seed)
        versions = decode_partition(stored.head.blob).catalogues if stored.head.blob else []
        documents = {version: msgspec.json.decode(body) for version, body in stored.catalogues.items()}
        self._prices = Prices(documents, versions)
        self._rerated = {name: self._begin(name) for name in self.report.sampled}

    async def run(self, say: Callable[[int], None]) -> Report:
        """Everything; `say` hears now and then up to which offset. Raises LogTooShort, LogDamaged, LogUnavailable."""
        report, end = self.report, self._fold.end
        log_end = await self._fold.check_log()
        report.take(await self._rated.survey(self._fold.last))
        for start in range(self._fold.start, min(end, log_end), STRETCH):
            await self._stretch(start, min(start + STRETCH, end, log_end))
            say(min(start + STRETCH, end))
        report.take(end_drifts(self._stored.head, report.records, self._fold.last, log_end, counted_in(self._before)))
        report.take(beyond_drifts(self._number, end, self._facts.letters, self._facts.commands))
        report.take(self._fold.drifts("state"))
        log_time_us, facts = self._checkpoint.log_time_us, self._facts
        ledger = self._accounts, self._rows, facts.postings, log_time_us, facts.plan_changes
        report.take(ledger_drifts(self._number, *ledger))
        unreadable = self._rows.keys() - self._accounts.keys()
        made = self._made.values()
        report.take(told_drifts(self._number, made, self._alerts, self._fold.start))
        report.take(
            outbox_drifts(
                self._number,
                self._accounts,
                self._facts.letters,
                self._facts.alerts,
                unreadable,
                made,
                self._fold.start,
                log_time_us,
            )
        )
        for name, rerated in self._rerated.items():
            report.take(self._finish(name, rerated))
        return report

    async def _stretch(self, start: int, end: int) -> None:
        fold, report = self._fold, self.report
        outcomes: dict[int, str] = {}
        appended_ms: dict[int, int] = {}  # of what was forwarded
        async for record, outcome in fold.records(start, end):
            outcomes[record.offset] = outcome
            if outcome == FORWARDED:
                appended_ms[record.offset] = record.timestamp
        for forward in fold.partition.outputs.forwards:
            self._forwards.add(self._number, forward, appended_ms[forward.offset])
        report.forwarded += len(appended_ms)
        lines: dict[int, list[bytes]] = {}
        for offset, line in fold.partition.outputs.lines:
            lines.setdefault(offset, []).append(line)
        made = settle(fold.partition)
        rated = await self._rated.stretch(start, end)
        report.records += len(outcomes)
        report.rated_lines += sum(len(each.lines) for each in rated.values())
        stretch = Stretch(
            outcomes,
            lines,
            {row.offset: row for row in made.dead_letters},
            {row.offset: row for row in made.commands},
            rated,
            _within(self._letters, start, end),
            _within(self._commands, start, end),
        )
        report.take(stretch_drifts(self._number, stretch))
        for row in made.alerts:
            self._made.setdefault(row.alert_id, row)
        for offset in sorted(rated):
            for _, line in sorted(rated[offset].lines.items()):
                report.take(self._rerate(line))

    def _rerate(self, line: bytes) -> Iterator[Drift]:
        fields = msgspec.json.decode(line)
        rerated = self._rerated.get(fields.get("account"))
        if rerated is None:
            return
        try:
            findings = list(rerated.line(fields))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"rated line {fields.get('line')} of offset {fields.get('offset')}"
            findings = [(what, "one that can be rated again", f"{type(error).__name__}: {error}")]
        for finding in findings:
            yield Drift(RERATE, self._number, fields["account"], *finding)

    def _begin(self, name: str) -> Rerated:
        account = self._accounts[name]
        before = self._fold.partition.account(name)
        lots = {
            lot.lot: LotTerms(
                lot.lot,
                lot.kind,
                lot.granted,
                lot.priority,
                lot.effective_us,
                lot.expires_us,
                lot.scope,
                lot.settles,
                tuple((each.at_us, each.kind, each.amount) for each in lot.changes),
                None if lot.carry is None else (lot.carry.source, lot.carry.percent, lot.carry.cap),
            )
            for lot in account.lots.values()
        }
        agreed = [
            (
                each.from_us,
                each.plan,
                each.price,
                read_agreed(each.from_us, msgspec.json.decode(each.terms)) if each.terms else None,
            )
            for each in account.contract.agreed
        ]
        phases = [(each.from_us, each.plan) for each in account.contract.phases]
        terms = Terms(
            name,
            account.contract.plan,
            account.currency,
            account.zone,
            account.anchor_day,
            account.woken_us,
            lots,
            agreed,
            phases,
            account.contract.opened_us,
            [(each.from_us, each.paused) for each in account.contract.pauses],
            [
                UnitTerms(each.grant, each.price, each.granted, each.effective_us, each.expires_us, each.voided_us)
                for each in account.quantity_grants.values()
            ],
            [(each.from_us, each.seat, each.count) for each in account.contract.seats],
            account.billed_us,
            [(each.from_us, each.cap, each.amount) for each in account.waivers],
        )
        if before is None:
            return Rerated(terms, self._prices, {}, {}, {})
        return Rerated(terms, self._prices, _table(before), before.late, before.adjusted)

    def _finish(self, name: str, rerated: Rerated) -> Iterator[Drift]:
        account = self._accounts[name]
        for row in self._lines.get(name, ()):
            said = msgspec.json.decode(row.body)
            amounts = said["differences"] if row.kind == "rerate" else [(said.get("used_us"), said["amount"])]
            for used_us, amount in amounts:
                used_us = row.log_time_us if used_us is None else used_us
                rerated.manual(row.log_time_us, used_us, said.get("price") or "", amount)
        posted = sums_of(line for line in self._facts.postings if line.account == name)
        balance, took = self._rows[name].balance, account.derive().taken
        for finding in rerated.finish(_table(account), account.adjusted, posted, balance, took):
            yield Drift(RERATE, self._number, name, *finding)


def _readable(checkpoint: Partition) -> Iterator[tuple[str, Account]]:
    """Every account whose snapshot can be read; that one cannot is told where the states are compared."""
    for name in sorted(checkpoint.account_ids()):
        try:
            account = checkpoint.account(name)
        except UnknownSnapshot:
            continue
        assert account is not None
        yield name, account


def _table(account: Account) -> Table:
    return {start: dict(row) for start, row in account.table.items()}


def _within(rows: Mapping[int, Row], start: int, end: int) -> dict[int, Row]:
    return {offset: rows[offset] for offset in range(start, end) if offset in rows}
