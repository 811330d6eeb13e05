"""Shards emptied on an operator's word, so that their node can be stopped and no caller waits for a takeover.

The wish is a fact beside the member; the controller moves the partitions, each handed over by its living owner.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Final

from actors.ports import Clock, Member, Roster

LOOK_EVERY_S: Final = 0.5


class DrainRefused(Exception):
    """The message says why, and what to do instead."""


class NotDrained(Exception):
    """Time is up; the message says what is left where. The wish stays."""


def chosen(members: Sequence[Member], shards: Collection[str], host: str | None) -> list[Member]:
    """The members of these names (of a shard, or of an incarnation), and those of a host. Raises DrainRefused for a name
    that no living member has."""
    known = {name for member in members for name in (member.shard, member.incarnation)}
    if unknown := sorted(set(shards) - known):
        raise DrainRefused(f"there is no shard {', '.join(unknown)}: see `tallygate shards list`")
    found = [member for member in members if {member.shard, member.incarnation} & set(shards) or member.host == host]
    if not found:
        raise DrainRefused(f"no shard lives on host {host}: see `tallygate shards list`")
    return found


def state_of(member: Member) -> str:
    """One word for a person."""
    if member.draining:
        return "draining" if member.partitions | member.owned else "drained"
    if member.partitions != member.owned:
        return "moving"
    return "owner" if member.owned else "spare"


async def drain(
    roster: Roster, clock: Clock, shards: Collection[str], host: str | None, within_s: float, say: Callable[[str], None]
) -> list[str]:
    """Have them emptied; the incarnations, once none of them owns anything. Raises DrainRefused when nobody would be left
    to own the partitions, NotDrained, `StoreUnavailable`."""
    members = await roster.members()
    names = [member.incarnation for member in chosen(members, shards, host)]
    if not any(member.incarnation not in names and not member.draining for member in members):
        raise DrainRefused("no other shard lives that could own their partitions: start another one first")
    for name in names:
        await roster.set_draining(name, True)
    deadline_s = clock.boot_s() + within_s
    while left := _left(await roster.members(), names):
        if clock.boot_s() > deadline_s:
            raise NotDrained(
                f"not drained within {within_s:.0f} s: {left}; the rest goes on moving while a controller is in office: "
                "see `tallygate shards list`"
            )
        say(f"still to be handed over: {left}")
        await clock.sleep(LOOK_EVERY_S)
    return names


async def resume(roster: Roster, shards: Collection[str], host: str | None) -> list[str]:
    """They may own partitions again; the incarnations. Raises DrainRefused, `StoreUnavailable`."""
    names = [member.incarnation for member in chosen(await roster.members(), shards, host)]
    return [name for name in names if await roster.set_draining(name, False)]


def _left(members: Sequence[Member], names: Collection[str]) -> str:
    """What they still own or are about to own."""
    left = {
        member.incarnation: sorted(member.partitions | member.owned)
        for member in members
        if member.incarnation in names
    }
    return ", ".join(f"{name}: partitions {' '.join(map(str, numbers))}" for name, numbers in left.items() if numbers)
