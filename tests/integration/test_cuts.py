"""Cuts on the way between a shard and its servers, under load, with a second shard that lives: nothing lost, nothing twice.

`make chaos ONLY=cuts` does the same, many times over."""

from random import Random

from loadtest.chaos.commits import CommitFault
from loadtest.chaos.cuts import WAYS, Server, cut, cut_commit
from loadtest.chaos.links import LinkedShards

COMMITS = (CommitFault.BEFORE, CommitFault.AFTER, CommitFault.LATE) * 2


async def test_a_commit_cut_off_is_made_once_or_not_at_all_and_a_cut_costs_a_takeover_at_most(
    linked: LinkedShards,
) -> None:
    random = Random(1)
    async with linked.load():
        made = [await cut_commit(linked, await linked.busy(), fault, random) for fault in COMMITS]
        swallowed = [
            await cut(linked, await linked.busy(), Server.POSTGRES, WAYS["down"], 2.5),
            await cut(linked, await linked.busy(), Server.KAFKA, WAYS["up"], 2.0),
        ]
    effects = {(each.fault, each.took_effect) for each in made}
    assert {(CommitFault.BEFORE, False), (CommitFault.AFTER, True)} <= effects
    assert all(swallowed)
    await linked.end()
    judged = await linked.judged(len(made) + len(swallowed))
    assert judged.wrong == []
    assert judged.equal
