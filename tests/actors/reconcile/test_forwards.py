"""R-forwards: what was sent on to another partition, and the log there."""

from actors.reconcile.forwards import Forwards
from actors.reconcile.rated import CLOCKS_APART_MS
from engine.outcomes import Forward
from tests.actors.proof_rig import BenchReader
from tests.engine.bench import TOPIC
from tests.simulation.sim_log import SimRecord

NOW_MS = 1_772_900_000_000
HOME = 2


def sent_on(*offsets: int) -> Forwards:
    """One record of each offset of partition 0, a second apart."""
    forwards = Forwards()
    for offset in offsets:
        forwards.add(0, Forward(offset, HOME, b"acme", b"event %d" % offset), NOW_MS + 1000 * offset)
    return forwards


def log_of(*values: bytes, late_ms: int = 0) -> BenchReader:
    reader = BenchReader()
    reader.elsewhere[HOME] = [
        SimRecord(place, NOW_MS + late_ms + 1000 * place, b"acme", value) for place, value in enumerate(values)
    ]
    return reader


async def lost(forwards: Forwards, reader: BenchReader) -> list[str]:
    return [str(drift) async for drift in forwards.lost(reader, TOPIC)]


async def test_what_is_there_is_not_lost_wherever_and_however_often_it_stands() -> None:
    late = log_of(b"another", b"event 1", b"event 0", b"event 1", late_ms=3_600_000)
    assert await lost(sent_on(0, 1), late) == []
    assert await lost(sent_on(0, 1), log_of(b"event 0", b"event 1", late_ms=-CLOCKS_APART_MS)) == [], "another's clock"
    assert await lost(Forwards(), BenchReader()) == []


async def test_what_is_not_there_is_named_with_its_account_and_where_it_came_from() -> None:
    assert await lost(sent_on(3, 5), log_of(b"event 5")) == [
        "forwards: partition 0, account acme: usage of offset 3, forwarded to partition 2: expected its record in the log "
        "there, found nothing"
    ]
    assert len(await lost(sent_on(3, 5), log_of())) == 2
    under_another_key = log_of(b"event 3")
    under_another_key.elsewhere[HOME][0].key = b"globex"
    assert len(await lost(sent_on(3), under_another_key)) == 1


async def test_what_retention_may_have_taken_is_not_called_lost() -> None:
    """Of what is older than the first record that is left nobody can say; what came later would have to be there."""
    reader = log_of(b"event 0", b"gone", b"kept", late_ms=CLOCKS_APART_MS)
    reader.first_elsewhere = 2
    oldest_s = 2 * CLOCKS_APART_MS // 1000 + 2  # a record of that second is as old as the first one left
    assert await lost(sent_on(0, 1, oldest_s - 1), reader) == []
    (named,) = await lost(sent_on(0, 1, oldest_s), reader)
    assert f"usage of offset {oldest_s}, " in named
