"""Shards that are stopped beyond their lease, under load, with a live successor: nothing of theirs takes effect.

`make chaos ONLY=pauses` does the same, many times over."""

from loadtest.chaos.links import LinkedShards
from loadtest.chaos.pauses import Moment, pause


async def test_a_shard_stopped_beyond_its_lease_commits_nothing_and_answers_nothing(linked: LinkedShards) -> None:
    async with linked.load():
        pauses = [
            await pause(linked, await linked.busy(), 3.0, Moment.ANY),
            await pause(linked, await linked.busy(), 3.0, Moment.COMMIT),
        ]
    await linked.end()
    assert [sentence for each in pauses for sentence in each.sentences] == []
    assert linked.left == len(pauses)
    judged = await linked.judged(len(pauses))
    assert judged.wrong == []
    assert judged.equal
    assert judged.history.commits > 10
    assert all(len(owners) >= 2 for owners in judged.history.owners.values())
