"""Ours for the comparison with a peer: the engine alone, in the peer's own process, with the peer's prompt and price.

A reservation is a check with a hold and its sealed token; to settle it, the usage event that names the token is made and
rated: decoded, remembered, charged, taken off the wallet. No Kafka and no Postgres, as the peer has neither here.
"""

from typing import Any, Final

import msgspec
import orjson

from engine.admission import Decision, FieldBound, Question, SliceNeeded
from engine.catalog import load_catalogue
from engine.events import CatalogueMarker, seal
from engine.holds import seal_token
from engine.money import NANO, quantity_text
from engine.partition import Partition
from loadtest.workload import cloud_time

KEY: Final = b"control key of the comparison with peers"
TOPIC: Final = "usage"
ACCOUNT: Final = "customer"
EPOCH: Final = 1
START_US: Final = 1_788_264_000_000_000  # 2026-09-01T12:00:00Z
SECOND_US: Final = 1_000_000
HOLD_US: Final = 60 * SECOND_US
LINGER_US: Final = 600 * SECOND_US
SLICES_MAX: Final = 20  # before one hold


def catalogue(dollars_in: str, dollars_out: str) -> bytes:
    """Prices per million tokens of either kind."""
    prices = {"input_tokens": dollars_in, "output_tokens": dollars_out}
    return orjson.dumps(
        {
            "meters": {
                name: {"event_type": "llm.request", "aggregation": "sum", "field": name, "group_by": ["model"]}
                for name in prices
            },
            "plans": {
                "plan": {
                    "currency": "USD",
                    "prices": {
                        name: {"meter": name, "model": "per_unit", "amount": amount, "per": "1000000"}
                        for name, amount in prices.items()
                    },
                }
            },
        }
    )


class EngineBudget:
    """One partition with one customer."""

    def __init__(self, dollars_in: str, dollars_out: str, granted: str = "1000000") -> None:
        self.now_us = START_US
        self._offset = 0
        self._events = 0
        self._fold = Partition(0, 1, TOPIC, KEY, {1: load_catalogue(1, catalogue(dollars_in, dollars_out))})
        self._control(msgspec.json.encode(CatalogueMarker(1, 0)))
        self._control({"kind": "owner", "epoch": EPOCH})
        self._fold.desk.begin(EPOCH)
        self._command("open_account", plan="plan")
        self._command("grant", lot="wallet", lot_kind="paid", amount=granted, currency="USD")

    def _command(self, kind: str, **fields: str) -> None:
        self._control({"kind": kind, "account": ACCOUNT, "command_key": kind} | fields)

    def _control(self, body: dict[str, Any] | bytes) -> None:
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        self._apply(None, seal(KEY, TOPIC, 0, raw))

    def _apply(self, key: bytes | None, value: bytes) -> str:
        outcome = self._fold.apply(self._offset, self.now_us // 1000, key, value)
        self._offset += 1
        return outcome

    def check(self, model: str, input_tokens: int, output_tokens: int) -> bool:
        """A decision alone: nothing is reserved."""
        answer = self._fold.check(self._question(model, input_tokens, output_tokens, None), self.now_us)
        return isinstance(answer, Decision) and answer.allowed

    def reserve(self, model: str, input_tokens: int, output_tokens: int) -> str | None:
        """The token of a hold of so much, or None for a refusal. Slices that it needs go into the log first."""
        question = self._question(model, input_tokens, output_tokens, HOLD_US)
        for _ in range(SLICES_MAX):
            answer = self._fold.check(question, self.now_us)
            if isinstance(answer, SliceNeeded):
                self._write(answer)
                continue
            return seal_token(KEY, answer.hold) if answer.hold is not None else None
        raise AssertionError("slices without end")

    def _write(self, needed: SliceNeeded) -> None:
        rows = [(needed.account, {price: quantity_text(nano) for price, nano in needed.quantities.items()})]
        self._control({"kind": "slices", "epoch": EPOCH, "linger_us": LINGER_US, "of": rows})

    @staticmethod
    def _question(model: str, input_tokens: int, output_tokens: int, hold_us: int | None) -> Question:
        bounds = (
            FieldBound(("input_tokens",), input_tokens * NANO),
            FieldBound(("output_tokens",), output_tokens * NANO),
        )
        return Question(ACCOUNT, type="llm.request", data={"model": model}, bounds=bounds, hold_us=hold_us)

    def settle(self, token: str, model: str, input_tokens: int, output_tokens: int) -> None:
        """Rate the usage event under the hold."""
        self._events += 1
        event = {
            "specversion": "1.0",
            "id": f"request-{self._events}",
            "source": "gateway",
            "type": "llm.request",
            "time": cloud_time(self.now_us),
            "data": {"model": model, "input_tokens": input_tokens, "output_tokens": output_tokens},
            "hold": token,
        }
        outcome = self._apply(ACCOUNT.encode(), orjson.dumps(event))
        if outcome != "rated":
            raise AssertionError(f"the usage was {outcome}")
        if self._events % 1_000 == 0:
            self._fold.outputs = type(self._fold.outputs)()  # a shard sends them off

    def pass_time(self, seconds: int) -> None:
        """In the log and on the owner's clock; holds that nobody can report any more are freed."""
        self.now_us += seconds * SECOND_US
        self._control({"kind": "tick", "epoch": EPOCH})
        self._fold.desk.reclaim(self._fold.log_time_us, self.now_us)

    def wallet(self) -> tuple[int, int]:
        """Pico: booked, held."""
        wallet = self._fold.wallet(ACCOUNT, self.now_us)
        assert wallet is not None
        return wallet.booked, wallet.held
