"""Commands of a few seeds that say what binds, what is told and what is paid: rules of every measure, caps of every window,
rates, lists, standings, agreed prices, manual lines. Some are taken back again."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from loadtest.oracle.catalogue import Version
from loadtest.workload import MODELS, PLANS

KINDS_MAX: Final = 5  # in a seed: what many of them come to is looked at more closely than one of each
FEATURE: Final = "fast-lane"  # no plan has it, and gateways ask for it now and then: a cap of this name meters it

Body = dict[str, Any]


class Terms:
    """Draws commands for these accounts, without time or key. A third of them may be refused; the oracle says which."""

    def __init__(self, random: Random, accounts: list[str], asking: Sequence[str], version: Version) -> None:
        """`asking`: accounts whose wallets may not fall below zero; nothing is set for them that may let them."""
        self._random = random
        self._accounts = accounts
        self._asking = asking
        self._prices = sorted({name for plan in PLANS for name in version.plans[plan].prices})
        self._meters = sorted(meter.name for meter in version.meters)
        every: list[Callable[[], Body]] = [self._rule, self._rule, self._rule, self._cap, self._cap, self._rate]
        every += [self._allowed, self._standing, self._price, self._line, self._overdraft]
        self._kinds = random.sample(every, random.randint(2, KINDS_MAX))

    def command(self) -> Body:
        """The next one."""
        kind = self._random.choice(self._kinds)
        asks = self._asking and kind not in (self._line, self._overdraft) and self._random.random() < 0.5
        return {"account": self._random.choice(self._asking if asks else self._accounts)} | kind()

    def _money(self) -> str:
        return self._random.choice(["0.01", "0.3", "2", "25", "900"])

    def _units(self) -> str:
        return self._random.choice(["1", "300", "9000", "200000"])

    def _counted(self) -> Body:
        """Of what: money, or units of a meter or a price."""
        return self._random.choice(
            [
                {},
                {"meter": self._random.choice(self._meters)},
                {"meter": "output_tokens"},
                {"price": self._random.choice(self._prices)},
            ]
        )

    def _window(self) -> Body:
        window = self._random.choice(["month", "week", "day", "hour", "rolling", "rolling", "first_use"])
        length = {"length_s": self._random.choice([60, 600, 86_400])} if window in ("rolling", "first_use") else {}
        return {"window": window} | length

    def _percent(self, most: int) -> Body:
        percent = self._random.randint(1, most)
        return {"percent": percent} | self._random.choice([{}, {"clear_percent": percent // 2}])

    def _rule(self) -> Body:
        name = f"term-{self._random.randrange(4)}"
        if self._random.random() < 0.2:
            return {"kind": "remove_rule", "rule": name}
        level = self._random.choice(["info", "warning", "critical"])
        return {"kind": "set_rule", "rule": name, "level": level, "on": self._measure()}

    def _measure(self) -> Body:
        draw = self._random
        match draw.choice(["balance", "spend", "quantity", "included", "lot", "expiring", "spike", "cap"]):
            case "balance":
                up = {"direction": "up", "threshold": self._money()}
                return {"measure": "balance"} | draw.choice([up, {"threshold": self._money()}])
            case "spend":
                return {"measure": "spend", "threshold": self._money()} | self._looked_at()
            case "quantity":
                counted = self._counted() or {"meter": "input_tokens"}
                return {"measure": "quantity", "threshold": self._units()} | counted | self._looked_at()
            case "included":
                return {"measure": "included_percent", "price": draw.choice(self._prices)} | self._percent(120)
            case "lot":
                return {"measure": "lot_percent", "lot": draw.choice(["prepaid", "welcome"])} | {"percent": 40}
            case "expiring":
                within_s = draw.choice([1, 3_600, 40 * 86_400])
                return {"measure": "expiring", "threshold": self._money(), "within_s": within_s}
            case "spike":
                counted = self._counted()
                minimum = self._units() if counted else self._money()
                spike = {"measure": "spike", "minimum": minimum, "bucket_s": draw.choice([60, 3_600])}
                return spike | counted | self._percent(400)
            case _:
                cap = draw.choice(["monthly", "term-cap", FEATURE])
                return {"measure": "cap_percent", "cap": cap} | self._percent(120)

    def _looked_at(self) -> Body:
        """A window; of one that rolls, that it sinks is told as well."""
        window = self._window()
        falls = window["window"] == "rolling" and self._random.random() < 0.5
        return window | ({"direction": "down"} if falls else {})

    def _cap(self) -> Body:
        name = self._random.choice(["term-cap", "term-cap", "monthly", FEATURE])
        if self._random.random() < 0.25:
            return {"kind": "remove_cap", "cap": name}
        counted, window = self._counted(), self._window()
        if self._random.random() < 0.25:
            window = {"window": "request"}  # a ceiling
        amount = {"amount": self._units()} if counted else {"amount": self._money(), "currency": "USD"}
        hard = window["window"] == "request" or self._random.random() < 0.7
        return {"kind": "set_cap", "cap": name, "hard": hard} | amount | counted | window

    def _rate(self) -> Body:
        by_meter = self._random.random() < 0.6
        counted = {"meter": self._random.choice(["input_tokens", *self._meters])} if by_meter else {}
        per_minute = self._random.choice([0, 4_000, 40_000] if counted else [0, 1, 20])
        return {
            "kind": "set_rate_limit",
            "limit": f"rate-{self._random.randrange(2)}",
            "per_minute": per_minute,
        } | counted

    def _allowed(self) -> Body:
        values = self._random.choice([None, [], [MODELS[0]], list(MODELS[:2])])
        return {"kind": "set_allowed", "field": "model", "values": values}

    def _standing(self) -> Body:
        standing = self._random.choice(["active", "active", "past_due", "suspended"])
        return {"kind": "set_scope", "scope": self._random.choice(["", "", "team", "team/blue"]), "standing": standing}

    def _price(self) -> Body:
        tiers = [{"up_to": "5000", "amount": "0.00002"}, {"amount": "0.00001"}]
        model = self._random.choice(["graduated", "volume"])
        terms = [None, {"model": "per_unit", "amount": "0.000004", "per": "1"}, {"model": model, "tiers": tiers}]
        terms.append({"model": "package", "amount": "0.02", "per": "1000"})
        price = self._random.choice(self._prices)
        return {"kind": "set_price", "price": price, "currency": "USD", "terms": self._random.choice(terms)}

    def _line(self) -> Body:
        line = {"line": f"line-{self._random.randrange(9)}", "currency": "USD", "reason": "as agreed", "by": "finance"}
        return {"kind": "adjust", "amount": self._random.choice(["-1", "0.25", "3"])} | line

    def _overdraft(self) -> Body:
        return {"kind": "set_overdraft", "amount": self._random.choice([None, "0", "0.2"]), "currency": "USD"}
