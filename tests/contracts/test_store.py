"""What the port `Store` promises, held against Postgres and the simulator's database."""

import pytest

from actors.ports import CatalogueTaken, Delivery, Fenced, Membership, Place, Roster, StillOwned, Store
from tests.contracts.benches import Bench
from tests.contracts.checkpoints import (
    PARTITION,
    account,
    alert,
    command,
    cut,
    dead_letter,
    posting,
    run,
    segment,
)

LEASE_S = 1.0


class Cluster:
    """A bench with a controller in office, and members."""

    def __init__(self, bench: Bench, roster: Roster, term: int, membership: Membership) -> None:
        self.bench = bench
        self.roster = roster
        self._term = term
        self._membership = membership

    async def join(self, incarnation: str) -> Store:
        """A process that is alive and assigned PARTITION."""
        await self._membership.register(incarnation, "shard", f"host-{incarnation}", f"/run/{incarnation}.lock", 1)
        await self.assign(incarnation)
        return await self.bench.store()

    async def assign(self, incarnation: str, partition: int = PARTITION) -> None:
        await self.roster.assign(self._term, {partition: incarnation})

    async def declare_dead(self, incarnation: str) -> None:
        await self.roster.declare_dead(self._term, incarnation)

    async def leave(self, incarnation: str) -> None:
        await self._membership.leave(incarnation)


@pytest.fixture
async def cluster(bench: Bench) -> Cluster:
    roster = await bench.roster()
    term = await roster.take_office("controller", 60.0)
    assert term is not None
    return Cluster(bench, roster, term, await bench.membership(LEASE_S))


async def test_first_claim_starts_from_nothing(cluster: Cluster) -> None:
    store = await cluster.join("a")
    claim = await store.claim(PARTITION, "a")
    assert (claim.partition, claim.epoch, claim.ckpt_seq, claim.next_offset) == (PARTITION, 1, 0, 0)
    assert (claim.last, claim.blob, claim.previous) == (None, None, [])
    image = await store.load(PARTITION, 0)
    assert (image.epoch, image.ckpt_seq) == (1, 0)
    assert (image.accounts, image.dedup, image.commands, image.engine_errors, image.alerts) == ([], [], [], [], [])


async def test_only_the_assigned_incarnation_can_claim(cluster: Cluster) -> None:
    store = await cluster.join("a")
    with pytest.raises(Fenced):
        await store.claim(PARTITION, "b")
    with pytest.raises(Fenced):
        await store.claim(PARTITION + 1, "a")
    assert (await store.claim(PARTITION, "a")).epoch == 1


async def test_a_patient_claim_leaves_an_owner_that_lives_the_time_to_hand_over(cluster: Cluster) -> None:
    old = await cluster.join("a")
    first = await old.claim(PARTITION, "a", patient=True)
    new = await cluster.join("b")
    with pytest.raises(StillOwned):
        await new.claim(PARTITION, "b", patient=True)
    await old.commit(cut(first))  # nothing of the refused claim took effect
    await old.release(PARTITION, first.epoch)
    second = await new.claim(PARTITION, "b", patient=True)
    assert second.previous == []
    again = await new.claim(PARTITION, "b", patient=True)
    assert again.epoch == second.epoch + 1, "one's own partition is never waited for"


async def test_a_patient_claim_waits_neither_for_the_dead_nor_for_a_lease_run_out(cluster: Cluster) -> None:
    await (await cluster.join("a")).claim(PARTITION, "a")
    successor = await cluster.join("b")
    await cluster.declare_dead("a")
    claim = await successor.claim(PARTITION, "b", patient=True)
    assert [previous.incarnation for previous in claim.previous] == ["a"], "declared dead, it may still answer"
    next_one = await cluster.join("c")
    await cluster.bench.pass_time(LEASE_S + 0.1)
    assert (await next_one.claim(PARTITION, "c", patient=True)).epoch == 3


