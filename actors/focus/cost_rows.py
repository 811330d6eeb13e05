"""FOCUS rows out of the lines of the topic `costs`: a dataset of its own, of what serving has cost.

What a replica cost in an hour is one charge, and its rows share it out: to customers, models and features what requests
took (`x_CostRole` direct), and what no request took (cold_start, hard_idle, unattributed, overhead). They add up to it,
exactly, or nothing is exported.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from msgspec import Struct

from actors.focus.columns import USAGE, Row, check_row
from actors.focus.rows import HOUR_US, Issuer, instant_of, plain_row
from engine.cost.lines import RequestLine, WindowLine
from engine.cost.window import Bucket
from engine.money import amount_text, parse_amount
from engine.periods import month_around

UNIT: Final = "Tokens"
_EVER: Final = 1 << 62


class NotConserved(ValueError):
    """The lines of an hour do not add up: some are missing. The message names replica, hour and difference."""


class CostRows(Struct, frozen=True):
    """`unknown`: executions and windows whose cost is not known. What is known of such a window is in the rows, and what is
    known of such an execution is nobody's."""

    rows: list[Row]
    unknown: int


class _Key(Struct, frozen=True, gc=False, order=True):
    hour_us: int
    replica: str
    role: str
    currency: str
    account: str = ""
    model: str = ""
    feature: str = ""


class _Sum(Struct):
    pico: int = 0
    tokens: int = 0
    lines: int = 0


def focus_cost_rows(
    lines: Iterable[RequestLine | WindowLine], issuer: Issuer, payer: str, from_us: int = 0, until_us: int = _EVER
) -> CostRows:
    """Of the hours that begin in [from_us, until_us). `payer` is whose bill the GPUs are on. Lines may come in any order, and
    again; of one identity the newest counts. Of windows that have not settled what executions were not told of yet is nobody's,
    as in the rows of attribution; it may be below 0. The tokens of an execution are consumed in the last hour that it has a
    line of: so with lines of later hours too, exports of stretches that adjoin have each token once.

    Raises NotConserved."""
    sums: dict[_Key, _Sum] = {}
    direct: dict[tuple[int, str], int] = {}  # of windows, less what executions have of it
    partly: dict[tuple[int, str], str] = {}  # where the cost of an execution is not wholly known; the currency
    untold: dict[tuple[int, str], str] = {}  # where a window has not settled
    unknown = 0
    newest = _newest(lines)
    ended: dict[tuple[str, str, int], int] = {}
    for line in newest:
        if isinstance(line, RequestLine):
            name = (line.replica, line.request, line.attempt)
            ended[name] = max(ended.get(name, 0), line.hour_us)
    for line in newest:
        if not from_us <= (line.window_us if isinstance(line, WindowLine) else line.hour_us) < until_us:
            continue
        if isinstance(line, WindowLine):
            hour = line.window_us - line.window_us % HOUR_US
            if line.cost is None or line.currency is None:
                unknown += 1
            if line.currency is None:
                continue
            if not line.settled:
                untold[hour, line.replica] = line.currency
            for bucket, amount in line.buckets.items():
                pico = parse_amount(amount)
                if bucket is Bucket.DIRECT:
                    direct[hour, line.replica] = direct.get((hour, line.replica), 0) + pico
                elif pico:
                    _add(sums, _Key(hour, line.replica, bucket.value, line.currency), pico)
            continue
        if line.amount is None or line.currency is None:
            unknown += 1
            partly[line.hour_us, line.replica] = line.currency or ""
            continue
        pico = parse_amount(line.amount)
        place = line.hour_us, line.replica
        direct[place] = direct.get(place, 0) - pico
        who = (line.account or "", line.model, line.feature or "")
        key = _Key(line.hour_us, line.replica, Bucket.DIRECT.value, line.currency, *who)
        is_end = line.hour_us == ended[line.replica, line.request, line.attempt]
        _add(sums, key, pico, line.prompt - line.cached + line.output if is_end else 0)
    for (hour, replica), rest in sorted(direct.items()):
        currency = partly.get((hour, replica)) if rest > 0 else None
        currency = currency or untold.get((hour, replica))
        if rest and currency:
            _add(sums, _Key(hour, replica, Bucket.DIRECT.value, currency), rest)
        elif rest:
            raise NotConserved(
                f"replica {replica}, hour {instant_of(hour):%Y-%m-%dT%H:%M:%SZ}: windows and requests differ by "
                f"{amount_text(rest)}: the lines of an hour must be all there"
            )
    rows = [_row(key, total, issuer, payer) for key, total in sorted(sums.items())]
    for row in rows:
        check_row(row)
    return CostRows(rows, unknown)


def _newest(lines: Iterable[RequestLine | WindowLine]) -> list[RequestLine | WindowLine]:
    newest: dict[tuple[object, ...], RequestLine | WindowLine] = {}
    for line in lines:
        key: tuple[object, ...] = (
            (line.replica, line.window_us)
            if isinstance(line, WindowLine)
            else (line.replica, line.request, line.attempt, line.hour_us)
        )
        before = newest.get(key)
        if before is None or (line.epoch, line.seq) >= (before.epoch, before.seq):
            newest[key] = line
    return list(newest.values())


def _add(sums: dict[_Key, _Sum], key: _Key, pico: int, tokens: int = 0) -> None:
    into = sums.setdefault(key, _Sum())
    into.pico += pico
    into.tokens += tokens
    into.lines += 1


def _row(key: _Key, total: _Sum, issuer: Issuer, payer: str) -> Row:
    served = key.role == Bucket.DIRECT.value
    start, end = month_around("UTC", 1, key.hour_us)
    return plain_row(issuer, Decimal(amount_text(total.pico)), (start, end), (key.hour_us, key.hour_us + HOUR_US)) | {
        "BillingAccountId": payer,
        "BillingAccountName": payer,
        "BillingCurrency": key.currency,
        "ChargeCategory": USAGE,
        "ChargeDescription": " ".join(filter(None, (key.role, key.replica, key.model))),
        "ChargeFrequency": "Usage-Based",
        "ConsumedQuantity": Decimal(total.tokens) if served else None,
        "ConsumedUnit": UNIT if served else None,
        "PricingCategory": "Standard",
        "ResourceId": key.replica,
        "ResourceType": "Replica",
        "SubAccountId": key.account or None,
        "x_CostRole": key.role,
        "x_Feature": key.feature or None,
        "x_Lines": Decimal(total.lines),
        "x_Model": key.model or None,
    }
