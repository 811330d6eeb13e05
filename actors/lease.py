"""A shard's right to speak: a short lease, renewed beside the rating loop and never on behalf of a stuck one.

The heartbeat runs in a thread of its own, with its own event loop and database connection, so that a long batch or a
slow checkpoint does not cost the lease. Under simulation the same `Heartbeat` is a task on virtual time.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Final

from actors.ports import Clock, Fenced, Membership, StoreRefused, StoreUnavailable
from config.settings import LeaseSettings

_log = logging.getLogger(__name__)

CONNECT_RETRY_S: Final = 0.2


class Lease:
    """What a shard knows of its own standing. The heartbeat writes it, the shard reads it; the shard writes `beat`."""

    def __init__(self, clock: Clock) -> None:
        self.partitions: frozenset[int] = frozenset()  # that this incarnation should own
        self.fenced = False  # declared dead by the controller: never valid again
        self._owned: frozenset[int] = frozenset()  # that were in our hands when this lease was asked for, or later
        self._asked_s = float("-inf")
        self._clock = clock
        self._until_s = float("-inf")
        self._beat_s = clock.boot_s()

    def valid(self) -> bool:
        """Whether we may speak for our partitions at this moment."""
        return not self.fenced and self._clock.boot_s() < self._until_s

    def left_s(self) -> float:
        """How long it still runs; negative when it has run out, or never began."""
        return self._until_s - self._clock.boot_s()

    def beat(self) -> None:
        """The rating loop is alive."""
        self._beat_s = self._clock.boot_s()

    def silent_s(self) -> float:
        """How long the rating loop has not shown life."""
        return self._clock.boot_s() - self._beat_s

    def lost(self, partition: int, claimed_s: float) -> bool:
        """Whether what we claimed at that moment is in our hands no more: our lease had lapsed, another has claimed it, and
        our lease is valid again. Only a claim from then on makes it ours."""
        return claimed_s < self._asked_s and partition not in self._owned

    def extend(
        self,
        until_s: float,
        partitions: frozenset[int],
        owned: frozenset[int] = frozenset(),
        asked_s: float = float("-inf"),
    ) -> None:
        """`owned`: what was in our hands at `asked_s` or later, whether it should be or not."""
        self.partitions = partitions
        self._owned, self._asked_s = owned, asked_s
        self._until_s = until_s  # last: the shard's thread may look in between


class Heartbeat:
    """Renews the lease until the shard stops, is declared dead, or hangs."""

    def __init__(
        self, membership: Membership, clock: Clock, lease: Lease, incarnation: str, settings: LeaseSettings
    ) -> None:
        self._membership = membership
        self._clock = clock
        self._lease = lease
        self._incarnation = incarnation
        self._settings = settings
        self._stopping = False

    async def run(self) -> None:
        """Renew every `renew_every_s`, and at once when the assignment changes. Returns when stopped or declared dead, which a
        shard also counts as once this has broken: nobody would renew for it, nor make it anew while it lives."""
        try:
            while not self._stopping:
                await self.renew()
                if self._lease.fenced:
                    return
                await self._membership.assignment_changed(self._settings.renew_every_s)
        except Exception:
            _log.exception("the heartbeat of incarnation %s broke; it gives up its partitions", self._incarnation)
            self._lease.fenced = True

    async def renew(self) -> None:
        """One renewal. The lease counts from before the call: the answer may have been long under way."""
        if self._lease.silent_s() > self._settings.lease_s:
            _log.warning("the rating loop has been silent for %.1f s; not renewing its lease", self._lease.silent_s())
            return
        asked_s = self._clock.boot_s()
        try:
            renewal = await self._membership.renew(self._incarnation)
        except Fenced:
            _log.error("incarnation %s was declared dead; it gives up its partitions", self._incarnation)
            self._lease.fenced = True
        except (StoreUnavailable, StoreRefused) as error:
            _log.warning("the lease could not be renewed: %s", error)
        else:
            self._lease.extend(asked_s + renewal.lease_s, renewal.partitions, renewal.owned, asked_s)

    def stop(self) -> None:
        self._stopping = True


class HeartbeatThread:
    """Runs a heartbeat on an event loop of its own. `make` is called in that thread: its connection belongs there."""

    def __init__(self, lease: Lease, make: Callable[[], tuple[Heartbeat, Membership]]) -> None:
        """`lease`: the one that the heartbeat renews."""
        self._lease = lease
        self._make = make
        self._heartbeat: Heartbeat | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """End the renewals; returns once the thread has closed its connection."""
        self._stopping = True
        if self._heartbeat is not None:
            self._heartbeat.stop()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        """As a heartbeat that breaks, what breaks around it ends the shard."""
        try:
            asyncio.run(self._renew_until_stopped())
        except Exception:
            _log.exception("the thread of the heartbeat broke; its shard gives up its partitions")
            self._lease.fenced = True

    async def _renew_until_stopped(self) -> None:
        self._heartbeat, membership = self._make()
        try:
            await self._connect(membership)
            if not self._stopping:  # a stop that came while `make` was at work found no heartbeat to tell
                await self._heartbeat.run()
        finally:
            await membership.stop()

    async def _connect(self, membership: Membership) -> None:
        while not self._stopping:
            try:
                await membership.start()
                return
            except (StoreUnavailable, StoreRefused) as error:
                _log.warning("the heartbeat waits for Postgres: %s", error)
                await asyncio.sleep(CONNECT_RETRY_S)
