"""The reporter against the real app of the API, which goes away and comes back, and against kill -9."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import msgspec
import orjson
import pytest

from tallygate_sdk import Client, HttpSink, RefusedEvent, Reporter, Spool, SpoolFull, Unavailable, Usage
from tallygate_sdk.calls import EVENTS_MAX
from tallygate_sdk.reporter import BATCH_BYTES_MAX
from tests.actors.web.fakes import Stage
from tests.sdk.serving import Served, served

AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
CHILD = """
import sys
from datetime import UTC, datetime
from tallygate_sdk import Client, HttpSink, Reporter, Spool, Usage
url, key, folder, first = sys.argv[1:]
reporter = Reporter(HttpSink(Client(url, key), attempt_s=0.3), Spool(folder), linger_s=0.01, batch_events=7)
for number in range(int(first), 10**9):
    reporter.report(Usage(account="acme", type="t", source="gateway", id=str(number), data={"q": number}))
    print(number, flush=True)
"""


def usage(number: int, **fields: object) -> Usage:
    event = {"account": "acme", "type": "t", "source": "s", "id": str(number), "data": {"q": number}, "time": AT}
    return Usage(**(event | fields))  # type: ignore[arg-type]


class Recorded:
    """A sink in memory. `away` makes it refuse to listen; `hold` makes it wait."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.away = False
        self.hold: threading.Event | None = None
        self.tried = threading.Event()
        self.closed = False

    def send(self, events: Sequence[bytes]) -> Sequence[RefusedEvent]:
        self.tried.set()
        if self.hold is not None:
            self.hold.wait()
        if self.away:
            raise Unavailable("away")
        self.batches.append([int(msgspec.json.decode(event)["id"]) for event in events])
        return ()

    def close(self) -> None:
        self.closed = True

    @property
    def ids(self) -> list[int]:
        return [id for batch in self.batches for id in batch]


def reporter_to(at: Served, folder: Path) -> Reporter:
    return Reporter(HttpSink(Client(at.url, at.key), attempt_s=0.3), Spool(folder), linger_s=0.01, pause_max_s=0.2)


def logged(stage: Stage) -> list[bytes]:
    return [record.value or b"" for record in stage.appender.records]


def test_usage_goes_out_in_batches_and_in_order(tmp_path: Path) -> None:
    sink = Recorded()
    sink.hold = threading.Event()
    with Reporter(sink, Spool(tmp_path), linger_s=0.0, batch_events=10) as reporter:
        reporter.report(usage(0))
        assert sink.tried.wait(10)
        for number in range(1, 35):
            assert reporter.report(usage(number)), "it waits for nobody, though the service holds the thread"
        sink.hold.set()
        assert reporter.flush(10) and reporter.sent == 35
    assert sink.ids == list(range(35)) and sink.closed
    assert [len(batch) for batch in sink.batches] == [1, 10, 10, 10, 4]


def test_what_nobody_takes_waits_and_then_goes_in_order(tmp_path: Path) -> None:
    sink = Recorded()
    sink.away = True
    with Reporter(sink, Spool(tmp_path), linger_s=0.0, pause_max_s=0.1) as reporter:
        for number in range(20):
            reporter.report(usage(number))
        assert sink.tried.wait(10) and not reporter.flush(0.2) and reporter.sent == 0
        sink.away = False
        assert reporter.flush(10)
    assert sink.ids == list(range(20))


def test_a_disk_that_does_not_sync_keeps_nothing_from_being_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", refuse)
    sink = Recorded()
    reporter = Reporter(sink, Spool(tmp_path), linger_s=0.0, pause_max_s=0.05)
    for number in range(3):
        reporter.report(usage(number))
    assert reporter.flush(10) and sink.ids == [0, 1, 2]
    monkeypatch.undo()
    reporter.close()


