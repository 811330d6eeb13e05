"""Commands called as a terminal calls them, beside an API that answers from a table."""

import asyncio
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

import tallygate
from actors import proofs
from actors.audit import Audit, AuditEntry
from actors.web import explain, quantity_grant_routes, recurring_routes, top_up_routes
from config.settings import WELL_KNOWN

EXAMPLE = Path(__file__).parents[3] / "config" / "catalogue.example.yaml"


def without_settings(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """In an empty folder, with no setting from outside."""
    for variable in WELL_KNOWN:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(tallygate.app, arguments)


class Doors:
    """Postgres and Kafka of a deployment of which these partitions are stored; whoever reads more is told."""

    def __init__(self, *stored: int) -> None:
        self.stored = list(stored)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def partitions(self) -> list[int]:
        return self.stored

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"asked for {name}")


INCOMPLETE = [  # what is stored of a deployment of three partitions, and what is told of it
    ((), "nothing is stored of partition 0, 1, 2 of topic usage"),
    ((0, 2), "nothing is stored of partition 1 of topic usage"),
    ((0, 1, 2, 3), "partition 3 is stored, but kafka.partitions is 3"),
]


def beside_stored(monkeypatch: pytest.MonkeyPatch, partitions: int, *stored: int) -> None:
    """As if a deployment of so many partitions had these in its database."""
    monkeypatch.setenv("TALLYGATE_CONTROL_KEY", "5a" * 32)
    monkeypatch.setenv("TALLYGATE_KAFKA__PARTITIONS", str(partitions))
    monkeypatch.setattr(proofs, "stored_checkpoints", lambda settings: Doors(*stored))
    monkeypatch.setattr(proofs, "topic_reader", lambda settings: Doors())


def trail_of(dsn: str, schema: str = "tallygate") -> list[AuditEntry]:
    """What stands in the audit trail, the oldest first."""

    async def look() -> list[AuditEntry]:
        audit = Audit(dsn, schema)
        await audit.start()
        found, _ = await audit.page(100)
        await audit.stop()
        return [row.entry for row in reversed(found)]

    return asyncio.run(look())


