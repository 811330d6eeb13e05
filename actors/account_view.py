"""What the engine knows of an account, as it crosses the door: money and quantities as decimal text."""

import msgspec
from msgspec import to_builtins
from msgspec.structs import replace

from actors.door_wire import (
    AccountView,
    AdjustmentView,
    AgreedView,
    AsOf,
    BadQuestion,
    BindingView,
    CapView,
    Checked,
    DifferenceView,
    HoldView,
    LeasedBoundView,
    LeaseView,
    LotView,
    NotFound,
    Payers,
    PeriodLineView,
    QuantityGrantView,
    RateLimitView,
    RecurringView,
    ReratedView,
    RuleView,
    ScopeView,
    ShowRerated,
    TopUpView,
    UnitCeilingView,
    UsageView,
    WalletView,
    WorthView,
)
from engine.account import Account
from engine.admission import Decision, Wallet
from engine.bases import CHARGED
from engine.commands import Refused
from engine.contract import ELSEWHERE, Agreement, Contract
from engine.derived import Derived
from engine.holds import Hold
from engine.leasing import LeaseTerms
from engine.limits import BEYOND_OWED, BEYOND_WAIVED, ROOT, Cap, scope_path
from engine.manual_lines import Rerating
from engine.meters import Cell
from engine.money import amount_text, quantity_text
from engine.outcomes import Refusal
from engine.partition import Partition
from engine.period_lines import kind_and_price
from engine.quantity_grants import QuantityGrant
from engine.reasons import TRANSIENT, Binding
from engine.recurring import Recurring
from engine.rules import stated
from engine.top_up import request_id
from engine.waivers import WAIVED, waiver_at


def wallet_view(wallet: Wallet) -> WalletView:
    """What an account has at this moment."""
    return WalletView(
        wallet.currency,
        amount_text(wallet.booked),
        amount_text(wallet.held),
        amount_text(wallet.available),
        None if wallet.overdraft is None else amount_text(wallet.overdraft),
    )


def worth_view(account: Account, wallet: Wallet) -> WorthView | None:
    """What the wallet's credits are worth; None: it has money."""
    unit = account.unit
    if unit is None:
        return None
    held = unit.worth(wallet.booked) - unit.worth(wallet.available)  # so that the figures add up
    shown = (unit.worth(wallet.booked), held, unit.worth(wallet.available))
    return WorthView(unit.currency, amount_text(unit.amount), quantity_text(unit.per), *map(amount_text, shown))


def checked_view(decision: Decision, hold: HoldView | None, as_of: AsOf) -> Checked:
    """The answer to a check, or to an extension."""
    reason = decision.reason
    return Checked(
        decision.allowed,
        as_of,
        None if reason is None else reason.value,
        reason in TRANSIENT,
        _ms(decision.retry_after_us),
        None if decision.binding is None else binding_view(decision.binding),
        None if decision.wallet is None else wallet_view(decision.wallet),
        amount_text(decision.price),
        decision.version,
        decision.feature,
        hold,
        None if decision.entitlement is None else binding_view(decision.entitlement),
    )


