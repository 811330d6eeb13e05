"""The fold: a record's way, wake-ups, commands' memory, freezing, loading, and poison."""

import json
import random
from typing import Any

import msgspec
import pytest

from engine.account import Account
from engine.alerts import Crossing
from engine.events import KEY_BYTES_MAX, VALUE_BYTES_MAX, seal
from engine.holds import Bound, seal_token
from engine.money import NANO
from engine.outcomes import CommandRow, RatedEvent
from engine.partition import (
    LETTER_KEY_BYTES_MAX,
    LETTER_VALUE_BYTES_MAX,
    CatalogueMissing,
    HalfApplied,
    Partition,
)
from engine.placement import partition_for
from engine.routes import Routes
from engine.snapshot import UnknownSnapshot
from tests.engine.bench import (
    DAY,
    DOLLAR,
    HOUR,
    KEY,
    MALFORMED,
    MINUTE,
    START,
    TOPIC,
    Bench,
    Store,
    cloud_time,
    document,
    random_bench,
    told,
    versions,
)


@pytest.fixture
def bench() -> Bench:
    bench = Bench(*versions())
    assert bench.open() == "applied"
    return bench


def accounts_of(partition: Partition) -> Any:
    """The accounts' part of the state's bytes."""
    return msgspec.msgpack.decode(partition.state_bytes())[1]


# ------------------------------------------------------------------------------------------------------ a record's way

# Each row is wrong in one more way than the row below it; the topmost names the outcome.
NOT_HOME = next(name for name in (f"cus_{n}".encode() for n in range(99)) if partition_for(name, 2) == 1)
AT_HOME = next(name for name in (f"cus_{n}".encode() for n in range(99)) if partition_for(name, 2) == 0)
ROWS: list[tuple[str, dict[str, Any]]] = [
    ("dead_lettered.too_large", {"note": "n" * 65_536}),
    ("dead_lettered.malformed", {"key": b"\xff"}),
    ("forwarded", {"key": NOT_HOME}),
    ("dead_lettered.malformed", {"specversion": "0.3"}),
    ("dead_lettered.unknown_account", {"key": b"nobody" if partition_for(b"nobody", 2) == 0 else b"nobody-2"}),
    ("dead_lettered.missing_time", {"time": None}),
    ("dead_lettered.too_far_ahead", {"time": cloud_time(START + 6 * MINUTE)}),
    ("dead_lettered.too_old", {"time": cloud_time(START - 35 * DAY)}),
    ("dead_lettered.id_conflict", {"id": "known"}),
    ("dead_lettered.no_meter", {"type": "refund"}),
    ("dead_lettered.bad_quantity", {"units": -1}),
    ("dead_lettered.bad_dimension", {"model": 7}),
    ("dead_lettered.no_price", {"model": "unheard"}),
    ("rated", {}),
]


@pytest.mark.parametrize("top", range(len(ROWS)), ids=[f"{n} {row[0]}" for n, row in enumerate(ROWS)])
def test_the_first_row_of_the_table_that_matches_is_the_outcome(top: int) -> None:
    bench = Bench(partitions=2)
    bench.open(AT_HOME.decode())
    bench.use(1, account=AT_HOME.decode(), id="known")
    wrong: dict[str, Any] = {"key": AT_HOME}
    for _, fields in reversed(ROWS[top:]):
        wrong |= fields
    key = wrong.pop("key")
    data = {"model": wrong.pop("model", "x"), "units": wrong.pop("units", 1)}
    before = accounts_of(bench.partition)
    lines = len(bench.partition.outputs.lines)
    assert bench.record(key, bench.event(data=data, **wrong)) == ROWS[top][0]
    if ROWS[top][0] == "rated":
        assert len(bench.partition.outputs.lines) == lines + 1
        return
    assert len(bench.partition.outputs.lines) == lines
    if "id_conflict" not in ROWS[top][0]:  # which counts one more alert told
        assert accounts_of(bench.partition) == before
    if "dead_lettered" in ROWS[top][0]:
        assert bench.letter().reason == ROWS[top][0].removeprefix("dead_lettered.")


def test_a_record_without_a_value_is_malformed(bench: Bench) -> None:
    assert bench.record(b"acme", None) == "dead_lettered.malformed"
    assert bench.letter().value is None


@pytest.mark.parametrize("key", [b"", b"a" * 257, b"\xed\xa0\x80"])
def test_a_key_that_names_no_account_is_malformed(bench: Bench, key: bytes) -> None:
    assert bench.record(key, bench.event(subject="acme")) == "dead_lettered.malformed"


def test_a_dead_letter_keeps_the_record_whole(bench: Bench) -> None:
    value = bench.event(-1)
    bench.record(b"acme", value)
    letter = bench.letter()
    assert (letter.offset, letter.log_time_us, letter.reason) == (2, START, "bad_quantity")
    assert (letter.key, letter.value) == (b"acme", value)
    assert "data.units (meter units)" in letter.detail


