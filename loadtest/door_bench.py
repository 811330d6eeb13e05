"""What a check takes of a shard's processor: `make bench-door`.

    python -m loadtest.door_bench [--pairs 2000] [--rounds 7] [--report build/bench-door.json]

One process, no servers, processor seconds and not the clock's. A door with the fold of one partition behind it, whose
customers have a wallet and a cap by the example catalogue, is asked over a loopback socket for a hold of one request, and
gets it back. Every 16th pair the customer's next event is rated, so that wallets are not what they were. Beside it, in
turns, an echo on the same loop sends frames of the same questions back; `door_us` is what is left without it. `one`: a
question at a time, as single callers ask; `many`: 64 at once, that arrive and are answered together. The least of the
rounds counts: what else the machine does only adds to one.
"""

import argparse
import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
import uvloop
from msgspec import Struct
from rich.console import Console

from actors.answers import Answers
from actors.assembly import GC_THRESHOLDS
from actors.clock import SystemClock
from actors.door import Door
from actors.door_wire import Check, Checked, FieldLimit, Release, StatusView, door_token
from actors.lease import Lease
from actors.owned import Owned, Stage
from actors.ports import Outgoing, Place
from actors.slices import SliceWriter, linger_us
from config.catalogue import load_file
from config.settings import LeaseSettings, ShardSettings
from engine.admission import FieldBound, Question, SliceNeeded
from engine.catalog import document_json, load_catalogue
from engine.events import CatalogueMarker, Slices, seal
from engine.events import Owner as OwnerRecord
from engine.money import NANO, quantity_text
from engine.partition import Partition
from loadtest.check_bench import CATALOGUE_FILE, TOKEN_CHARACTERS, Line, dial
from loadtest.echo import Echo
from loadtest.machine import machine
from loadtest.probes import MODEL, TOKENS, Customer, customers
from loadtest.workload import EVENT_TYPE

KEY: Final = b"control key of the door's bench."
TOPIC: Final = "usage"
EPOCH: Final = 1
CUSTOMERS: Final = 64
EVENTS_EACH: Final = 30  # rated before
RATE_EVERY: Final = 16  # pairs
TTL_MS: Final = 30_000
LINGER_US: Final = linger_us(ShardSettings(), LeaseSettings())
CONCURRENCY: Final = {"one": 1, "many": 64}
_BOUNDS: Final = (FieldLimit(("input_tokens",), str(TOKENS)), FieldLimit(("output_tokens",), "0"))


class _Log:
    """No log: what the bench has folded is all there is."""

    partitions = 1

    def end(self, partition: int) -> int | None:
        return None

    async def append(self, records: Sequence[Outgoing]) -> list[int]:
        raise AssertionError("slices are written beforehand, and are large enough")


