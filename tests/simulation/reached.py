"""What a seed's accounts have come to, under a name for each rule that is seldom met: what is drawn and never comes about
proves nothing.

| name | counts |
|---|---|
| waived | accounts of which a cap waives something |
| due | accounts with debt on a statement |
| recurring | lots that a recurring grant gave behind its first, by a waking |
| granted units | quantity grants that took something |
| phases | changes of plan |
| pauses | accounts that were paused |
| seats | accounts that owe for seats |
| asked | top-ups asked for |
| paid | lots that were paid for on request |
| rated again | lines that a re-rating posted |
| jumps | of the clock of a sandbox, in partitions |
| credits | accounts that used what is sold in credits |
| streams | events that took the place of one before them in their stream |
| outdated | events of a stream behind which a later one had come before |
| over | events of a stream whose window was over |
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from engine.account import Account
from engine.partition import Partition
from engine.period_lines import SEAT, kind_and_price

_ROWS: Final = [line for line in (__doc__ or "").splitlines() if line.startswith("| ")][1:]
REACHABLE: Final = tuple(row.split("|")[1].strip() for row in _ROWS)


def reached(folds: Mapping[int, Partition]) -> Counter[str]:
    """Summed over the accounts of these partitions, by the names above."""
    found: Counter[str] = Counter()
    for fold in folds.values():
        found["outdated"] += fold.counts.get("outdated", 0)
        found["jumps"] += fold.counts.get("advance", 0)
        found["over"] += fold.counts.get("dead_lettered.stream_over", 0)
        for name in fold.account_ids():
            account = fold.account(name)
            assert account is not None, "it was named"
            _add(found, account)
    return +found


def _add(found: Counter[str], account: Account) -> None:
    if account.waivers:
        found["waived"] += bool(account.derive().waived)
    if account.quantity_grants:
        found["granted units"] += sum(units > 0 for units in account.derive().taken.values())
    found["due"] += any(account.due.values())
    given = Counter(lot.partition("@")[0] for lot in account.lots if "@" in lot and "~" not in lot)
    found["recurring"] += sum(lots - 1 for lots in given.values())
    found["phases"] += len(account.contract.phases)
    found["pauses"] += any(pause.paused for pause in account.contract.pauses)
    found["seats"] += any(kind_and_price(name)[0] == SEAT for names in account.adjusted.values() for name in names)
    found["asked"] += account.top_up.ordinal
    found["paid"] += sum(lot.startswith("topup_") for lot in account.lots)
    found["rated again"] += sum(line.rerated is not None for line in account.lines.values())
    found["credits"] += account.currency != "USD" and bool(account.table)
    found["streams"] += sum(stream.revision for _, stream in account.streams)
