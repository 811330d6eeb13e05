"""What every trial stands on: a topic of the contender's own with customers and events in it, and the run's settings."""

import importlib.util
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, Final

from config.settings import Settings
from config.stack.supervisor import Supervisor
from engine.money import amount_text
from loadtest.bench.stage import Say, Stage, staged
from loadtest.patterns.pattern import Terms, Use
from loadtest.patterns.trial import Cast, Scale
from loadtest.probes import COST_PICO, Customer, customers

BATCH: Final = 2_000
CHECKED: Final = 200


class Absent(Exception):
    """A contender needs what is not here; the message says what, and where it would come from."""


class Ground:
    """One run's servers, scale and folder."""

    def __init__(self, supervisor: Supervisor, given: Settings, scale: Scale, folder: Path, say: Say) -> None:
        assert given.postgres.dsn is not None
        self.supervisor = supervisor
        self.scale = scale
        self.terms = Terms(scale.cap_pico, scale.alert_pico)
        self.folder = folder
        self.dsn = given.postgres.dsn.get_secret_value()  # the patterns' tables are their own
        self.say = say
        self._given = given

    def cast(self, name: str, partitions: int = 1) -> Cast:
        """Customers with a cap, named after the contender."""

        def some(kind: str, count: int) -> list[Customer]:
            made = customers(f"{name}-{kind}", count, partitions)
            for customer in made:
                customer.granted = self.scale.cap_pico
            return made

        (crowded,) = some("crowded", 1)
        followed, alerted = some("followed", self.scale.delays), some("alerted", self.scale.alerts)
        return Cast(some("checked", CHECKED), followed, alerted, crowded)

    def uses(self, crowd: Sequence[Customer], seed: int) -> list[Use]:
        """The scale's events as a gateway would count them itself."""
        chosen = Random(seed).choices(crowd, k=self.scale.events)
        return [Use(one.account, "bench", f"{seed}-{number}", COST_PICO) for number, one in enumerate(chosen)]

    async def fill(self, stage: Stage, crowd: Sequence[Customer], seed: int) -> None:
        """The scale's events, in the log."""
        chosen = Random(seed).choices(crowd, k=self.scale.events)
        for start in range(0, len(chosen), BATCH):
            await stage.log.append([one.use(stage.clock.wall_us()) for one in chosen[start : start + BATCH]])

    @asynccontextmanager
    async def laid(self, name: str) -> AsyncIterator[tuple[Stage, Cast, list[Customer]]]:
        """A stage with everybody opened, and the events of a crowd that has plenty in its log."""
        async with staged(self.supervisor, self._given, f"p-{name.replace('_', '-')}", self.say) as stage:
            cast = self.cast(name, stage.settings.kafka.partitions)
            crowd = customers(f"{name}-crowd", self.scale.customers, stage.settings.kafka.partitions)
            await stage.send([command for customer in crowd for command in list(customer.commands())[:2]])
            await stage.send(self._opening(cast))
            await self.fill(stage, crowd, seed=1)
            yield stage, cast, crowd

    def _opening(self, cast: Cast) -> list[dict[str, Any]]:
        """A wallet of the cap, and a rule that tells when the scale's threshold is spent of it."""
        threshold = amount_text(self.scale.cap_pico - self.scale.alert_pico)
        found = []
        for customer in cast.everybody():
            opened, granted, _ = customer.commands()
            rule = {"kind": "set_rule", "rule": "spend", "on": {"measure": "balance", "threshold": threshold}}
            found += [opened, granted, rule | {"account": customer.account, "command_key": f"{customer.account}-rule"}]
        return found


def installed(module: str) -> bool:
    """Whether a library of the group `bench` is here."""
    return importlib.util.find_spec(module) is not None
