"""Customers whose balance is known at every moment, asked at the doors until the right answer comes.

Per partition some have plenty and some are in debt. What each has spent follows from how many events were sent for it, one
price and one quantity; so an answer is right only if the owner has read every one of them, and no other.
"""

import itertools
from collections.abc import Iterator
from typing import Any, Final

import orjson
from msgspec import Struct

from actors.door_client import Doors, DoorUnavailable
from actors.door_wire import Check, Checked, FieldLimit
from actors.ports import Clock, Outgoing
from engine.money import amount_text
from engine.placement import partition_for
from loadtest.workload import EVENT_TYPE, cloud_time

PLAN: Final = "starter"
MODEL: Final = "atlas-mini"  # of the example catalogue, without tiers
TOKENS: Final = 1_000
COST_PICO: Final = 100_000_000  # 0.10 USD per million tokens, by the example catalogue
PLENTY_PICO: Final = 1_000_000_000_000_000
LITTLE_PICO: Final = 1  # the first event leaves debt
WITHIN_S: Final = 0.25
PAUSE_S: Final = 0.005
WATCH_EVERY_S: Final = 0.02


class Customer(Struct):
    """One account of the bench."""

    account: str
    partition: int
    granted: int  # pico
    sent: int = 0  # events in the log

    @property
    def booked(self) -> int:
        """What it must have, in pico."""
        return self.granted - self.sent * COST_PICO

    def commands(self) -> Iterator[dict[str, Any]]:
        """What opens it, with a wallet and a cap."""
        steps: list[dict[str, Any]] = [
            {"kind": "open_account", "plan": PLAN},
            {
                "kind": "grant",
                "lot": "wallet",
                "lot_kind": "paid",
                "amount": amount_text(self.granted),
                "currency": "USD",
            },
            {"kind": "set_cap", "cap": "monthly", "amount": amount_text(PLENTY_PICO), "currency": "USD"},
        ]
        for number, step in enumerate(steps):
            yield step | {"account": self.account, "command_key": f"{self.account}-{number}"}

    def use(self, wall_us: int, model: str = MODEL) -> Outgoing:
        """One more event; it is the caller's to put it into the log."""
        self.sent += 1
        event = {
            "specversion": "1.0",
            "id": f"e{self.sent}",
            "source": "bench",
            "type": EVENT_TYPE,
            "subject": self.account,
            "time": cloud_time(wall_us),
            "data": {"model": model, "input_tokens": TOKENS, "output_tokens": 0},
        }
        return Outgoing("usage", orjson.dumps(event), self.account.encode(), self.partition)


def customers(prefix: str, count: int, partitions: int) -> list[Customer]:
    """That many, with plenty, wherever their names put them."""
    names = [f"{prefix}-{number:06d}" for number in range(count)]
    return [Customer(name, partition_for(name.encode(), partitions), PLENTY_PICO) for name in names]


def probes(partitions: int, each: int) -> list[Customer]:
    """`each` per partition: every other one has plenty, the others will be in debt."""
    found: dict[int, list[Customer]] = {number: [] for number in range(partitions)}
    for number in itertools.count():
        name = f"probe-{number}"
        partition = partition_for(name.encode(), partitions)
        home = found[partition]
        if len(home) < each:
            home.append(Customer(name, partition, PLENTY_PICO if len(home) % 2 else LITTLE_PICO))
        if all(len(some) == each for some in found.values()):
            return [probe for some in found.values() for probe in some]
    raise AssertionError("there is no end of names")


async def ask(doors: Doors, customer: Customer) -> Checked | None:
    """What its owner says to one request, if it says anything about it soon."""
    bounds = (FieldLimit(("input_tokens",), str(TOKENS)), FieldLimit(("output_tokens",), "0"))
    try:
        answer = await doors.ask(
            customer.account, Check(customer.account, type=EVENT_TYPE, data={"model": MODEL}, bounds=bounds), WITHIN_S
        )
    except DoorUnavailable:
        return None
    return answer if isinstance(answer, Checked) else None


def is_right(customer: Customer, answer: Checked | None, above_epoch: int = 0) -> bool:
    """Whether it comes from an owner above that epoch, and says what the events in the log make of the customer."""
    return (
        answer is not None
        and answer.as_of.epoch > above_epoch
        and answer.wallet is not None
        and answer.wallet.booked == amount_text(customer.booked)
        and answer.allowed == (customer.booked > 0)
    )


async def rightly_answered(doors: Doors, clock: Clock, customer: Customer, above_epoch: int = 0) -> float:
    """Ask until the answer is right; the moment it came, by the boot clock."""
    while not is_right(customer, await ask(doors, customer), above_epoch):
        await clock.sleep(PAUSE_S)
    return clock.boot_s()


async def watch_moves(doors: Doors, clock: Clock, customer: Customer, silences: list[float]) -> None:
    """Until cancelled: from the last right answer of an owner to the first of the next, for each change of owner."""
    last_s, epoch = clock.boot_s(), None
    while True:
        answer = await ask(doors, customer)
        if answer is not None and is_right(customer, answer):
            now_s = clock.boot_s()
            if epoch is not None and answer.as_of.epoch != epoch:
                silences.append(now_s - last_s)
            last_s, epoch = now_s, answer.as_of.epoch
        await clock.sleep(WATCH_EVERY_S)
