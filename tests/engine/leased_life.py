"""Random lives as of tests/engine/held_life.py, with gateways that decide many requests by leases: they die, report late,
close before their last event has come, and extend."""

from typing import Any

from engine.admission import FieldBound, Question
from engine.holds import Hold
from engine.leasing import narrower_limits, per_request
from engine.limits import scope_path
from engine.money import NANO, quantity_text
from tests.engine.bench import MINUTE, SECOND
from tests.engine.held_life import MODELS, SCOPES, HeldLife


class Holder:
    """A gateway with a lease, its promises and what it has spooled."""

    def __init__(self, lease: Hold, models: list[str], bounds: tuple[FieldBound, ...], limited: list[str]) -> None:
        self.lease = lease
        self.models = models
        self.bounds = bounds
        self.limited = limited
        self.left = [bound.up_to * lease.requests for bound in bounds]  # nano-units
        self.decided = 0
        self.spool: list[tuple[dict[str, str], str]] = []  # data, scope
        self.closed = False

    def may(self, scope: str) -> bool:
        """Whether the holder decides for this scope itself."""
        path = scope_path(scope)
        return self.lease.scope in path and not any(each in path for each in self.limited)


class LeasedLife(HeldLife):
    """One account's life; holds go on beside leases."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, crashes=True)
        self.holders: list[Holder] = []
        self.granted = 0

    def step(self) -> None:
        source = self.source
        kind = source.choices(["hold", "lease", "decide", "report", "extend", "close", "die"], [8, 3, 8, 6, 1, 1, 1])[0]
        if kind == "hold":
            super().step()
            self.holders = [each for each in self.holders if each.lease.report_until_us > self.bench.now + 2 * SECOND]
        elif kind == "lease":
            self.take()
        elif self.holders:
            holder = source.choice(self.holders)
            if kind == "decide":
                self.decide(holder)
            elif kind == "report":
                self.report(holder)
            elif kind == "extend":
                self.grow(holder)
            elif kind == "close" and not holder.closed:
                holder.closed = True
                self.bench.close_lease(holder.lease, holder.decided)
            elif kind == "die":
                self.holders.remove(holder)

    def take(self) -> None:
        source, bench = self.source, self.bench
        models = source.sample(MODELS, source.choice([1, 1, 2, 3]))
        bounds: tuple[FieldBound, ...] = (
            FieldBound(("units",), self._quantity() // 4),
            FieldBound(("out",), self._quantity() // 4),
        )
        if self.whole:
            bounds = tuple(FieldBound(each.fields, max(NANO, each.up_to // NANO * NANO)) for each in bounds)
        scope = source.choice(["", *SCOPES]) if len(bench.account().scopes) > 1 else ""
        question = Question(
            "acme", scope, "use", {}, {"model": tuple(models)}, bounds, hold_us=source.choice([MINUTE, 5 * MINUTE])
        )
        decision = bench.lease_for(question, source.choice([1, 4, 9]), 1)
        if decision.hold is not None:
            self.granted += 1
            limited = narrower_limits(bench.account(), scope)
            self.holders.append(Holder(decision.hold, models, bounds, limited))

    def decide(self, holder: Holder) -> None:
        """Admit a request by the lease, run it, and spool its event."""
        source = self.source
        scopes = [each for each in ("", *SCOPES) if holder.may(each)]
        if holder.closed or holder.decided >= holder.lease.requests or self.bench.now >= holder.lease.valid_until_us:
            return
        data = {"model": source.choice(holder.models), "units": "0", "out": "0"}
        for place, bound in enumerate(holder.bounds):
            most = min(bound.up_to, holder.left[place])
            taken = source.choice([0, most, source.randint(0, most)])
            if self.whole:
                taken -= taken % NANO
            holder.left[place] -= taken
            data[bound.fields[0]] = quantity_text(taken)
        holder.decided += 1
        holder.spool.append((data, source.choice(scopes)))

    def report(self, holder: Holder) -> None:
        if holder.spool:
            data, scope = holder.spool.pop(self.source.randrange(len(holder.spool)))
            self.partial += 1
            where: dict[str, Any] = {"scope": scope} if scope else {}
            assert self.bench.spend_held(holder.lease, 0, data=data, **where) == "rated", self.bench.letter()
            self._note(holder.lease.admitted_us, scope)

    def grow(self, holder: Holder) -> None:
        decision = self.bench.extend_lease(holder.lease, self.source.choice([0, 1, 4]))
        if decision.hold is not None:
            more = decision.hold.requests - holder.lease.requests
            holder.left = [had + more * bound.up_to for had, bound in zip(holder.left, holder.bounds, strict=True)]
            assert [each.quantity for each in per_request(decision.hold)] == [
                each.quantity for each in per_request(holder.lease)
            ]
            holder.lease = decision.hold

    def settle_all(self) -> None:
        super().settle_all()
        for holder in self.holders:
            while holder.spool:
                self.report(holder)
