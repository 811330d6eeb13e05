"""What the engine knows of an account, as it crosses the door: money and quantities as decimal text."""

import msgspec

from actors.door_wire import (
    AccountView,
    AgreedView,
    AsOf,
    BindingView,
    CapView,
    LotView,
    Payers,
    RateLimitView,
    RuleView,
    ScopeView,
    UsageView,
    WalletView,
)
from engine.account import Account, Derived
from engine.admission import Binding, Wallet
from engine.alerts import CapPercent, Rule
from engine.contract import ELSEWHERE, Agreement
from engine.limits import ROOT, Cap, scope_path
from engine.meters import Cell
from engine.money import amount_text, quantity_text


def wallet_view(wallet: Wallet) -> WalletView:
    """What an account has at this moment."""
    return WalletView(
        wallet.currency,
        amount_text(wallet.booked),
        amount_text(wallet.held),
        amount_text(wallet.available),
        None if wallet.overdraft is None else amount_text(wallet.overdraft),
    )


def binding_view(binding: Binding) -> BindingView:
    """A limit; what remains of it is units for a cap that has a unit, a count for rates and holds, else money."""
    left = None
    if binding.remaining is not None:
        counted = binding.kind in ("rate", "holds")
        text = quantity_text if binding.unit else amount_text
        left = str(binding.remaining) if counted else text(binding.remaining)
    frees_in_ms = None if binding.frees_in_us is None else -(-binding.frees_in_us // 1000)
    return BindingView(binding.kind, binding.scope, binding.name, left, frees_in_ms, binding.unit)


def account_view(account: Account, wallet: Wallet, open_holds: int, log_time_us: int, as_of: AsOf) -> AccountView:
    """Everything. Spend is that of the calendar month of log time."""
    derived = account.derive()
    month = account.month_of(log_time_us)
    return AccountView(
        account=account.account,
        plan=account.plan,
        currency=account.currency,
        zone=account.zone,
        anchor_day=account.anchor_day,
        rated=account.rated,
        open_holds=open_holds,
        wallet=wallet_view(wallet),
        lots=_lots(account, derived),
        caps=tuple(_cap(account, derived, cap, log_time_us) for _, cap in sorted(account.caps.items())),
        scopes=tuple(
            ScopeView(name, scope.standing, amount_text(_spent(account, derived, name, month)))
            for name, scope in sorted(account.scopes.items())
        ),
        rules=tuple(RuleView(name, _on(rule), _active(account, name)) for name, rule in sorted(account.rules.items())),
        rate_limits=tuple(
            RateLimitView(name, limit.scope, limit.per_minute) for name, limit in sorted(account.rate_limits.items())
        ),
        usage=_usage(account, derived),
        as_of=as_of,
        agreed=tuple(_agreed(each) for each in account.contract.agreed),
    )


def payers_view(account: Account, time_us: int, adjusts: int | None, scope: str, as_of: AsOf) -> Payers:
    """Who pays in the segment around an instant, and the caps that usage of a scope counts in; or who pays what was posted
    there for the closed period `adjusts`, which counts in none."""
    start, end = account.segment_around(time_us)
    derived = account.derive()
    charged, by_lot, debt = derived.paid(start, account.period_of(start) if adjusts is None else adjusts) or ({}, {}, 0)
    lots = sorted((account.lots[name] for name in by_lot), key=lambda lot: lot.order)
    counted = scope_path(scope) if adjusts is None else ()
    return Payers(
        start,
        end,
        {price: amount_text(pico) for price, pico in sorted(charged.items())},
        tuple((lot.lot, lot.kind, amount_text(by_lot[lot.lot])) for lot in lots),
        amount_text(debt),
        amount_text(sum(charged.values()) - sum(by_lot.values()) - debt),
        tuple(_cap(account, derived, cap, time_us) for _, cap in sorted(account.caps.items()) if cap.scope in counted),
        as_of,
    )


def _agreed(agreement: Agreement) -> AgreedView:
    terms = None
    if agreement.terms is not None:
        stated = msgspec.json.decode(agreement.terms).items()
        terms = {key: value for key, value in stated if key not in ELSEWHERE and value not in (None, [])}
    return AgreedView(agreement.from_us, agreement.plan, agreement.price, terms)


def _lots(account: Account, derived: Derived) -> tuple[LotView, ...]:
    allocation = derived.allocation
    return tuple(
        LotView(
            lot.lot,
            lot.kind,
            amount_text(allocation.granted[lot.lot]),
            amount_text(allocation.remaining[lot.lot]),
            amount_text(allocation.expired.get(lot.lot, 0)),
            lot.priority,
            lot.effective_us,
            lot.expires_us,
            lot.scope,
            amount_text(sum(pico for (name, _), pico in allocation.refunded.items() if name == lot.lot)),
            amount_text(allocation.voided.get(lot.lot, 0)),
            lot.settles,
            amount_text(allocation.carried.get(lot.lot, 0)),
        )
        for lot in sorted(account.lots.values(), key=lambda lot: lot.order)
        if lot.carry is None or allocation.granted[lot.lot] or lot.effective_us <= account.woken_us
    )


def _cap(account: Account, derived: Derived, cap: Cap, log_time_us: int) -> CapView:
    counts = account.tallies.get(cap.cap, {})
    if cap.tallied:
        spent = cap.window.counted(account.zone, counts, log_time_us)
    else:
        spent = _spent(account, derived, cap.scope, account.month_of(log_time_us))
    text = amount_text if cap.in_money else quantity_text
    return CapView(
        cap.cap,
        cap.scope,
        cap.hard,
        text(cap.amount),
        text(spent),
        cap.window.kind,
        cap.window.length_us // 1_000_000 or None,
        cap.unit,
        cap.window.ends_us(account.zone, counts, log_time_us),
    )


def _spent(account: Account, derived: Derived, scope: str, month: int) -> int:
    return (derived.spend if scope == ROOT else account.scopes[scope].spend).get(month, 0)


def _on(rule: Rule) -> dict[str, str | int | None]:
    """As the command `set_rule` states it."""
    if isinstance(rule, CapPercent):
        return {
            "measure": "cap_percent",
            "cap": rule.cap,
            "percent": rule.percent,
            "clear_percent": rule.clear_percent,
        }
    return {"measure": "balance", "threshold": amount_text(rule.threshold), "clear": amount_text(rule.clear)}


def _active(account: Account, rule: str) -> tuple[str, ...]:
    return tuple(
        sorted(window for (name, window), standing in account.standings.items() if name == rule and standing.active)
    )


def _usage(account: Account, derived: Derived) -> tuple[UsageView, ...]:
    quantities: dict[tuple[int, str, Cell], int] = {}
    for segment_us, row in account.table.items():
        period_us = account.period_of(segment_us)
        for (price, cell), quantity in row.items():
            key = period_us, price, cell
            quantities[key] = quantities.get(key, 0) + quantity
    views = []
    told: set[tuple[int, str]] = set()
    for (period_us, price, cell), quantity in sorted(quantities.items()):
        first = (period_us, price) not in told
        told.add((period_us, price))
        amount = amount_text(derived.running[period_us, price].amount) if first else None
        views.append(UsageView(period_us, price, cell, quantity_text(quantity), amount))
    return tuple(views)