class Shard:
    """What a shard has behind its door: one partition, ready, whose customers have their slices."""

    def __init__(self) -> None:
        self.customers: list[Customer] = customers("bench", CUSTOMERS, 1)
        self._offset = 0
        self._fold = Partition(0, 1, TOPIC, KEY, {1: load_catalogue(1, document_json(load_file(CATALOGUE_FILE)))})
        self._clock = SystemClock()
        self._control(msgspec.json.encode(CatalogueMarker(1, 0)))
        self._control(msgspec.json.encode(OwnerRecord(EPOCH)))
        for customer in self.customers:
            for command in customer.commands():
                self._control(orjson.dumps(command))
        for _ in range(EVENTS_EACH):
            for customer in self.customers:
                self.rate(customer)
        self._fold.desk.begin(EPOCH)
        for customer in self.customers:
            self._slice(customer)

    @property
    def open_holds(self) -> int:
        return self._fold.desk.open_holds

    def answers(self) -> Answers:
        """Who answers for it."""
        clock, log, settings = self._clock, _Log(), ShardSettings()
        lease = Lease(clock)
        lease.extend(float("inf"), frozenset([0]))
        owned = Owned(
            fold=self._fold,
            epoch=EPOCH,
            ckpt_seq=1,
            next_offset=self._offset,
            last=None,
            owner_offset=0,
            previous=[],
            claimed_s=0.0,
            checkpointed_s=0.0,
            checkpointed_offset=0,
            stage=Stage.READY,
        )

        async def no_rows(owned: Owned, places: Sequence[Place]) -> list[tuple[Place, bytes]]:
            raise AssertionError("nobody asks for an event")

        def no_status() -> StatusView:
            raise AssertionError("nobody asks how it stands")

        return Answers(
            clock=clock,
            log=log,  # type: ignore[arg-type]  # of the port, only what a check needs
            lease=lease,
            owned={0: owned},
            slices=SliceWriter(log, clock, TOPIC, KEY, LINGER_US, asyncio.create_task),  # type: ignore[arg-type]
            rows=no_rows,
            control_key=KEY,
            settings=settings,
            status=no_status,
        )

    def rate(self, customer: Customer) -> None:
        """One more event of the customer."""
        record = customer.use(self._clock.wall_us())
        self._apply(record.key, record.value)

    def _slice(self, customer: Customer) -> None:
        bounds = tuple(FieldBound(limit.fields, int(limit.up_to) * NANO) for limit in _BOUNDS)
        question = Question(
            customer.account, type=EVENT_TYPE, data={"model": MODEL}, bounds=bounds, hold_us=TTL_MS * 1000
        )
        needed = self._fold.check(question, self._clock.wall_us())
        assert isinstance(needed, SliceNeeded), needed
        quantities = {price: quantity_text(quantity) for price, quantity in needed.quantities.items()}
        self._control(msgspec.json.encode(Slices(EPOCH, LINGER_US, ((customer.account, quantities),))))

    def _control(self, body: bytes) -> None:
        self._apply(None, seal(KEY, TOPIC, 0, body))

    def _apply(self, key: bytes | None, value: bytes | None) -> None:
        outcome = self._fold.apply(self._offset, self._clock.wall_us() // 1000, key, value)
        assert outcome in ("catalogue", "owner", "applied", "rated", "slices"), outcome
        self._offset += 1


class Figures(Struct, frozen=True):
    """Microseconds of processor time for a check with a hold, and the hold's release."""

    check_and_release_us: float
    echo_us: float  # of two frames of the same questions

    @property
    def door_us(self) -> float:
        """What the door and what stands behind it take."""
        return round(self.check_and_release_us - self.echo_us, 1)


Pair = Callable[[int], Awaitable[None]]


async def measure(pairs: int, rounds: int, concurrency: int) -> Figures:
    """In turns; of each the least."""
    shard = Shard()
    door = Door(shard.answers(), "bench", door_token(KEY))
    port = await door.start("127.0.0.1")
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    asked, echoed = await dial("127.0.0.1", port, door_token(KEY)), await dial("127.0.0.1", _port(server), None)
    try:
        check, echo = _check(shard, asked), _echo(shard, echoed)
        taken: dict[str, list[float]] = {"check": [], "echo": []}
        for _ in range(rounds):
            for name, pair in (("check", check), ("echo", echo)):
                taken[name].append(await _cpu_us(pair, pairs, concurrency))
        return Figures(round(min(taken["check"]), 1), round(min(taken["echo"]), 1))
    finally:
        asked.close()
        echoed.close()
        server.close()
        await door.stop()


def _port(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


def _check(shard: Shard, line: Line) -> Pair:
    async def pair(number: int) -> None:
        customer = shard.customers[number % CUSTOMERS]
        if number % RATE_EVERY == 0:
            shard.rate(customer)
        answer = (await line.call(_question(customer))).answer
        if not isinstance(answer, Checked) or answer.hold is None:
            raise RuntimeError(f"account {customer.account}: expected a hold, got {answer}")
        await line.call(Release(answer.hold.token))

    return pair


def _echo(shard: Shard, line: Line) -> Pair:
    async def pair(number: int) -> None:
        await line.call(_question(shard.customers[number % CUSTOMERS]))
        await line.call(Release("x" * TOKEN_CHARACTERS))

    return pair


def _question(customer: Customer) -> Check:
    return Check(customer.account, type=EVENT_TYPE, data={"model": MODEL}, bounds=_BOUNDS, ttl_ms=TTL_MS)


async def _cpu_us(pair: Pair, pairs: int, concurrency: int) -> float:
    numbers = iter(range(pairs))

    async def caller() -> None:
        for number in numbers:
            await pair(number)

    began_s = time.process_time()
    await asyncio.gather(*(caller() for _ in range(concurrency)))
    return (time.process_time() - began_s) / pairs * 1_000_000


def run(pairs: int, rounds: int) -> dict[str, Any]:
    """All figures."""
    found: dict[str, Any] = {"machine": machine()}
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)  # as in a shard's process
    try:
        for name, concurrency in CONCURRENCY.items():
            figures = uvloop.run(measure(pairs, rounds, concurrency))
            found[name] = {**msgspec.to_builtins(figures), "door_us": figures.door_us}
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
    return found


def main() -> None:
    """`make bench-door`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2_000, help="of a check and its release, in each round")
    parser.add_argument("--rounds", type=int, default=7, help="of which the least counts")
    parser.add_argument("--report", type=Path, default=Path("build/bench-door.json"), help="where the figures go")
    asked = parser.parse_args()
    figures = run(asked.pairs, asked.rounds)
    asked.report.parent.mkdir(parents=True, exist_ok=True)
    asked.report.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    Console().print_json(data=figures)


if __name__ == "__main__":
    main()
