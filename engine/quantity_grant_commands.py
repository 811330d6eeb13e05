"""Commands of quantity grants: what each requires, and why it may be refused (README, "Control records"). The checks of a
command stand in the order of the refusals' precedence."""

from typing import Final

from msgspec.structs import replace

from engine.account import Account
from engine.alerts import Crossing
from engine.catalog import PriceBook
from engine.commands import Refused, begins_us, quantity_of
from engine.events import GrantQuantity, VoidQuantityGrant
from engine.outcomes import Refusal
from engine.periods import CALENDAR_US
from engine.quantity_grants import QuantityGrant

QUANTITY_GRANTS_MAX: Final = 1_000  # of one account: each is a boundary that derivation looks at


def grant_quantity(account: Account, command: GrantQuantity, book: PriceBook, log_time_us: int) -> list[Crossing]:
    """Grant units of a price. Raises Refused."""
    quantity = quantity_of(command.quantity)
    if any(abs(instant) > CALENDAR_US for instant in (command.effective_us or 0, command.expires_us or 0)):
        raise Refused(Refusal.BAD_QUANTITY_GRANT)
    if command.grant in account.quantity_grants:
        raise Refused(Refusal.LOT_EXISTS)
    catalogue = book.at(log_time_us)
    plan = catalogue.plans.get(account.contract.plan_name_at(log_time_us)) if catalogue else None
    price = plan.prices.get(command.price) if plan else None
    if catalogue is None or price is None:
        raise Refused(Refusal.UNKNOWN_PRICE)
    if catalogue.meters[price.meter].kind is not None or price.per_event is not None:
        raise Refused(Refusal.BAD_QUANTITY_GRANT)
    effective_us = begins_us(account, log_time_us if command.effective_us is None else command.effective_us)
    _, period_end_us = account.period_around(effective_us)
    expires_us = period_end_us if command.expires_us is None else command.expires_us
    if expires_us > period_end_us:
        raise Refused(Refusal.BAD_QUANTITY_GRANT)
    if expires_us <= max(log_time_us, effective_us):
        raise Refused(Refusal.EXPIRES_TOO_SOON)
    if len(account.quantity_grants) >= QUANTITY_GRANTS_MAX:
        raise Refused(Refusal.TOO_MANY_QUANTITY_GRANTS)
    made = QuantityGrant(command.grant, command.price, quantity, effective_us, expires_us)
    return account.set_quantity_grant(made, log_time_us)


def void_quantity_grant(account: Account, command: VoidQuantityGrant, log_time_us: int) -> list[Crossing]:
    """Take a grant's rest away. Raises Refused."""
    grant = account.quantity_grants.get(command.grant)
    if grant is None:
        raise Refused(Refusal.UNKNOWN_LOT)
    at_us = begins_us(account, log_time_us)
    if grant.voided_us is not None or grant.expires_us <= at_us:
        raise Refused(Refusal.LOT_OVER)
    return account.set_quantity_grant(replace(grant, voided_us=max(at_us, grant.effective_us)), log_time_us)
