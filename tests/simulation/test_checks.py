"""What the judge is there for is told when it happens: each run has one fault that nothing else would notice."""

from collections.abc import Callable, Iterator
from itertools import count

import msgspec
import orjson
import pytest

from actors.ports import Checkpoint
from engine.account import Account
from engine.events import seal
from engine.leasing import Leased
from loadtest.oracle.records import partition_of
from tests.simulation.gateways import Gateways
from tests.simulation.sim_store import SimPartitionRow, SimStore
from tests.simulation.simulate import simulate
from tests.simulation.traffic import CONTROL_KEY, TOPIC
from tests.simulation.world import World

SEED = 3
OVERSPENDING = 102  # where leases are not debited


def written_otherwise(monkeypatch: pytest.MonkeyPatch, change: Callable[[Checkpoint], Checkpoint]) -> list[str]:
    """What is told of a store that writes something else than it was given."""
    write = SimStore._write

    def write_changed(self: SimStore, row: SimPartitionRow, cut: Checkpoint) -> None:
        write(self, row, change(cut))

    assert not simulate(SEED).violations
    monkeypatch.setattr(SimStore, "_write", write_changed)
    return simulate(SEED).violations


def test_a_posting_of_another_usage_period_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(cut: Checkpoint) -> Checkpoint:
        return msgspec.structs.replace(
            cut,
            postings=[
                msgspec.structs.replace(each, usage_period_us=each.usage_period_us and each.usage_period_us - 1)
                for each in cut.postings
            ],
        )

    told = written_otherwise(monkeypatch, change)
    assert told and all("[fold] account" in each and "postings of (" in each for each in told)


def test_an_alert_that_the_outbox_has_otherwise_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(cut: Checkpoint) -> Checkpoint:
        return msgspec.structs.replace(
            cut, alerts=[msgspec.structs.replace(each, body=each.body + b" ") for each in cut.alerts]
        )

    told = written_otherwise(monkeypatch, change)
    assert any("[fold] alert" in each and "in the outbox, made was" in each for each in told)


def test_an_alert_that_the_outbox_lacks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = written_otherwise(monkeypatch, lambda cut: msgspec.structs.replace(cut, alerts=[]))
    assert any("[fold] alert" in each and "and not in the outbox" in each for each in told)


def test_a_period_that_is_posted_to_behind_a_later_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    settle, calls = Account.settle, count()
    monkeypatch.setattr(Account, "settle", lambda self, period_us: settle(self, period_us - next(calls)))
    assert any("[posting]" in each for each in simulate(SEED).violations)


def test_an_overspend_that_a_later_gift_covers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    heal, asked = World.heal, list[str]()

    def give(self: World) -> None:
        for account in asked:
            gift: dict[str, object] = {
                "kind": "grant",
                "account": account,
                "command_key": f"gift-{account}",
                "lot": "gift",
            }
            gift |= {"lot_kind": "promo", "amount": "500", "currency": "USD", "pays_debt": True}
            home = partition_of(account.encode(), self.plan.partitions)
            self.broker.append("usage", None, seal(CONTROL_KEY, TOPIC, home, orjson.dumps(gift)), home)
        heal(self)

    setup = Gateways.setup

    def remember(self: Gateways) -> Iterator[tuple[int, bytes]]:
        asked[:] = self.accounts
        return setup(self)

    monkeypatch.setattr(Gateways, "setup", remember)
    monkeypatch.setattr(World, "heal", give)
    assert not simulate(OVERSPENDING).violations
    monkeypatch.setattr(Leased, "mind", lambda *_: None)
    told = simulate(OVERSPENDING).violations
    assert any("[overspend]" in each and "at offset" in each for each in told), told
