"""What a seller's own people and payments write into the log: they look first at what the deployment says.

A request for credit is paid, or fails, each time that it arrives: a payment provider that is told twice answers twice. What
is rated again was found at the last checkpoint, and is approved a moment later; it may be another by then. What gateways
held is not rated again: nobody would have held that.
"""

import asyncio
from collections import Counter
from random import Random
from typing import Any, Final

import orjson

from engine.commands import Refused
from engine.events import seal
from engine.manual_lines import Rerating
from engine.money import amount_text
from loadtest.oracle.records import partition_of
from tests.simulation.catalogues import VERSIONS
from tests.simulation.checks import stored_fold
from tests.simulation.traffic import CONTROL_KEY, TOPIC
from tests.simulation.world import World

LOOK_EVERY_S: Final = 0.15
ANSWERED_SHARE: Final = 0.85  # of the requests that arrive
PAID_SHARE: Final = 0.7  # of those that are answered
RERATING_SHARE: Final = 0.3  # of the looks
APPROVAL_MAX_S: Final = 0.4
END_US: Final = 1 << 60

Body = dict[str, Any]


class BackOffice:
    """Of one world, for so many seconds."""

    def __init__(self, world: World, random: Random, seconds: float) -> None:
        self._world = world
        self._random = random
        self._seconds = seconds
        self._seen: Counter[str] = Counter()  # arrivals of a request
        self._written = 0

    async def run(self) -> None:
        """Until the seed's time is over."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self._seconds
        while loop.time() < end_s:
            await self._world.loop.sleep(LOOK_EVERY_S)
            for request, bodies in sorted(self._world.receivers.taken.items()):
                for body in bodies[self._seen[request] :] if request.startswith("topup_") else ():
                    self._seen[request] += 1
                    await self._answer(request, orjson.loads(body)["data"]["account"])
            if self._random.random() < RERATING_SHARE:
                await self._rate_again()

    async def _answer(self, request: str, account: str) -> None:
        if self._seen[request] > 1:
            self._world.fired["request_told_again", ""] += 1
        if self._random.random() < ANSWERED_SHARE:
            paid = self._random.random() < PAID_SHARE
            await self._write({"kind": "answer_top_up", "account": account, "request": request, "paid": paid})

    async def _rate_again(self) -> None:
        """A price of an account as another version has it, where that comes to something else."""
        draw = self._random
        fold = stored_fold(self._world, draw.randrange(self._world.plan.partitions))
        names = sorted(name for name in fold.account_ids() if not name.startswith("gateway-"))
        if not names:
            return
        account = fold.account(draw.choice(names))
        assert account is not None, "it was named"
        used = sorted({name for row in account.table.values() for name, _ in row})
        if not used:
            return
        price, version = draw.choice(used), draw.choice(VERSIONS)
        from_us = draw.choice([0, 0, *account.table])
        try:
            found = fold.rerated(account, price, Rerating(version, from_us, END_US))[price]
        except Refused:
            return  # of a version that is not published yet
        stated = () if isinstance(found, str) else [(each.period_us, each.amount) for each in found if each.amount]
        if not stated:
            return
        await self._world.loop.sleep(draw.uniform(0.0, APPROVAL_MAX_S))
        body: Body = {"kind": "rerate", "account": account.account, "price": price, "version": version}
        body |= {
            "from_us": from_us,
            "to_us": END_US,
            "currency": account.currency,
            "differences": [(period_us, amount_text(amount)) for period_us, amount in stated],
        }
        await self._write(body | {"rerate": f"again-{self._written % 7}", "reason": "a wrong price", "by": "finance"})

    async def _write(self, body: Body) -> None:
        world, account = self._world, body["account"]
        while world.broker.down or not world.broker.sound:
            await asyncio.sleep(0.05)
        self._written += 1
        home = partition_of(account.encode(), world.plan.partitions)
        value = seal(CONTROL_KEY, TOPIC, home, orjson.dumps(body | {"command_key": f"office-{self._written}"}))
        world.broker.append("usage", account.encode(), value, home)
