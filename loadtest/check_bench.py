"""What a check costs, beside the least that anything could cost on the same wires.

    HTTP    a check with a hold through Serve, beside the same routes without the door (key, limits, JSON in and out are
            as ever; the owner's answer is the same each time, and nobody is asked), and beside an endpoint of Serve that
            does nothing
    door    a check with a hold through a shard's door, beside a process that sends every frame back as it came
    cold    the first hold of an account, which waits for its slice to come back from the log, beside the next one

Contenders take turns in short rounds, so that what else the machine does falls on both. A turn is a pair of calls (a
check and the release of its hold; two calls that do nothing), of which the first is timed; `cpu_us` is the processor time
of a turn by role, which hardly depends on what else the machine does. `make bench-check` runs it on a stack of its own;
figures and the machine's facts go to build/check.json.
"""

import argparse
import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import aiohttp
import msgspec
import orjson
import psutil
import uvloop
from msgspec import Struct
from ray import serve
from ray.serve.schema import LoggingConfig
from rich.console import Console

from actors.api import ONGOING_MAX, REPLICA_CPUS
from actors.assembly import (
    database_dsn,
    issue_key,
    kafka_log,
    key_ring,
    postgres_store,
    settle_garbage_collection,
)
from actors.clock import SystemClock
from actors.deployment import deployed, lay_ground
from actors.door_client import Doors, Route
from actors.door_wire import (
    PROTOCOL,
    Answer,
    Asked,
    Balance,
    BalanceView,
    Check,
    Checked,
    FieldLimit,
    Frames,
    Hello,
    Question,
    Release,
    Released,
    Status,
    StatusView,
    answered_decoder,
    asked_decoder,
    door_token,
    frame,
    welcome_decoder,
)
from actors.keys import KeyScope
from actors.membership import PostgresDirectory
from actors.ports import Clock, Outgoing
from actors.publication import publish
from actors.slices import linger_us
from actors.web.api import build_app
from actors.web.app import App
from actors.web.wire import Services
from config.catalogue import load_file
from config.settings import Settings, load_settings
from config.stack.embedded import fresh_stack
from config.stack.ports import free_ports
from config.stack.ray_local import join_ray, record_ray, start_ray
from config.stack.supervisor import Supervisor
from engine.catalog import document_json
from engine.events import seal
from engine.placement import partition_for
from loadtest.echo import echo
from loadtest.gateways import wallets
from loadtest.machine import machine
from loadtest.report import percentiles
from loadtest.workload import EVENT_TYPE, Workload

WITHIN_MS: Final = 5_000
DOOR_CONCURRENCY: Final = (1, 16, 64)
HTTP_CONCURRENCY: Final = (1, 16)
PLENTY_PERCENT: Final = 100_000  # nobody is denied: a denial is another path
MODEL: Final = "atlas-small"
BOUNDS: Final = {"input_tokens": 1_000, "output_tokens": 512}
TTL_S: Final = 30
WITHOUT_DOOR: Final = "/without-door"
IDLE_S: Final = 5.0
RAY: Final = "ray"  # under which the supervisor knows its processes
TITLES: Final = {"ray::ServeReplica": "replicas", "ray::_ShardActor": "shard", "/haproxy": "proxy"}
TOKEN_CHARACTERS: Final = 300  # about a hold's token
CATALOGUE_FILE: Final = Path(__file__).resolve().parents[1] / "config" / "catalogue.example.yaml"

_Message = TypeVar("_Message", bound=Struct)


class Line(asyncio.Protocol):
    """A client of the least possible cost: one connection, pipelined, matched by number."""

    def __init__(self, decoder: "msgspec.msgpack.Decoder[Any]", token: str | None) -> None:
        """With a `token` the line begins as a door wants it."""
        self._decoder = decoder
        self._token = token
        self._frames = Frames()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._transport: asyncio.Transport | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is none of asyncio's
        if self._token is None:
            self.ready.set_result(None)
        else:
            self._transport.write(frame(Hello(PROTOCOL, self._token)))

    def data_received(self, data: bytes) -> None:
        for body in self._frames.feed(data):
            if not self.ready.done():
                welcome_decoder.decode(body)
                self.ready.set_result(None)
                continue
            answered = self._decoder.decode(body)
            self._waiting.pop(answered.number).set_result(answered)

    def connection_lost(self, exc: Exception | None) -> None:
        for waiting in [self.ready, *self._waiting.values()]:
            if not waiting.done():
                waiting.set_exception(ConnectionError("the other side closed the line"))

    async def call(self, question: Question) -> Any:
        """The whole answering message."""
        assert self._transport is not None
        self._number += 1
        waiting = asyncio.get_running_loop().create_future()
        self._waiting[self._number] = waiting
        self._transport.write(frame(Asked(self._number, WITHIN_MS, question)))
        return await waiting

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def dial(host: str, port: int, token: str | None) -> Line:
    """A line to a door, or without a token to an echo."""
    decoder: msgspec.msgpack.Decoder[Any] = asked_decoder if token is None else answered_decoder
    _, line = await asyncio.get_running_loop().create_connection(lambda: Line(decoder, token), host, port)
    await line.ready
    return line


