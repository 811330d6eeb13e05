"""A gateway of others on this machine: what a proxy of LiteLLM and OpenRouter do with their keys, and no more."""

from typing import Any

from aiohttp import web

TOKEN = "sk-admin-1234567890"


class GatewayServer:
    """Keys with a budget, blocked or not. It can be away for some calls, and does then what it is asked, or does not."""

    def __init__(self) -> None:
        self.budgets: dict[str, float | None] = {"hash-1": 100, "hash-2": 100}
        self.blocked: set[str] = set()
        self.calls: list[tuple[str, str, Any]] = []
        self.failures: list[bool] = []  # of the next calls: True is done and answered 503, False is only answered so
        self._runner: web.AppRunner | None = None
        self.url = ""

    def may_spend(self, key: str) -> bool:
        return key not in self.blocked and self.budgets[key] != 0

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/key/update", self._update)
        app.router.add_post("/key/block", self._block)
        app.router.add_post("/key/unblock", self._block)
        app.router.add_patch("/api/v1/keys/{key}", self._patch)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _taken(self, request: web.Request) -> tuple[dict[str, Any], bool]:
        """The body, and whether it is to be done."""
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise web.HTTPUnauthorized
        body = await request.json()
        self.calls.append((request.method, request.path, body))
        return body, not self.failures or self.failures[0]

    def _answer(self) -> web.Response:
        failed = bool(self.failures)
        if failed:
            self.failures.pop(0)
        return web.json_response({}, status=503 if failed else 200)

    def _known(self, key: str) -> str:
        if key not in self.budgets:
            raise web.HTTPNotFound
        return key

    async def _update(self, request: web.Request) -> web.Response:
        body, done = await self._taken(request)
        if done:
            self.budgets[self._known(body["key"])] = body["max_budget"]
        return self._answer()

    async def _block(self, request: web.Request) -> web.Response:
        body, done = await self._taken(request)
        if done:
            (self.blocked.discard if request.path.endswith("unblock") else self.blocked.add)(self._known(body["key"]))
        return self._answer()

    async def _patch(self, request: web.Request) -> web.Response:
        body, done = await self._taken(request)
        if done:
            self.budgets[self._known(request.match_info["key"])] = body["limit"]
        return self._answer()
