"""Pattern (b): a check is as old as the last refresh, and an event counts once."""

from loadtest.patterns.pattern import Terms, Use
from loadtest.patterns.sql_timer import SqlTimer

USES = [Use("a", "s", str(number), 10) for number in range(4)]


async def test_balances_move_with_the_timer_and_count_each_event_once(database: str) -> None:
    pattern = SqlTimer(database, Terms(100, 30))
    assert await pattern.start() == {}
    await pattern.take(USES, {0: 4, 1: 7})
    assert await pattern.spent("a") == 0, "nobody has refreshed"
    assert await pattern.tick() == ["a"]
    assert await pattern.spent("a") == 40
    await pattern.take(USES[:2], {0: 6})
    assert await pattern.tick() == [], "told once"
    assert await pattern.spent("a") == 40
    await pattern.stop()
    again = SqlTimer(database, Terms(100, 30))
    assert await again.start() == {0: 6, 1: 7}
    await again.stop()
