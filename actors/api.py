"""The HTTP API in production: what one replica holds, and the Serve application that runs replicas of it.

Ray Serve spreads requests over the replicas (through HAProxy, which `serve_environment` turns on) and restarts them. A
replica has no state of its own: it asks the owners of accounts through their doors, and writes to the log.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from importlib.metadata import version
from typing import Any, Final, Protocol

from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.context import _get_global_client
from ray.serve.schema import LoggingConfig

from actors.advice import Advisor
from actors.assembly import (
    WhatIfProcess,
    audit_trail,
    billed_usages,
    database_dsn,
    doors,
    gateways,
    kafka_appender,
    key_ring,
    margin_floors,
    margin_rates,
    postgres_store,
    reported_costs,
    settle_garbage_collection,
    shadows,
    topic_reader,
    training_runs,
    webhook_caller,
    webhook_endpoints,
)
from actors.catalogues import PostgresCatalogues
from actors.clock import SystemClock
from actors.commands import CommandDesk
from actors.drafts import Drafts
from actors.explain import Charges
from actors.gateway_watch import GatewayWatch
from actors.idempotency import Idempotency
from actors.margin import RequestMargins
from actors.receivers import Courier
from actors.records import Records
from actors.web.api import build_app
from actors.web.wire import Services
from config.settings import Settings

_log = logging.getLogger(__name__)

APPLICATION: Final = "tallygate"
ONGOING_MAX: Final = 2_000  # per replica; the app sheds load long before, and says so in a way that clients understand
REPLICA_CPUS: Final = 0.1
STOP_S: Final = 5.0

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class _Part(Protocol):
    """Something a replica holds open."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class ApiProcess:
    """Everything one replica holds, and its ASGI application: start it before the first request, on the same loop."""

    def __init__(self, settings: Settings, replica: str) -> None:
        dsn, schema = database_dsn(settings), settings.postgres.schema_name
        control_key, partitions = settings.control_key_bytes(), settings.kafka.partitions
        appender, owners, clock = kafka_appender(settings), doors(settings), SystemClock()
        keys = key_ring(settings, clock)
        records = Records(dsn, schema, partitions)
        audit = audit_trail(settings)
        idempotency = Idempotency(dsn, schema, control_key)
        endpoints = webhook_endpoints(settings)
        self._caller = webhook_caller(settings, clock)
        catalogues, drafts, shadowed = PostgresCatalogues(dsn, schema), Drafts(dsn, schema), shadows(settings)
        floors = margin_floors(settings)
        advisor, rates = Advisor(floors, clock), margin_rates(settings)
        commands = CommandDesk(appender, owners, control_key, settings.kafka.topic_usage, partitions)
        topics, margin_topics = topic_reader(settings), topic_reader(settings)  # who reads long keeps nobody waiting
        whatif = WhatIfProcess(settings)
        reported = reported_costs(settings)
        others, outbox_store = gateways(settings), postgres_store(settings)
        watch = GatewayWatch(
            owner=f"{replica}.{secrets.token_hex(8)}",  # pids repeat from node to node
            clock=clock,
            keys=others,
            owners=owners,
            alerts=outbox_store,
            caller=self._caller,
        )
        training, billed = training_runs(settings, whatif.costs), billed_usages(settings, whatif.costs)
        self._parts: Sequence[_Part] = (
            appender,
            topics,
            margin_topics,
            owners,
            keys,
            records,
            audit,
            idempotency,
            endpoints,
            catalogues,
            drafts,
            shadowed,
            floors,
            advisor,
            rates,
            whatif,
            training,
            billed,
            reported,
            others,
            outbox_store,
            watch,
        )
        services = Services(
            settings=settings,
            clock=clock,
            doors=owners,
            appender=appender,
            keys=keys,
            records=records,
            commands=commands,
            audit=audit,
            idempotency=idempotency,
            endpoints=endpoints,
            courier=Courier(clock, endpoints, self._caller),
            catalogues=catalogues,
            drafts=drafts,
            shadows=shadowed,
            floors=floors,
            rates=rates,
            advisor=advisor,
            training=training,
            billed=billed,
            reported=reported,
            gateways=others,
            request_margins=RequestMargins(
                margin_topics, settings.kafka.topic_rated, settings.kafka.topic_costs, partitions
            ),
            whatif=whatif.whatif,
            costs=whatif.costs,
            charges=Charges(topics, records, settings.kafka.topic_usage, settings.kafka.topic_rated),
        )
        self.app = build_app(services, replica)

    async def start(self) -> None:
        """Open every door; what was opened is closed again when one cannot be."""
        settle_garbage_collection()
        async with contextlib.AsyncExitStack() as opened:
            for part in self._parts:
                await part.start()
                opened.push_async_callback(part.stop)
            opened.pop_all()

    async def stop(self) -> None:
        """Close every door, in reverse order; one that does not close in time is left behind."""
        await self._caller.stop()
        for part in reversed(self._parts):
            try:
                await asyncio.wait_for(part.stop(), STOP_S)
            except Exception:
                _log.exception("%s did not stop in order", type(part).__name__)


