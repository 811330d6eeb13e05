"""Whether an account may spend anything more, by what its owner says of it: for whoever cannot ask before each request."""

from actors.door_wire import AccountView, CapView
from engine.limits import ROOT, scope_path
from engine.money import parse_amount

CREDIT_DEPLETED = "credit_depleted"
CAP_REACHED = "cap_reached"
PAUSED = "paused"


def why_nothing_more(account: AccountView, scope: str = ROOT) -> str | None:
    """Why no request of this scope may run, whatever it is; None: some may. The reasons are those of checks, a cap's with its
    name behind a colon.

    Open holds are no reason: they may be released. So it speaks of what was spent, and later than a check would."""
    path = scope_path(scope)
    for each in account.scopes:
        if each.scope in path and each.standing != "active":
            return each.standing
    if _paused(account):
        return PAUSED
    for cap in account.caps:
        if cap.scope in path and _reached(cap):
            return f"{CAP_REACHED}:{cap.cap}"
    wallet = account.wallet
    if wallet.overdraft is not None and parse_amount(wallet.booked) + parse_amount(wallet.overdraft) <= 0:
        return CREDIT_DEPLETED
    return None


def _paused(account: AccountView) -> bool:
    paused = False
    for from_us, state in sorted(account.pauses):
        if from_us <= account.as_of.log_time_us:
            paused = state
    return paused


def _reached(cap: CapView) -> bool:
    """A cap of some meter's units alone leaves other requests to run; one that binds each request by itself, smaller ones."""
    if not cap.hard or cap.unit or cap.window == "request":
        return False
    return parse_amount(cap.spent) >= parse_amount(cap.amount)
