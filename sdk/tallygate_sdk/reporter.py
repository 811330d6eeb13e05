"""Usage, reported without waiting: kept in a spool, and sent in batches by a thread of its own, in order, until it is taken."""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol, Self

import msgspec
from msgspec import structs
from tenacity import Retrying, retry_if_exception_type, stop_when_event_set, wait_exponential_jitter

from tallygate_sdk.answers import RefusedEvent
from tallygate_sdk.calls import EVENTS_BYTES_MAX, EVENTS_MAX
from tallygate_sdk.client import Client
from tallygate_sdk.errors import Refused, Unavailable
from tallygate_sdk.questions import Usage
from tallygate_sdk.spool import Position, Spool

_log = logging.getLogger(__name__)

LINGER_S: Final = 0.05
BATCH_EVENTS: Final = 500
BATCH_BYTES: Final = EVENTS_BYTES_MAX // 2
BATCH_BYTES_MAX: Final = EVENTS_BYTES_MAX - EVENTS_MAX - 1  # beside the commas between events, and the brackets
ATTEMPT_S: Final = 10.0
PAUSE_MAX_S: Final = 15.0
SYNC_S: Final = 1.0  # while nobody takes anything, what is reported is put on the disk so often
SAID_EVERY: Final = 20  # attempts
SET_ASIDE: Final = "refused.ndjson"

# What is said of a whole request whose body cannot be taken, and the field that is named.
_UNREADABLE: Final = frozenset({("/problems/invalid-request", "body"), ("/problems/body-too-large", None)})


class Sink(Protocol):
    """Where batches go."""

    def send(self, events: Sequence[bytes]) -> Sequence[RefusedEvent]:
        """Returns once all but those refused are durable. Raises Unavailable or Refused when it is not known: then the
        same batch comes again."""

    def close(self) -> None: ...


class HttpSink:
    """`POST /v1/events`. The key needs the scope `ingest`.

    A batch that the service cannot read as a whole is sent in halves: one event in it that is no JSON (a spool may be older
    than this release) is refused, and keeps no other from being taken."""

    def __init__(self, client: Client, attempt_s: float = ATTEMPT_S) -> None:
        self._client = client
        self._attempt_s = attempt_s

    def send(self, events: Sequence[bytes]) -> Sequence[RefusedEvent]:
        try:
            return self._client.report_encoded(events, deadline_s=self._attempt_s).refused
        except Refused as error:
            if (error.type, error.field) not in _UNREADABLE:  # whatever else it is, it is no fault of an event
                raise
            if len(events) == 1:
                return (RefusedEvent(0, None, "malformed", error.field or "", error.detail),)
        half = len(events) // 2
        refused = list(self.send(events[:half]))
        refused += [structs.replace(each, index=each.index + half) for each in self.send(events[half:])]
        return refused

    def close(self) -> None:
        self._client.close()


