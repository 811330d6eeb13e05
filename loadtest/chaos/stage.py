"""A whole deployment on this machine, every process of which may be killed: broker, database, a Ray of several nodes, and
the driver that starts shards, controller and API on it.

Nothing is found by name on the machine: a process is ours when the supervisor has recorded it, and only such are killed.
"""

import asyncio
import base64
import json
import os
import re
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import psutil
from msgspec import Struct
from pydantic import SecretStr

from actors.assembly import doors, kafka_log, postgres_store
from actors.clock import SystemClock
from actors.cluster import Cluster, ShardStatus
from actors.deployment import lay_ground
from actors.door_client import Doors
from actors.door_wire import Status
from actors.kafka import KafkaLog
from actors.ports import LogUnavailable, StoreUnavailable
from actors.postgres import PostgresStore
from config.settings import Settings
from config.stack.kafka import KafkaBroker, start_kafka
from config.stack.ports import free_ports
from config.stack.postgres import PostgresServer, start_postgres
from config.stack.ray_local import RayLocal, RayNode, record_ray, start_ray, start_ray_node, stop_ray
from config.stack.supervisor import Say, Supervisor
from loadtest.chaos.deployer import READY
from loadtest.chaos.voices import Voices
from loadtest.receiver import Receiver

WORKER_CPUS: Final = 2
HEAD_ALONE_CPUS: Final = 4
CONTROLLER_TITLE: Final = "ray::_ControllerActor"
REPLICA_TITLE: Final = "ray::ServeReplica:tallygate:api"
DEADLINE_S: Final = 300.0  # for the deployment to be whole again; what is still amiss then is a failure of the run
LOOK_EVERY_S: Final = 0.2
RECORD_EVERY_S: Final = 10.0  # a look at every process of the machine for each of ours
STATUS_WITHIN_S: Final = 2.0
DEPLOYER_ATTEMPTS: Final = 3
DEPLOYER_STOP_S: Final = 120.0
_ROOT: Final = Path(__file__).resolve().parents[2]
_CLIENT_PORT: Final = re.compile(r"127\.0\.0\.1\(([0-9]+)\)")


class StageFailed(Exception):
    """The deployment did not do what it must; the message says what was waited for and what is amiss."""


class DriverEnded(StageFailed):
    """The driver ended by itself."""


class StageOptions(Struct, frozen=True):
    """How the deployment is laid out."""

    partitions: int = 8
    shards: int = 2
    replicas: int = 2
    nodes: int = 2  # of Ray beside the head, which then gets no shard, as in ray_cluster.yaml; without any it gets all
    hold_ttl_s: float = 5.0
    report_delay_s: float = 30.0  # longer than any outage: usage reported later is not covered by its hold