async def test_a_successor_finds_what_was_committed(cluster: Cluster) -> None:
    store = await cluster.join("a")
    claim = await store.claim(PARTITION, "a")
    rows = [account("acme", balance=123_456_789_012_345_678_901), account("\u00fcber & co", balance=-1, wake_us=17)]
    written = cut(
        claim,
        accounts=rows,
        dedup=[segment(2, 20), segment(3, 30, 31)],
        commands=[command(5, "k5", 500), command(6, "k6", 600, "bad_amount")],
        postings=[posting(-1), posting(2)],
        alerts=[alert("alert_b", 2), alert("alert_a", 1)],
        dead_letters=[dead_letter(7), dead_letter(8, "engine_error"), dead_letter(9, detail="NUL \x00, half \ud800")],
    )
    await store.commit(written)
    await store.commit(cut(claim, 2, accounts=[account("acme", b"newer", 4)], dedup=[segment(3, 32)]))

    successor = await cluster.join("b")
    taken = await successor.claim(PARTITION, "b")
    assert (taken.epoch, taken.ckpt_seq, taken.next_offset) == (2, 2, 20)
    assert taken.last == cut(claim, 2).last
    assert taken.blob == b"partition state 2"
    image = await successor.load(PARTITION, 600)
    assert (image.epoch, image.ckpt_seq) == (taken.epoch, taken.ckpt_seq)
    assert sorted(image.accounts, key=lambda row: row.account) == [account("acme", b"newer", 4), rows[1]]
    assert [(run.bucket, run.entries) for run in image.dedup] == [
        (2, segment(2, 20).entries),
        (3, segment(3, 30, 31).entries),
        (3, segment(3, 32).entries),
    ]
    assert image.commands == [command(6, "k6", 600, "bad_amount")]
    assert image.engine_errors == [8]
    assert image.alerts == [alert("alert_a", 1), alert("alert_b", 2)]


async def test_an_image_says_which_checkpoint_of_which_epoch_it_shows(cluster: Cluster) -> None:
    store = await cluster.join("a")
    assert ((await store.load(PARTITION, 0)).epoch, (await store.load(PARTITION, 0)).ckpt_seq) == (0, 0)
    claim = await store.claim(PARTITION, "a")
    await store.commit(cut(claim))
    await store.settle_commit(PARTITION, claim.epoch, 1)
    image = await store.load(PARTITION, 0)
    assert (image.epoch, image.ckpt_seq) == (2, 1)


async def test_partitions_do_not_mix(cluster: Cluster) -> None:
    store = await cluster.join("a")
    await cluster.assign("a", PARTITION + 1)
    first, second = await store.claim(PARTITION, "a"), await store.claim(PARTITION + 1, "a")
    await store.commit(cut(first, accounts=[account("acme")], dedup=[segment(1, 1)]))
    await store.commit(cut(second, accounts=[account("bolt")], dedup_bucket_min=9))
    image = await store.load(PARTITION, 0)
    assert ([row.account for row in image.accounts], len(image.dedup)) == (["acme"], 1)
    assert [row.account for row in (await store.load(PARTITION + 1, 0)).accounts] == ["bolt"]


async def test_an_older_epoch_changes_nothing(cluster: Cluster) -> None:
    old = await cluster.join("a")
    claim = await old.claim(PARTITION, "a")
    await old.commit(cut(claim, accounts=[account("acme", b"kept")]))
    new = await cluster.join("b")
    taken = await new.claim(PARTITION, "b")
    late = cut(
        claim,
        2,
        accounts=[account("acme", b"late"), account("bolt")],
        dedup=[segment(1, 1)],
        commands=[command(1)],
        alerts=[alert("alert_late")],
        dead_letters=[dead_letter(1, "engine_error")],
    )
    with pytest.raises(Fenced):
        await old.commit(late)
    image = await new.load(PARTITION, 0)
    assert image.accounts == [account("acme", b"kept")]
    assert (image.dedup, image.commands, image.alerts, image.engine_errors) == ([], [], [], [])
    await new.commit(cut(taken))
    with pytest.raises(Fenced):
        await old.release(PARTITION, claim.epoch)
    await new.commit(cut(taken, taken.ckpt_seq + 2))


@pytest.mark.parametrize("ckpt_seq", [1, 3])
async def test_a_checkpoint_out_of_turn_changes_nothing(cluster: Cluster, ckpt_seq: int) -> None:
    store = await cluster.join("a")
    claim = await store.claim(PARTITION, "a")
    await store.commit(cut(claim))
    with pytest.raises(Fenced):
        await store.commit(cut(claim, ckpt_seq, accounts=[account()]))
    assert (await store.load(PARTITION, 0)).accounts == []
    assert (await store.claim(PARTITION, "a")).ckpt_seq == 1


async def test_rows_that_are_written_once_keep_their_first_form(cluster: Cluster) -> None:
    store = await cluster.join("a")
    claim = await store.claim(PARTITION, "a")
    await store.commit(
        cut(claim, commands=[command(5)], alerts=[alert("alert_a")], dead_letters=[dead_letter(6, "engine_error")])
    )
    await store.record_deliveries([Delivery("alert_a", 1, True, False, "")])
    again = cut(
        claim,
        2,
        commands=[command(5, answer="other")],
        alerts=[alert("alert_a", 99)],
        dead_letters=[dead_letter(6, "malformed")],
    )
    await store.commit(again)
    image = await store.load(PARTITION, 0)
    assert (image.commands, image.alerts, image.engine_errors) == ([command(5)], [], [6])


