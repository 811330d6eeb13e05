"""Commands of automatic top-up: what each requires, and why it may be refused (README, "Control records"). The checks
of a command stand in the order of the refusals' precedence."""

from typing import Final

from msgspec.structs import replace

from engine.account import Account
from engine.alerts import Crossing
from engine.commands import LOT_DAYS_MAX, SECOND_US, Refused, amount_of, begins_us
from engine.credit import DAY_US, Lot
from engine.events import AnswerTopUp, SetTopUp
from engine.outcomes import Refusal
from engine.top_up import Terms, request_id

# A paid lot begins behind usage that may lie five minutes ahead of log time: until then the balance does not have it.
COOLDOWN_MIN_S: Final = 600
COOLDOWN_MAX_S: Final = 30 * 86_400
ATTEMPTS_MAX: Final = 100


def set_top_up(account: Account, command: SetTopUp, log_time_us: int) -> list[Crossing]:
    """Set or replace the terms; requests that failed are forgotten. Raises Refused."""
    amount = amount_of(command.amount, above_zero=True)
    threshold = amount_of(command.threshold, above_zero=False)
    if command.currency != account.currency:
        raise Refused(Refusal.CURRENCY_MISMATCH)
    if not (
        COOLDOWN_MIN_S <= command.cooldown_s <= COOLDOWN_MAX_S
        and 1 <= command.attempts <= ATTEMPTS_MAX
        and (command.days is None or 1 <= command.days <= LOT_DAYS_MAX)
    ):
        raise Refused(Refusal.BAD_TOP_UP)
    cooldown_us = command.cooldown_s * SECOND_US
    terms = Terms(threshold, amount, cooldown_us, command.attempts, command.priority, command.days)
    return account.set_top_up(replace(account.top_up, terms=terms, failed=0), log_time_us)


def remove_top_up(account: Account, log_time_us: int) -> list[Crossing]:
    """Ask for nothing any more; a request that is open can still be answered. Raises Refused."""
    if account.top_up.terms is None:
        raise Refused(Refusal.NO_TOP_UP)
    return account.set_top_up(replace(account.top_up, terms=None, failed=0, low=False), log_time_us)


def answer_top_up(account: Account, command: AnswerTopUp, log_time_us: int) -> list[Crossing]:
    """Say what became of the open request; one that is paid becomes a lot of its id. Raises Refused."""
    if command.paid and command.request in account.lots:
        raise Refused(Refusal.LOT_EXISTS)
    asked = account.top_up.asked
    if asked is None or command.request != request_id(account.account, account.top_up.ordinal):
        raise Refused(Refusal.NOT_ASKED)
    answered = account.top_up.answered(paid=command.paid, now_us=log_time_us)
    if not command.paid:
        return account.set_top_up(answered, log_time_us)
    begins = begins_us(account, log_time_us)
    expires_us = None if asked.days is None else begins + asked.days * DAY_US
    lot = Lot(command.request, "paid", asked.amount, asked.priority, begins, expires_us, ())
    return account.set_top_up(answered, log_time_us, lot)
