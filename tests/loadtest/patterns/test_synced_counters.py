"""Pattern (d): a process knows of the others what the last sync brought."""

from loadtest.patterns.pattern import Terms
from loadtest.patterns.synced_counters import SyncedCounters


async def test_what_another_counted_is_seen_after_both_have_synced(database: str) -> None:
    first, second = (SyncedCounters(database, Terms(cap_pico=100, alert_pico=30)) for _ in range(2))
    await first.start()
    await second.start()
    for _ in range(10):
        assert first.check("a", 10) and second.check("a", 10)
        first.record("a", 10)
        second.record("a", 10)
    assert not first.check("a", 10), "it has spent the whole cap alone"
    await first.sync()
    await second.sync()
    await first.sync()
    assert (first.spent("a"), second.spent("a")) == (200, 200), "twice the cap"
    assert await first.stored("a") == 200
    await first.stop()
    await second.stop()


async def test_a_crossing_is_told_once_by_each_process_that_sees_it(database: str) -> None:
    first, second = (SyncedCounters(database, Terms(cap_pico=100, alert_pico=30)) for _ in range(2))
    await first.start()
    await second.start()
    assert [first.record("b", 10) for _ in range(4)] == [False, False, True, False]
    assert await first.sync() == []
    second.check("b", 1)
    assert await second.sync() == ["b"]
    assert await second.sync() == []
    await first.stop()
    await second.stop()