def test_of_what_is_longer_than_any_event_a_dead_letter_keeps_the_beginning(bench: Bench) -> None:
    """Megabytes, compressed, come through the broker; nobody could send them again, and the log holds them."""
    for length, kept in ((LETTER_VALUE_BYTES_MAX, LETTER_VALUE_BYTES_MAX), (3_000_000, LETTER_VALUE_BYTES_MAX)):
        assert bench.record(b"acme", b"v" * length) == "dead_lettered.too_large"
        assert bench.letter().value == b"v" * kept
    assert "of the value's 3000000 bytes, 131072 are kept" in bench.letter().detail
    assert bench.record(b"k" * 3_000_000, bench.event(1)) == "dead_lettered.malformed"
    assert bench.letter().key == b"k" * LETTER_KEY_BYTES_MAX
    assert "of the key's 3000000 bytes, 1024 are kept" in bench.letter().detail
    assert bench.record(b"acme", b"TGC1" + bytes(3_000_000)) == "dead_lettered.bad_mac"
    assert bench.letter().value == b"TGC1" + bytes(LETTER_VALUE_BYTES_MAX - 4)
    assert LETTER_VALUE_BYTES_MAX > VALUE_BYTES_MAX and LETTER_KEY_BYTES_MAX > KEY_BYTES_MAX, (
        "or it could be sent again"
    )


def test_without_a_key_the_subject_is_the_account(bench: Bench) -> None:
    assert bench.record(None, bench.event(3, subject="acme")) == "rated"
    assert bench.record(None, bench.event(3)) == "dead_lettered.malformed"
    assert bench.record(None, bench.event(3, subject="")) == "dead_lettered.malformed"
    assert bench.debt() == 3 * DOLLAR


def test_the_key_wins_over_the_subject(bench: Bench) -> None:
    assert bench.record(b"acme", bench.event(3, subject="other")) == "rated"


def test_a_record_of_another_partition_is_sent_there_under_its_key() -> None:
    bench = Bench(partitions=2)
    value = bench.event(subject=NOT_HOME.decode())
    assert bench.record(NOT_HOME, b"{") == "forwarded"
    assert bench.record(None, value) == "forwarded"
    first, second = bench.partition.outputs.forwards
    assert (first.partition, first.key, first.value) == (1, NOT_HOME, b"{")
    assert (second.partition, second.key, second.value) == (1, NOT_HOME, value)


