"""The demo's own webhook receiver: it checks signatures, remembers what came, and can be told to fail now and then."""

import time
from random import Random
from typing import Any

from aiohttp import web
from msgspec import Struct
from standardwebhooks import Webhook, WebhookVerificationError

BODY_BYTES_MAX = 65_536
ALERTS_MAX = 1_000_000


class ReceivedAlert(Struct):
    """One alert, however often it came."""

    arrived_us: int  # wall time of the first arrival that was taken
    body: Any  # the parsed JSON of that arrival
    repeats: int = 0  # later arrivals under the same id


class Receiver:
    """A webhook endpoint on a free port of 127.0.0.1.

    Arrivals are judged in this order: signature (400 and `rejected`), the seeded failures (503 and `failed`; nothing
    is remembered), memory (503 beyond `ALERTS_MAX` alerts). Which arrivals fail depends on the seed, the alert's id and
    how often it has come, and so not on the order in which alerts arrive.
    """

    def __init__(self, secret: str, fail_share: float = 0.0, seed: int = 0) -> None:
        """`secret` starts with `whsec_`; `fail_share` is from 0 to 1. Raises `ValueError`."""
        if not 0.0 <= fail_share <= 1.0:
            raise ValueError(f"fail_share must lie between 0 and 1, not {fail_share}")
        self._verifier = Webhook(secret)
        self._fail_share = fail_share
        self._seed = seed
        self._arrivals: dict[str, int] = {}
        self._runner: web.AppRunner | None = None
        self._url = ""
        self.alerts: dict[str, ReceivedAlert] = {}
        self.repeats = 0
        self.rejected = 0
        self.failed = 0

    @property
    def url(self) -> str:
        """Where to post; raises `RuntimeError` before `start`."""
        if not self._url:
            raise RuntimeError("the receiver has no URL before start: await start() first")
        return self._url

    async def start(self) -> None:
        """Listen."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_post("/alerts", self._take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._runner = runner
        self._url = f"http://127.0.0.1:{runner.addresses[0][1]}/alerts"

    async def stop(self) -> None:
        """Stop listening. What was received stays readable."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, request: web.Request) -> web.Response:
        arrived_us = time.time_ns() // 1000
        data = await request.read()
        try:
            body = self._verifier.verify(data, dict(request.headers))
        except (WebhookVerificationError, ValueError) as error:
            # A garbled signature or body surfaces as one of the many kinds of ValueError.
            self.rejected += 1
            return web.Response(status=400, text=type(error).__name__)
        alert_id = request.headers["webhook-id"]
        if self._fails(alert_id):
            self.failed += 1
            return web.Response(status=503)
        known = self.alerts.get(alert_id)
        if known is not None:
            known.repeats += 1
            self.repeats += 1
        elif len(self.alerts) >= ALERTS_MAX:
            return web.Response(status=503, text="this receiver is full; start another one")
        else:
            self.alerts[alert_id] = ReceivedAlert(arrived_us=arrived_us, body=body)
        return web.Response(status=204)

    def _fails(self, alert_id: str) -> bool:
        if self._fail_share == 0.0:
            return False
        arrival = self._arrivals.get(alert_id, 0)
        self._arrivals[alert_id] = arrival + 1
        return Random(f"{self._seed}/{alert_id}/{arrival}").random() < self._fail_share