# ---------------------------------------------------------------------------------------------------------- turns


class Measured(Struct):
    """One contender at one concurrency."""

    ms: dict[str, float | None]  # p50, p99 of the timed call
    pairs_per_s: float
    cpu_us: dict[str, float] = {}  # of a turn, by role


Timed = Callable[[int], Awaitable[float]]  # a turn: its number -> how long its timed call took, in seconds


async def take_turns(
    contenders: Mapping[str, Timed],
    clock: Clock,
    *,
    rounds: int,
    turns: int,
    concurrency: int,
    cpu_s: Callable[[], Mapping[str, float]] = dict,
) -> dict[str, Measured]:
    """Each contender in turn, `rounds` times; a round is `turns` turns by `concurrency` callers. The first round of
    each warms up and is not counted. `cpu_s` tells the processor seconds that each role has taken by now."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    worked: dict[str, Counter[str]] = {name: Counter() for name in contenders}
    seconds = dict.fromkeys(contenders, 0.0)
    number = 0
    for round_number in range(rounds + 1):
        for name, turn in contenders.items():
            before, began_s = cpu_s(), clock.boot_s()
            times = await _one_round(turn, number, turns, concurrency)
            if round_number:
                seconds[name] += clock.boot_s() - began_s
                taken[name] += times
                worked[name].update({role: spent_s - before[role] for role, spent_s in cpu_s().items()})
            number += turns
    return {
        name: Measured(
            percentiles([value * 1000 for value in taken[name]]),
            round(len(taken[name]) / seconds[name], 1),
            {role: round(spent_s / len(taken[name]) * 1e6, 1) for role, spent_s in worked[name].items()},
        )
        for name in contenders
    }


async def _one_round(turn: Timed, first: int, turns: int, concurrency: int) -> list[float]:
    numbers = iter(range(first, first + turns))

    async def caller() -> list[float]:
        return [await turn(number) for number in numbers]

    return [value for times in await asyncio.gather(*(caller() for _ in range(concurrency))) for value in times]


def beside(measured: Mapping[str, Measured], ours: str, least: str) -> dict[str, Any]:
    """Both, and how many times the least ours is."""
    our, bare = measured[ours], measured[least]
    return {
        ours: msgspec.to_builtins(our),
        least: msgspec.to_builtins(bare),
        "times_p50": _times(our.ms["p50"], bare.ms["p50"]),
        "times_p99": _times(our.ms["p99"], bare.ms["p99"]),
        "share_of_rate": round(our.pairs_per_s / bare.pairs_per_s, 3),
    }


def _times(ours: float | None, least: float | None) -> float | None:
    return round(ours / least, 2) if ours is not None and least else None


def cold_and_warm(cold_s: Sequence[float], warm_s: Sequence[float]) -> dict[str, Any]:
    """The price of slices: the first hold of an account beside the next."""
    cold, warm = percentiles([value * 1000 for value in cold_s]), percentiles([value * 1000 for value in warm_s])
    return {"first_hold_ms": cold, "next_hold_ms": warm, "times_p50": _times(cold["p50"], warm["p50"])}


# ------------------------------------------------------------------------------------------------------------- a run


class BenchOptions(Struct, frozen=True):
    """How long to measure, and where to write."""

    accounts: int = 300
    rounds: int = 5
    turns: int = 600  # of each contender in each round
    report: Path = Path("build/check.json")
    run_dir: Path = Path("build/run-bench")


class _Nothing:
    """ASGI: reads the body, and answers."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})


