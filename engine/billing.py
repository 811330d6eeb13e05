"""How an account is billed: prepaid, where debt stays debt, or postpaid, where a closed period's debt is due (law C4; README,
"Prepaid and postpaid"). What the commands require, and why they may be refused.
"""

from engine.account import Account
from engine.alerts import Crossing
from engine.commands import Refused, amount_of
from engine.events import SetBilling
from engine.outcomes import Refusal


def set_billing(account: Account, command: SetBilling, log_time_us: int) -> list[Crossing]:
    """Bill it so from now on; a credit limit is how far checks may take the balance below zero. Raises Refused."""
    limit = None if command.credit_limit is None else amount_of(command.credit_limit, above_zero=False)
    if limit is not None and limit < 0:
        raise Refused(Refusal.BAD_AMOUNT)
    if command.currency != account.currency:
        raise Refused(Refusal.CURRENCY_MISMATCH)
    postpaid = command.billing == "postpaid"
    if command.billing not in ("prepaid", "postpaid") or (limit is not None and not postpaid):
        raise Refused(Refusal.BAD_BILLING)
    return account.set_billing(postpaid, limit if postpaid else 0, log_time_us)
