"""The API of a deployment on real servers: shards and controller in processes of their own, replicas in this one, over HTTP.

Replicas are the `ApiProcess` that Serve runs, behind the server that Serve puts in front of them; only Ray is left out.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import uvicorn
from aiohttp import web
from msgspec import Struct
from yarl import URL

from actors.api import ApiProcess
from actors.clock import SystemClock
from actors.deployment import until
from actors.keys import Keys, KeyScope
from loadtest.deployment import Deployment, deployment
from loadtest.processes import Process
from tests.actors.web.asgi_client import Response

DEADLINE_S = 90.0  # for whatever a test waits for; a healthy run needs a few seconds
TRIES = 20  # of a request that is answered 503


class Caller:
    """One key, and the replica it is sent to. Every answer is kept, with what was asked."""

    def __init__(self, session: aiohttp.ClientSession, key: str | None) -> None:
        self._session = session
        self.key = key
        self.heard: list[tuple[str, bytes]] = []

    async def send(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        """One request, once."""
        own = {} if self.key is None else {"authorization": f"Bearer {self.key}"}
        async with self._session.request(
            method, URL(target, encoded=True), data=body, headers=own | dict(headers or {})
        ) as answer:
            read = await answer.read()
            names = {name.lower(): value for name, value in answer.headers.items()}
            status = answer.status
        told = f"{status} {names}".encode() + b"\n" + read
        self.heard.append((f"{method} {target}", told))
        assert status < 500 or (status == 503 and (target == "/readyz" or int(names["retry-after"]) > 0)), told
        return Response(status, names, read)

    async def ask(
        self, method: str, target: str, document: Any = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        """One request, again while it is answered 503."""
        sent = dict(headers or {})
        body = None
        if document is not None:
            sent = {"content-type": "application/json"} | sent
            body = document if isinstance(document, bytes) else orjson.dumps(document)
        for _ in range(TRIES):
            answer = await self.send(method, target, body, sent)
            if answer.status != 503:
                break
            await asyncio.sleep(0.2)
        return answer

    async def done(self, method: str, target: str, document: Any = None, **headers: str) -> Any:
        """The parsed answer of a request that is expected to be taken."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.ask(method, target, document, named)
        assert answer.status < 300, (method, target, answer)
        return answer.json() if answer.body else None


class Posted(Struct):
    """What came to a webhook's address."""

    path: str
    headers: dict[str, str]
    body: bytes


class Post:
    """An address for webhooks on this machine, which keeps every byte. Below `/dead` it takes nothing."""

    def __init__(self) -> None:
        self.came: list[Posted] = []
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/{path:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.came.append(Posted(request.path, headers, await request.read()))
        return web.Response(status=503 if request.path.startswith("/dead") else 204)


class Replica:
    """One replica on a free port."""

    def __init__(self, at: Deployment, name: str) -> None:
        self._process = ApiProcess(at.settings, name)
        # Of a socket without its protocol asyncio does not know that small answers are to leave at once.
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._listener.bind(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        config = uvicorn.Config(
            self._process.app,
            log_config=None,
            log_level=logging.INFO,
            access_log=False,  # as under Serve
            date_header=False,
            server_header=False,
            lifespan="off",
        )
        self._server = uvicorn.Server(config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._process.start()
        self._serving = asyncio.create_task(self._server.serve([self._listener]))
        async with asyncio.timeout(DEADLINE_S):
            while not self._server.started:
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        await self._process.stop()
        self._listener.close()


class Front:
    """A deployment that answers over HTTP."""

    def __init__(
        self, at: Deployment, replicas: Sequence[Replica], shards: Sequence[Process], controller: Process
    ) -> None:
        self.at = at
        self.replicas = replicas
        self.shards = shards
        self.controller = controller
        self.keys: Keys
        self.sessions: list[aiohttp.ClientSession] = []

    async def key(self, *scopes: KeyScope, account: str | None = None) -> str:
        """A new key, made as the command line makes them, which every replica knows."""
        _, text = await self.keys.create("test", scopes or list(KeyScope), account, created_by="test")
        for number in range(len(self.replicas)):
            caller = self.caller(text, number)
            await until(lambda caller=caller: _known(caller), "every replica to know the key")  # type: ignore[misc]
        return text

    def caller(self, key: str | None, replica: int = 0) -> Caller:
        return Caller(self.sessions[replica], key)

    async def operator(self) -> Caller:
        """May everything."""
        return self.caller(await self.key())

    def logs(self) -> str:
        """What the shards and the controller have logged."""
        return "".join(child.log_path.read_text() for child in (*self.shards, self.controller))

    async def end(self) -> None:
        """Shards and controller hand over and leave; in good order, or the test fails."""
        await asyncio.gather(*(shard.end() for shard in self.shards))
        await self.controller.end()


async def _known(caller: Caller) -> bool:
    return (await caller.send("GET", "/v1/customers/nobody")).status != 401


@asynccontextmanager
async def front(
    database: str, kafka: str, folder: Path, *, shards: int = 1, replicas: int = 1, **limits: Any
) -> AsyncIterator[Front]:
    """Ready to answer. `limits` are settings of the API."""
    async with deployment(database, kafka) as at, AsyncExitStack() as stack:
        at.settings = at.settings.model_copy(
            update={
                "api": at.settings.api.model_copy(update=limits),
                "shard": at.settings.shard.model_copy(update={"shards": shards}),
                "shadow": at.settings.shadow.model_copy(update={"actors": 1}),  # a test starts its followers itself
            }
        )
        await at.set_up([])
        children = [Process("shard", f"shard-{number}", at.settings, folder) for number in range(shards)]
        controller = Process("controller", "controller", at.settings, folder)
        for child in (*children, controller):
            stack.callback(child.close)
        for shard in children:
            await shard.joined()
        running = [Replica(at, f"api.{number}") for number in range(replicas)]
        for replica in running:
            await replica.start()
            stack.push_async_callback(replica.stop)
        made = Front(at, running, children, controller)
        for replica in running:
            session = aiohttp.ClientSession(
                f"http://127.0.0.1:{replica.port}",
                timeout=aiohttp.ClientTimeout(total=DEADLINE_S),
                connector=aiohttp.TCPConnector(limit=0),
                auto_decompress=False,
            )
            made.sessions.append(await stack.enter_async_context(session))
        assert at.settings.postgres.dsn is not None
        dsn = at.settings.postgres.dsn.get_secret_value()
        made.keys = Keys(dsn, at.settings.postgres.schema_name, SystemClock())
        await made.keys.start()
        stack.push_async_callback(made.keys.stop)
        stranger = made.caller(None)

        async def ready() -> bool:
            return (await stranger.send("GET", "/readyz")).status == 200

        await until(ready, "every partition to have an owner that answers")
        yield made
