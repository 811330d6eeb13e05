"""What must hold when a run has come to rest: everything against a fold without faults, and against the oracle."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson

from actors.owned import Stage
from engine.account import Account
from engine.outcomes import DeadLetterReason
from engine.partition import Partition
from engine.runs import Run
from loadtest.oracle.fold import Oracle
from loadtest.readback import engine_account
from loadtest.report import compare, compare_ledger
from tests.simulation.catalogues import library, oracle_library
from tests.simulation.sim_log import SimRecord
from tests.simulation.traffic import CONTROL_KEY, TOPIC, is_poison, unheard_of
from tests.simulation.world import World


def unrest(world: World) -> Iterator[str]:
    """Why the deployment is not at rest yet; nothing when it is."""
    owners: Counter[int] = Counter()
    for slot in world.shards:
        owners.update(world.speaking(slot))
        member = world.database.members.get(slot.process.name) if slot.process is not None else None
        if member is None or member.dead or slot.stopping or slot.process is None or not slot.process.alive:
            yield f"{slot.name} has not come back"
        elif slot.shard is not None:
            for view in slot.shard.partitions():
                if view.stage == Stage.HALTED:
                    yield f"partition {view.partition} is halted: {view.halt_reason}"
    for controller in world.controllers:
        if controller.process is None or not controller.process.alive:
            yield f"{controller.name} has not come back"
    for number in range(world.plan.partitions):
        row, held = world.database.partition(number), world.broker.topic("usage", number)
        if owners[number] != 1:
            yield f"partition {number} has {owners[number]} owners that are ready"
        if row.next_offset != held.end:
            yield f"partition {number}: committed to {row.next_offset}, the log ends at {held.end}"
        due = [account.wake_us for account in row.accounts.values() if account.wake_us is not None]
        # Where clocks differ a tick may come too early: there is no rest before it came again.
        late_us = 0 if world.plan.skew_max_us else max(2_000_000, round(2_000_000 * world.clock.pace))
        if due and min(due) + world.plan.skew_max_us + late_us < world.clock.wall_us():
            yield f"partition {number}: an account has not been woken since {min(due)}"
    waiting = [
        told.alert.alert_id for told in world.database.outbox.values() if not told.delivered and not told.given_up
    ]
    if waiting:
        yield f"the outbox still holds {len(waiting)} alerts, {waiting[0]} first"


def verify(world: World, folds: dict[int, Partition]) -> list[str]:
    """Every difference, a sentence each. `folds`: what the log comes to, record after record and without faults."""
    oracle = Oracle(oracle_library(world.plan.catalogue), CONTROL_KEY, TOPIC, world.plan.partitions)
    outcomes: dict[tuple[int, int], str] = {}
    for number in range(world.plan.partitions):
        for record in world.broker.topic("usage", number).records:
            place = number, record.offset
            outcomes[place] = _expected(oracle, number, record)
    found: dict[str, dict[str, Any]] = {}
    differences: list[str] = []
    postings = _places(world)
    for number in range(world.plan.partitions):
        stored, folded = stored_fold(world, number), folds[number]
        state = stored.state_bytes()
        world.note(state)
        if state != folded.state_bytes():
            differences.append(
                f"partition {number}: the checkpoint is not the fold of its log" + _where(stored, folded)
            )
        for account_id in stored.account_ids():
            account = stored.account(account_id)
            assert account is not None
            found[account_id] = engine_account(account)
            differences += _compare_places(account, postings.get(account_id, {}))
        differences += _compare_outbox(world, number, folded)
    accounts = oracle.accounts
    given_up = {name for name, row in world.database.outbox.items() if row.given_up}
    comparison = compare(
        accounts,
        oracle.rated,
        oracle.alerts,
        corrected=oracle.corrected,
        engine_accounts=found,
        rated_lines=_lines(world),
        received_alerts=world.receivers.taken.keys() | given_up,
        accrued=oracle.accrued,
    )
    again = _rated_again(oracle)
    differences += [sentence for sentence in comparison.differences if not any(place in sentence for place in again)]
    differences += compare_ledger(_ledger(postings), accounts)
    differences += _compare_records(world, outcomes)
    differences += _compare_tellings(world)
    for number, fold in folds.items():
        counted = {name: count for name, count in fold.counts.items() if not name.startswith("alert_")}
        if counted != +oracle.outcomes[number]:
            differences.append(
                f"partition {number}: outcomes {counted}, the oracle counts {dict(oracle.outcomes[number])}"
            )
    differences += [
        f"alert {alert_id}: its body changed between two attempts"
        for alert_id, bodies in world.receivers.taken.items()
        if len(set(bodies)) > 1 and oracle.alerts[alert_id]["rule"] not in ("id_conflict", "correction_failed")
    ]
    return differences


def _expected(oracle: Oracle, number: int, record: SimRecord) -> str:
    """The outcome by the oracle. It knows of no faults of the engine: one is like an event that no meter takes."""
    value = record.value or b""
    if not is_poison(value):
        return oracle.feed(number, record.offset, record.timestamp, record.key, record.value)
    outcome = oracle.feed(number, record.offset, record.timestamp, record.key, unheard_of(value))
    if outcome == "dead_lettered.no_meter":
        oracle.outcomes[number][outcome] -= 1
        outcome = "dead_lettered.engine_error"
        oracle.outcomes[number][outcome] += 1
    return outcome


def _compare_tellings(world: World) -> Iterator[str]:
    """What the outbox says of an alert must have happened."""
    for name, row in world.database.outbox.items():
        if row.delivered and name not in world.receivers.taken:
            yield f"alert {name}: said to be delivered, and nobody took it"
        if row.given_up and row.attempts < world.plan.attempts_max and name not in world.receivers.gone_for:
            yield f"alert {name}: given up after {row.attempts} attempts: {row.error}"


def _rated_again(oracle: Oracle) -> list[str]:
    """Identities that came again, with another time, when the memory had rightly forgotten them (law D1)."""
    times = Counter((rated.account, rated.source, rated.id) for rated in oracle.rated.values())
    return [
        f"account {account}: event {name} of {source}: expected at one offset"
        for (account, source, name), count in times.items()
        if count > 1
    ]


def stored_folds(world: World) -> dict[int, Partition]:
    """Each partition as its last checkpoint holds it."""
    return {number: stored_fold(world, number) for number in range(world.plan.partitions)}


def stored_fold(world: World, number: int) -> Partition:
    """The partition as a successor would load it."""
    row = world.database.partition(number)
    fold = Partition(number, world.plan.partitions, TOPIC, CONTROL_KEY, library(world.plan.catalogue))
    commands = [command for _, command in sorted(row.commands.items())]
    runs = [Run(*name, head.count, head.outline, rows) for name, (head, rows) in row.runs.items()]
    fold.load(row.blob, [row.accounts[name] for name in sorted(row.accounts)], row.dedup, commands, runs)
    return fold


def fresh_folds(world: World) -> dict[int, Partition]:
    """A fold of each partition that has seen nothing yet, and knows which records broke the engine."""
    folds = {
        number: Partition(number, world.plan.partitions, TOPIC, CONTROL_KEY, library(world.plan.catalogue))
        for number in range(world.plan.partitions)
    }
    for number, fold in folds.items():
        letters = world.database.partition(number).dead_letters.values()
        fold.skips = frozenset(letter.offset for letter in letters if letter.reason == DeadLetterReason.ENGINE_ERROR)
    return folds


def fold_all(world: World, folds: dict[int, Partition]) -> None:
    """The whole log into folds that have seen nothing yet."""
    for number, fold in folds.items():
        for record in world.broker.topic("usage", number).records:
            fold.apply(record.offset, record.timestamp, record.key, record.value)


def _where(stored: Partition, folded: Partition) -> str:
    """Which part differs."""
    if stored.header() != folded.header():
        return f": headers {stored.header()!r} and {folded.header()!r}"
    return ""


def _lines(world: World) -> Iterator[dict[str, Any]]:
    for number in range(world.plan.partitions):
        for block in world.broker.topic("rated", number).records:
            for line in (block.value or b"").splitlines():
                yield orjson.loads(line)


def _ledger(postings: dict[str, dict["Place", int]]) -> dict[tuple[str, str, str], int]:
    """What all usage periods of a lot and kind come to."""
    ledger: Counter[tuple[str, str, str]] = Counter()
    for account, sums in postings.items():
        for (lot, kind, _), amount in sums.items():
            ledger[account, lot, kind] += amount
    return dict(ledger)


Place = tuple[str, str, int | None]  # lot ("" for debt), kind, usage period


def _places(world: World) -> dict[str, dict[Place, int]]:
    """What was posted, by account and place."""
    postings: dict[str, dict[Place, int]] = {}
    for row in world.database.partitions.values():
        for posting in row.postings:
            sums = postings.setdefault(posting.account, {})
            place = posting.lot, posting.kind, posting.usage_period_us
            sums[place] = sums.get(place, 0) + posting.amount
    return postings


def _compare_places(account: Account, found: dict[Place, int]) -> Iterator[str]:
    """The sums of the postings, also by usage period: what each lot and kind comes to is held against the oracle."""
    expected = account.derive().allocation.postings(account.billed_us)
    for place in sorted(expected.keys() | found.keys(), key=repr):
        if expected.get(place, 0) != found.get(place, 0):
            yield (
                f"account {account.account}: postings of {place}: expected {expected.get(place, 0)}, "
                f"found {found.get(place, 0)}"
            )


def _compare_outbox(world: World, number: int, folded: Partition) -> Iterator[str]:
    """The outbox holds the alerts of the log, each with its bytes, and no other."""
    bodies: dict[str, set[bytes]] = {}
    for alert in folded.outputs.alerts:
        bodies.setdefault(alert.alert_id, set()).add(alert.body)
    held = {name: row.alert for name, row in world.database.outbox.items() if row.partition == number}
    for name in sorted(bodies.keys() | held.keys()):
        if name not in held:
            yield f"alert {name}: made by partition {number}, and not in the outbox"
        elif name not in bodies:
            yield f"alert {name}: in the outbox, and not made by partition {number}"
        elif held[name].body not in bodies[name]:
            yield f"alert {name}: {held[name].body!r} in the outbox, made was {bodies[name]}"


def _compare_records(world: World, outcomes: dict[tuple[int, int], str]) -> Iterator[str]:
    """Dead letters, answers and forwards: each record's outcome must have left its trace."""
    homes = {
        number: {(record.key, record.value) for record in world.broker.topic("usage", number).records}
        for number in range(world.plan.partitions)
    }
    told = {
        (letter["partition"], letter["offset"]): letter["reason"]
        for number in range(world.plan.partitions)
        for letter in (
            orjson.loads(record.value or b"") for record in world.broker.topic("dead-letters", number).records
        )
    }
    for number in range(world.plan.partitions):
        row = world.database.partition(number)
        for record in world.broker.topic("usage", number).records:
            place = number, record.offset
            kind, _, reason = outcomes[place].partition(".")
            letter = row.dead_letters.get(record.offset)
            kept = None if letter is None else letter.reason
            wanted = reason if kind == "dead_lettered" else None
            if kept != wanted or told.get(place) != wanted:
                yield f"record {place}: dead letter {wanted} expected, stored {kept}, told {told.get(place)}"
            command = row.commands.get(record.offset)
            answer = None if command is None else command.answer
            expected = reason or kind if kind in ("applied", "refused") else None
            if answer != expected:
                yield f"record {place}: answer {expected} expected, found {answer}"
            if kind == "forwarded" and not any(
                record.value == value for other, held in homes.items() if other != number for _, value in held
            ):
                yield f"record {place}: was to be forwarded, and is nowhere else"