class Stage:
    """Made by `open_stage`; then `running` brings the deployment up."""

    def __init__(
        self,
        supervisor: Supervisor,
        settings: Settings,
        postgres: PostgresServer,
        kafka: KafkaBroker,
        ray: RayLocal,
        head_raylet: psutil.Process,
        nodes: list[RayNode],
        say: Say,
    ) -> None:
        self.settings = settings
        self.clock = SystemClock()
        self.nodes = nodes
        self.receiver: Receiver
        self.log: KafkaLog
        self.store: PostgresStore
        self.doors: Doors
        self.voices: Voices
        self.cluster: Cluster
        self.supervisor = supervisor
        self.say = say
        self._postgres = postgres
        self._kafka = kafka
        self._ray = ray
        self._head_raylet = head_raylet
        self._nodes_made = len(nodes)
        self._lock_dir = supervisor.run_dir / "locks"
        self._deployer_log = supervisor.run_dir / "deployer.log"
        self._deployer_pid = 0
        self._http: aiohttp.ClientSession

    # ------------------------------------------------------------------------------------------------------ up, down

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything up and speaking for as long as the block runs; then the shards hand over."""
        async with AsyncExitStack() as stack:
            secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
            self.receiver = Receiver(secret, fail_share=0.02, seed=1)
            await self.receiver.start()
            stack.push_async_callback(self.receiver.stop)
            webhooks = self.settings.webhooks.model_copy(
                update={
                    "url": self.receiver.url,
                    "secret": SecretStr(secret),
                    "allow_loopback": True,
                    "backoff_base_s": 0.2,
                    "backoff_max_s": 5.0,
                }
            )
            self.settings = (await lay_ground(self.settings)).model_copy(update={"webhooks": webhooks})
            self.log, self.store, self.doors = (
                kafka_log(self.settings),
                postgres_store(self.settings),
                doors(self.settings),
            )
            for part in (self.log, self.store, self.doors):
                await part.start()
                stack.push_async_callback(part.stop)
            self.voices = Voices(self.doors, self.clock, self.settings.kafka.partitions)
            self.cluster = Cluster(self.settings, self._lock_dir)
            api = f"http://{self.settings.api.host}:{self.settings.api.port}"
            self._http = await stack.enter_async_context(aiohttp.ClientSession(api))
            await self.start_deployer()
            self.voices.start()
            stack.push_async_callback(self.voices.stop)
            recording = asyncio.create_task(self._record())
            stack.callback(recording.cancel)
            yield
            await self.voices.stop()
            await self._stop_deployer()

    async def _record(self) -> None:
        """What Ray starts anew must be known to the supervisor, or a crash of this process would leave it behind."""
        while True:
            await asyncio.to_thread(record_ray, self.supervisor)
            await self.clock.sleep(RECORD_EVERY_S)

    # ---------------------------------------------------------------------------------------------------- processes

    async def start_deployer(self) -> None:
        """Start the driver, and wait until it says that everything is deployed. One that breaks off is started anew."""
        for attempt in range(1, DEPLOYER_ATTEMPTS + 1):
            try:
                await self._start_deployer()
                return
            except DriverEnded as failure:
                if attempt == DEPLOYER_ATTEMPTS:
                    raise
                self.say(f"{str(failure)[-500:]}\nstarting it anew")

    async def _start_deployer(self) -> None:
        given = self.supervisor.run_dir / "deployer.json"
        _write_secret(
            given,
            json.dumps(
                {"address": self._ray.address, "settings": self.settings.reveal(), "lock_dir": str(self._lock_dir)}
            ),
        )
        start = self._deployer_log.stat().st_size if self._deployer_log.exists() else 0
        opened = self.supervisor.start(
            "deployer",
            [sys.executable, "-m", "loadtest.chaos.deployer", str(given)],
            log_path=self._deployer_log,
            cwd=_ROOT,
        )
        self._deployer_pid = opened.pid

        def said() -> str:
            with self._deployer_log.open("rb") as log:
                log.seek(start)
                return log.read().decode(errors="replace")

        async def ready() -> str | None:
            text = said()
            if opened.poll() is not None:
                raise DriverEnded(f"the driver ended; the end of {self._deployer_log}:\n{text[-3000:]}")
            return None if READY in text.splitlines() else f"the driver, which last said:\n{text[-1000:]}"

        await self.until(ready, "the deployment to come up")

    async def _stop_deployer(self) -> None:
        os.kill(self._deployer_pid, signal.SIGTERM)
        deadline_s = self.clock.boot_s() + DEPLOYER_STOP_S
        while self._alive(self._deployer_pid) is not None:
            if self.clock.boot_s() > deadline_s:
                raise StageFailed(
                    f"the driver has not stopped within {DEPLOYER_STOP_S:.0f} s; see {self._deployer_log}"
                )
            await self.clock.sleep(LOOK_EVERY_S)

    def deployer(self) -> psutil.Process:
        return self._must(self._deployer_pid, "the driver")

    def broker(self) -> psutil.Process:
        return self._must(self._kafka.pid, "the broker")

    def postmaster(self) -> psutil.Process:
        return self._must(self._postgres.pid, "the postmaster")

    async def backends(self) -> list[psutil.Process]:
        """The sessions of shards, as the server's processes: their titles name the client's port."""
        ports = {
            connection.laddr.port
            for status in await self.cluster.statuses()
            for connection in self.shard(status).net_connections("tcp")
            if connection.raddr and connection.raddr.port == self._postgres.port
        }
        found = []
        for child in self.postmaster().children():
            title = _CLIENT_PORT.search(" ".join(child.cmdline()))
            if title is not None and int(title[1]) in ports:
                found.append(child)
        return found

    def controllers(self) -> list[psutil.Process]:
        return self._titled(CONTROLLER_TITLE)

    def replicas(self) -> list[psutil.Process]:
        return self._titled(REPLICA_TITLE)

    async def owners(self) -> list[ShardStatus]:
        """The shards that answer through Ray and own partitions."""
        return [status for status in await self.cluster.statuses() if status.partitions]

    def shard(self, status: ShardStatus) -> psutil.Process:
        """The process of a shard, which is a child of one of our raylets."""
        for worker in self._workers():
            if worker.pid == status.pid:
                return worker
        raise StageFailed(f"{status.shard} (pid {status.pid}) is not running")

    def raylet(self, node: RayNode) -> psutil.Process:
        return self._must(node.raylet_pid, f"raylet {node.name}")

    def _must(self, pid: int, what: str) -> psutil.Process:
        process = self._alive(pid)
        if process is None:
            raise StageFailed(f"{what} (pid {pid}) is not running")
        return process

    def _alive(self, pid: int) -> psutil.Process | None:
        """The process, if it is one that the supervisor has recorded and still the same."""
        for child in self.supervisor.children:
            if child.pid == pid and (process := child.process()) is not None:
                return process
        return None

    def _workers(self) -> list[psutil.Process]:
        """Everything that our raylets run."""
        raylets = [self._head_raylet]
        raylets += [found for node in self.nodes if (found := self._alive(node.raylet_pid)) is not None]
        return [worker for raylet in raylets for worker in raylet.children()]

    def _titled(self, title: str) -> list[psutil.Process]:
        found = []
        for worker in self._workers():
            try:
                if worker.cmdline()[:1] and worker.cmdline()[0].startswith(title):
                    found.append(worker)
            except psutil.Error:
                continue  # gone meanwhile
        return found

    # -------------------------------------------------------------------------------------------- starting once more

    async def restart_broker(self) -> None:
        self._kafka = await asyncio.to_thread(
            lambda: start_kafka(self.supervisor, dir=self._kafka.dir, ports=self._kafka.ports)
        )

    async def restart_postgres(self) -> None:
        """With the same data and port; retried for as long as backends of the dead postmaster linger."""
        self._postgres = await asyncio.to_thread(
            lambda: start_postgres(self.supervisor, self._postgres.data_dir, self._postgres.port)
        )

    async def replace_node(self, node: RayNode) -> None:
        """A new node in the place of a dead one."""
        self._nodes_made += 1
        made = await asyncio.to_thread(
            start_ray_node, self.supervisor, self._ray, f"node-{self._nodes_made}", WORKER_CPUS
        )
        self.nodes[self.nodes.index(node)] = made

    # -------------------------------------------------------------------------------------------------------- health

    async def until(
        self, amiss: Callable[[], Awaitable[str | None]], what: str, deadline_s: float = DEADLINE_S
    ) -> None:
        """Return once nothing is amiss. Raises StageFailed with what still is."""
        limit_s = self.clock.boot_s() + deadline_s
        while (reason := await amiss()) is not None:
            if self.clock.boot_s() > limit_s:
                raise StageFailed(f"waited {deadline_s:.0f} s for {what}; amiss: {reason}")
            await self.clock.sleep(LOOK_EVERY_S)

    async def amiss(self) -> str | None:
        """What is missing of a deployment in which every process lives and has a successor; None when nothing is."""
        if self.voices.silent:
            return f"nobody speaks for partitions {self.voices.silent}: {await self._stages()}"
        statuses = await self.cluster.statuses()
        if len(statuses) < self.settings.shard.shards:
            return f"{len(statuses)} of {self.settings.shard.shards} shards answer"
        halted = [view for status in statuses for view in status.partitions if view.stage == "halted"]
        if halted:
            return "; ".join(f"partition {view.partition} is halted: {view.halt_reason}" for view in halted)
        if not self.controllers():
            return "there is no controller"
        if len(self.replicas()) < self.settings.api.replicas:
            return f"{len(self.replicas())} of {self.settings.api.replicas} replicas of the API are there"
        return await self._api_amiss()

    async def _api_amiss(self) -> str | None:
        try:
            async with self._http.get("/readyz", timeout=aiohttp.ClientTimeout(total=STATUS_WITHIN_S)) as answer:
                text = await answer.text()
                return None if answer.status == 200 else f"/readyz says {answer.status} {text[:300]}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"/readyz: {type(error).__name__}: {error}"

    async def _stages(self) -> str:
        views = await self.doors.ask_every_shard(Status(), STATUS_WITHIN_S)
        return "; ".join(
            f"{view.shard} "
            + ", ".join(f"{each.partition}: {each.stage} {each.halt_reason}".strip() for each in view.partitions)
            for view in views
        )

    async def behind(self, ends: dict[int, int]) -> str | None:
        """Which partitions have no checkpoint yet that reaches these offsets; None when all have."""
        try:
            done = {status.partition: status.next_offset for status in await self.store.partitions()}
        except StoreUnavailable as error:
            return str(error)
        left = {number: end - done.get(number, 0) for number, end in ends.items() if done.get(number, 0) < end}
        return f"records that are in no checkpoint, by partition: {left}" if left else None

    async def log_ends(self) -> dict[int, int] | None:
        """The next offset of every partition; None while Kafka is away."""
        try:
            return {number: (await self.log.bounds(number))[1] for number in range(self.settings.kafka.partitions)}
        except (LogUnavailable, TimeoutError):
            return None

    async def folded(self, ends: dict[int, int]) -> str | None:
        """Which partitions' owners have not yet read that far; None when all have."""
        views = await self.doors.ask_every_shard(Status(), STATUS_WITHIN_S)
        read = {
            view.partition: view.next_offset for status in views for view in status.partitions if view.stage == "ready"
        }
        left = {number: end for number, end in ends.items() if read.get(number, 0) < end}
        return f"not yet read up to, by partition: {left}" if left else None

    def stop_ray(self) -> None:
        """Nobody needs it any more. Blocks."""
        stop_ray(self.supervisor, self._ray)

    async def open_holds(self) -> int | None:
        """Of all partitions, as their owners say; None while not every partition is spoken for."""
        views = [
            view
            for status in await self.doors.ask_every_shard(Status(), STATUS_WITHIN_S)
            for view in status.partitions
            if view.stage == "ready"
        ]
        if len({view.partition for view in views}) != self.settings.kafka.partitions:
            return None
        return sum(view.open_holds for view in views)


