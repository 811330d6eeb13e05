"""What the replicas of one partition cost, as far as its records tell: a fold of the topics `served` and `gpu-telemetry`.

A window goes through three stages. *Provisional*: told as soon as anything is known, and again as more is. *Settled*, once
log time is `settle_us` past its end: what comes later changes it by signed differences. *Closed*, with its hour, `close_us`
past its end: nothing changes it. All that is not closed can be rebuilt from the records of that time, so a checkpoint holds
where they begin, and no more than what lives longer: the rates, and which replicas hold GPUs."""

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Struct

from engine.cost.gpu_rates import HOUR_US, GpuRates, RateDocument, parse_rates
from engine.cost.replica import Replica, RequestCost, WindowCost
from engine.cost.rollup import Key, Rollup, RowChange, Sums
from engine.cost.served import ReplicaUp, Served, parse_served
from engine.cost.telemetry import Metric, parse_sample
from engine.events import CONTROL_MAGIC, BadMac, Malformed, unseal

AHEAD_US: Final = 300_000_000  # as the log of usage allows
LATE_US: Final = 60_000_000  # what is told so long behind its end waits with others that are late: see `Replica.work`
TOPIC: Final = "served"


class Horizons(Struct, frozen=True):
    """How long windows are, and how long they wait. Microseconds; a window divides the hour."""

    window_us: int = 10_000_000
    settle_us: int = 900_000_000 + 60_000_000  # a quarter of an hour, behind what the clocks of producers may differ by
    close_us: int = 21_600_000_000

    def __post_init__(self) -> None:
        if not 0 < self.window_us <= 600_000_000 or HOUR_US % self.window_us:
            raise ValueError(f"window_us: {self.window_us} is not a part of an hour, of ten minutes at most")
        if not 0 <= self.settle_us <= self.close_us:
            raise ValueError(f"settle_us: {self.settle_us} is not within close_us: {self.close_us}")


class Refused(StrEnum):
    """Why a record of these topics changes nothing. The wire names are stable."""

    MALFORMED = "malformed"
    BAD_MAC = "bad_mac"
    TOO_FAR_AHEAD = "too_far_ahead"
    TOO_LATE = "too_late"  # its hour is closed