async def test_forgotten_buckets_are_gone(cluster: Cluster) -> None:
    store = await cluster.join("a")
    claim = await store.claim(PARTITION, "a")
    await store.commit(cut(claim, dedup=[segment(1, 1), segment(2, 2), segment(3, 3)]))
    await store.commit(cut(claim, 2, dedup_bucket_min=3))
    assert [run.bucket for run in (await store.load(PARTITION, 0)).dedup] == [3]


@pytest.mark.parametrize("committed", [True, False])
async def test_settling_tells_whether_the_commit_was_made(cluster: Cluster, committed: bool) -> None:
    store = await cluster.join("a")
    claim = await store.claim(PARTITION, "a")
    if committed:
        await store.commit(cut(claim))
    epoch, made = await store.settle_commit(PARTITION, claim.epoch, 1)
    assert made is committed
    assert epoch > claim.epoch
    with pytest.raises(Fenced):
        await store.commit(cut(claim, 2 if committed else 1))


async def test_after_settling_the_same_owner_goes_on(cluster: Cluster) -> None:
    store = await cluster.join("a")
    claim = await store.claim(PARTITION, "a")
    epoch, _ = await store.settle_commit(PARTITION, claim.epoch, 1)
    await store.commit(cut(claim, 1, epoch=epoch))


async def test_settling_can_be_repeated_when_its_answer_was_lost(cluster: Cluster) -> None:
    store = await cluster.join("a")
    claim = await store.claim(PARTITION, "a")
    await store.commit(cut(claim))
    first, _ = await store.settle_commit(PARTITION, claim.epoch, 1)
    second, made = await store.settle_commit(PARTITION, claim.epoch, 1)
    assert made
    assert second > first


async def test_settling_is_refused_when_the_partition_has_a_new_owner(cluster: Cluster) -> None:
    old = await cluster.join("a")
    claim = await old.claim(PARTITION, "a")
    new = await cluster.join("b")
    await new.claim(PARTITION, "b")
    with pytest.raises(Fenced):
        await old.settle_commit(PARTITION, claim.epoch, 1)


async def test_the_previous_owner_is_named_while_its_lease_runs(cluster: Cluster) -> None:
    await (await cluster.join("a")).claim(PARTITION, "a")
    store = await cluster.join("b")
    (previous,) = (await store.claim(PARTITION, "b")).previous
    assert (previous.incarnation, previous.host, previous.lock_path) == ("a", "host-a", "/run/a.lock")
    assert 0 < previous.lease_left_s <= LEASE_S


async def test_an_owner_whose_lease_has_run_out_is_not_waited_for(cluster: Cluster) -> None:
    await (await cluster.join("a")).claim(PARTITION, "a")
    await cluster.bench.pass_time(LEASE_S + 0.1)
    store = await cluster.join("b")
    assert (await store.claim(PARTITION, "b")).previous == []


async def test_an_owner_that_left_is_not_waited_for(cluster: Cluster) -> None:
    await (await cluster.join("a")).claim(PARTITION, "a")
    await cluster.leave("a")
    store = await cluster.join("b")
    assert (await store.claim(PARTITION, "b")).previous == []


async def test_an_owner_before_the_previous_one_is_waited_for_too(cluster: Cluster) -> None:
    for incarnation in ("a", "b"):
        await (await cluster.join(incarnation)).claim(PARTITION, incarnation)
    store = await cluster.join("c")
    assert [previous.incarnation for previous in (await store.claim(PARTITION, "c")).previous] == ["a", "b"]


async def test_a_repeated_claim_still_names_the_previous_owner(cluster: Cluster) -> None:
    await (await cluster.join("a")).claim(PARTITION, "a")
    store = await cluster.join("b")
    first = await store.claim(PARTITION, "b")
    second = await store.claim(PARTITION, "b")
    assert second.epoch > first.epoch
    assert [previous.incarnation for previous in second.previous] == ["a"]


async def test_a_released_partition_is_taken_without_waiting(cluster: Cluster) -> None:
    old = await cluster.join("a")
    claim = await old.claim(PARTITION, "a")
    await old.commit(cut(claim, accounts=[account()]))
    await old.release(PARTITION, claim.epoch)
    with pytest.raises(Fenced):
        await old.commit(cut(claim, 2))
    new = await cluster.join("b")
    taken = await new.claim(PARTITION, "b")
    assert (taken.previous, taken.ckpt_seq) == ([], 1)
    assert taken.epoch > claim.epoch