def test_what_is_reported_while_nobody_takes_it_is_put_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever segment it stands. Looked at without a spool of its own, as a power cut would find the folder."""
    on_disk: dict[int, int] = {}  # of each file, by its number, so many bytes
    synced = threading.Condition()
    really = os.fdatasync

    def sync(file: int) -> None:
        size = os.fstat(file).st_size
        really(file)
        with synced:
            on_disk[os.fstat(file).st_ino] = size
            synced.notify_all()

    def all_of_it() -> bool:
        found = [path.stat() for path in tmp_path.glob("*.segment")]
        return len(found) > 2 and all(on_disk.get(each.st_ino, 0) == each.st_size for each in found)

    monkeypatch.setattr(os, "fdatasync", sync)
    sink = Recorded()
    sink.away = True
    with Reporter(sink, Spool(tmp_path, bytes_max=16 * 600), linger_s=0.0, pause_max_s=0.05) as reporter:
        reporter.report(usage(0))
        assert sink.tried.wait(10)
        for number in range(1, 15):
            reporter.report(usage(number))
        with synced:
            assert synced.wait_for(all_of_it, 20)
        assert reporter.sent == 0
        sink.away = False


def test_between_two_attempts_it_is_put_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries, syncs = 0, 0
    often = threading.Event()

    class Away(Recorded):
        def send(self, events: Sequence[bytes]) -> Sequence[RefusedEvent]:
            nonlocal tries
            tries += 1
            raise Unavailable("away")

    def sync(file: int) -> None:
        nonlocal syncs
        syncs += 1
        if syncs > 3 * tries > 0:
            often.set()

    monkeypatch.setattr(os, "fdatasync", sync)
    monkeypatch.setattr("tallygate_sdk.reporter.SYNC_S", 0.001)
    with Reporter(Away(), Spool(tmp_path), linger_s=0.0) as reporter:
        reporter.report(usage(0))
        assert often.wait(20)
        reporter.close(within_s=0.0)


def test_a_disk_that_takes_no_refused_event_keeps_no_other_from_being_sent(tmp_path: Path) -> None:
    class Refusing(Recorded):
        def send(self, events: Sequence[bytes]) -> Sequence[RefusedEvent]:
            super().send(events)
            return [RefusedEvent(0, "0", "malformed", "scope", "no")] if len(self.batches) == 1 else ()

    (tmp_path / "refused.ndjson").symlink_to("/dev/full")
    told: list[bytes] = []
    sink = Refusing()
    spool = Spool(tmp_path)
    for number in range(3):
        spool.append(usage(number).cloud_event())
    with Reporter(sink, spool, linger_s=0.0, on_refused=lambda event, refused: told.append(event)) as reporter:
        assert reporter.flush(10)
        assert (reporter.sent, reporter.refused, spool.unsent) == (2, 1, 0)
    assert told == [usage(0).cloud_event()] and sink.ids == [0, 1, 2], "once"


def test_what_was_not_sent_before_the_end_is_sent_by_the_next_process(tmp_path: Path) -> None:
    sink = Recorded()
    sink.away = True
    reporter = Reporter(sink, Spool(tmp_path), pause_max_s=0.1)
    for number in range(5):
        reporter.report(usage(number))
    assert not reporter.close(within_s=0.1)
    sink.away = False
    with Reporter(sink, Spool(tmp_path)) as reporter:
        assert reporter.flush(10)
    assert sink.ids == list(range(5))


def test_a_full_spool_is_the_callers_to_decide(tmp_path: Path) -> None:
    sink = Recorded()
    sink.away = True
    reporter = Reporter(sink, Spool(tmp_path, bytes_max=2_000))
    kept = 0

    def report() -> None:
        nonlocal kept
        for number in range(100):
            reporter.report(usage(number))
            kept += 1

    with pytest.raises(SpoolFull):
        report()
    sink.away = False
    assert reporter.flush(30) and sink.ids == list(range(kept))
    assert reporter.report(usage(kept))
    reporter.close()


def test_an_event_that_the_service_refuses_is_set_aside_and_told(at: Served, tmp_path: Path) -> None:
    told: list[tuple[bytes, RefusedEvent]] = []
    sink = HttpSink(Client(at.url, at.key))
    spool = Spool(tmp_path)
    with Reporter(sink, spool, on_refused=lambda event, refused: told.append((event, refused))) as reporter:
        for number in range(3):
            reporter.report(usage(number, scope="bad scope!" if number == 1 else ""))
        assert reporter.flush(10)
        assert (reporter.sent, reporter.refused, spool.unsent) == (2, 1, 0)
    ((event, refused),) = told
    assert orjson.loads(event)["id"] == "1" and refused.reason == "malformed"
    aside = orjson.loads((tmp_path / "refused.ndjson").read_bytes())
    assert aside["event"]["id"] == "1" and aside["refused"]["field"] == refused.field
    assert [orjson.loads(event)["id"] for event in logged(at.stage)] == ["0", "2"]


def test_an_event_that_is_no_json_keeps_no_other_from_being_taken(at: Served, tmp_path: Path) -> None:
    """As an older release could write it: the service cannot read any batch that it stands in."""
    spool = Spool(tmp_path)
    for number in range(10):
        event = usage(number).cloud_event()
        spool.append(event.replace(b'{"q":%d}' % number, b'{"q":NaN}') if number in (3, 8) else event)
    with Reporter(HttpSink(Client(at.url, at.key)), spool, pause_max_s=0.05) as reporter:
        assert reporter.flush(10)
        assert (reporter.sent, reporter.refused, spool.unsent) == (8, 2, 0)
    taken = dict.fromkeys(orjson.loads(event)["id"] for event in logged(at.stage))
    assert list(taken) == ["0", "1", "2", "4", "5", "6", "7", "9"], "in order"
    aside = (tmp_path / "refused.ndjson").read_bytes().splitlines()
    assert [b'"id":"3"' in aside[0], b'"id":"8"' in aside[1], len(aside)] == [True, True, 2]


def test_a_batch_of_the_most_bytes_is_no_more_than_the_service_takes(at: Served, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch_bytes"):
        Reporter(HttpSink(Client(at.url, at.key)), Spool(tmp_path), batch_bytes=BATCH_BYTES_MAX + 1)
    spool = Spool(tmp_path / "in use")
    one = len(usage(1_000_000, data={"q": ""}).cloud_event())
    size = BATCH_BYTES_MAX // EVENTS_MAX
    for number in range(EVENTS_MAX):
        spool.append(usage(1_000_000 + number, data={"q": "x" * (size - one)}).cloud_event())
    sink = HttpSink(Client(at.url, at.key))
    with Reporter(sink, spool, batch_events=EVENTS_MAX, batch_bytes=BATCH_BYTES_MAX, pause_max_s=0.05) as reporter:
        assert reporter.flush(30) and (reporter.sent, reporter.refused) == (EVENTS_MAX, 0)
    assert at.paths == ["/v1/events"], "all of it at once"


def test_a_caller_that_fails_on_a_refusal_stops_nothing(at: Served, tmp_path: Path) -> None:
    def fail(event: bytes, refused: RefusedEvent) -> None:
        raise RuntimeError("the caller's own mistake")

    with Reporter(HttpSink(Client(at.url, at.key)), Spool(tmp_path), pause_max_s=0.01, on_refused=fail) as reporter:
        reporter.report(usage(0, scope="bad scope!"))
        reporter.report(usage(1))
        assert reporter.flush(10)
    assert [orjson.loads(event)["id"] for event in logged(at.stage)] == ["1"]


def test_a_wrong_key_loses_nothing(at: Served, tmp_path: Path) -> None:
    with Reporter(HttpSink(Client(at.url, "tg_test_wrong")), Spool(tmp_path), pause_max_s=0.05) as reporter:
        reporter.report(usage(1))
        assert not reporter.flush(0.3)
        reporter.close(0)
    with reporter_to(at, tmp_path) as reporter:
        assert reporter.flush(10)
    assert len(logged(at.stage)) == 1


def test_the_service_goes_away_and_comes_back(tmp_path: Path) -> None:
    """Its log takes nothing for a while; then all of it is there once or, the same to the last byte, again."""
    with served() as at, reporter_to(at, tmp_path) as reporter:
        at.stage.appender.away = True
        for number in range(30):
            reporter.report(usage(number))
        assert not reporter.flush(0.3)
        at.stage.appender.away = False
        assert reporter.flush(10)
        assert list(dict.fromkeys(logged(at.stage))) == [usage(number).cloud_event() for number in range(30)]


def test_kill_9_loses_no_usage_and_bills_none_twice(at: Served, tmp_path: Path) -> None:
    """A child reports and says each number; it is killed three times while the service comes and goes."""
    first = 0
    heard = 0
    for round in range(3):
        at.stage.appender.away = round == 1
        command = [sys.executable, "-c", CHILD, at.url, at.key, str(tmp_path), str(first)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ.copy()) as child:
            assert child.stdout is not None
            for _ in range(200):
                heard = int(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
            for line in child.stdout.read().split(b"\n")[:-1]:
                heard = int(line)
        first = heard + 1_000_000
    at.stage.appender.away = False
    with reporter_to(at, tmp_path) as reporter:
        assert reporter.flush(60)
    by_id: dict[int, set[bytes]] = {}
    for event in logged(at.stage):
        by_id.setdefault(int(orjson.loads(event)["id"]), set()).add(event)
    assert all(len(forms) == 1 for forms in by_id.values()), "an id that is sent again is the same event"
    ids = list(by_id)
    assert ids == sorted(ids), "in order"
    starts = [0, *(after for before, after in pairwise(ids) if after != before + 1)]
    assert len(starts) == 3, "no gap but those between the rounds"
    assert ids[-1] >= heard
