"""Random lives of held requests: plans whose tiers rise and fall, lots that begin, end and pay only some prices, scopes
with caps, owners that die. Whatever is admitted is used in any amount within its bounds, in any order."""

import json
import random
from typing import Any

import msgspec

from engine.admission import FieldBound, Question
from engine.catalog import (
    CatalogueDocument,
    MeterDefinition,
    PlanDefinition,
    PriceDefinition,
)
from engine.holds import Hold
from engine.limits import Cap
from engine.money import NANO, quantity_text
from engine.periods import day_around, hour_around
from tests.engine.bench import DOLLAR, HOUR, MINUTE, SECOND, pico_of
from tests.engine.desk_bench import DeskBench, nano
from tests.engine.price_lists import random_price

METERS = {
    "units": MeterDefinition("use", "sum", "units", ("model",)),
    "also": MeterDefinition("use", "sum", "units"),
    "out": MeterDefinition("use", "sum", "out", ("model",)),
    "uses": MeterDefinition("use", "count"),
}
MODELS = ("x", "y", "z")
SCOPES = ("red", "red/ann", "blue")


def random_document(source: random.Random) -> CatalogueDocument:
    prices = {f"units-{model}": random_price(source, "units", model=model) for model in MODELS}
    prices |= {f"out-{model}": random_price(source, "out", model=model) for model in MODELS}
    prices["also"] = random_price(source, "also") if source.random() < 0.3 else free("also")
    prices["uses"] = random_price(source, "uses") if source.random() < 0.3 else free("uses")
    return CatalogueDocument(METERS, {"plan": PlanDefinition("USD", prices)})


def free(meter: str) -> PriceDefinition:
    return PriceDefinition(meter, "per_unit", amount="0")


class Request:
    """An admitted hold, and what it may still use."""

    def __init__(self, hold: Hold, models: list[str], bounds: tuple[FieldBound, ...], n: int) -> None:
        self.hold = hold
        self.models = models
        self.fields = [bound.fields for bound in bounds]
        self.left = [bound.up_to * n for bound in bounds]  # nano-units
        self.events = n

    def use(self, source: random.Random, *, whole: bool) -> dict[str, str]:
        """The data of one more event, within what is left."""
        self.events -= 1
        data = {"model": source.choice(self.models), "units": "0", "out": "0"}
        for place, fields in enumerate(self.fields):
            for field in source.sample(fields, len(fields)):
                left = self.left[place]
                taken = source.choice([0, left, source.randint(0, left), source.randint(0, left)])
                if whole:
                    taken -= taken % NANO
                self.left[place] -= taken
                data[field] = quantity_text(taken)
        return data


