"""The command line: what each command prints, where errors go, and the exit codes 0, 1 and 2."""

import asyncio
import json
import sys
import threading
import tomllib
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

import tallygate
from actors import kafka
from actors.membership import PostgresMembership
from actors.ports import LogUnavailable
from actors.web import explain
from config.settings import WELL_KNOWN, Settings

EXAMPLE = Path(__file__).parents[1] / "config" / "catalogue.example.yaml"


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in WELL_KNOWN:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(tallygate.app, arguments)


def test_help_names_every_command() -> None:
    result = call("--help")
    assert result.exit_code == 0
    for command in (
        "up",
        "customers",
        "keys",
        "balance",
        "explain",
        "tail",
        "catalogue",
        "topics",
        "migrate",
        "dead-letters",
        "shards",
        "base",
        "rebuild",
        "reconcile",
        "demo",
    ):
        assert command in result.stdout


def test_an_unknown_command_is_wrong_input() -> None:
    assert call("nothing").exit_code == tallygate.WRONG_INPUT


def test_check_counts_what_a_good_catalogue_holds() -> None:
    result = call("catalogue", "check", str(EXAMPLE))
    assert (result.exit_code, result.stdout) == (0, f"{EXAMPLE}: 2 meters, 2 plans, 12 prices; no faults\n")


def test_check_tells_every_fault_on_a_line_of_stderr(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("meters: {}\nplans: {}\nnonsense: 1\n")
    result = call("catalogue", "check", str(file))
    assert result.exit_code == tallygate.WRONG_INPUT
    assert result.stdout == ""
    assert result.stderr.splitlines() == [f"{file}:3: nonsense: there is no such key"]


def test_show_prints_every_tier() -> None:
    result = call("catalogue", "show", str(EXAMPLE))
    assert result.exit_code == 0
    for text in ("Plan growth, USD", "model = atlas-large", "20,000,000", "6.50", "1,000,000"):
        assert text in result.stdout


def test_show_takes_names_as_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "brackets.yaml"
    file.write_text(
        'meters:\n  "[/red]": {event_type: a, aggregation: count}\n'
        'plans:\n  p: {currency: USD, prices: {x: {meter: "[/red]", model: per_unit, amount: 1}}}\n'
    )
    result = call("catalogue", "show", str(file))
    assert result.exit_code == 0
    assert "[/red]" in result.stdout


def test_settings_prints_a_file_that_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYGATE_KAFKA__PARTITIONS", "12")
    monkeypatch.setenv("TALLYGATE_LEASE__LEASE_S", "2.5")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "a:1,b:2")
    monkeypatch.setenv("TRACE", 'odd "name".csv')
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:hunter2@h/db")
    result = call("settings")
    assert result.exit_code == 0
    assert "hunter2" not in result.stdout
    read = Settings.model_validate(tomllib.loads(result.stdout))
    assert (read.kafka.partitions, read.lease.lease_s) == (12, 2.5)
    assert (read.kafka.bootstrap_servers, read.trace) == ("a:1,b:2", Path('odd "name".csv'))


def test_wrong_settings_are_wrong_input_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYGATE_KAFKA__PARTITIONS", "0")
    monkeypatch.setenv("TALLYGATE_NONSENSE", "1")
    result = call("settings")
    assert result.exit_code == tallygate.WRONG_INPUT
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["TALLYGATE_NONSENSE", "kafka.partitions"]


@pytest.mark.parametrize("command", ["create", "check"])
def test_topics_without_brokers_say_what_to_set(command: str) -> None:
    result = call("topics", command)
    assert result.exit_code == tallygate.WRONG_INPUT
    assert "KAFKA_BOOTSTRAP_SERVERS" in result.stderr


@pytest.mark.parametrize("error", [LogUnavailable("no broker at a:1"), kafka.TopicsDiffer("4 partitions, not 8")])
def test_a_broker_that_objects_is_a_failed_check(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    async def objects(*_: object) -> list[str]:
        raise error

    monkeypatch.setattr(kafka, "create_topics", objects)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "a:1")
    result = call("topics", "create")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (tallygate.FAILED, str(error))


