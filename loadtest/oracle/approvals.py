"""What an owner may approve, and has granted: slices and leases. They bind checks and move no money, so only what makes a
record void or unreadable matters here."""

from loadtest.oracle.periods import DAY_US
from loadtest.oracle.records import DeadLetterError, Fields, fixed_point, is_name, is_text, read_hold

SLICES_MAX = 1_000
LEASES_IN_RECORD_MAX = 100


def slices(fields: Fields, epoch_now: int) -> str:
    """Decimal quantities by account and price."""
    epoch, linger, rows = fields.integer("epoch"), fields.integer("linger_us"), fields.list_of("of")
    fields.close()
    if not 0 < linger <= DAY_US or len(rows) > SLICES_MAX:
        raise DeadLetterError("bad_control")
    for row in rows:
        if not isinstance(row, list) or len(row) != 2 or not isinstance(row[1], dict):
            raise DeadLetterError("bad_control")
        names = [row[0], *row[1]]
        quantities = [fixed_point(text, 9) if is_text(text) else None for text in row[1].values()]
        if not all(is_name(name) for name in names) or not all(quantity and quantity > 0 for quantity in quantities):
            raise DeadLetterError("bad_control")
    return "slices" if epoch >= epoch_now else "void"


def leases(fields: Fields, epoch_now: int, control_key: bytes) -> str:
    """Tokens of those that are granted, and (account, lease, events) of those that are closed."""
    epoch, granted, closed = fields.integer("epoch"), fields.list_of("granted"), fields.list_of("closed")
    fields.close()
    if len(granted) + len(closed) > LEASES_IN_RECORD_MAX or not all(map(is_text, granted)):
        raise DeadLetterError("bad_control")
    for row in closed:
        if not isinstance(row, list) or len(row) != 3 or not (is_name(row[0]) and is_name(row[1])):
            raise DeadLetterError("bad_control")
        if fields.whole(row[2]) < 0:
            raise DeadLetterError("bad_control")
    if epoch < epoch_now:
        return "void"
    try:
        for token in granted:
            read_hold(control_key, token)
    except (ValueError, LookupError, TypeError) as error:
        raise DeadLetterError("bad_control") from error
    return "leases"
