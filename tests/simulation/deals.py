"""Commands of a few seeds that say how customers pay and what they are given: in advance or behind, what is waived, what is
granted again and again or in units, when credit is asked for, another plan, pauses, seats. Some are taken back again."""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Any, Final

from loadtest.oracle.catalogue import Version
from loadtest.workload import PLANS

KINDS_MAX: Final = 4  # in a seed: what many of them come to is looked at more closely than one of each
OF_REQUESTS: Final = ("large-input", "small-input", "mini-input", "large-output", "small-output", "mini-output")

Body = dict[str, Any]
Ahead = dict[str, float]  # fields that are instants, and how long behind the writing: as a share of the seed's time


class Deals:
    """Draws commands for these accounts, without time or key. Some may be refused; the oracle says which."""

    def __init__(
        self,
        random: Random,
        accounts: list[str],
        asking: Sequence[str],
        version: Version,
        currencies: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`asking`: accounts whose wallets may not fall below zero; nothing is set for them that may let them.
        `currencies`: of accounts that are billed in another than USD."""
        self._random = random
        self._accounts = accounts
        self._asking = asking
        self._currencies = currencies
        every_price = sorted({name for plan in PLANS for name in version.plans[plan].prices})
        self._prices = [*OF_REQUESTS, *random.sample(every_price, 3)]
        given: list[Callable[[], Body]] = [self._waiver, self._recurring, self._quantity, self._pause]
        owed: list[Callable[[], Body]] = [self._billing, self._top_up, self._top_up, self._plan, self._seats]
        self._given = given
        self._kinds = random.sample([*given, *owed], random.randint(2, KINDS_MAX))

    def command(self) -> tuple[Body, Ahead]:
        """The next one."""
        draw = self._random
        kind = draw.choice(self._kinds)
        asks = self._asking and kind in self._given and draw.random() < 0.4
        account = draw.choice(self._asking if asks else self._accounts)
        body = {"account": account} | (_staying(kind()) if asks and kind == self._waiver else kind())
        if "currency" in body and draw.random() < 0.9:
            body["currency"] = self._currencies.get(account, "USD")
        ahead: Ahead = {}
        if body["kind"] in ("set_pause", "set_plan", "set_seats", "grant_quantity") and draw.random() < 0.4:
            ahead["effective_us" if body["kind"] == "grant_quantity" else "from_us"] = draw.uniform(0.0, 0.6)
        if body["kind"] == "grant_quantity" and draw.random() < 0.4:
            ahead["expires_us"] = draw.uniform(0.2, 1.0)
        return body, ahead

    def _money(self) -> str:
        return self._random.choice(["0.003", "0.05", "0.4", "6", "500"])

    def _billing(self) -> Body:
        if self._random.random() < 0.25:
            return {"kind": "set_billing", "billing": "prepaid", "currency": "USD"}
        limit = self._random.choice([None, "0.2", "70"])
        return {"kind": "set_billing", "billing": "postpaid", "currency": "USD", "credit_limit": limit}

    def _waiver(self) -> Body:
        if self._random.random() < 0.2:
            return {"kind": "remove_cap", "cap": "at-most"}
        cap = {"cap": "at-most", "amount": self._money(), "currency": "USD", "beyond": "waived"}
        return {"kind": "set_cap", "hard": self._random.random() < 0.3} | cap

    def _recurring(self) -> Body:
        name = self._random.choice(["free", "free", "weekly"])
        if self._random.random() < 0.15:
            return {"kind": "remove_recurring_grant", "grant": name}
        grant: Body = {"grant": name, "lot_kind": "promo", "amount": self._money(), "currency": "USD"}
        grant |= {"every": "week" if name == "weekly" else self._random.choice(["period", "month", "week"])}
        grant |= {"priority": self._random.choice([1, 15, 100]), "pays_debt": self._random.random() < 0.3}
        grant |= {"days": self._random.choice([None, None, 1, 40])}
        rollover = {"percent": self._random.choice([50, 100]), "days": 3}
        return {"kind": "set_recurring_grant"} | grant | self._random.choice([{}, {"rollover": rollover}])

    def _quantity(self) -> Body:
        name = f"units-{self._random.randrange(4)}"
        if self._random.random() < 0.2:
            return {"kind": "void_quantity_grant", "grant": name}
        quantity = self._random.choice(["1", "900", "40000", "7000000"])
        return {"kind": "grant_quantity", "grant": name, "price": self._random.choice(self._prices)} | {
            "quantity": quantity
        }

    def _top_up(self) -> Body:
        if self._random.random() < 0.1:
            return {"kind": "remove_top_up"}
        threshold = self._random.choice(["0", "0.05", "3", "-0.01", "1000"])
        terms: Body = {"threshold": threshold, "amount": self._money(), "currency": "USD"}
        terms |= {"cooldown_s": self._random.choice([600, 3_600]), "attempts": self._random.randint(1, 3)}
        return {"kind": "set_top_up", "days": self._random.choice([None, 1])} | terms

    def _plan(self) -> Body:
        return {"kind": "set_plan", "plan": self._random.choice(PLANS)}

    def _pause(self) -> Body:
        return {"kind": "set_pause", "paused": self._random.random() < 0.5}

    def _seats(self) -> Body:
        return {"kind": "set_seats", "seat": "editor", "count": self._random.randrange(4)}


def _staying(waiver: Body) -> Body:
    """One of the lowest amount, in its place: were it gone, or higher, what it had waived would be owed, and no check has
    held that."""
    cap = {"cap": "at-most", "amount": "0.003", "currency": "USD", "beyond": "waived"}
    return {"kind": "set_cap", "hard": waiver.get("hard", False)} | cap