class HeldLife:
    """One account's life. `crashes`: owners die; `scoped`: lots may pay only some prices; `whole`: only whole units."""

    def __init__(self, seed: int, *, crashes: bool = False, scoped: bool = True, caps: bool = True) -> None:
        self.source = source = random.Random(seed)
        self.crashes = crashes
        self.whole = source.random() < 0.5
        self.bench = bench = DeskBench(random_document(source), random_document(source))
        self.open: list[Request] = []
        self.admitted = 0
        self.partial = 0
        self.spent: list[tuple[int, str, str, int, int]] = []  # instant, scope, price, nano-units, pico
        self.overdraft = source.choice([0, 0, 0, 3, 10])
        bench.open(anchor_day=source.choice([1, 10, 11]))
        bench.command("set_overdraft", amount=str(self.overdraft), currency="USD")
        if caps:
            self._cap()
            for basis in random.Random(~seed).sample(("list", "due"), random.Random(seed + 1).choice((0, 1, 1, 2))):
                bench.cap(str(random.Random(seed + 2).randrange(2, 40)), f"on-{basis}", basis=basis)
            if random.Random(seed + 3).random() < 0.4:
                bench.cap(str(random.Random(seed + 4).randrange(1, 30)), "waives", beyond="waived", hard=False)
        first = bench.now
        for number in range(source.randrange(1, 5)):
            fields: dict[str, Any] = {"priority": source.randrange(3)}
            if source.random() < 0.5:
                fields["effective_us"] = first + source.randrange(3 * HOUR)
            if source.random() < 0.5:
                fields["expires_us"] = first + source.randrange(HOUR, 5 * HOUR)
            if scoped and source.random() < 0.4:
                fields["scope"] = source.sample(sorted(bench.documents[1].plans["plan"].prices), 3)
            kind = source.choice(["paid", "promo"])
            bench.grant(f"lot-{number}", str(source.randrange(1, 40)), kind, **fields)
        for number in range(source.choice([0, 0, 1, 3])):
            name = source.choice(sorted(bench.documents[1].plans["plan"].prices))
            units, at = str(source.randrange(1, 12)), first + source.randrange(3 * HOUR)
            at_once: dict[str, Any] = {} if source.random() < 0.5 else {"effective_us": at, "expires_us": at + 2 * HOUR}
            bench.grant_units(f"units-{number}", name, units, **at_once)
        if source.random() < 0.5:
            bench.publish(2, bench.now + source.randrange(MINUTE * 6, 3 * HOUR))
        if source.random() < 0.5:
            name, sold = source.choice(sorted(random_document(source).plans["plan"].prices.items()))
            said = msgspec.to_builtins(sold).items()
            terms = {key: value for key, value in said if key not in ("meter", "where") and value is not None}
            bench.agree(name, terms, from_us=bench.now + source.randrange(MINUTE * 6, 3 * HOUR))
        for _ in range(source.randrange(4)):
            data = {"model": source.choice(MODELS), "units": str(source.randrange(4)), "out": "0"}
            bench.use(data=data)
            self._note(bench.now, "")

    def _cap(self) -> None:
        source, bench = self.source, self.bench
        for scope in SCOPES:
            bench.scope(scope)
            if source.random() < 0.4:
                bench.cap(str(source.randrange(3, 30)), f"cap-{scope}", scope=scope)
        if source.random() < 0.4:
            bench.cap(str(source.randrange(5, 60)))
        for scope in ("", *SCOPES):
            if source.random() < 0.4:
                window: dict[str, Any] = source.choice(
                    [
                        {"window": "hour"},
                        {"window": "day"},
                        {"window": "rolling", "length_s": source.choice([60, 1_200, 7_200])},
                        {"window": "first_use", "length_s": source.choice([60, 1_200, 7_200])},
                    ]
                )
                unit = source.choice([{}, {"meter": "units"}, {"price": "out-x"}, {"meter": "uses"}])
                if unit:
                    window |= unit | {"currency": None}
                bench.cap(str(source.randrange(3, 30)), f"window-{scope}", scope=scope, **window)

    def _note(self, time_us: int, scope: str) -> None:
        """Remember what the newest event was charged."""
        offset = self.bench.log[-1].offset
        for at, raw in reversed(self.bench.partition.outputs.lines):
            if at != offset:
                break
            line = json.loads(raw)
            if "due" in line:
                continue  # what a cap waives counts in no cap
            own = pico_of(line["amount"]) - pico_of(line.get("repricing", "0"))
            self.spent.append((time_us, scope, line["price"], nano(line["quantity"]), own))

    @property
    def over(self) -> int:
        """Pico of debt beyond the overdraft."""
        return self.bench.debt() - self.overdraft * DOLLAR

    def beyond_caps(self) -> list[str]:
        """Hard caps that were passed, by more than the events in the middle of holds may round."""
        account = self.bench.account()
        passed = []
        for cap in account.caps.values():
            if cap.tallied:
                passed += self._beyond_window(cap)
                continue
            if not cap.hard:
                continue
            spend = account.scopes[cap.scope].spend if cap.scope else account.derive().on(cap.basis)
            slack = self.partial * 4 if cap.scope else 0
            passed += [f"{cap.cap} by {pico - cap.amount}" for pico in spend.values() if pico > cap.amount + slack]
        return passed

    def _beyond_window(self, cap: Cap) -> list[str]:
        """By what the events themselves say, not by what the cap has counted."""
        meters = {name: price.meter for name, price in self.bench.documents[1].plans["plan"].prices.items()}
        counted = [
            (time_us, pico if cap.in_money else units)
            for time_us, scope, price, units, pico in self.spent
            if (scope + "/").startswith(cap.scope + "/") or not cap.scope
            if cap.in_money or cap.takes(price, meters[price])
        ]
        slack = self.partial * 4 if cap.in_money else 0
        length_us, sums = cap.window.length_us, []
        if cap.window.kind in ("hour", "day"):
            around = hour_around if cap.window.kind == "hour" else day_around
            starts = {around("UTC", time_us) for time_us, _ in counted}
            sums = [sum(n for time_us, n in counted if start <= time_us < end) for start, end in starts]
        elif cap.window.kind == "rolling":
            ends = {time_us for time_us, _ in counted}
            sums = [sum(n for time_us, n in counted if end - length_us < time_us <= end) for end in ends]
        else:
            opened = self.bench.account().tallies[cap.cap]
            sums = [sum(n for time_us, n in counted if start <= time_us < start + length_us) for start in opened]
        return [f"{cap.cap} by {total - cap.amount}" for total in sums if total > cap.amount + slack]

    def step(self) -> None:
        source = self.source
        kind = source.choices(
            ["ask", "use", "stream", "release", "extend", "wait", "crash"], [8, 4, 2, 1, 2, 3, 1 if self.crashes else 0]
        )[0]
        if kind == "ask":
            self.ask()
        elif kind == "wait":
            self.wait()
            for request in list(self.open):
                if request.hold.report_until_us < self.bench.now - 2 * SECOND:
                    self.open.remove(request)
            self.bench.settle_wishes()
        elif kind == "crash":
            self.bench.take_over()
        elif self.open:
            request = source.choice(self.open)
            if kind == "use":
                self.settle(request)
            elif kind == "stream" and request.events > 1:
                self.partial += 1
                self.spend(request, final=False)
            elif kind == "release":
                if self.bench.partition.desk.release(request.hold):
                    self.open.remove(request)
            elif kind == "extend":
                self.extend(request)

    def wait(self) -> None:
        """Now and then until shortly before a boundary, so that holds lie on both sides of it."""
        source, bench = self.source, self.bench
        ends = bench.account().segment_around(bench.now)[1]
        if source.random() < 0.4 and bench.now + 20 * SECOND < ends < bench.now + 6 * HOUR:
            bench.now = ends - 20 * SECOND
        else:
            bench.now += source.choice([SECOND, 15 * SECOND, 30 * SECOND, 20 * MINUTE])
        bench.wait()

    def ask(self) -> None:
        source, bench = self.source, self.bench
        models = source.sample(MODELS, source.choice([1, 1, 2, 3]))
        n = source.choice([1, 1, 1, 3])
        joint = source.random() < 0.3
        bounds = [FieldBound(("units", "out"), self._quantity())] if joint else []
        if not joint:
            bounds = [FieldBound(("units",), self._quantity()), FieldBound(("out",), self._quantity() // 2)]
        question = Question(
            "acme",
            source.choice(["", *SCOPES]) if len(bench.account().scopes) > 1 else "",
            "use",
            {},
            {"model": tuple(models)},
            tuple(bounds),
            n,
            hold_us=source.choice([MINUTE, 5 * MINUTE]),
        )
        decision = bench.ask(question)
        if decision.hold is not None:
            self.admitted += 1
            self.open.append(Request(decision.hold, models, question.bounds, n))

    def _quantity(self) -> int:
        quantity = self.source.randrange(1, 12) * NANO
        return quantity if self.whole else quantity - self.source.randrange(NANO)

    def extend(self, request: Request) -> None:
        more = self.source.choice([0, self._quantity()])
        place = self.source.randrange(len(request.left))
        bounds = (FieldBound(request.fields[place], more),) if more else ()
        decision = self.bench.more(request.hold, bounds)
        if decision.hold is not None:
            request.hold = decision.hold
            request.left[place] += more

    def spend(self, request: Request, *, final: bool) -> None:
        data = request.use(self.source, whole=self.whole)
        outcome = self.bench.spend_held(request.hold, 0, final=final, data=data)
        assert outcome == "rated", self.bench.letter()
        self._note(request.hold.admitted_us, request.hold.scope)

    def settle(self, request: Request) -> None:
        self.open.remove(request)
        self.spend(request, final=True)

    def settle_all(self) -> None:
        while self.open:
            self.settle(self.source.choice(self.open))

    def went_wrong(self) -> str:
        """Live it to its end: what went wrong, in words; empty: nothing."""
        for step in range(41):
            if step == 40:
                self.settle_all()
            else:
                self.step()
            if self.over > 0:
                return f"step {step}: {self.over} pico beyond the overdraft"
            if self.beyond_caps():
                return f"step {step}: {self.beyond_caps()}"
        return ""