BALANCE = {"booked": "25", "held": "0.5", "available": "24.5", "overdraft": "0", "currency": "USD"}
COMMAND = {"account": "acme", "id": "welcome", "partition": 3, "offset": 18}
(EXPLAIN,) = explain.ROUTES
RATING = EXPLAIN.example.response
ANSWERS: dict[tuple[str, str], tuple[int, Any]] = {
    ("GET", "/v1/customers/acme/balance"): (200, {"account": "acme", "balance": BALANCE, "recovering": False}),
    ("GET", "/v1/customers/gone/balance"): (404, {"detail": "There is no such account.", "next_step": "Check it."}),
    ("GET", "/v1/customers/acme"): (
        200,
        {
            "account": "acme",
            "plan": "starter",
            "currency": "USD",
            "zone": "UTC",
            "anchor_day": 1,
            "standing": "active",
            "events_rated": 2,
            "open_holds": 1,
            "balance": BALANCE,
        },
    ),
    ("GET", "/v1/customers/acme/scopes"): (200, {"items": [{"scope": "team:red", "standing": "active", "spent": "1"}]}),
    ("GET", "/v1/customers/acme/caps"): (200, {"items": []}),
    ("GET", "/v1/customers/acme/prices"): (200, {"items": []}),
    ("PUT", "/v1/customers/acme/prices/output"): (200, COMMAND),
    ("PUT", "/v1/customers/acme/rules/low"): (200, COMMAND),
    ("DELETE", "/v1/customers/acme/rules/low"): (200, COMMAND),
    ("GET", "/v1/customers/acme/rules"): (
        200,
        {
            "items": [
                {
                    "rule": "low",
                    "on": {"measure": "balance", "threshold": "5", "clear": None},
                    "level": "critical",
                    "active_in": ["-"],
                }
            ]
        },
    ),
    ("POST", "/v1/customers/acme/quantity-grants"): (200, COMMAND),
    ("POST", "/v1/customers/acme/quantity-grants/pack/void"): (200, COMMAND),
    ("GET", "/v1/customers/acme/quantity-grants"): (200, quantity_grant_routes.ROUTES[1].example.response),
    ("PUT", "/v1/customers/acme/recurring-grants/monthly"): (200, COMMAND),
    ("DELETE", "/v1/customers/acme/recurring-grants/monthly"): (200, COMMAND),
    ("GET", "/v1/customers/acme/recurring-grants"): (200, recurring_routes.ROUTES[2].example.response),
    ("PUT", "/v1/customers/acme/auto-top-up"): (200, COMMAND),
    ("DELETE", "/v1/customers/acme/auto-top-up"): (200, COMMAND),
    ("POST", "/v1/customers/acme/auto-top-up/topup_1"): (200, COMMAND),
    ("GET", "/v1/customers/acme/auto-top-up"): (200, top_up_routes.ROUTES[2].example.response),
    ("DELETE", "/v1/customers/acme/caps/a%2Fb"): (200, COMMAND),
    ("PUT", "/v1/customers/acme/plan"): (200, COMMAND),
    ("PUT", "/v1/customers/acme/pause"): (200, COMMAND),
    ("PUT", "/v1/customers/acme/seats/editor"): (200, COMMAND),
    ("PUT", "/v1/customers/acme/billing"): (200, COMMAND),
    ("PUT", "/v1/customers/acme/overdraft"): (200, COMMAND),
    ("PUT", "/v1/customers/acme/rate-limits/burst"): (200, COMMAND),
    ("PUT", "/v1/customers/acme/allow-lists/model"): (200, COMMAND),
    ("POST", "/v1/customers"): (201, COMMAND),
    ("PUT", "/v1/customers/acme/scopes"): (200, COMMAND),
    ("PUT", "/v1/customers/acme/standing"): (200, COMMAND),
    ("POST", "/v1/customers/acme/grants"): (201, COMMAND),
    ("POST", "/v1/customers/acme/grants/card%2F1/void"): (200, COMMAND),
    ("POST", "/v1/customers/acme/grants/card/void"): (200, COMMAND),
    ("POST", "/v1/customers/acme/grants/card/refund"): (200, COMMAND),
    ("POST", "/v1/customers/acme/adjustments"): (201, COMMAND),
    ("GET", "/v1/customers/acme/adjustments"): (
        200,
        {
            "items": [
                {"line": "case-881", "period": "2026-11-01T00:00:00Z", "posted": "2026-11-22T10:00:00Z"}
                | {"price": "", "amount": "-12.5", "reason": "goodwill", "by": "key:7f3a"},
            ]
        },
    ),
    ("GET", "/v1/customers"): (200, {"items": [{"account": "acme"}, {"account": "other"}], "next_cursor": None}),
    ("GET", "/v1/customers/acme/rerated"): (
        200,
        {
            "account": "acme",
            "plan": "starter",
            "currency": "USD",
            "items": [
                {"price": "output", "period": period, "rated": "15", "posted": "0", "owed": owed, "difference": more}
                for period, owed, more in (("2026-10-01T00:00:00Z", "12", "-3"), ("2026-11-01T00:00:00Z", "15", "0"))
            ],
            "refused": [{"price": "fees", "reason": "bad_price"}],
            "difference": "-3",
        },
    ),
    ("GET", "/v1/customers/other/rerated"): (
        200,
        {"account": "other", "plan": "pro", "currency": "USD", "items": [], "refused": [], "difference": "0"},
    ),
    ("POST", "/v1/customers/acme/rerates"): (201, COMMAND),
    ("POST", "/v1/customers/done/rerates"): (409, {"detail": "The account has a line of this id.", "next_step": "-"}),
    ("POST", "/v1/customers/busy/rerates"): (422, {"detail": "The differences are others by now.", "next_step": "-"}),
    ("GET", "/v1/customers/acme/period-lines"): (
        200,
        {
            "items": [
                {"period": "2026-10-01T00:00:00Z", "ends": "2026-11-01T00:00:00Z", "kind": "minimum", "price": "output"}
                | {"amount": "300", "closed": True, "of_month": "1000", "of_period": "1000"},
                {"period": "2026-11-01T00:00:00Z", "ends": "2026-12-01T00:00:00Z", "kind": "minimum", "price": "output"}
                | {"amount": "980", "closed": False, "of_month": "1000", "of_period": "1000"},
            ]
        },
    ),
    ("PUT", "/v1/customers/acme/caps/tokens"): (200, COMMAND),
    ("PUT", "/v1/customers/acme/caps/a%2Fb"): (200, COMMAND),
    ("GET", "/v1/customers/acme/grants"): (
        200,
        {
            "items": [
                {"lot": "w", "kind": "promo", "granted": "25", "remaining": "24", "expired": "0", "expires": None}
                | {"refunded": "0", "voided": "0", "carried": "0"},
            ]
        },
    ),
    ("GET", "/v1/events/req%2F1/rating"): (200, RATING),
    ("GET", "/v1/events/gone/rating"): (404, {"detail": "No such event was rated.", "next_step": "Check the id."}),
    ("POST", "/v1/keys"): (201, {"key": "tg_live_made"}),
    ("POST", "/v1/sandbox/clock"): (202, {"until": "2027-01-01T00:00:00Z", "partitions": 8}),
    ("DELETE", "/v1/keys/abc"): (204, None),
}


class FakeApi(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked: list[tuple[str, str, dict[str, Any], str]] = []
        self.queries: list[str] = []
        self.reasons: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    server: FakeApi

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        key = (self.headers["authorization"] or "").removeprefix("Bearer ")
        path, _, query = self.path.partition("?")
        self.server.queries.append(query)
        self.server.reasons.append(self.headers["x-reason"])
        self.server.asked.append((self.command, path, orjson.loads(body or b"{}"), key))
        status, answer = ANSWERS[self.command, path]
        text = b"" if answer is None else orjson.dumps(answer)
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


def beside_up(url: str) -> None:
    """As if `tallygate up` ran in this folder."""
    folder = Path("build/up")
    folder.mkdir(parents=True)
    (folder / "access.json").write_text(json.dumps({"url": url, "key": "tg_live_up", "kafka": "127.0.0.1:9"}))


def asks_once(api: FakeApi, arguments: tuple[str, ...], asked: tuple[str, str, dict[str, Any]], told: str) -> None:
    """The command is one request, with the key of `tallygate up`, and one line."""
    beside_up(api.url)
    result = call(*arguments)
    assert (result.exit_code, result.stdout) == (0, told + "\n")
    assert api.asked == [(*asked, "tg_live_up")]
