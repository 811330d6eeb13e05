"""A partition with an owner: questions are asked, slices are put into the log as wished, and holds are settled."""

from collections.abc import Mapping
from typing import Any

from engine.admission import Decision, FieldBound, LeaseNeeded, Question, SliceNeeded
from engine.catalog import CatalogueDocument
from engine.holds import Hold, seal_token
from engine.money import NANO
from engine.partition import Partition
from engine.reasons import Reason
from tests.engine.bench import KEY, MINUTE, SECOND, Bench

LINGER: int = 10 * MINUTE
ASKS_MAX = 20


class DeskBench(Bench):
    """`now` is the owner's clock as well as the log's."""

    def __init__(self, *documents: CatalogueDocument) -> None:
        super().__init__(*documents)
        self.epoch = 0
        self.slices_written = 0
        self.leases: dict[str, Hold] = {}  # those of a scenario, by what it calls them
        self.take_over()

    def take_over(self) -> Partition:
        """A new owner that replays the log; whatever the one before held in memory is gone."""
        self.epoch += 1
        self.owner(self.epoch)
        self.partition = self.replay()
        self.partition.desk.begin(self.epoch)
        return self.partition

    def write(self, needed: SliceNeeded) -> None:
        self.slices_written += 1
        of = {needed.account: dict(needed.quantities)}
        assert self.slices(self.epoch, of, linger_us=LINGER) == "slices"

    def ask(self, question: Question) -> Decision:
        """The answer, after all the slices that it needs are in the log."""
        for _ in range(ASKS_MAX):
            answer = self.partition.check(question, self.now)
            if isinstance(answer, Decision):
                return answer
            self.write(answer)
        raise AssertionError("slices without end")

    def check(self, units: str | None = None, model: str = "x", account: str = "acme", **more: Any) -> Decision:
        """May an event of so many units run? With a hold of a minute, unless `hold_us` says otherwise."""
        fields: dict[str, Any] = {"type": "use", "data": {"model": model}, "hold_us": MINUTE}
        if units is not None:
            fields["bounds"] = self.bounds(units)
        return self.ask(Question(account, **(fields | more)))

    @staticmethod
    def bounds(units: str) -> tuple[FieldBound, ...]:
        return (FieldBound(("units",), nano(units)),)

    def hold_for(self, units: str, model: str = "x", account: str = "acme", **more: Any) -> Hold:
        """An admitted hold."""
        decision = self.check(units, model, account, **more)
        assert decision.reason is None, decision
        assert decision.hold is not None
        return decision.hold

    def refused(self, units: str = "1", model: str = "x", account: str = "acme", **more: Any) -> Reason | None:
        return self.check(units, model, account, **more).reason

    def more(self, hold: Hold, bounds: tuple[FieldBound, ...] = (), hold_us: int = MINUTE) -> Decision:
        """An extension."""
        for _ in range(ASKS_MAX):
            answer = self.partition.extend(hold, bounds, hold_us, self.now)
            if isinstance(answer, Decision):
                return answer
            self.write(answer)
        raise AssertionError("slices without end")

    def lease(self, requests: int = 10, units: str = "1", model: str = "x", *, least: int = 1, **more: Any) -> Decision:
        """A lease of so many requests of so many units each, for a minute, in the log."""
        fields: dict[str, Any] = {"type": "use", "data": {"model": model}, "hold_us": MINUTE}
        fields["bounds"] = self.bounds(units)
        return self.lease_for(Question("acme", **(fields | more)), requests, least)

    def lease_for(self, question: Question, requests: int, least: int = 1) -> Decision:
        return self._put(self.partition.lease(question, requests, least, self.now))

    def leased(self, requests: int = 10, units: str = "1", model: str = "x", **more: Any) -> Hold:
        """A lease that was granted."""
        decision = self.lease(requests, units, model, **more)
        assert decision.reason is None, decision
        assert decision.hold is not None
        return decision.hold

    def extend_lease(self, lease: Hold, requests: int = 0, least: int = 1, hold_us: int = MINUTE) -> Decision:
        return self._put(self.partition.extend_lease(lease, requests, least, hold_us, self.now))

    def _put(self, answer: Decision | LeaseNeeded) -> Decision:
        if isinstance(answer, Decision):
            return answer
        assert self.lease_record(granted=[seal_token(KEY, answer.hold)]) == "leases"
        return answer.decision

    def close_lease(self, lease: Hold, events: int) -> None:
        assert self.lease_record(closed=[(lease.account, lease.id, events)]) == "leases"

    def lease_record(self, **body: Any) -> str:
        return self.control({"kind": "leases", "epoch": self.epoch, "granted": [], "closed": []} | body)

    def wallet(self, account: str = "acme") -> tuple[int, int]:
        """Pico: booked, held."""
        wallet = self.partition.wallet(account, self.now)
        assert wallet is not None
        return wallet.booked, wallet.held

    def settle_wishes(self) -> list[tuple[str, Mapping[str, int]]]:
        """Put the slices that nobody waits for into the log."""
        wishes = self.partition.desk.slices_wished(self.now)
        for wish in wishes:
            self.write(wish)
        return [(wish.account, wish.quantities) for wish in wishes]

    def wait(self, us: int = SECOND) -> None:
        """Time passes, in the log as well; what is due is reclaimed."""
        self.tick(self.now + us)
        self.partition.desk.reclaim(self.partition.log_time_us, self.now)


def nano(units: str) -> int:
    whole, _, fraction = units.partition(".")
    return int(whole) * NANO + int(fraction.ljust(9, "0"))
