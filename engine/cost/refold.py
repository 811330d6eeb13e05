"""Hours worked out again, from the records of that time: as they stand, or under other rates. Nothing is told or kept.

It is the fold that attributes, begun in the middle. It comes to what was told to the last pico, unless rates were published
after an hour had closed, or records are gone."""

from collections import Counter
from typing import Final

from msgspec.structs import replace

from engine.cost.attribution import AHEAD_US, Attribution, Horizons, Published
from engine.cost.gpu_rates import HOUR_US, VERSION_MAX, GpuRates
from engine.cost.replica import RequestCost
from engine.cost.rollup import Key, Sums
from engine.cost.token_costs import ModelTokenCosts, note

_NOTHING: Final = Sums()


class Refold:
    """The hours that begin in [from_us, until_us) of one partition of `served`; both instants begin one."""

    def __init__(
        self,
        partition: int,
        control_key: bytes,
        horizons: Horizons,
        from_us: int,
        until_us: int,
        *,
        blob: bytes | None = None,
        rates: GpuRates | None = None,
    ) -> None:
        """`blob`: the newest checkpoint, for what was told of rates and replicas before the first hour. `rates` count in
        place of all that were published. Raises Malformed for a blob that cannot be read."""
        self._fold: Final = Attribution(partition, control_key, horizons)
        self._fold.begin(blob, from_us)
        if rates is not None:
            self._fold.set_rates(GpuRates(replace(rates.document, version=VERSION_MAX)))
        self._until_us: Final = until_us
        self._horizons: Final = horizons
        self._rows: Final[dict[Key, Sums]] = {}
        self._tokens: Final[dict[str, ModelTokenCosts]] = {}
        self._open: dict[tuple[str, str, int, int], RequestCost] = {}  # of hours that may still be told otherwise

    @property
    def read_from_us(self) -> int:
        """Append time of the first record that is wanted, of both topics."""
        return self._fold.needed_from_us

    @property
    def read_until_us(self) -> int:
        """Append time from which on nothing changes these hours."""
        return self._until_us + self._horizons.close_us + HOUR_US + AHEAD_US

    @property
    def rates(self) -> GpuRates | None:
        """Those that counted last."""
        return self._fold.rates

    @property
    def counts(self) -> Counter[str]:
        """Of the fold."""
        return self._fold.counts

    def reach(self, append_us: int) -> bool:
        """Before the record of that append time is applied. True: hours close by it; `settle` first."""
        return self._fold.reach(append_us)

    def apply(self, value: bytes | None, key: bytes | None, append_us: int) -> None:
        """A record of `served`, in the order of the log. Raises SetAside; then nothing has changed."""
        self._fold.apply(value, key, append_us)

    def apply_sample(self, value: bytes | None, key: bytes | None, append_us: int) -> None:
        """A record of `gpu-telemetry`. Raises SetAside."""
        self._fold.apply_sample(value, key, append_us)

    def take_samples_from_us(self) -> int | None:
        """From when on samples are wanted again, because a GPU has become known: before the next `settle`."""
        return self._fold.take_samples_from_us()

    def settle(self) -> None:
        """Work out what has settled, so that hours close; now and then, or all the records are kept in memory."""
        self._note(self._fold.publish(0, live=False))

    def finish(self, now_us: int) -> None:
        """All records are here: work out the rest, up to now. What has not settled by then may still come to something
        else."""
        wanted_us = self._until_us + self._horizons.settle_us + self._horizons.window_us
        self._note(self._fold.publish(min(now_us, wanted_us)))
        self._close(1 << 62)

    def _note(self, published: Published) -> None:
        for row in published.rows:
            if row.key.hour_us < self._until_us:
                self._rows[row.key] = row.sums
        for cost in published.requests:
            if cost.hour_us < self._until_us:
                served = cost.served
                self._open[served.replica, served.request, served.attempt, cost.hour_us] = cost
        self._close(self._fold.closed_us)

    def _close(self, before_us: int) -> None:
        profiles = {} if self._fold.rates is None else self._fold.rates.profiles
        rest = {}
        for name, cost in self._open.items():
            if cost.hour_us >= before_us:
                rest[name] = cost
                continue
            model = cost.served.model
            note(self._tokens.setdefault(model, ModelTokenCosts()), cost, profiles.get(model))
        self._open = rest

    def rows(self) -> dict[Key, Sums]:
        """What the hours have come to, as the rows in Postgres have it."""
        return {key: sums for key, sums in self._rows.items() if sums != _NOTHING}

    def token_costs(self) -> dict[str, ModelTokenCosts]:
        """By model."""
        return dict(self._tokens)