def test_an_event_that_feeds_two_meters_has_a_line_of_each(bench: Bench) -> None:
    assert bench.use(type="llm.request", data={"model": "a", "tokens": 500}) == "rated"
    lines = [json.loads(line) for _, line in bench.partition.outputs.lines]
    assert [(line["line"], line["price"], line["cell"]) for line in lines] == [
        (0, "calls", {}),
        (1, "tokens", {"model": "a"}),
    ]
    assert bench.charges() == [DOLLAR // 4, DOLLAR]


def test_an_event_is_rated_whole_or_not_at_all(bench: Bench) -> None:
    before = accounts_of(bench.partition)
    assert bench.use(type="llm.request", data={"model": "a"}) == "dead_lettered.bad_quantity"
    assert accounts_of(bench.partition) == before


def test_a_line_carries_the_epoch_of_the_owner_that_runs_the_fold(bench: Bench) -> None:
    bench.partition.line_epoch = 6
    bench.control({"kind": "owner", "epoch": 9})
    bench.use(1)
    assert json.loads(bench.partition.outputs.lines[-1][1])["epoch"] == 6


# --------------------------------------------------------------------------------------------------- log time, wake-ups


def test_log_time_never_goes_back(bench: Bench) -> None:
    bench.tick(START + HOUR)
    bench.now = START
    assert bench.use(1, at=START + HOUR) == "rated"
    assert bench.partition.log_time_us == START + HOUR


def test_a_sandbox_moves_log_time_and_wakes_who_is_due(bench: Bench) -> None:
    bench.grant("l", "5", expires_us=START + HOUR)
    bench.grant("m", "5", expires_us=START + 2 * DAY)
    bench.balance_rule("0")
    assert bench.control({"kind": "advance", "until_us": START + DAY}) == "advance"
    assert bench.partition.log_time_us == START + DAY
    assert bench.account().woken_us == START + HOUR
    assert bench.use(1, at=START + DAY) == "rated"
    assert bench.control({"kind": "advance", "until_us": START + 3 * DAY}) == "advance"
    assert [told(row)[0] for row in bench.partition.outputs.alerts] == ["low"]
    assert bench.partition.outputs.alerts[0].offset == bench.log[-1].offset


def test_the_clock_of_a_sandbox_goes_forward_and_a_year_at_once(bench: Bench) -> None:
    bench.tick(START + HOUR)
    assert bench.control({"kind": "advance", "until_us": START}) == "advance"
    assert bench.partition.log_time_us == START + HOUR
    beyond = {"kind": "advance", "until_us": START + HOUR + 366 * DAY + 1}
    assert bench.control(beyond) == "dead_lettered.bad_control"
    assert "366 days" in bench.letter().detail
    assert bench.partition.log_time_us == START + HOUR
    assert bench.control({**beyond, "until_us": START + HOUR + 366 * DAY}) == "advance"


def test_accounts_are_woken_before_the_record_that_moved_log_time() -> None:
    bench = Bench()
    bench.open()
    bench.grant("l", "5", expires_us=START + HOUR)
    bench.balance_rule("0")
    bench.now = START + 2 * HOUR
    assert bench.use(1) == "rated"
    assert [told(row)[0] for row in bench.partition.outputs.alerts] == ["low"]
    assert bench.account().woken_us == START + HOUR  # the lot's instant, not the log time
    assert bench.partition.outputs.alerts[0].offset == bench.log[-1].offset


def test_accounts_wake_in_the_order_of_instant_then_account() -> None:
    bench = Bench()
    for account, hours in (("c", 1), ("b", 2), ("a", 2)):
        bench.open(account)
        bench.grant("l", "5", account=account, expires_us=START + hours * HOUR)
        bench.balance_rule("0", account=account)
    bench.tick(START + 3 * HOUR)
    assert [row.account for row in bench.partition.outputs.alerts] == ["c", "a", "b"]


def test_one_step_of_log_time_wakes_an_account_at_each_of_its_instants() -> None:
    """Depletion and the next lot in between are two alerts, even if no record came between them."""
    bench = Bench()
    bench.open()
    bench.grant("a", "5", expires_us=START + HOUR)
    bench.grant("b", "5", effective_us=START + 2 * HOUR)
    bench.balance_rule("0")
    bench.tick(START + 3 * HOUR)
    assert [row[3] for row in bench.told()] == ["crossed", "recovered"]


def test_the_next_wake_up_is_known_so_that_a_tick_can_bring_it() -> None:
    bench = Bench()
    bench.open()
    assert bench.partition.next_wake_us() is None
    bench.grant("l", "5", effective_us=START + HOUR, expires_us=START + 2 * HOUR)
    found = [bench.partition.next_wake_us()]
    for hours in (1, 2):
        bench.tick(START + hours * HOUR)
        found.append(bench.partition.next_wake_us())
    assert found == [START + HOUR, START + 2 * HOUR, None]


def test_a_wake_up_comes_exactly_when_log_time_reaches_it(bench: Bench) -> None:
    bench.grant("l", "5", expires_us=START + HOUR)
    bench.tick(START + HOUR - 1000)
    assert bench.balance() == 5 * DOLLAR
    bench.tick(START + HOUR)
    assert bench.balance() == 0


# ----------------------------------------------------------------------------------------------------- control records


@pytest.mark.parametrize(
    "value",
    [
        seal(b"other key", TOPIC, 0, b'{"kind":"tick","epoch":0}'),
        seal(KEY, TOPIC, 1, b'{"kind":"tick","epoch":0}'),
        seal(KEY, "other", 0, b'{"kind":"tick","epoch":0}'),
        b"TGC1",
        b"TGC1" + bytes(32),
    ],
)
def test_a_forged_control_record_does_nothing(bench: Bench, value: bytes) -> None:
    assert bench.record(b"acme", value) == "dead_lettered.bad_mac"


def test_a_command_for_an_account_elsewhere_is_a_bad_control() -> None:
    bench = Bench(partitions=2)
    assert bench.open(NOT_HOME.decode()) == "dead_lettered.bad_control"
    assert "lives in partition 1" in bench.letter().detail
    assert list(bench.partition.account_ids()) == []


def test_a_tick_of_an_older_epoch_is_void_but_moves_log_time(bench: Bench) -> None:
    assert bench.control({"kind": "owner", "epoch": 5}) == "owner"
    assert bench.control({"kind": "owner", "epoch": 3}) == "owner"
    assert bench.partition.epoch == 5
    bench.now = START + HOUR
    assert bench.control({"kind": "tick", "epoch": 4}) == "void"
    assert bench.control({"kind": "tick", "epoch": 5}) == "tick"
    assert bench.partition.log_time_us == START + HOUR


@pytest.mark.parametrize(
    ("version", "effective_us", "outcome"),
    [
        (2, START + 5 * MINUTE + 1, "catalogue"),
        (2, START + 5 * MINUTE, "dead_lettered.bad_control"),
        (1, START + HOUR, "dead_lettered.bad_control"),
        (3, START + HOUR, "catalogue"),
    ],
)
def test_a_version_comes_behind_the_last_one_and_ahead_of_usage(
    bench: Bench, version: int, effective_us: int, outcome: str
) -> None:
    assert bench.publish(version, effective_us) == outcome


def test_a_version_starts_behind_the_start_of_the_last_one(bench: Bench) -> None:
    bench.publish(2, START + HOUR)
    assert bench.publish(3, START + HOUR) == "dead_lettered.bad_control"
    assert bench.publish(3, START + HOUR + 1) == "catalogue"


def test_a_missing_catalogue_changes_nothing_and_the_record_can_be_applied_again(bench: Bench) -> None:
    bench.grant("l", "5", expires_us=START + HOUR)
    before = bench.partition.state_bytes()
    marker = bench.sealed({"kind": "catalogue", "version": 9, "effective_us": START + 9 * HOUR})
    with pytest.raises(CatalogueMissing) as caught:
        bench.partition.apply(len(bench.log), (START + 2 * HOUR) // 1000, None, marker)
    assert caught.value.version == 9
    assert bench.partition.state_bytes() == before
    bench.library[9] = bench.library[3]
    bench.now = START + 2 * HOUR
    assert bench.record(None, marker) == "catalogue"
    assert bench.account().woken_us == START + HOUR


def test_a_marker_that_is_forged_is_not_looked_up(bench: Bench) -> None:
    body = b'{"kind":"catalogue","version":9,"effective_us":1}'
    assert bench.record(None, seal(b"other", TOPIC, 0, body)) == "dead_lettered.bad_mac"


# ------------------------------------------------------------------------------------------------------ command memory


def test_the_same_command_is_answered_once(bench: Bench) -> None:
    bench.grant("l", "5", command_key="k")
    before = accounts_of(bench.partition)
    assert bench.grant("l", "5", command_key="k") == "repeated"
    assert bench.grant("m", "5", command_key="k") == "refused.key_reused"
    assert bench.grant("l", "5", command_key="k") == "repeated"
    assert accounts_of(bench.partition) == before


def test_a_refusal_is_remembered_too(bench: Bench) -> None:
    assert bench.grant("l", "0", command_key="k") == "refused.bad_amount"
    assert bench.grant("l", "0", command_key="k") == "repeated"


def test_a_command_key_is_per_account(bench: Bench) -> None:
    bench.open("other", command_key="k")
    assert bench.cap("5", command_key="k") == "applied"
    assert bench.cap("5", account="other", command_key="k") == "refused.key_reused"


def test_a_command_is_forgotten_after_30_days(bench: Bench) -> None:
    bench.grant("l", "5", command_key="k")
    bench.now = START + 30 * DAY - 1000
    assert bench.grant("l", "5", command_key="k") == "repeated"
    bench.now = START + 30 * DAY
    assert bench.grant("l", "5", command_key="k") == "refused.lot_exists"


def test_every_answer_is_journalled_with_its_body(bench: Bench) -> None:
    cut = bench.partition.begin_cut()
    bench.partition.end_cut()
    bench.grant("l", "0", command_key="k")
    bench.grant("l", "0", command_key="k")
    bench.cap("5", command_key="k")
    cut = bench.partition.begin_cut()
    assert [(row.offset, row.kind, row.answer) for row in cut.commands] == [
        (2, "grant", "bad_amount"),
        (4, "set_cap", "key_reused"),
    ]
    assert json.loads(cut.commands[0].body)["lot"] == "l"


def test_a_key_used_again_after_30_days_is_remembered_by_its_newest_answer_after_a_load(bench: Bench) -> None:
    store = Store()
    bench.cap("5", command_key="k")
    bench.now += DAY
    bench.cap("6", command_key="other")
    bench.now = START + 30 * DAY
    assert bench.cap("7", command_key="k") == "applied"
    store.checkpoint(bench.partition)
    loaded = store.load_into(bench.fresh())
    assert loaded.state_bytes() == bench.partition.state_bytes()
    later = bench.sealed({"kind": "tick", "epoch": 0})
    for partition in (bench.partition, loaded):
        partition.apply(99, (START + 31 * DAY) // 1000, None, later)
    assert loaded.state_bytes() == bench.partition.state_bytes()


# -------------------------------------------------------------------------------------------------------------- poison


def fail(*_: object) -> None:
    raise ArithmeticError("broken on purpose")


@pytest.mark.parametrize(("where", "name"), [(Account, "rate"), (Account, "_derive"), (Routes, "usages")])
def test_a_poison_event_is_dead_lettered_and_changes_nothing(
    bench: Bench, where: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.grant("l", "100")
    bench.use(3)
    before = msgspec.msgpack.decode(bench.partition.state_bytes())[1:]
    value = bench.event(11, "tiered")
    with monkeypatch.context() as patch:
        patch.setattr(where, name, fail)
        assert bench.record(b"acme", value) == "dead_lettered.engine_error"
    assert msgspec.msgpack.decode(bench.partition.state_bytes())[1:] == before
    assert bench.letter().detail == "ArithmeticError: broken on purpose"
    assert bench.letter().value == value
    assert bench.record(b"acme", value) == "rated"  # mended and sent again


def test_a_poison_command_is_dead_lettered_and_skipped_on_replay(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    before = accounts_of(bench.partition)
    with monkeypatch.context() as broken:
        broken.setattr(Account, "grant", fail)
        assert bench.grant("l", "5") == "dead_lettered.engine_error"
    assert accounts_of(bench.partition) == before
    replayed = bench.fresh()
    replayed.skips = frozenset([bench.log[-1].offset])
    for record in bench.log:
        replayed.apply(*record)
    assert replayed.state_bytes() == bench.partition.state_bytes()


def test_a_record_that_breaks_the_engine_half_way_is_no_dead_letter_of_a_changed_account(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.use(3)
    before = accounts_of(bench.partition)
    value = bench.event(2)
    with monkeypatch.context() as broken:
        broken.setattr("engine.partition.rated_lines", fail)
        with pytest.raises(HalfApplied, match="half way: ArithmeticError: broken on purpose") as caught:
            bench.record(b"acme", value)
    assert accounts_of(bench.partition) != before, "this fold is unfit"
    anew = bench.fresh()
    anew.skips = frozenset({caught.value.offset})
    for record in bench.log:
        anew.apply(*record)
    anew.apply(caught.value.offset, bench.log[-1].append_ms, b"acme", value)
    assert accounts_of(anew) == before
    assert anew.outputs.dead_letters[-1].reason == "engine_error"


def test_nothing_is_told_of_a_record_that_breaks_the_engine_half_way(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It will be skipped, and lines that were told of it would stand, as no later owner tells any."""
    bench.use(3)
    before = list(bench.partition.outputs.lines)
    tell_lines = Partition._tell_lines

    def tell_and_fail(self: Partition, rated: RatedEvent) -> None:
        tell_lines(self, rated)
        self._tell(self._touch("acme"), [Crossing("acme", "rule", "window", 1, "crossed", None, None)], rated.offset)
        fail()

    monkeypatch.setattr(Partition, "_tell_lines", tell_and_fail)
    with pytest.raises(HalfApplied):
        bench.record(b"acme", bench.event(2))
    assert bench.partition.outputs.lines == before
    assert bench.partition.outputs.alerts == []


def test_a_marker_that_is_refused_anyway_names_a_version_that_need_not_exist(bench: Bench) -> None:
    assert bench.control({"kind": "catalogue", "version": 0, "effective_us": 0}) == "dead_lettered.bad_control"


def test_what_broke_the_engine_once_is_skipped_on_replay(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.use(3)
    with monkeypatch.context() as patch:
        patch.setattr(Account, "rate", fail)
        bench.use(2)
    poison = bench.letter().offset
    bench.use(1)
    assert bench.replay().state_bytes() != bench.partition.state_bytes()  # the engine was mended meanwhile
    again = bench.fresh()
    again.skips = frozenset({poison})
    for record in bench.log:
        again.apply(*record)
    assert again.state_bytes() == bench.partition.state_bytes()
    assert again.outputs.dead_letters[-1].reason == "engine_error"
    assert again.outputs.dead_letters[-1].offset == poison


# ------------------------------------------------------------------------------------------------ cuts, freezing, loading


def test_there_is_one_cut_at_a_time(bench: Bench) -> None:
    bench.partition.begin_cut()
    with pytest.raises(AssertionError, match="has not ended"):
        bench.partition.begin_cut()


@pytest.mark.parametrize("seed", [4, 5])
def test_freezing_and_thawing_change_nothing(seed: int) -> None:
    bench, log = random_bench(seed, 0)
    source = random.Random(seed)
    store = Store()
    for _ in range(200):
        log.step()
        if source.random() < 0.2:
            store.checkpoint(bench.partition)  # only an unchanged account freezes
            before = bench.partition.state_bytes()
            frozen = bench.partition.freeze_idle(0, source.randrange(5))
            assert frozen <= 4
            assert bench.partition.state_bytes() == before
    assert bench.partition.state_bytes() == bench.replay().state_bytes()


def test_only_idle_unchanged_accounts_freeze(bench: Bench) -> None:
    bench.open("other")
    assert bench.partition.freeze_idle(0, 10) == 0  # both are dirty
    Store().checkpoint(bench.partition)
    bench.now += HOUR
    bench.use(1)
    Store().checkpoint(bench.partition)
    assert bench.partition.freeze_idle(HOUR + 1, 10) == 0
    assert bench.partition.freeze_idle(HOUR, 10) == 1
    assert sorted(bench.partition.account_ids()) == ["acme", "other"]
    assert bench.partition.account("other") is not None
    assert bench.use(1, account="other") == "rated"


def test_a_frozen_account_wakes_in_time(bench: Bench) -> None:
    bench.grant("l", "5", expires_us=START + HOUR)
    bench.balance_rule("0")
    Store().checkpoint(bench.partition)
    assert bench.partition.freeze_idle(0, 10) == 1
    assert bench.partition.next_wake_us() == START + HOUR
    bench.tick(START + HOUR)
    assert bench.told() == [("low", "-", 1, "crossed")]


def test_a_loaded_partition_goes_on_where_the_cut_was_taken() -> None:
    bench, log = random_bench(6, 120)
    store = Store()
    store.checkpoint(bench.partition, accounts_max=1)
    at = len(bench.log)
    for _ in range(120):
        log.step()
    loaded = store.load_into(bench.fresh())
    for record in bench.log[at:]:
        loaded.apply(*record)
    assert loaded.state_bytes() == bench.partition.state_bytes()
    assert loaded.outputs.lines == [line for line in bench.partition.outputs.lines if line[0] >= at]
    assert loaded.outputs.alerts == [row for row in bench.partition.outputs.alerts if row.offset >= at]


def test_a_loaded_partition_wakes_its_accounts_in_time(bench: Bench) -> None:
    bench.grant("l", "5", expires_us=START + HOUR)
    bench.balance_rule("0")
    store = Store()
    store.checkpoint(bench.partition)
    loaded = store.load_into(bench.fresh())
    assert loaded.next_wake_us() == START + HOUR
    bench.tick(START + HOUR)
    loaded.apply(*bench.log[-1])
    assert loaded.outputs.alerts == bench.partition.outputs.alerts != []


def test_a_reused_key_does_not_displace_the_first_answer_after_a_load(bench: Bench) -> None:
    bench.cap("5", command_key="k")
    bench.cap("6", command_key="k")
    store = Store()
    store.checkpoint(bench.partition)
    bench.partition = store.load_into(bench.fresh())
    assert bench.cap("6", command_key="k") == "refused.key_reused"
    assert bench.cap("5", command_key="k") == "repeated"


def test_a_partition_without_a_checkpoint_starts_empty(bench: Bench) -> None:
    partition = bench.fresh()
    before = partition.state_bytes()
    partition.load(None, [], [], [CommandRow(0, 0, "a", "k", b"", "grant", b"", "applied")])
    assert partition.state_bytes() == before


def test_a_checkpoint_names_the_catalogue_it_needs(bench: Bench) -> None:
    bench.publish(2, START + HOUR)
    store = Store()
    store.checkpoint(bench.partition)
    with pytest.raises(CatalogueMissing, match="version 2"):
        store.load_into(Partition(0, 1, TOPIC, KEY, {1: bench.library[1]}))


def test_a_checkpoint_of_another_version_is_refused(bench: Bench) -> None:
    with pytest.raises(UnknownSnapshot):
        bench.fresh().load(msgspec.msgpack.encode([99, 0, 0, [], []]), [], [], [])


def test_looking_at_an_account_leaves_it_frozen(bench: Bench) -> None:
    Store().checkpoint(bench.partition)
    bench.partition.freeze_idle(0, 10)
    assert bench.partition.account("acme") is not bench.partition.account("acme")
    assert bench.partition.account("nobody") is None


@pytest.mark.parametrize("name", MALFORMED)
def test_no_malformed_record_touches_an_account(name: str) -> None:
    bench = Bench(document(), partitions=1)
    bench.open()
    before = accounts_of(bench.partition)
    assert bench.record(*MALFORMED[name](bench, b"acme")).startswith("dead_lettered.")
    assert accounts_of(bench.partition) == before


# ------------------------------------------------------------------------------------------------------ scopes, holds

HELD = Bound(10 * NANO, ("x", "y"), ("x",))


def settled(bench: Bench) -> str:
    return str(json.loads(bench.partition.outputs.lines[-1][1]).get("settled"))


def test_usage_counts_toward_every_declared_scope_on_its_path(bench: Bench) -> None:
    for scope in ("team:a", "team:a/ann"):
        assert bench.scope(scope) == "applied"
    bench.use(3, scope="team:a/ann")
    bench.use(4, scope="team:a/bob")  # not declared: counts for its team
    bench.use(5, scope="team:b")
    spend = {scope: sum(each.spend.values()) for scope, each in bench.account().scopes.items()}
    assert spend == {"": 0, "team:a": 7 * DOLLAR, "team:a/ann": 3 * DOLLAR}


def test_a_cap_on_a_scope_is_told_by_what_was_spent_there(bench: Bench) -> None:
    bench.scope("team:a")
    bench.cap("10", "team", scope="team:a")
    bench.cap_rule(50, "half", cap="team")
    bench.use(100)
    bench.use(4, scope="team:a")
    assert bench.told() == []
    bench.use(1, scope="team:a")
    assert [(rule, phase) for rule, _, _, phase in bench.told()] == [("half", "crossed")]


def test_held_usage_is_rated_at_its_admission(bench: Bench) -> None:
    bench.grant("l", "100", expires_us=START + HOUR)
    hold = bench.hold(HELD, ttl_us=2 * HOUR)
    bench.tick(START + HOUR)
    assert bench.spend_held(hold, 10) == "rated"
    assert bench.debt() == 0  # paid by the lot that was valid at the admission
    line = json.loads(bench.partition.outputs.lines[-1][1])
    assert (line["time_us"], line["hold"], line["settled"]) == (START, hold.id, "within")


def test_held_usage_counts_in_its_holds_scope_whatever_it_states(bench: Bench) -> None:
    for scope in ("team:a", "team:b"):
        bench.scope(scope)
    hold = bench.hold(HELD, scope="team:a")
    bench.spend_held(hold, 3, scope="team:b")
    spend = {scope: sum(each.spend.values()) for scope, each in bench.account().scopes.items()}
    assert spend == {"": 0, "team:a": 3 * DOLLAR, "team:b": 0}


def test_without_a_hold_a_line_says_nothing_of_one(bench: Bench) -> None:
    bench.use(1)
    assert not {"hold", "settled"} & json.loads(bench.partition.outputs.lines[-1][1]).keys()


@pytest.mark.parametrize(
    ("units", "model", "expected"),
    [(10, "x", "within"), (10, "y", "within"), ("10.000000001", "x", "over_hold"), (1, "third", "over_hold")],
)
def test_usage_beyond_a_hold_is_rated_and_flagged(bench: Bench, units: object, model: str, expected: str) -> None:
    assert bench.spend_held(bench.hold(HELD), units, model) == "rated"
    assert settled(bench) == expected


def test_usage_after_the_expiry_is_rated_and_late(bench: Bench) -> None:
    hold = bench.hold(HELD)
    bench.tick(hold.expires_us)
    bench.spend_held(hold, 1, final=False)
    assert settled(bench) == "within"
    bench.tick(hold.expires_us + 1000)
    assert bench.spend_held(hold, 1) == "rated"
    assert settled(bench) == "late"


def test_draws_that_are_not_final_add_up_and_are_forgotten(bench: Bench) -> None:
    hold = bench.hold(HELD)
    for _ in range(2):
        bench.spend_held(hold, 4, final=False)
        assert settled(bench) == "within"
    bench.spend_held(hold, 3)
    assert settled(bench) == "over_hold"
    assert bench.account().draws[hold.id].done
    bench.now = hold.report_until_us + 1_000_000
    bench.spend_held(bench.hold(HELD, number=2), 1)
    assert bench.account().draws == {}


def test_an_old_token_of_an_extended_hold_does_not_shorten_the_memory_of_it(bench: Bench) -> None:
    before, extended = bench.hold(HELD), bench.hold(HELD, ttl_us=HOUR)
    bench.spend_held(extended, 4, final=False)
    bench.spend_held(before, 4, final=False)
    assert bench.account().draws[before.id].until_us == extended.report_until_us
    bench.now = before.report_until_us + 1_000_000
    bench.spend_held(before, 3, final=False)
    assert settled(bench) == "late"
    assert bench.account().draws[before.id].quantities == [11 * NANO]
    bench.now = extended.report_until_us + 1_000_000
    bench.spend_held(bench.hold(HELD, number=2), 1)
    assert bench.account().draws == {}


def test_draws_of_a_thawed_account_are_forgotten_too(bench: Bench) -> None:
    bench.spend_held(bench.hold(HELD), 4, final=False)
    store = Store()
    store.checkpoint(bench.partition)
    bench.partition = store.load_into(bench.fresh())
    bench.now += HOUR
    bench.spend_held(bench.hold(HELD, number=2), 1, final=False)
    assert list(bench.account().draws) == [bench.hold(HELD, number=2).id]


def test_a_desk_that_fails_makes_no_dead_letter_of_a_rated_event(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("soft memory is broken")

    bench.partition.desk.begin(1)
    monkeypatch.setattr(bench.partition.desk, "settled", fail)
    with pytest.raises(RuntimeError, match="soft memory"):
        bench.spend_held(bench.hold(HELD), 1)
    assert bench.partition.counts["rated"] == 1
    assert not bench.partition.outputs.dead_letters
    bench.use(1)
    assert bench.partition.counts["rated"] == 2


def test_the_queue_of_wakes_does_not_grow_with_slices_and_held_usage(bench: Bench) -> None:
    bench.grant("l", "100", expires_us=START + DAY)
    for number in range(50):
        bench.slices(0, {"acme": {"x": (number + 1) * NANO}})
        bench.spend_held(bench.hold(HELD, number=number), 1)
    assert len(bench.partition._wakes) == 1
    bench.tick(START + DAY)
    assert bench.balance() == 0


def test_a_wake_is_not_lost_when_an_earlier_one_falls_away(bench: Bench) -> None:
    """A closed slice ends before the lot expires, but usage empties it first."""
    bench.owner(1)
    bench.slices(1, {"acme": {"x": 10 * NANO}}, linger_us=HOUR)
    bench.owner(2)
    bench.grant("l", "100", expires_us=START + DAY)
    assert bench.partition.next_wake_us() == START + HOUR
    bench.spend_held(bench.hold(HELD), 1)
    assert bench.account().slices == {}
    assert bench.partition.next_wake_us() == START + DAY
    bench.tick(START + DAY)
    assert bench.balance() == 0


def test_an_instant_that_fell_away_can_come_back(bench: Bench) -> None:
    for epoch in (1, 2):
        bench.owner(epoch)
        bench.slices(epoch, {"acme": {"x": 10 * NANO}}, linger_us=HOUR)
        bench.owner(epoch + 1)
        assert bench.partition.next_wake_us() == START + HOUR
        bench.spend_held(bench.hold(HELD, number=epoch, epoch=epoch), 1)
        assert bench.partition.next_wake_us() is None


def test_the_token_of_another_account_moves_nothing(bench: Bench) -> None:
    assert bench.use(1, hold=seal_token(KEY, bench.hold(HELD, account="other"))) == "dead_lettered.bad_hold"
    assert bench.account().rated == 0


def test_a_slice_is_closed_by_a_higher_epoch_and_ends_when_log_time_has_lingered(bench: Bench) -> None:
    bench.owner(1)
    assert bench.slices(1, {"acme": {"x": 30 * NANO}}, linger_us=HOUR) == "slices"
    bench.owner(1)
    assert bench.account().slices[1].closed_us is None
    bench.now += MINUTE
    bench.owner(2)
    assert bench.account().slices[1].closed_us == bench.now
    assert bench.slices(1, {"acme": {"x": 99 * NANO}}) == "void"
    assert bench.partition.next_wake_us() == bench.now + HOUR
    bench.tick(bench.now + HOUR - 1000)
    assert 1 in bench.account().slices
    bench.tick(bench.now + 1000)
    assert bench.account().slices == {}


def test_usage_takes_its_hold_off_a_closed_slice_once(bench: Bench) -> None:
    bench.owner(1)
    bench.slices(1, {"acme": {"x": 30 * NANO}}, linger_us=HOUR)
    stream, whole, old = (bench.hold(HELD, number=number) for number in (1, 2, 3))
    bench.now = old.report_until_us + 1000
    old, stream = old, bench.hold(HELD, number=4)
    bench.spend_held(stream, 4, final=False)  # while its owner is in office: the slice stays whole
    whole = bench.hold(HELD, number=5)
    bench.owner(2)

    def left() -> int:
        return bench.account().slices[1].quantities.get("x", 0) // NANO

    bench.spend_held(old, 10)  # its owner had reclaimed it: others were admitted in its place
    assert left() == 30
    bench.spend_held(stream, 1, final=False)
    assert left() == 29
    bench.spend_held(stream, 1)
    assert left() == 24  # ten were held, four were drawn before the slice was closed
    bench.spend_held(stream, 10)
    assert left() == 24
    bench.spend_held(whole, 2)
    assert left() == 14


def test_a_loaded_partition_closes_the_slices_it_found(bench: Bench) -> None:
    bench.owner(1)
    bench.slices(1, {"acme": {"x": NANO}, "nobody": {"x": NANO}}, linger_us=HOUR)
    store = Store()
    store.checkpoint(bench.partition)
    bench.partition = store.load_into(bench.fresh())
    bench.owner(2)
    assert bench.account().slices[1].ends_us == bench.now + HOUR


def test_slices_given_back_are_gone(bench: Bench) -> None:
    bench.slices(0, {"acme": {"x": NANO}})
    bench.slices(0, {"acme": {}})
    assert bench.account().slices == {}


def test_who_is_asked_about_is_thawed_unchanged(bench: Bench) -> None:
    store = Store()
    store.checkpoint(bench.partition)
    bench.partition.freeze_idle(0, 10)
    before = bench.partition.state_bytes()
    assert bench.partition.wallet("nobody", START) is None
    assert bench.partition.wallet("acme", START) is not None
    assert bench.partition.state_bytes() == before
    assert bench.partition.dirty_accounts == 0
    assert bench.partition.freeze_idle(0, 10) == 1