class _Replica:
    """ASGI: the process's life is the lifespan of the server."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._process: ApiProcess | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            assert self._process is not None, "requests come after the start"
            await self._process.app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                process = ApiProcess(Settings.model_validate(self._settings), f"api.{os.getpid()}")
                try:
                    await process.start()
                except Exception as error:
                    _log.exception("the replica could not start")
                    await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
                    return
                self._process = process
                await send({"type": "lifespan.startup.complete"})
            else:
                if self._process is not None:
                    await self._process.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


class ServeElsewhere(Exception):
    """Serve runs in this Ray already, and listens elsewhere than the settings say: it never moves."""


def serve_api(settings: Settings) -> None:
    """Start the API on the Ray that this process has joined; returns once it answers. Replicas that run already with these
    settings go on. Raises ServeElsewhere. Blocks: call it in a thread."""
    revealed = settings.reveal()
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # the driver says itself what it starts

    @serve.deployment(
        name="api",
        num_replicas=settings.api.replicas,
        max_ongoing_requests=ONGOING_MAX,
        ray_actor_options={"num_cpus": REPLICA_CPUS},
        graceful_shutdown_timeout_s=STOP_S,
        health_check_period_s=2.0,
        health_check_timeout_s=5.0,
        logging_config=LoggingConfig(enable_access_log=False),  # a tenth of a replica's time; /metrics counts requests
    )
    @serve.ingress(lambda: _Replica(revealed))
    class Api:
        """All that it does is in the application it is made of."""

    proxies = ProxyLocation.HeadOnly if settings.api.proxies == "head" else ProxyLocation.EveryNode
    serve.start(proxies, HTTPOptions(host=settings.api.host, port=settings.api.port))
    client = _get_global_client()
    assert client is not None, "it was started"
    running = client.http_config  # what Serve was started with, by whomever
    if (running.host, running.port) != (settings.api.host, settings.api.port):
        raise ServeElsewhere(
            f"Serve runs in this Ray already, at {running.host}:{running.port}, and the API is to be at {settings.api.host}:"
            f"{settings.api.port}: set TALLYGATE_API__HOST and TALLYGATE_API__PORT to the former, or run `serve shutdown`"
        )
    deployment: Any = Api
    # Without a version of our own Serve takes every deployment for a new one, and replaces its replicas one by one: a
    # driver that comes back would halve the API for as long as replicas take to start.
    deployment = deployment.options(version=deployed_version(revealed), _internal=True)
    serve.run(deployment.bind(), name=APPLICATION, route_prefix="/")


def deployed_version(revealed: Mapping[str, Any]) -> str:
    """The same for the same release with the same settings: what runs already is then kept."""
    text = json.dumps([version("tallygate"), revealed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stop_api() -> None:
    """Stop every replica, in order; Serve itself stays with its Ray. Blocks."""
    serve.delete(APPLICATION)
