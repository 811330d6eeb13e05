"""What does not add up, as an account keeps it: an aggregate per (segment, price, cell), and in the table what each segment
adds to those before it in its period (README, "What does not add up")."""

from collections.abc import Callable, Sequence

from engine.charges import Table
from engine.meters import Aggregate, Cell, Forgotten, NotCounted, TooManyValues, Unique, merged, spread, without
from engine.prices.price import Price
from engine.routes import Usage

Reading = tuple[Price, Cell, Aggregate]  # what an event says to a meter whose events do not add up
Aggregates = dict[int, dict[tuple[str, Cell], Aggregate]]  # by segment start, then (price name, cell)


def observed(
    table: Table,
    aggregates: Aggregates,
    start: int,
    readings: Sequence[Reading],
    inside: Callable[[int], bool],
    *,
    is_back: bool,
) -> tuple[Table, Aggregates, list[Usage]]:
    """Both with these readings of one event in the segment that starts there, or without them, if they are taken back; and
    by how much each price has moved. `inside` tells the segments of its period by their start.

    Raises TooManyValues, Forgotten and NotCounted."""
    moves: list[Usage] = []
    for price, cell, reading in readings:
        key = (price.name, cell)
        aggregates = _counted(aggregates, start, key, reading, is_back=is_back)
        starts = [each for each in sorted(aggregates) if key in aggregates[each] and inside(each)]
        through = merged(aggregates[each][key] for each in starts)
        if through and isinstance(through[-1], Unique) and len(through[-1].events) > through[-1].limit:
            more = f"more than {through[-1].limit} different values"
            raise TooManyValues(f"there would be {more} of price {price.name} in cell {' '.join(cell) or '-'}")
        added = dict(zip(starts, spread([each.quantity for each in through]), strict=True))
        added.setdefault(start, 0)  # nothing is left there
        before = sum(table.get(each, {}).get(key, 0) for each in added)
        table = table | {each: table.get(each, {}) | {key: units} for each, units in added.items()}
        moves.append((price, cell, sum(added.values()) - before))
    return table, aggregates, moves


def _counted(
    aggregates: Aggregates, start: int, key: tuple[str, Cell], reading: Aggregate, *, is_back: bool
) -> Aggregates:
    row = aggregates.get(start, {})
    try:
        if is_back:
            whole = without(row.get(key), reading)
        elif key in row:
            whole = merged([row[key], reading])[-1]
        else:
            whole = reading
    except Forgotten:
        raise Forgotten(f"of price {key[0]} it is not known any more what would count in its place") from None
    except NotCounted:
        raise NotCounted(f"price {key[0]} has no such reading there") from None
    left = {each: kept for each, kept in row.items() if each != key}
    if whole is not None:
        left[key] = whole
    others = {each: kept for each, kept in aggregates.items() if each != start}
    return {**others, start: left} if left else others