class Reporter:
    """`report` keeps an event and returns; a thread sends it. Make it in the process that uses it: a fork has no thread.

    While nobody takes them, events wait in the spool, and are sent in the order in which they were reported once somebody
    does; whatever may have been sent before a crash is sent again with the same ids, so nothing counts twice. An event
    that the service refuses by name (it could never be billed) is set aside into `refused.ndjson` in the spool's folder,
    up to the spool's size, and told to `on_refused`; everything else is tried until it is taken, a wrong key too."""

    def __init__(
        self,
        sink: Sink,
        spool: Spool,
        *,
        linger_s: float = LINGER_S,
        batch_events: int = BATCH_EVENTS,
        batch_bytes: int = BATCH_BYTES,
        pause_max_s: float = PAUSE_MAX_S,
        on_refused: Callable[[bytes, RefusedEvent], None] | None = None,
    ) -> None:
        """`linger_s`: how long an event may wait for others to go with. `on_refused` is called in the thread."""
        if not 0 < batch_events <= EVENTS_MAX or not 0 < batch_bytes <= BATCH_BYTES_MAX:
            raise ValueError(f"batch_events is 1 to {EVENTS_MAX}, batch_bytes 1 to {BATCH_BYTES_MAX}")
        self.sent = 0  # events taken by the service
        self.refused = 0  # events set aside
        self._sink = sink
        self._spool = spool
        self._linger_s = linger_s
        self._batch_events = batch_events
        self._batch_bytes = batch_bytes
        self._pause_max_s = pause_max_s
        self._on_refused = on_refused
        self._waiting = threading.Event()  # something may have to be sent
        self._stopping = threading.Event()
        self._hurry = threading.Event()  # somebody waits for what was reported
        self._moved = threading.Condition()
        self._waiting.set()  # what an earlier process left
        self._thread = threading.Thread(target=self._run, name="tallygate-reporter", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def report(self, usage: Usage) -> bool:
        """Keep the event, to be sent. False when the spool was full and dropped it, if it was told to.

        Waits for nobody: not for the service, and for the disk only with `fsync="each"`. Raises SpoolFull, BadEvent."""
        kept = self._spool.append(usage.cloud_event())
        self._waiting.set()
        return kept

    def flush(self, within_s: float) -> bool:
        """Wait until what was reported before this call is sent; whether it is."""
        end = self._spool.end()
        until_s = time.monotonic() + within_s
        self._hurry.set()
        self._waiting.set()
        with self._moved:
            return self._moved.wait_for(lambda: self._is_sent(end), max(0.0, until_s - time.monotonic()))

    def close(self, within_s: float = 5.0) -> bool:
        """Send what can be sent in that time, and end; whether all of it is sent. The rest waits in the spool."""
        done = self.flush(within_s)
        self._stopping.set()
        self._waiting.set()
        self._thread.join(ATTEMPT_S + 2)
        self._sink.close()
        self._spool.close()
        return done

    def _is_sent(self, end: Position) -> bool:
        return self._spool.sent() >= end or self._spool.unsent_bytes == 0

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._waiting.wait()
            if not self._hurry.is_set():
                self._stopping.wait(self._linger_s)
            self._hurry.clear()
            self._waiting.clear()
            try:
                self._send_all()
            except Exception:
                _log.exception("usage could not be sent from %s; it stays there", self._spool.folder)
                self._pause(self._pause_max_s)
                self._waiting.set()

    def _send_all(self) -> None:
        while not self._stopping.is_set():
            batch = self._spool.peek(self._batch_events, self._batch_bytes)
            if batch is None:
                break
            try:
                refused = self._until_taken(batch.records)
            except (Unavailable, Refused):
                return  # told to stop meanwhile
            for each in refused:
                self._set_aside(batch.records[each.index], each)
            self._spool.advance(batch)
            self.sent += len(batch.records) - len(refused)
            with self._moved:
                self._moved.notify_all()
        with self._moved:
            self._moved.notify_all()

    def _until_taken(self, events: Sequence[bytes]) -> Sequence[RefusedEvent]:
        for attempt in Retrying(
            retry=retry_if_exception_type((Unavailable, Refused)),
            wait=wait_exponential_jitter(multiplier=0.1, max=self._pause_max_s, jitter=0.1),
            stop=stop_when_event_set(self._stopping),
            sleep=self._pause,
            reraise=True,
        ):
            with attempt:
                self._keep_safe()
                try:
                    return self._sink.send(events)
                except (Unavailable, Refused) as error:
                    if attempt.retry_state.attempt_number % SAID_EVERY == 1:
                        _log.warning("usage waits in %s: %s", self._spool.folder, error)
                    raise
        raise AssertionError("the loop ends by an answer or an error")

    def _pause(self, seconds: float) -> None:
        """Others go on reporting meanwhile: that is put on the disk too."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0 and not self._stopping.wait(min(left_s, SYNC_S)):
            self._keep_safe()

    def _keep_safe(self) -> None:
        try:
            self._spool.sync()
        except OSError as error:  # where it goes it is safer than here
            _log.warning("usage in %s may not outlive the machine: %s", self._spool.folder, error)

    def _set_aside(self, event: bytes, refused: RefusedEvent) -> None:
        self.refused += 1
        _log.error("the service refused the usage event %r: %s %s", refused.id, refused.reason, refused.detail)
        path = self._spool.folder / SET_ASIDE
        line = msgspec.json.encode({"refused": refused, "event": msgspec.Raw(event)}) + b"\n"
        try:
            _append(path, line, self._spool.bytes_max)
        except OSError as error:  # no reason to keep the events behind it waiting: `on_refused` has it still
            _log.error("the usage event %r is not in %s: %s", refused.id, path, error)
        if self._on_refused is None:
            return
        try:
            self._on_refused(event, refused)
        except Exception:  # the caller's own, and no reason to send the batch again
            _log.exception("on_refused failed")


def _append(path: Path, line: bytes, bytes_max: int) -> None:
    """All of the line or nothing, and nothing where the file would exceed `bytes_max`. Raises OSError."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        size = os.fstat(file).st_size
        if size + len(line) > bytes_max:
            return
        if os.write(file, line) < len(line):
            os.ftruncate(file, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(file)