class SetAside(Exception):
    """The record is a dead letter. The message is for a person."""

    def __init__(self, reason: Refused, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Published(Struct, frozen=True):
    """What changed since the last time."""

    windows: list[WindowCost]
    requests: list[RequestCost]
    rows: list[RowChange]


class _Blob(Struct, array_like=True, frozen=True):
    version: int
    log_us: int
    closed_us: int
    rates: RateDocument | None
    ups: list[ReplicaUp]


_VERSION: Final = 1
_blobs: Final[msgspec.msgpack.Decoder[_Blob]] = msgspec.msgpack.Decoder(_Blob)


class Attribution:
    """See the module's docstring. `log_us` is the running maximum of the append times of the records of `served`."""

    def __init__(self, partition: int, control_key: bytes, horizons: Horizons) -> None:
        self.counts: Final[Counter[str]] = Counter()
        self.log_us = 0
        self.closed_us = 0
        self._partition: Final = partition
        self._control_key: Final = control_key
        self._horizons: Final = horizons
        self._rollup: Final = Rollup()
        self._replicas: Final[dict[str, Replica]] = {}
        self._rates: GpuRates | None = None
        self._holders: Final[dict[str, set[str]]] = {}  # replicas by GPU
        self._samples_from_us: int | None = None
        self._follows = False  # records come that an earlier owner may have told of, though no checkpoint knows it

    # ---------------------------------------------------------------------------------------------------- what comes in

    def apply(self, value: bytes | None, key: bytes | None, append_us: int) -> None:
        """One record of the topic `served`. Raises SetAside; then nothing has changed but log time."""
        if append_us > self.log_us or not self.closed_us:
            self.reach(append_us)
        if value is not None and value.startswith(CONTROL_MAGIC):
            self._apply_rates(value)
            return
        try:
            record = parse_served(value, key)
        except Malformed as error:
            raise SetAside(Refused.MALFORMED, str(error)) from error
        if type(record) is Served:
            last_us = record.last_us
            # The common case of `_in_time`; it began before it ended.
            if not self.closed_us < last_us <= append_us + AHEAD_US or last_us <= append_us - self._horizons.close_us:
                self._in_time(record.scheduled_us, last_us, append_us)
            replica = self._replicas.get(record.replica) or self._replica(record.replica)
            late = last_us < append_us - LATE_US
            changed = replica.note_served(record, self.closed_us, follows=self._follows, late=late)
        else:
            assert isinstance(record, ReplicaUp)
            self._in_time(record.up_us, record.down_us, append_us)
            changed = self._note_up(record)
        self.counts["applied" if changed else "known"] += 1

    def _apply_rates(self, value: bytes) -> None:
        try:
            rates = parse_rates(unseal(self._control_key, TOPIC, self._partition, value))
        except BadMac as error:
            raise SetAside(Refused.BAD_MAC, str(error)) from error
        except Malformed as error:
            raise SetAside(Refused.MALFORMED, str(error)) from error
        newer = self._rates is None or rates.version > self._rates.version
        if newer:
            self.set_rates(rates)
        self.counts["applied" if newer else "known"] += 1

    def set_rates(self, rates: GpuRates) -> None:
        """For all that is not closed, whatever counted before; a document of a higher version takes their place."""
        self._rates = rates
        for replica in self._replicas.values():
            replica.set_rates(rates, self.closed_us)

    def _note_up(self, up: ReplicaUp) -> bool:
        for part in up.gpus:
            holders = self._holders.setdefault(part.gpu, set())
            if up.replica not in holders:
                holders.add(up.replica)
                wanted = max(up.up_us, self.closed_us)
                self._samples_from_us = wanted if self._samples_from_us is None else min(wanted, self._samples_from_us)
        return self._replica(up.replica).note_up(up, self.closed_us, follows=self._follows)

    def apply_sample(self, value: bytes | None, key: bytes | None, append_us: int) -> None:
        """One record of the topic `gpu-telemetry`, from any of its partitions: what says nothing of a GPU that a replica
        here is known to hold is passed over. Raises SetAside."""
        try:
            sample = parse_sample(value, key)
        except Malformed as error:
            raise SetAside(Refused.MALFORMED, str(error)) from error
        permille = sample.values.get(Metric.GRAPHICS_ACTIVE, sample.values.get(Metric.BUSY))
        holders = self._holders.get(sample.key)
        if permille is None or holders is None:
            return
        self._in_time(sample.time_us, sample.time_us, append_us)
        for holder in holders:
            self._replica(holder).note_activity(sample.key, sample.time_us, permille, self.closed_us)

    def take_samples_from_us(self) -> int | None:
        """From when on samples have to be read again, because a replica is now known to hold a GPU that none was; told once."""
        wanted, self._samples_from_us = self._samples_from_us, None
        return wanted

    def reach(self, append_us: int) -> bool:
        """Log time moves on to the append time of a record, before that is applied. True: hours close by it; publish first,
        or what the record says would still change them."""
        self.log_us = max(self.log_us, append_us)
        if not self.closed_us:  # there is nothing yet that could close; later, hours close with a publication
            self.closed_us = self._closed_at(self.log_us)
        return self._closed_at(self.log_us) > self.closed_us

    def _closed_at(self, log_us: int) -> int:
        return max(0, (log_us - self._horizons.close_us) // HOUR_US * HOUR_US)

    def _in_time(self, begin_us: int, end_us: int | None, append_us: int) -> None:
        """By its own append time, so that a replay from the middle decides alike."""
        if begin_us > append_us + AHEAD_US or (end_us is not None and end_us > append_us + AHEAD_US):
            raise SetAside(Refused.TOO_FAR_AHEAD, "more than five minutes ahead of the log: set the producer's clock")
        if end_us is None or end_us > max(self.closed_us, append_us - self._horizons.close_us):
            return  # the common case
        if end_us <= self._closed_at(append_us) or end_us < self.closed_us:
            raise SetAside(Refused.TOO_LATE, f"its hour closed {self._horizons.close_us} us after its end")

    def _replica(self, name: str) -> Replica:
        replica = self._replicas.get(name)
        if replica is None:
            replica = Replica(name, self._horizons.window_us, self._rollup, self._rates)
            self._replicas[name] = replica
        return replica

    # --------------------------------------------------------------------------------------------------- what comes out

    @property
    def rates(self) -> GpuRates | None:
        """The document that counts; None while none is known."""
        return self._rates

    @property
    def currency(self) -> str | None:
        """Of all amounts; None while no rates are known."""
        return None if self._rates is None else self._rates.currency

    def publish(self, now_us: int, *, live: bool = True) -> Published:
        """What changed, and what settled; then hours close. `now_us`: what all records before it are believed to be here;
        `live` False works out no more than what settles, to catch up."""
        now_us = max(now_us, self.log_us)
        settled_us = max(0, now_us - self._horizons.settle_us)
        windows: list[WindowCost] = []
        requests: list[RequestCost] = []
        for name in sorted(self._replicas):
            some_windows, some_requests = self._replicas[name].work(now_us, settled_us, self.closed_us, live=live)
            windows += some_windows
            requests += some_requests
        rows = self._rollup.changes()
        closed = self._closed_at(self.log_us)
        if closed > self.closed_us:
            self.closed_us = closed
            self._rollup.forget(closed)
            self._forget(closed)
        return Published(windows, requests, rows)

    def _forget(self, closed_us: int) -> None:
        """Names of replicas come and go with pods: of one that is gone nothing is kept."""
        for replica in self._replicas.values():
            replica.forget(closed_us, self._horizons.close_us)
        gone = {name for name, replica in self._replicas.items() if replica.is_gone}
        for name in gone:
            del self._replicas[name]
        for gpu, holders in list(self._holders.items()) if gone else ():
            holders.difference_update(gone)
            if not holders:
                del self._holders[gpu]

    def rows(self) -> list[tuple[Key, Sums]]:
        """What every hour that is not closed has come to, in the order of the keys."""
        return self._rollup.all()

    def told(self, rows: Iterable[tuple[Key, Sums]]) -> None:
        """What an earlier owner has told of hours that are not closed, by the records that were applied up to here."""
        self._rollup.told(rows)
        self._follows = True

    # ------------------------------------------------------------------------------------------------------- checkpoint

    def blob(self) -> bytes:
        """What outlives the records that are still needed."""
        ups = [replica.ups[begin] for _, replica in sorted(self._replicas.items()) for begin in sorted(replica.ups)]
        document = None if self._rates is None else self._rates.document
        return msgspec.msgpack.encode(_Blob(_VERSION, self.log_us, self.closed_us, document, ups))

    def restore(self, blob: bytes) -> None:
        """Into a new one; then come the records from `needed_from_us` on, and `told`. Raises Malformed."""
        state = _state(blob)
        self.log_us, self.closed_us = state.log_us, state.closed_us
        self._take(state)

    def begin(self, blob: bytes | None, from_us: int) -> None:
        """A new one, to work hours out again: the first one begins at `from_us`. It has the rates and the replicas of a
        checkpoint of any time, and wants the records from `needed_from_us` on. Raises Malformed."""
        self.closed_us = from_us
        if blob is not None:
            self._take(_state(blob))

    def _take(self, state: _Blob) -> None:
        self._rates = None if state.rates is None else GpuRates(state.rates)
        for up in state.ups:
            self._note_up(up)

    @property
    def needed_from_us(self) -> int:
        """Append time from which on records say something of what is not closed."""
        return max(0, self.closed_us - AHEAD_US)


def rates_of(blob: bytes) -> GpuRates | None:
    """The rates that a checkpoint knows; None while none were published. Raises Malformed."""
    document = _state(blob).rates
    return None if document is None else GpuRates(document)


def _state(blob: bytes) -> _Blob:
    try:
        state = _blobs.decode(blob)
    except msgspec.MsgspecError as error:
        raise Malformed(f"the checkpoint cannot be read: {error}") from error
    if state.version != _VERSION:
        raise Malformed(f"the checkpoint has version {state.version}, and {_VERSION} is read")
    return state