def kafka_dir(supervisor: Supervisor) -> Path:
    """Where the broker keeps the log. It stays when the run is over, for whoever asks."""
    return supervisor.run_dir / "kafka"


def open_stage(supervisor: Supervisor, options: StageOptions, say: Say) -> Stage:
    """Start Postgres, Kafka and the nodes of Ray. Blocks, for a minute on two cores; call it in the main thread."""
    postgres = start_postgres(supervisor)
    kafka = start_kafka(supervisor, dir=kafka_dir(supervisor))
    settings = Settings(control_key=SecretStr(secrets.token_hex(32)))
    settings = settings.model_copy(
        update={
            "postgres": settings.postgres.model_copy(update={"dsn": SecretStr(postgres.superuser_dsn)}),
            "kafka": settings.kafka.model_copy(
                update={"bootstrap_servers": kafka.bootstrap_servers, "partitions": options.partitions}
            ),
            "api": settings.api.model_copy(
                update={"port": free_ports(1)[0], "replicas": options.replicas, "proxies": "head"}
            ),
            "shard": settings.shard.model_copy(
                update={
                    "shards": options.shards,
                    "hold_ttl_max_s": options.hold_ttl_s,
                    "report_delay_s": options.report_delay_s,
                }
            ),
        }
    )
    ray = start_ray(supervisor, num_cpus=0 if options.nodes else HEAD_ALONE_CPUS, serve=True)
    [head] = [
        process
        for child in supervisor.children
        if (process := child.process()) is not None and process.name() == "raylet"
    ]
    nodes = [start_ray_node(supervisor, ray, f"node-{number}", WORKER_CPUS) for number in range(1, options.nodes + 1)]
    # Ray has set handlers of its own, which would skip our clean-up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return Stage(supervisor, settings, postgres, kafka, ray, head, nodes, say)


def _write_secret(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