async def test_deliveries_take_alerts_off_the_outbox(cluster: Cluster) -> None:
    store = await cluster.join("a")
    claim = await store.claim(PARTITION, "a")
    await store.commit(cut(claim, alerts=[alert(f"alert_{name}") for name in "abc"]))
    await store.record_deliveries(
        [
            Delivery("alert_a", 1, True, False, ""),
            Delivery("alert_b", 9, False, True, "410"),
            Delivery("alert_c", 2, False, False, "timed out"),
            Delivery("alert_unknown", 1, True, False, ""),
        ]
    )
    assert [waiting.alert_id for waiting in (await store.load(PARTITION, 0)).alerts] == ["alert_c"]
    assert await store.waiting_alerts(PARTITION) == [alert("alert_c")]
    assert await store.waiting_alerts(PARTITION + 1) == []
    await store.record_deliveries([])
    await store.commit(cut(claim, 2, alerts=[alert("alert_unknown")]))
    assert [waiting.alert_id for waiting in (await store.load(PARTITION, 0)).alerts] == ["alert_c", "alert_unknown"]


async def test_a_delivery_is_never_taken_back(cluster: Cluster) -> None:
    store = await cluster.join("a")
    await store.commit(cut(await store.claim(PARTITION, "a"), alerts=[alert("alert_a")]))
    await store.record_deliveries([Delivery("alert_a", 2, True, False, "")])
    await store.record_deliveries([Delivery("alert_a", 1, False, False, "an older attempt failed")])
    assert (await store.load(PARTITION, 0)).alerts == []


async def test_answers_are_there_once_a_checkpoint_holds_them(cluster: Cluster) -> None:
    store = await cluster.join("a")
    claim = await store.claim(PARTITION, "a")
    assert await store.answer("acme", "key") is None
    await store.commit(cut(claim, commands=[command(5, answer="bad_amount"), command(9, answer="applied")]))
    assert await store.answer("acme", "key") == "applied"
    assert await store.answer("bolt", "key") is None


async def test_a_catalogue_version_never_changes(cluster: Cluster) -> None:
    store = await cluster.bench.store()
    assert await store.catalogue(1) is None
    await store.publish_catalogue(1, b'{"plans":[]}')
    await store.publish_catalogue(1, b'{"plans":[]}')
    with pytest.raises(CatalogueTaken, match="version 1"):
        await store.publish_catalogue(1, b'{"plans":[1]}')
    for hurried in (False, True):
        assert await store.catalogue(1, hurried=hurried) == b'{"plans":[]}'
        assert await store.catalogue(2, hurried=hurried) is None


# ------------------------------------------------------------------------------------------------------- sealed runs


async def test_a_sealed_run_takes_the_place_of_its_generation(cluster: Cluster) -> None:
    store = await cluster.join("a")
    claim = await store.claim(PARTITION, "a")
    await store.commit(cut(claim, dedup=[segment(2, 1), segment(2, 3, generation=1), segment(3, 4)]))
    await store.commit(cut(claim, 2, dedup=[segment(2, 2)]))
    head, rows = run(2, 0, 1, 2)
    for _ in range(2):  # the second time as after an answer that was lost
        await store.seal(PARTITION, claim.epoch, head, rows)
        image = await store.load(PARTITION, 0)
        assert image.dedup == [segment(2, 3, generation=1), segment(3, 4)]
        assert image.runs == [head]
    assert await store.run_part(PARTITION, 2, 0, 0) == rows
    assert await store.run_part(PARTITION, 2, 0, 1) is None
    asked = [Place(2, 0, 1), Place(2, 1, 0), Place(2, 0, 0), Place(2, 0, 1)]
    assert await store.run_rows(PARTITION, asked) == [rows[16:], None, rows[:16], rows[16:]]


async def test_whoever_lost_the_partition_seals_nothing(cluster: Cluster) -> None:
    store = await cluster.join("a")
    claim = await store.claim(PARTITION, "a")
    await store.commit(cut(claim, dedup=[segment(2, 1)]))
    successor = await cluster.join("b")
    await successor.claim(PARTITION, "b")
    with pytest.raises(Fenced):
        await store.seal(PARTITION, claim.epoch, *run(2, 0, 1))
    image = await successor.load(PARTITION, 0)
    assert (image.dedup, image.runs) == ([segment(2, 1)], [])


async def test_runs_are_forgotten_with_their_bucket(cluster: Cluster) -> None:
    store = await cluster.join("a")
    claim = await store.claim(PARTITION, "a")
    await store.commit(cut(claim, dedup=[segment(2, 1), segment(3, 2)]))
    old, rows = run(2, 0, 1)
    new, new_rows = run(3, 0, 2)
    await store.seal(PARTITION, claim.epoch, old, rows)
    await store.seal(PARTITION, claim.epoch, new, new_rows)
    await store.commit(cut(claim, 2, dedup_bucket_min=3))
    assert (await store.load(PARTITION, 0)).runs == [new]
    assert await store.run_rows(PARTITION, [Place(2, 0, 0), Place(3, 0, 0)]) == [None, new_rows]
