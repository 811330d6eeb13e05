"""Cuts on the way between a shard and its servers, under load, with a second shard that lives: nothing lost, nothing twice.

`make chaos ONLY=cuts` does the same, many times over."""

from random import Random

from loadtest.chaos.commits import CommitFault
from loadtest.chaos.cuts import WAYS, Server, cut, cut_commit
from loadtest.chaos.links import LinkedShards

COMMITS = (CommitFault.BEFORE, CommitFault.AFTER, CommitFault.LATE) * 2


async def test_a_commit_cut_off_is_made_once_or_not_at_all(linked: LinkedShards) -> None:
    random = Random(1)
    async with linked.load():
        cuts = [await cut_commit(linked, await linked.busy(), fault, random) for fault in COMMITS]
    await linked.end()
    effects = {(made.fault, made.took_effect) for made in cuts}
    assert {(CommitFault.BEFORE, False), (CommitFault.AFTER, True)} <= effects
    assert (await linked.history()).sentences == []
    await linked.at.check()


async def test_one_way_cuts_cost_a_takeover_at_most(linked: LinkedShards) -> None:
    async with linked.load():
        await cut(linked, await linked.busy(), Server.POSTGRES, WAYS["down"], 2.5)
        await cut(linked, await linked.busy(), Server.KAFKA, WAYS["up"], 2.0)
    assert sum(link.postgres.swallowed_bytes for link in linked.links) > 0
    assert sum(link.kafka.swallowed_bytes for link in linked.links) > 0
    await linked.end()
    assert (await linked.history()).sentences == []
    await linked.at.check()