def lease_view(lease: Hold, token: str, terms: LeaseTerms, now_us: int) -> LeaseView:
    """What the holder of a lease needs to know."""
    until = (lease.valid_until_us, lease.expires_us, lease.report_until_us)
    return LeaseView(
        lease.id,
        token,
        lease.requests,
        tuple(
            LeasedBoundView(bound.fields, quantity_text(bound.up_to), quantity_text(bound.granted))
            for bound in terms.bounds
        ),
        tuple(
            UnitCeilingView(each.price, each.meter, each.fields, None if each.pico is None else amount_text(each.pico))
            for each in terms.ceilings
        ),
        terms.owner_decides,
        *(max(0, (instant - now_us) // 1000) for instant in until),
    )


def _ms(microseconds: int | None) -> int | None:
    """Rounded up: whoever comes back when told to is not too early."""
    return None if microseconds is None else -(-microseconds // 1000)


def binding_view(binding: Binding) -> BindingView:
    """A limit; what remains of it is units for what has a unit, a count for other rates and for holds, else money."""
    left = None
    if binding.remaining is not None:
        counted = binding.kind in ("rate", "holds", "leases") and not binding.unit
        text = quantity_text if binding.unit else amount_text
        left = str(binding.remaining) if counted else text(binding.remaining)
    return BindingView(binding.kind, binding.scope, binding.name, left, _ms(binding.frees_in_us), binding.unit)


def account_view(account: Account, wallet: Wallet, open_holds: int, log_time_us: int, as_of: AsOf) -> AccountView:
    """Everything. Spend is that of the calendar month of log time."""
    derived = account.derive()
    month = account.month_of(log_time_us)
    return AccountView(
        account=account.account,
        plan=account.contract.plan_name_at(log_time_us),
        currency=account.currency,
        zone=account.zone,
        anchor_day=account.anchor_day,
        rated=account.rated,
        open_holds=open_holds,
        wallet=wallet_view(wallet),
        lots=_lots(account, derived),
        caps=tuple(_cap(account, derived, cap, log_time_us) for _, cap in _caps(account)),
        scopes=tuple(
            ScopeView(name, scope.standing, amount_text(_spent(account, derived, name, month)), scope.allowed)
            for name, scope in sorted(account.scopes.items())
        ),
        rules=tuple(
            RuleView(name, to_builtins(stated(name, rule, account.caps)), _active(account, name), rule.level)
            for name, rule in sorted(account.rules.items())
        ),
        rate_limits=tuple(
            RateLimitView(name, limit.scope, limit.per_minute, limit.meter)
            for name, limit in sorted(account.rate_limits.items())
        ),
        usage=_usage(account, derived),
        as_of=as_of,
        adjustments=_adjustments(account),
        agreed=tuple(_agreed(each) for each in account.contract.agreed),
        first_plan=account.contract.plan,
        phases=tuple((each.from_us, each.plan) for each in account.contract.phases),
        top_up=_top_up(account),
        pauses=tuple((each.from_us, each.paused) for each in account.contract.pauses),
        seats=tuple((each.from_us, each.seat, each.count) for each in account.contract.seats),
        recurring=tuple(_recurring(each, account.contract) for _, each in sorted(account.recurring.items())),
        period_lines=_period_lines(account, log_time_us),
        quantity_grants=tuple(
            _quantity_grant(account, each, derived.taken.get(each.grant, 0), log_time_us)
            for each in sorted(account.quantity_grants.values(), key=lambda each: each.order)
        ),
        worth=worth_view(account, wallet),
        billing="postpaid" if account.postpaid else "prepaid",
        due=tuple((*account.period_around(period), amount_text(pico)) for period, pico in account.due.items()),
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
        {_told(name): amount_text(pico) for name, pico in sorted(charged.items())},
        tuple((lot.lot, lot.kind, amount_text(by_lot[lot.lot])) for lot in lots),
        amount_text(debt),
        amount_text(sum(charged.values()) - sum(by_lot.values()) - debt),
        tuple(_cap(account, derived, cap, time_us) for _, cap in _caps(account) if cap.scope in counted),
        as_of,
        amount_text(derived.waived.get(start, 0) if adjusts is None else 0),
    )


def rerated_view(fold: Partition, question: ShowRerated, as_of: AsOf) -> ReratedView | NotFound | BadQuestion:
    """What rating usage again would come to, by price and billing period."""
    account = fold.account(question.account)
    if account is None:
        return NotFound(as_of)
    try:
        found = fold.rerated(account, question.price, Rerating(question.version, question.from_us, question.to_us))
    except Refused as refused:
        if refused.reason is Refusal.UNKNOWN_VERSION:
            return BadQuestion("version", "no such version was published")
        return BadQuestion("to", "must be later than from")
    items = tuple(
        DifferenceView(
            price,
            each.period_us,
            *(amount_text(each.rated), amount_text(each.posted), amount_text(each.owed), amount_text(each.amount)),
        )
        for price, differences in found.items()
        if not isinstance(differences, Refusal)
        for each in differences
    )
    cannot = tuple((price, reason.value) for price, reason in found.items() if isinstance(reason, Refusal))
    return ReratedView(account.account, account.plan, account.currency, items, cannot, as_of)


def _told(name: str) -> str:
    """What is charged in a segment: a price's usage, or what a period owes for it besides."""
    kind, price = kind_and_price(name)
    return price if kind is None else f"{price} ({kind})"


def _agreed(agreement: Agreement) -> AgreedView:
    terms = None
    if agreement.terms is not None:
        stated = msgspec.json.decode(agreement.terms).items()
        terms = {key: value for key, value in stated if key not in ELSEWHERE and value not in (None, [])}
    return AgreedView(agreement.from_us, agreement.plan, agreement.price, terms)


def _adjustments(account: Account) -> tuple[AdjustmentView, ...]:
    """In order of their posting."""
    late = {
        (*place, price): pico
        for place, charges in account.adjusted.items()
        for price, pico in charges.items()
        if pico and kind_and_price(price)[0] is None
    }
    views = []
    for name, line in account.lines.items():
        late[line.segment_us, line.period_us, line.price] = (
            late.get((line.segment_us, line.period_us, line.price), 0) - line.amount
        )
        told = (amount_text(line.amount), line.reason, line.by)
        views.append(AdjustmentView(name, line.period_us, line.posted_us, line.price, *told))
    for (segment_us, period_us, price), pico in late.items():
        if pico:
            views.append(AdjustmentView(None, period_us, segment_us, price, amount_text(pico)))
    return tuple(sorted(views, key=lambda view: (view.posted_us, view.period_us, view.price, view.line or "")))


def _quantity_grant(account: Account, each: QuantityGrant, used: int, log_time_us: int) -> QuantityGrantView:
    """A period that a plan's change ends ends its grants."""
    rest, expires_us = each.granted - used, min(each.expires_us, account.period_around(each.effective_us)[1])
    voided = 0 if each.voided_us is None or each.voided_us > log_time_us else rest
    expired = rest if not voided and expires_us <= log_time_us else 0
    granted, remaining = quantity_text(each.granted), quantity_text(rest - voided - expired)
    gone = quantity_text(used), quantity_text(expired), quantity_text(voided)
    return QuantityGrantView(each.grant, each.price, granted, remaining, *gone, each.effective_us, expires_us)


def _recurring(each: Recurring, contract: Contract) -> RecurringView:
    rollover = None
    if each.rollover is not None:
        percent, days, cap = each.rollover
        rollover = percent, days, None if cap is None else amount_text(cap)
    return RecurringView(
        each.name,
        each.every,
        each.kind,
        amount_text(each.amount),
        each.priority,
        each.scope,
        each.pays_debt,
        each.expires,
        each.days,
        rollover,
        contract.unpaused_from(each.next_us),
    )


def _period_lines(account: Account, log_time_us: int) -> tuple[PeriodLineView, ...]:
    """What closed periods owe besides their usage, what open ones owe in advance, and would owe if they closed now."""
    since_us = account.open_from(log_time_us)
    owed: dict[tuple[int, str, str], int] = {}
    for (_, period_us), charges in account.adjusted.items():
        for name, pico in charges.items():
            kind, price = kind_and_price(name)
            if kind is not None:
                owed[period_us, kind, price] = owed.get((period_us, kind, price), 0) + pico
    start = since_us
    while start <= log_time_us:
        owed |= {(start, due.kind, due.price): pico for due, pico in account.owed_besides(start).items()}
        _, start = account.period_around(start)
    views = _waived(account, log_time_us)
    for (period_us, kind, price), pico in sorted(owed.items()):
        terms = account.period_terms(period_us)
        assert terms is not None, "it owes something"
        (sold,) = [pair for due, pair in terms.sold.items() if (due.kind, due.price) == (kind, price)]
        month, period = map(amount_text, sold)
        closed = period_us < since_us
        views.append(PeriodLineView(kind, price, period_us, terms.end, amount_text(pico), closed, month, period))
    return tuple(sorted(views, key=lambda view: (view.period_us, view.kind, view.price)))


def _waived(account: Account, log_time_us: int) -> list[PeriodLineView]:
    """What a cap takes off what usage of each period comes to, as it was used by now; adjustments have their own."""
    by_period: dict[int, int] = {}
    for start, pico in account.derive().waived.items():
        period_us = account.period_of(start)
        by_period[period_us] = by_period.get(period_us, 0) + pico
    views = []
    for period_us, pico in by_period.items():
        waiver, (_, ends_us) = waiver_at(account.waivers, period_us), account.period_around(period_us)
        assert waiver is not None
        assert waiver.amount is not None, "it waives something"
        closed, most = account.closed_period(period_us, log_time_us) is not None, amount_text(waiver.amount)
        views.append(PeriodLineView(WAIVED, waiver.cap, period_us, ends_us, amount_text(-pico), closed, most, most))
    return views


def _top_up(account: Account) -> TopUpView:
    top_up, terms, asked = account.top_up, account.top_up.terms, account.top_up.asked
    view = (
        TopUpView()
        if terms is None
        else TopUpView(
            amount_text(terms.threshold),
            amount_text(terms.amount),
            terms.cooldown_us // 1_000_000,
            terms.attempts,
            terms.priority,
            terms.days,
        )
    )
    return replace(
        view,
        requests=top_up.ordinal,
        failed=top_up.failed,
        request=None if asked is None else request_id(account.account, top_up.ordinal),
        asked=None if asked is None else amount_text(asked.amount),
        next_us=top_up.due_us,
    )


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


def _caps(account: Account) -> list[tuple[str, Cap]]:
    return sorted((name, cap) for name, cap in account.caps.items() if not cap.is_own)


def _cap(account: Account, derived: Derived, cap: Cap, log_time_us: int) -> CapView:
    counts = account.tallies.get(cap.cap, {})
    if cap.per_request:
        spent = 0
    elif cap.tallied:
        spent = cap.window.counted(account.zone, counts, log_time_us)
    else:
        spent = _spent(account, derived, cap.scope, account.month_of(log_time_us), cap.basis)
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
        None if cap.per_request else cap.window.ends_us(account.zone, counts, log_time_us),
        cap.basis,
        BEYOND_WAIVED if cap.waives else BEYOND_OWED,
    )


def _spent(account: Account, derived: Derived, scope: str, month: int, basis: str = CHARGED) -> int:
    return (derived.on(basis) if scope == ROOT else account.scopes[scope].spend).get(month, 0)


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
        run, unit = derived.running[period_us, price], account.unit
        amount = amount_text(run.amount) if first else None
        worth = amount_text(unit.worth(*run.exact())) if first and unit is not None else None
        views.append(UsageView(period_us, price, cell, quantity_text(quantity), amount, worth))
    return tuple(views)