class _OneAnswer:
    """In the place of the doors: what an owner has answered once."""

    def __init__(self, checked: Checked, released: Released) -> None:
        self._checked = checked
        self._released = released

    async def ask(self, account: str, question: Question, within_s: float) -> Answer:
        return self._checked if isinstance(question, Check) else self._released

    async def ask_every_shard(self, question: Status, within_s: float) -> list[StatusView]:
        return []

    def routes(self) -> list[Route]:
        return []


class _WithoutDoor:
    """ASGI: the routes of the API, with `_OneAnswer` behind them, below a prefix."""

    def __init__(self, settings: dict[str, Any], checked: bytes, released: bytes) -> None:
        self._settings = Settings.model_validate(settings)
        self._doors = _OneAnswer(
            msgspec.msgpack.decode(checked, type=Checked), msgspec.msgpack.decode(released, type=Released)
        )
        self._app: App | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            settle_garbage_collection()
            clock = SystemClock()
            keys = key_ring(self._settings, clock)
            await keys.start()
            nobody: Any = None
            self._app = build_app(Services(self._settings, clock, self._doors, nobody, keys), "bench")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await keys.stop()
            await send({"type": "lifespan.shutdown.complete"})
            return
        assert self._app is not None, "requests come after the start"
        path = scope["path"].removeprefix(WITHOUT_DOOR)
        await self._app({**scope, "path": path, "raw_path": path.encode()}, receive, send)


def _serve_without_door(settings: Settings, checked: Checked, released: Released) -> None:
    """Beside the API, likewise. Blocks."""
    given = settings.reveal(), msgspec.msgpack.encode(checked), msgspec.msgpack.encode(released)

    @serve.deployment(
        name="without_door",
        num_replicas=settings.api.replicas,
        max_ongoing_requests=ONGOING_MAX,
        ray_actor_options={"num_cpus": REPLICA_CPUS},
        logging_config=LoggingConfig(enable_access_log=False),
    )
    @serve.ingress(lambda: _WithoutDoor(*given))
    class WithoutDoor:
        pass

    serve.run(WithoutDoor.bind(), name="without_door", route_prefix=WITHOUT_DOOR)  # type: ignore[attr-defined]


def _serve_nothing(replicas: int) -> None:
    """Beside the API: the same proxy, as many replicas with the same options. Blocks."""

    @serve.deployment(
        name="nothing",
        num_replicas=replicas,
        max_ongoing_requests=ONGOING_MAX,
        ray_actor_options={"num_cpus": REPLICA_CPUS},
        logging_config=LoggingConfig(enable_access_log=False),  # as the API has it
    )
    @serve.ingress(lambda: _Nothing())
    class Nothing:
        pass

    serve.run(Nothing.bind(), name="nothing", route_prefix="/nothing")  # type: ignore[attr-defined]  # by the decorator