def test_topics_are_made_and_checked_on_a_real_broker(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
    for role in ("USAGE", "RATED", "DEAD_LETTERS"):
        monkeypatch.setenv(f"TALLYGATE_KAFKA__TOPIC_{role}", f"cli-{role}")
    assert call("topics", "check").exit_code == tallygate.FAILED
    created = call("topics", "create")
    assert (created.exit_code, created.stdout) == (0, "created cli-USAGE, cli-RATED, cli-DEAD_LETTERS\n")
    assert call("topics", "create").stdout == "all topics exist\n"
    assert call("topics", "check").exit_code == 0
    monkeypatch.setenv("TALLYGATE_KAFKA__PARTITIONS", "4")
    differs = call("topics", "check")
    assert differs.exit_code == tallygate.FAILED
    assert "cli-USAGE has 8 partitions, kafka.partitions is 4" in differs.stderr


def test_a_catalogue_is_published_to_a_real_database_and_broker(
    kafka: str, database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("TALLYGATE_CONTROL_KEY", "00" * 32)
    for role in ("USAGE", "RATED", "DEAD_LETTERS"):
        monkeypatch.setenv(f"TALLYGATE_KAFKA__TOPIC_{role}", f"published-{role}")
    early = call("catalogue", "publish", str(EXAMPLE))
    assert early.exit_code == tallygate.FAILED, "there are no tables yet"
    assert "applied 0001" in call("migrate").stdout
    assert "applied" not in call("migrate").stdout
    assert call("topics", "create").exit_code == 0

    assert call("catalogue", "publish", str(EXAMPLE)).stdout == f"{EXAMPLE}: version 1, in force for all event times\n"
    dearer = tmp_path / "dearer.yaml"
    dearer.write_text(EXAMPLE.read_text().replace("2.50", "2.75"))
    second = call("catalogue", "publish", str(dearer))
    assert (second.exit_code, second.stdout.split(", in force for event times from ")[0]) == (0, f"{dearer}: version 2")
    soon = call("catalogue", "publish", str(EXAMPLE), "--effective-us", "1")
    assert soon.exit_code == tallygate.WRONG_INPUT
    assert "6 minutes" in soon.stderr

    letters = call("dead-letters")
    assert (letters.exit_code, "Dead letters" in letters.stdout) == (0, True)


def test_an_empty_password_file_is_wrong_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://owner:secret@127.0.0.1:1/none")
    empty = tmp_path / "password"
    empty.write_text("")
    result = call("migrate", "--engine-password-file", str(empty))
    assert (result.exit_code, "1 to 128 characters" in result.stderr) == (tallygate.WRONG_INPUT, True)


def test_the_demo_gets_settings_and_options_and_gives_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Settings, SimpleNamespace]] = []

    def run(settings: Settings, options: SimpleNamespace) -> int:
        asked.append((settings, options))
        return tallygate.FAILED

    demo = ModuleType("loadtest.demo")
    vars(demo).update(DemoOptions=SimpleNamespace, run=run)
    monkeypatch.setitem(sys.modules, "loadtest.demo", demo)
    monkeypatch.setattr("loadtest.demo", demo, raising=False)
    assert call("demo", "--events", "5000", "--no-kill").exit_code == tallygate.FAILED
    ((settings, options),) = asked
    assert settings == Settings()
    assert (options.events, options.kill, options.report) == (5_000, False, Path("build/demo.json"))


# ------------------------------------------------------------------------------------------------- over the HTTP API

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
    ("POST", "/v1/customers"): (201, COMMAND),
    ("PUT", "/v1/customers/acme/scopes"): (200, COMMAND),
    ("PUT", "/v1/customers/acme/standing"): (200, COMMAND),
    ("POST", "/v1/customers/acme/grants"): (201, COMMAND),
    ("PUT", "/v1/customers/acme/caps/a%2Fb"): (200, COMMAND),
    ("GET", "/v1/customers/acme/grants"): (
        200,
        {
            "items": [
                {"lot": "w", "kind": "promo", "granted": "25", "remaining": "24", "expired": "0", "expires": None},
            ]
        },
    ),
    ("GET", "/v1/events/req%2F1/rating"): (200, RATING),
    ("GET", "/v1/events/gone/rating"): (404, {"detail": "No such event was rated.", "next_step": "Check the id."}),
    ("POST", "/v1/keys"): (201, {"key": "tg_live_made"}),
    ("DELETE", "/v1/keys/abc"): (204, None),
}


