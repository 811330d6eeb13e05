"""The controller: who should own which partition. Off the data path, itself fenced by a term; a plain class.

It decides from facts alone (`place`, `even_out`), then writes. What the dead leave goes to the living at once. A restarted
shard comes back as a spare, and gets its part only when everything has been quiet for a while: a few partitions at a
time, each handed over by an owner that lives, so that nothing moves to and fro while something still breaks. A shard that
an operator drains hands over in the same way, without the wait.
"""

import logging
from collections.abc import Sequence
from typing import Final

from actors.ports import Clock, Deaths, Fenced, Member, Roster, StoreRefused, StoreUnavailable
from config.settings import LeaseSettings

_log = logging.getLogger(__name__)

PROBE_EVERY_S: Final = 0.05  # how soon a death on this host is seen: a probe is one flock per member
LOOK_EVERY_S: Final = 0.5  # how soon a new member, or a lease run out, is seen: a look is a few small queries
MOVES_MAX: Final = 2  # partitions that living owners hand over at a time, or ...
MOVES_PART: Final = 16  # ... this part of all of them, where there are many
GRACE_S: Final = 0.5  # a lease over this long without proof of death counts as death too


def place(partitions: int, members: Sequence[Member]) -> dict[int, str]:
    """The partitions to move, and to whom: those without a live owner, each to the member that has fewest.

    Ties go to the incarnation that sorts first, so that equal facts give equal placements. A member that is drained gets
    something only where nobody else is left: any owner is better than none."""
    load = {member.incarnation: len(member.partitions) for member in _staying(members) or members}
    if not load:
        return {}
    owned = frozenset().union(*(member.partitions for member in members))
    moves = {}
    for partition in range(partitions):
        if partition not in owned:
            chosen = min(load, key=lambda incarnation: (load[incarnation], incarnation))
            load[chosen] += 1
            moves[partition] = chosen
    return moves


def empty(members: Sequence[Member], moves_max: int) -> dict[int, str]:
    """Partitions to move away from the members that are drained, so that no more than `moves_max` are under way."""
    load = {member.incarnation: len(member.partitions) for member in _staying(members)}
    moves: dict[int, str] = {}
    under_way = sum(len(member.partitions - member.owned) for member in members)
    for member in members if load else ():
        for partition in sorted(member.partitions) if member.draining else ():
            if under_way + len(moves) < moves_max:
                chosen = min(load, key=lambda incarnation: (load[incarnation], incarnation))
                load[chosen] += 1
                moves[partition] = chosen
    return moves


def _staying(members: Sequence[Member]) -> list[Member]:
    return [member for member in members if not member.draining]


def even_out(members: Sequence[Member], moves_max: int) -> dict[int, str]:
    """Up to that many partitions to move from whoever has most to whoever has fewest, as long as two lie between them.

    So a move never calls for another one back. Equal facts give equal moves."""
    held = {member.incarnation: sorted(member.partitions) for member in members}
    moves: dict[int, str] = {}
    while held and len(moves) < moves_max:
        most = min(held, key=lambda incarnation: (-len(held[incarnation]), incarnation))
        fewest = min(held, key=lambda incarnation: (len(held[incarnation]), incarnation))
        if len(held[most]) - len(held[fewest]) < 2:
            break
        partition = held[most].pop()
        held[fewest].insert(0, partition)
        moves[partition] = fewest
    return moves


class Controller:
    """Watches the members, declares the dead dead, and gives their partitions to the living."""

    def __init__(
        self,
        name: str,
        *,
        partitions: int,
        members_min: int,
        roster: Roster,
        deaths: Deaths,
        clock: Clock,
        settings: LeaseSettings,
    ) -> None:
        """Nothing is placed before `members_min` members have joined once, so that a start is balanced."""
        self._name = name
        self._partitions = partitions
        self._members_min = members_min
        self._roster = roster
        self._deaths = deaths
        self._clock = clock
        self._settings = settings
        self._term: int | None = None
        self._gathered = False
        self._stopping = False
        self._seen: list[Member] = []  # living members, at the last look
        self._looked_s = float("-inf")
        self._watching_s = float("-inf")  # since when every look has succeeded
        self._quiet_s = float("inf")  # since when nobody came or went, and nothing moved
        self._at_rest: frozenset[str] = frozenset()  # the incarnations seen since then

    async def run(self) -> None:
        """Until stopped; then the office is given up, so that the next controller need not wait for it."""
        while not self._stopping:
            try:
                await self._step()
            except Fenced:
                _log.warning("term %s of controller %s is over", self._term, self._name)
                self._term = None
            except (StoreUnavailable, StoreRefused) as error:
                _log.warning("the controller waits for Postgres: %s", error)
            await self._clock.sleep(PROBE_EVERY_S)
        if self._term is not None:
            try:
                await self._roster.resign(self._term)
            except (StoreUnavailable, StoreRefused) as error:
                _log.warning("the office was not given up, and ends with its lease: %s", error)

    def stop(self) -> None:
        self._stopping = True

    async def _step(self) -> None:
        died = any(self._deaths.proven(member.host, member.lock_path) for member in self._seen)
        now_s = self._clock.boot_s()
        if not died and now_s - self._looked_s < LOOK_EVERY_S:
            return
        if now_s - self._looked_s > 2 * LOOK_EVERY_S:
            # We, or Postgres, were away: nobody could renew, so a lease that ran out meanwhile says nothing.
            self._watching_s = now_s
        if self._term is None:
            self._looked_s = now_s
            self._term = await self._roster.take_office(self._name, self._settings.controller_lease_s)
            if self._term is None:
                return
            _log.info("controller %s holds term %d", self._name, self._term)
        await self._look(self._term)
        self._looked_s = now_s

    async def _look(self, term: int) -> None:
        await self._roster.stay_in_office(term, self._settings.controller_lease_s)
        members = await self._roster.members()
        living = []
        for member in members:
            if self._is_dead(member):
                _log.warning("shard %s (%s) is dead", member.shard, member.incarnation)
                await self._roster.declare_dead(term, member.incarnation)
            else:
                living.append(member)
        self._seen = living
        self._gathered = self._gathered or len(living) >= self._members_min or self._someone_owns(members)
        if not self._gathered:
            return
        moves = place(self._partitions, living)
        at_a_time = max(MOVES_MAX, self._partitions // MOVES_PART)
        if not moves:
            moves = empty(living, at_a_time)
        if not moves and self._is_quiet(living):
            moves = even_out(_staying(living), at_a_time)
        if moves:
            _log.info("partitions %s move", moves)
            await self._roster.assign(term, moves)
            self._quiet_s = float("inf")

    def _is_quiet(self, living: Sequence[Member]) -> bool:
        """Whether the same members have lived, and each owned all that it should, for long enough."""
        names = frozenset(member.incarnation for member in living)
        if names != self._at_rest or any(member.owned != member.partitions for member in living):
            self._at_rest = names
            self._quiet_s = float("inf")
        elif self._quiet_s == float("inf"):
            self._quiet_s = self._clock.boot_s()
        return self._clock.boot_s() - self._quiet_s >= self._settings.rebalance_after_s

    def _is_dead(self, member: Member) -> bool:
        if self._deaths.proven(member.host, member.lock_path):
            return True
        watched_s = self._clock.boot_s() - self._watching_s
        return member.lease_left_s < -GRACE_S and watched_s > self._settings.lease_s + GRACE_S

    @staticmethod
    def _someone_owns(members: Sequence[Member]) -> bool:
        """A controller that follows another does not wait: the start is over."""
        return any(member.partitions for member in members)