def run(settings: Settings, options: BenchOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """All figures, which are written to `options.report` too. What was started is stopped."""
    with Supervisor(options.run_dir, say=say) as supervisor:
        prepared = fresh_stack(supervisor, settings)
        api = prepared.api.model_copy(update={"port": free_ports(1)[0]})
        prepared = prepared.model_copy(update={"api": api})
        if prepared.ray_address is None:
            start_ray(supervisor, num_cpus=max(2, os.cpu_count() or 2), serve=True)
        else:
            join_ray(prepared.ray_address)
        figures = uvloop.run(_Bench(supervisor, prepared, options, say).run())
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return figures


class _Bench:
    def __init__(
        self, supervisor: Supervisor, settings: Settings, options: BenchOptions, say: Callable[[str], None]
    ) -> None:
        self._supervisor = supervisor
        self._settings = settings
        self._options = options
        self._say = say
        self._clock = SystemClock()

    async def run(self) -> dict[str, Any]:
        figures: dict[str, Any] = {"machine": machine()}
        settings = self._settings = await lay_ground(self._settings)
        async with deployed(settings, self._options.run_dir.resolve() / "locks", self._say):
            if settings.ray_address is None:
                record_ray(self._supervisor)
            await asyncio.to_thread(_serve_nothing, settings.api.replicas)
            if settings.ray_address is None:
                record_ray(self._supervisor)
            accounts = await self._open_accounts()
            directory = PostgresDirectory(database_dsn(settings), settings.postgres.schema_name)
            doors = Doors(directory, door_token(settings.control_key_bytes()), settings.kafka.partitions)
            await doors.start()
            try:
                route = doors.routes()[0]
                mine = {each.partition for each in doors.routes() if each.incarnation == route.incarnation}
                served = [name for name in accounts if partition_for(name.encode(), settings.kafka.partitions) in mine]
                line = await dial(route.host, route.port, door_token(settings.control_key_bytes()))
                figures["idle_cores"] = await self._idle_cores()
                self._say("cold: the first hold of every account, and its next")
                figures["slices"] = await self._cold(line, served)
                await self._without_door(line, served[0])
                figures["door"] = await self._door(line, served)
                figures["http"] = await self._http(served)
            finally:
                await doors.stop()
        lingering_s = linger_us(settings.shard, settings.lease) / 1_000_000
        figures["withheld_after_a_crash_s"] = {"at_most": lingering_s, "hold_ttl_max_s": settings.shard.hold_ttl_max_s}
        return figures

    async def _idle_cores(self) -> dict[str, float]:
        """What each role keeps busy while nobody asks: it stands in every `cpu_us`, the more the longer a turn takes."""
        before = self._cpu_s()
        await self._clock.sleep(IDLE_S)
        return {role: round((spent_s - before[role]) / IDLE_S, 3) for role, spent_s in self._cpu_s().items()}

    def _cpu_s(self) -> dict[str, float]:
        """What each role has taken by now; of Ray's processes those that a check passes through."""
        named: dict[str, list[int]] = {role: [] for role in (*TITLES.values(), "callers")}
        for child in self._supervisor.children:
            if child.name == RAY and (process := child.process()) is not None:
                title = " ".join(process.cmdline()[:1])
                for part, role in TITLES.items():
                    if part in title:
                        named[role].append(child.pid)
        named["callers"].append(os.getpid())
        seconds = dict.fromkeys(named, 0.0)
        for role, pids in named.items():
            for pid in pids:
                times = psutil.Process(pid).cpu_times()
                seconds[role] += times.user + times.system
        return seconds

    async def _open_accounts(self) -> list[str]:
        settings, options = self._settings, self._options
        document = load_file(CATALOGUE_FILE)
        workload = Workload(
            1,
            options.accounts * 10,
            options.accounts,
            None,
            1.0,
            catalogue=orjson.loads(document_json(document)),
            partitions=settings.kafka.partitions,
            prefix="bench",
        )
        key, topic = settings.control_key_bytes(), settings.kafka.topic_usage
        log, store = kafka_log(settings), postgres_store(settings)
        await log.start()
        await store.start()
        try:
            await publish(document, store=store, log=log, clock=self._clock, topic=topic, control_key=key)
            records = []
            for command in wallets(workload, (PLENTY_PERCENT,)):
                name = command["account"].encode()
                home = partition_for(name, settings.kafka.partitions)
                records.append(Outgoing("usage", seal(key, topic, home, orjson.dumps(command)), name, home))
            await log.append(records)
        finally:
            await store.stop()
            await log.stop()
        return workload.customers

    async def _cold(self, line: Line, accounts: list[str]) -> dict[str, Any]:
        cold: list[float] = []
        warm: list[float] = []
        for account in accounts:
            while not await self._is_open(line, account):
                await self._clock.sleep(0.05)
            for times in (cold, warm):
                taken_s, token = await self._check(line, account)
                times.append(taken_s)
                await line.call(Release(token))
        return cold_and_warm(cold, warm)

    @staticmethod
    async def _is_open(line: Line, account: str) -> bool:
        answer = (await line.call(Balance(account))).answer
        return isinstance(answer, BalanceView) and float(answer.wallet.available) > 0

    async def _check(self, line: Line, account: str) -> tuple[float, str]:
        began_s = self._clock.boot_s()
        answer = (await line.call(_question(account))).answer
        taken_s = self._clock.boot_s() - began_s
        if not isinstance(answer, Checked) or answer.hold is None:
            raise RuntimeError(f"account {account}: expected a hold, got {answer}")
        return taken_s, answer.hold.token

    async def _without_door(self, line: Line, account: str) -> None:
        checked = (await line.call(_question(account))).answer
        released = (await line.call(Release(checked.hold.token))).answer
        await asyncio.to_thread(_serve_without_door, self._settings, checked, released)
        if self._settings.ray_address is None:
            record_ray(self._supervisor)

    async def _door(self, line: Line, accounts: list[str]) -> dict[str, Any]:
        async def check(number: int) -> float:
            taken_s, token = await self._check(line, accounts[number % len(accounts)])
            await line.call(Release(token))
            return taken_s

        async with echo() as port:
            bare = await dial("127.0.0.1", port, None)

            async def nothing(number: int) -> float:
                began_s = self._clock.boot_s()
                await bare.call(_question(accounts[number % len(accounts)]))
                taken_s = self._clock.boot_s() - began_s
                await bare.call(Release("x" * TOKEN_CHARACTERS))
                return taken_s

            found = await self._beside("door", {"check_and_hold": check, "echo": nothing}, DOOR_CONCURRENCY)
            bare.close()
        return found

    async def _http(self, accounts: list[str]) -> dict[str, Any]:
        settings = self._settings
        url = f"http://{settings.api.host}:{settings.api.port}"
        key = await issue_key(settings, self._clock, "bench", (KeyScope.CHECK,), created_by="bench")
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        async with aiohttp.ClientSession(url, headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:

            async def post(path: str, body: Mapping[str, Any]) -> Any:
                async with session.post(path, data=orjson.dumps(body)) as answer:
                    if answer.status != 200:
                        raise RuntimeError(f"{path}: {answer.status} {(await answer.text())[:300]}")
                    return await answer.json()

            async def check(number: int, below: str = "") -> float:
                body = _http_question(accounts[number % len(accounts)])
                began_s = self._clock.boot_s()
                answer = await post(f"{below}/v1/check", body)
                while answer["transient"]:  # on a machine too busy for a lease to be renewed in time
                    await self._clock.sleep(answer["retry_after_s"])
                    answer = await post(f"{below}/v1/check", body)
                taken_s = self._clock.boot_s() - began_s
                await post(f"{below}/v1/holds/release", {"token": answer["hold"]["token"]})
                return taken_s

            async def nothing(number: int) -> float:
                body = _http_question(accounts[number % len(accounts)])
                began_s = self._clock.boot_s()
                await post("/nothing", body)
                taken_s = self._clock.boot_s() - began_s
                await post("/nothing", {"token": "x" * TOKEN_CHARACTERS})
                return taken_s

            contenders: dict[str, Timed] = {
                "check_and_hold": check,
                "no_op": nothing,
                "no_door": partial(check, below=WITHOUT_DOOR),
            }
            return await self._beside("http", contenders, HTTP_CONCURRENCY)

    async def _beside(self, wire: str, contenders: Mapping[str, Timed], concurrency: Sequence[int]) -> dict[str, Any]:
        ours, least, *others = contenders
        found = {}
        for callers in concurrency:
            self._say(f"{wire}: {callers} callers at once, {', '.join(contenders)} in turns")
            measured = await take_turns(
                contenders,
                self._clock,
                rounds=self._options.rounds,
                turns=self._options.turns,
                concurrency=callers,
                cpu_s=self._cpu_s,
            )
            found[f"concurrency_{callers}"] = beside(measured, ours, least) | {
                f"beside_{other}": beside(measured, ours, other) for other in others
            }
        return found


def _question(account: str) -> Check:
    bounds = tuple(FieldLimit((name,), str(up_to)) for name, up_to in BOUNDS.items())
    return Check(account, type=EVENT_TYPE, data={"model": MODEL}, bounds=bounds, ttl_ms=TTL_S * 1000)


def _http_question(account: str) -> dict[str, Any]:
    bounds = [{"fields": [name], "up_to": up_to} for name, up_to in BOUNDS.items()]
    return {
        "account": account,
        "type": EVENT_TYPE,
        "data": {"model": MODEL},
        "bounds": bounds,
        "hold": {"ttl_s": TTL_S},
    }


def main() -> None:
    """`make bench-check`."""
    default = BenchOptions()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--accounts", type=int, default=default.accounts, help="that are asked about in turn")
    parser.add_argument("--rounds", type=int, default=default.rounds, help="turns of each pair of contenders")
    parser.add_argument("--turns", type=int, default=default.turns, help="of each contender in each round")
    parser.add_argument("--report", type=Path, default=default.report, help="where the figures go")
    asked = parser.parse_args()
    options = BenchOptions(asked.accounts, asked.rounds, asked.turns, asked.report)
    console = Console()
    figures = run(load_settings(), options, lambda line: console.print(line, highlight=False, markup=False))
    console.print_json(data=figures)


if __name__ == "__main__":
    main()