class FakeApi(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked: list[tuple[str, str, dict[str, Any], str]] = []
        self.queries: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    server: FakeApi

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        key = (self.headers["authorization"] or "").removeprefix("Bearer ")
        path, _, query = self.path.partition("?")
        self.server.queries.append(query)
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


@pytest.fixture
def api() -> Iterator[FakeApi]:
    server = FakeApi()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def beside_up(url: str) -> None:
    """As if `tallygate up` ran in this folder."""
    folder = Path("build/up")
    folder.mkdir(parents=True)
    (folder / "access.json").write_text(json.dumps({"url": url, "key": "tg_live_up", "kafka": "127.0.0.1:9"}))


def test_without_an_api_the_next_step_is_said() -> None:
    result = call("balance", "acme")
    assert (result.exit_code, result.stdout) == (tallygate.WRONG_INPUT, "")
    assert "TALLYGATE_URL and TALLYGATE_KEY" in result.stderr
    assert "tallygate up" in result.stderr


def test_beside_up_nothing_need_be_said(api: FakeApi) -> None:
    beside_up(api.url)
    result = call("balance", "acme")
    assert (result.exit_code, result.stdout) == (0, "acme  available 24.5 USD  booked 25  held 0.5  overdraft 0\n")
    assert api.asked == [("GET", "/v1/customers/acme/balance", {}, "tg_live_up")]


def test_options_go_before_the_environment_and_that_before_up(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    beside_up("http://127.0.0.1:1")
    monkeypatch.setenv("TALLYGATE_URL", api.url)
    monkeypatch.setenv("TALLYGATE_KEY", "tg_live_env")
    call("balance", "acme")
    call("balance", "acme", "--key", "tg_live_option")
    assert [asked[3] for asked in api.asked] == ["tg_live_env", "tg_live_option"]


def test_the_key_of_up_goes_to_no_other_address(api: FakeApi) -> None:
    beside_up("http://127.0.0.1:1")
    result = call("balance", "acme", "--url", api.url)
    assert (result.exit_code, api.asked) == (tallygate.WRONG_INPUT, [])
    assert "TALLYGATE_KEY" in result.stderr


def test_a_key_goes_over_no_network_in_the_clear() -> None:
    result = call("balance", "acme", "--url", "http://api.example", "--key", "tg_live_x")
    assert (result.exit_code, "use https" in result.stderr) == (tallygate.WRONG_INPUT, True)


def test_a_refusal_is_one_line_with_the_next_step(api: FakeApi) -> None:
    beside_up(api.url)
    result = call("balance", "gone")
    assert (result.exit_code, result.stdout) == (tallygate.WRONG_INPUT, "")
    assert result.stderr == "There is no such account. Check it.\n"


def test_an_account_is_shown_with_its_scopes_and_caps(api: FakeApi) -> None:
    beside_up(api.url)
    result = call("customers", "show", "acme")
    assert result.exit_code == 0
    for text in ("starter", "available 24.5 USD", "team:red", "Caps: none"):
        assert text in result.stdout


@pytest.mark.parametrize(
    ("arguments", "asked", "told"),
    [
        (
            ("customers", "open", "acme", "--plan", "starter"),
            ("POST", "/v1/customers", {"account": "acme", "plan": "starter", "zone": "UTC", "anchor_day": 1}),
            "acme: opened, with the plan starter (log 3/18)",
        ),
        (
            ("customers", "scope", "acme", "team:red"),
            ("PUT", "/v1/customers/acme/scopes", {"scope": "team:red", "standing": "active"}),
            "acme: scope team:red is active (log 3/18)",
        ),
        (
            ("customers", "standing", "acme", "suspended"),
            ("PUT", "/v1/customers/acme/standing", {"standing": "suspended", "scope": ""}),
            "acme: the account is suspended (log 3/18)",
        ),
        (
            ("grants", "add", "acme", "25", "--expires", "2030-01-01T00:00:00Z"),
            (
                "POST",
                "/v1/customers/acme/grants",
                {"amount": "25", "currency": "USD", "kind": "promo", "expires": "2030-01-01T00:00:00Z"},
            ),
            "acme: 25 USD granted, as lot welcome (log 3/18)",
        ),
        (
            ("caps", "set", "acme", "a/b", "5", "--scope", "team:red", "--soft"),
            (
                "PUT",
                "/v1/customers/acme/caps/a%2Fb",
                {"amount": "5", "currency": "USD", "scope": "team:red", "hard": False},
            ),
            "acme: cap a/b of team:red is 5 USD a month (log 3/18)",
        ),
        (
            ("keys", "create", "ci", "--scope", "ingest", "--scope", "check", "--account", "acme"),
            ("POST", "/v1/keys", {"name": "ci", "scopes": ["ingest", "check"], "account": "acme"}),
            "tg_live_made",
        ),
        (("keys", "revoke", "abc"), ("DELETE", "/v1/keys/abc", {}), "abc is revoked"),
    ],
)
def test_each_change_is_one_request_and_one_line(
    arguments: tuple[str, ...], asked: tuple[str, str, dict[str, Any]], told: str, api: FakeApi
) -> None:
    beside_up(api.url)
    result = call(*arguments)
    assert (result.exit_code, result.stdout) == (0, told + "\n")
    assert api.asked == [(*asked, "tg_live_up")]


def test_a_charge_is_explained_tier_by_tier(api: FakeApi) -> None:
    beside_up(api.url)
    result = call("explain", "req/1", "--account", "acme", "--source", "gateway/eu-1")
    assert result.exit_code == 0, result.stderr
    for text in (
        "req-8812 from gateway/eu-1: 0.740000000000 USD, paid by acme",
        "partition 3, offset 18244, appended 2026-11-22T10:00:00.120000Z; final",
        "rated at: 2026-11-22T10:00:00Z (the event's own time)",
        "plan starter, catalogue version 2",
        "output (output_tokens)",
        "model=large",
        "1: 0 to 2000000",
        "2: above 2000000",
        "all (1950000 used before)",
        "0.240000000000",
        'alert.crossed {"account":"acme","rule":"low"',
    ):
        assert text in result.stdout
    assert "re-pricing" not in result.stdout
    shown = call("explain", "req/1", "--account", "acme", "--source", "gateway/eu-1", "--json")
    assert orjson.loads(shown.stdout) == RATING
    assert api.queries == ["account=acme&source=gateway/eu-1"] * 2


def test_a_charge_says_what_it_re_priced_and_which_hold_it_settles(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside_up(api.url)
    line = RATING["lines"][0] | {"beyond": "0.010000000000", "amount": "0.750000000000"}
    hold = {"id": "3.7.41", "scope": "", "admitted": RATING["rated_at"], "settled": "over_hold"}
    changed = RATING | {"lines": [line], "hold": hold, "final": False}
    monkeypatch.setitem(ANSWERS, ("GET", "/v1/events/e/rating"), (200, changed))
    told = call("explain", "e", "--account", "acme", "--source", "s").stdout
    for text in ("re-pricing, rounding", "0.750000000000", "hold 3.7.41 was admitted then; over_hold", "provisional"):
        assert text in told


def test_what_was_not_rated_is_said_on_one_line(api: FakeApi) -> None:
    beside_up(api.url)
    result = call("explain", "gone", "--account", "acme", "--source", "s")
    assert (result.exit_code, result.stdout) == (tallygate.WRONG_INPUT, "")
    assert result.stderr == "No such event was rated. Check the id.\n"


def test_lots_are_listed(api: FakeApi) -> None:
    beside_up(api.url)
    result = call("grants", "list", "acme")
    assert (result.exit_code, "promo" in result.stdout, "24" in result.stdout) == (0, True, True)


@pytest.mark.parametrize(
    "wrong", [("--scope", "root"), ("--scope", "read", "--expires", "tomorrow")], ids=["scope", "expires"]
)
def test_a_wrong_key_is_not_even_asked_for(wrong: tuple[str, ...]) -> None:
    result = call("keys", "create", "ci", *wrong)
    assert (result.exit_code, wrong[-1] in result.stderr) == (tallygate.WRONG_INPUT, True)


def test_keys_are_made_listed_and_ended_in_a_real_database(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("TALLYGATE_POSTGRES__SCHEMA_NAME", "cli_keys")
    assert call("migrate").exit_code == 0
    made = call("keys", "create", "ci", "--scope", "ingest", "--account", "acme", "--expires", "2100-01-01T00:00:00Z")
    assert (made.exit_code, made.stdout.count("\n"), made.stdout.startswith("tg_live_")) == (0, 1, True)
    public_id = made.stdout.split("_")[2]
    listed = call("keys", "list")
    assert public_id in listed.stdout
    assert made.stdout.split("_")[3] not in listed.stdout, "no secret is shown twice"
    assert call("keys", "revoke", public_id).stdout == f"{public_id} is revoked\n"
    unknown = call("keys", "revoke", "nobody")
    assert (unknown.exit_code, "tallygate keys list" in unknown.stderr) == (tallygate.WRONG_INPUT, True)


def test_a_tail_shows_one_accounts_lines_from_the_kafka_of_up(monkeypatch: pytest.MonkeyPatch) -> None:
    beside_up("http://127.0.0.1:1")
    asked: list[tuple[str, str]] = []
    line = {"account": "acme", "time_us": 0, "price": "p", "cell": {"model": "m"}, "quantity": "3", "amount": "0.1"}
    lines = [orjson.dumps({**line, "currency": "USD"}), orjson.dumps({**line, "account": "other"})]

    async def tail(bootstrap: str, topic: str) -> AsyncIterator[bytes]:
        asked.append((bootstrap, topic))
        for each in lines:
            yield each

    monkeypatch.setattr(kafka, "tail", tail)
    shown = call("tail", "--account", "acme")
    assert (shown.exit_code, shown.stdout) == (0, "1970-01-01T00:00:00Z  acme  p  m  3  0.1 USD\n")
    assert call("tail", "--json").stdout.encode().splitlines() == lines
    assert asked == [("127.0.0.1:9", "rated")] * 2


def test_a_base_is_checked_with_the_deployment_s_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "partition-0.tgbase"
    file.write_bytes(b"anything")
    result = call("base", "check", str(file))
    assert (result.exit_code, result.stdout) == (tallygate.WRONG_INPUT, "")
    assert "control_key: is not set" in result.stderr
    monkeypatch.setenv("TALLYGATE_CONTROL_KEY", "5a" * 32)
    result = call("base", "check", str(file))
    assert (result.exit_code, result.stdout) == (tallygate.FAILED, "")
    assert f"{file}: is no sealed base" in result.stderr


def test_rebuilding_needs_servers_and_the_account_s_own_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYGATE_CONTROL_KEY", "5a" * 32)
    result = call("rebuild")
    assert (result.exit_code, result.stdout) == (tallygate.WRONG_INPUT, "")
    assert "postgres.dsn is not set; set DATABASE_URL" in result.stderr
    result = call("rebuild", "--account", "acme", "--partition", "0")
    assert result.exit_code == tallygate.WRONG_INPUT
    assert "account acme lives in partition " in result.stderr
    assert call("base", "seal").exit_code == tallygate.WRONG_INPUT


def test_reconciling_takes_a_share_of_the_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "exit status 1" in call("reconcile", "--help").stdout.lower()
    assert call("reconcile", "--sample", "1.5").exit_code == tallygate.WRONG_INPUT
    result = call("reconcile", "--all")
    assert (result.exit_code, result.stdout) == (tallygate.WRONG_INPUT, "")
    assert "postgres.dsn is not set" in result.stderr


def test_shards_are_listed_drained_and_resumed_in_a_real_database(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    call("migrate")

    async def join() -> None:
        membership = PostgresMembership(database, lease_s=600.0)
        await membership.start()
        for number in range(2):
            await membership.register(f"shard-{number}.x", f"shard-{number}", f"host-{number}", "/run/lock", 1)
        await membership.stop()

    asyncio.run(join())

    def states() -> dict[str, str]:
        return {row["shard"]: row["state"] for row in orjson.loads(call("shards", "list", "--json").stdout)}

    assert call("shards", "drain").exit_code == tallygate.WRONG_INPUT
    unknown = call("shards", "drain", "shard-7")
    assert (unknown.exit_code, "tallygate shards list" in unknown.stderr) == (tallygate.WRONG_INPUT, True)
    drained = call("shards", "drain", "--host", "host-0")
    assert (drained.exit_code, "shard-0.x owns nothing any more" in drained.stdout) == (0, True)
    assert states() == {"shard-0": "drained", "shard-1": "spare"}
    last = call("shards", "drain", "shard-1")
    assert (last.exit_code, "start another one first" in last.stderr) == (tallygate.WRONG_INPUT, True)
    assert "shard-0" in call("shards", "list").stdout
    assert call("shards", "resume", "shard-0").exit_code == 0
    assert states() == {"shard-0": "spare", "shard-1": "spare"}
