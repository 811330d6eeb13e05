"""`tallygate reconcile`: what it needs, and how much it samples."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from actors import proofs
from actors.checkpoints import StoredCheckpoint
from actors.cli.terminal import FAILED, WRONG_INPUT
from actors.reconcile.run import Report
from config.settings import Settings
from engine.placement import partition_for
from tests.actors.cli.calling import INCOMPLETE, Doors, beside_stored, call
from tests.actors.proof_rig import BenchReader, ProofRig
from tests.engine.bench import KEY, Bench


def test_reconciling_takes_a_share_of_the_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "exit status 1" in call("reconcile", "--help").stdout.lower()
    assert call("reconcile", "--sample", "1.5").exit_code == WRONG_INPUT
    result = call("reconcile", "--all")
    assert (result.exit_code, result.stdout) == (WRONG_INPUT, "")
    assert "postgres.dsn is not set" in result.stderr


@pytest.mark.parametrize(("stored", "told"), INCOMPLETE)
def test_a_partition_that_is_missing_is_no_proof(
    stored: tuple[int, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a wrong schema, or a row that is gone, nothing could be found to differ."""
    beside_stored(monkeypatch, 3, *stored)
    for command in (("reconcile",), ("reconcile", "--json")):
        result = call(*command)
        assert (result.exit_code, result.stdout) == (FAILED, "")
        assert told in " ".join(result.stderr.split())


def test_what_drift_0_does_not_prove_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def reconcile(*_: object, **__: object) -> AsyncIterator[Report]:
        yield Report(0, 5, 5)
        yield Report(1, 0, 9, records=9, forwarded=2, skipped=1)

    monkeypatch.setattr(proofs, "reconcile", reconcile)
    result = call("reconcile", "--seed", "7")
    assert result.exit_code == 0
    nothing, empty, skipped, told, total = result.stdout.splitlines()
    assert nothing.startswith(
        "partition 0: no record lies between the start and the checkpoint's end at offset 5: nothing"
    )
    assert empty.startswith("partition 0: offsets 5 to 5: 0 records, ")
    assert skipped.startswith("partition 1: 1 of these records are stored as engine errors and were skipped")
    assert told.startswith("partition 1: offsets 0 to 9: 9 records, 2 of them forwarded, 0 rated lines")
    assert total == "drift 0 (sample 0.01, seed 7)"


class RigDoors(Doors):
    """Those of a rig, whose partition is the first of two."""

    def __init__(self, rig: ProofRig) -> None:
        super().__init__(0, 1)
        self.rig = rig

    async def read(self, partition: int, work: Callable[[StoredCheckpoint], Awaitable[Any]]) -> Any:
        return await work(self.rig.stored())

    async def catalogue(self, version: int) -> bytes | None:
        return self.rig.catalogues.get(version)


def test_a_forwarded_event_is_looked_for_once_its_partition_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the doors that the command opens."""
    bench = Bench(partitions=2)
    bench.open()
    bench.use(3)
    away = next(name for name in (f"cus_{number}" for number in range(99)) if partition_for(name.encode(), 2) == 1)
    assert [bench.use(number, account=away) for number in (1, 2)] == ["forwarded", "forwarded"]
    rig = ProofRig(bench)
    rig.checkpoint()
    beside_stored(monkeypatch, 2)
    monkeypatch.setattr(Settings, "control_key_bytes", lambda settings: KEY)
    monkeypatch.setattr(proofs, "stored_checkpoints", lambda settings: RigDoors(rig))
    monkeypatch.setattr(proofs, "topic_reader", lambda settings: ReaderDoors(rig.reader))
    whole = call("reconcile", "--partition", "0", "--all")
    assert (whole.exit_code, "2 of them forwarded" in whole.stdout) == (0, True), whole.output
    del rig.reader.elsewhere[1][0]
    lost = call("reconcile", "--partition", "0", "--all")
    assert lost.exit_code == FAILED
    assert (
        f"forwards: partition 0, account {away}: usage of offset 3, forwarded to partition 1: expected" in lost.stdout
    )
    assert "\ndrift 1 (" in lost.stdout


class ReaderDoors:
    """A reader that is started and stopped."""

    def __init__(self, reader: BenchReader) -> None:
        self._reader = reader

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)
