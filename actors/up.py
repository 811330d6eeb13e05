"""`make up`: a whole deployment, kept running; on this machine unless the settings name servers and a Ray of others.

To try it there is an example catalogue, a customer and a key. Production gets none of that but a first key: it brings its
own catalogue. Everything else lives in one run folder: data, control key, keys. The next start finds it all again.
"""

import asyncio
import ipaddress
import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

import orjson
from pydantic import SecretStr

from actors.api_client import ApiClient, ApiRefused, path_of
from actors.assembly import issue_key, kafka_log, postgres_store
from actors.clock import SystemClock
from actors.deployment import NotReady, deployed, lay_ground
from actors.keys import KeyScope
from actors.publication import publish
from actors.web.times import instant
from config.catalogue import load_file
from config.settings import Settings
from config.stack.embedded import kept_stack
from config.stack.ports import is_free
from config.stack.ray_local import join_ray, record_ray, start_ray
from config.stack.supervisor import Supervisor

CATALOGUE_FILE: Final = Path(__file__).resolve().parents[1] / "config" / "catalogue.example.yaml"
ACCESS_FILE: Final = "access.json"  # in the run folder: URL, key and Kafka, for the command line beside it
ENVIRONMENT_FILE: Final = "env"  # likewise: the settings of commands that read Postgres and Kafka themselves
CUSTOMER: Final = "acme"
PLAN: Final = "starter"
GRANT: Final = "25"
GRANT_BACK_US: Final = 3_600_000_000
NOT_FOUND: Final = 404
RECORD_EVERY_S: Final = 5.0

Say = Callable[[str], None]


def run(settings: Settings, run_dir: Path, say: Say) -> None:
    """Until Ctrl-C or SIGTERM. Raises what keeps it from coming up; what was started is stopped, however it ends."""
    with Supervisor(run_dir, say=say) as supervisor:
        # In a Ray that goes on without us the port is Serve's, also when nothing of ours runs in it.
        if settings.ray_address is None and not is_free(settings.api.port, settings.api.host):
            raise NotReady(
                f"port {settings.api.port} of {settings.api.host} is taken: set TALLYGATE_API__PORT to another"
            )
        prepared = kept_stack(supervisor, settings)
        if prepared.ray_address is None:
            start_ray(supervisor, num_cpus=max(2, os.cpu_count() or 2, prepared.shard.shards), serve=True)
        else:
            join_ray(prepared.ray_address, guarded=prepared.profile == "production")
        asyncio.run(_serve(supervisor, _with_shadows(prepared), say))


def _with_shadows(settings: Settings) -> Settings:
    """Whoever tries it tries drafts too; production has as many as it says."""
    if settings.profile == "production":
        return settings
    shadow = settings.shadow.model_copy(update={"actors": max(1, settings.shadow.actors)})
    return settings.model_copy(update={"shadow": shadow})


async def _serve(supervisor: Supervisor, given: Settings, say: Say) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(signal_number: int) -> None:
        say("stopping; a second Ctrl-C leaves what is not yet stopped to the next start")
        stopping.set()
        loop.remove_signal_handler(signal_number)
        signal.signal(signal_number, signal.default_int_handler)

    settings = await lay_ground(given)
    await _publish_first(settings, say)
    async with deployed(settings, supervisor.run_dir / "locks", say):
        # Set now: Ray and Serve set their own while they start, and would leave without handing over.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        recording = asyncio.create_task(_record(supervisor, settings))
        access = await _access(settings, supervisor.run_dir / ACCESS_FILE)
        if settings.profile == "production":
            lines = _told_in_production(access, supervisor.run_dir)
        else:
            _write_for_its_owner(supervisor.run_dir / ENVIRONMENT_FILE, _environment(settings, access))
            lines = _welcome(access, await _first_customer(access), supervisor.run_dir)
        for line in lines:
            say(line)
        await stopping.wait()
        recording.cancel()


async def _record(supervisor: Supervisor, settings: Settings) -> None:
    """Replicas are replaced and HAProxy is started anew at every change: the next start must know them after a crash."""
    while settings.ray_address is None:
        record_ray(supervisor)
        await SystemClock().sleep(RECORD_EVERY_S)


async def _publish_first(settings: Settings, say: Say) -> None:
    """The example catalogue, in a store that has none. In production it raises NotReady there: nobody is to pay by it."""
    store, log = postgres_store(settings), kafka_log(settings)
    await store.start()
    try:
        if await store.latest_catalogue_version() is not None:
            return
        if settings.profile == "production":
            raise NotReady("no catalogue is published yet: run `tallygate catalogue publish FILE`, then this again")
        say("catalogue: publishing the example as version 1")
        await log.start()
        try:
            await publish(
                load_file(CATALOGUE_FILE),
                store=store,
                log=log,
                clock=SystemClock(),
                topic=settings.kafka.topic_usage,
                control_key=settings.control_key_bytes(),
            )
        finally:
            await log.stop()
    finally:
        await store.stop()


async def _access(settings: Settings, path: Path) -> dict[str, str]:
    """URL and demo key; the key is made once, and kept in a file that only its owner may read."""
    url = f"http://{_reached_at(settings.api.host)}:{settings.api.port}"
    key = read_access(path).get("key")
    if key is None:
        key = await issue_key(settings, SystemClock(), "make up", list(KeyScope), created_by="tallygate up")
    access = {"url": url, "key": key, "kafka": settings.kafka.bootstrap_servers or ""}
    _write_for_its_owner(path, orjson.dumps(access))
    return access


def _environment(settings: Settings, access: dict[str, str]) -> bytes:
    """For a shell that reads it with `.`: the servers, and the control key."""
    dsn, control_key = settings.postgres.dsn, settings.control_key
    assert dsn is not None
    assert control_key is not None
    values = {
        "DATABASE_URL": dsn.get_secret_value(),
        "KAFKA_BOOTSTRAP_SERVERS": access["kafka"],
        "TALLYGATE_CONTROL_KEY": control_key.get_secret_value(),
        "TALLYGATE_URL": access["url"],
        "TALLYGATE_KEY": access["key"],
    }
    for group, beside in (("postgres", settings.postgres), ("kafka", settings.kafka)):
        for name, value in beside.model_dump(exclude_defaults=True).items():
            if name not in ("dsn", "bootstrap_servers"):
                told = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
                values[f"TALLYGATE_{group.upper()}__{name.upper()}"] = told
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    note = (
        "# For commands beside `tallygate up`, in a shell of their own: `up` itself must not be given its own servers."
    )
    return "\n".join([note, *lines, ""]).encode()


def _reached_at(host: str) -> str:
    """From this machine; `host` may stand for all of its addresses."""
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        return "127.0.0.1"
    return f"[{address}]" if address.version == 6 else str(address)


def read_access(path: Path) -> dict[str, str]:
    """What an earlier start wrote; empty when there was none."""
    kept: dict[str, str] = orjson.loads(path.read_bytes()) if path.exists() else {}
    return kept


def _write_for_its_owner(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)


async def _first_customer(access: dict[str, str]) -> bool:
    """Open the customer and give it credit, over the API as anybody would; whether it is new."""
    async with ApiClient(access["url"], access["key"]) as api:
        try:
            await api.get(path_of("customers", CUSTOMER))
            made = False
        except ApiRefused as refused:
            if refused.status != NOT_FOUND:
                raise
            await api.change("POST", "/v1/customers", {"account": CUSTOMER, "plan": PLAN})
            made = True
        # A start that was interrupted between the two is completed by the next one.
        lots = await api.get(path_of("customers", CUSTOMER, "grants"))
        if not lots["items"]:
            # Usage bears its own time, and a shell's has whole seconds: the first event may seem older than the credit.
            effective = instant(SystemClock().wall_us() - GRANT_BACK_US)
            grant = {"lot": "welcome", "amount": GRANT, "currency": "USD", "kind": "promo", "effective": effective}
            await api.change("POST", path_of("customers", CUSTOMER, "grants"), grant)
    return made


def _told_in_production(access: dict[str, str], run_dir: Path) -> list[str]:
    """Logs are kept, and read by many: no key stands in them."""
    return [
        f"tallygate is up at {access['url']}   (documents: {access['url']}/openapi.json)",
        f"a key with every scope is in {run_dir / ACCESS_FILE}; make others with `tallygate keys create`, then revoke it",
        "Ctrl-C stops everything in order; the next start finds it again",
    ]


def _welcome(access: dict[str, str], made: bool, run_dir: Path) -> list[str]:
    url, key = access["url"], access["key"]
    event = (
        f'{{"specversion":"1.0","id":"\'$(date +%s%N)\'","source":"shell","type":"llm.request","subject":"{CUSTOMER}",'
        '"time":"\'$(date -u +%Y-%m-%dT%H:%M:%SZ)\'",'
        '"data":{"model":"atlas-small","input_tokens":1200,"output_tokens":350}}'
    )
    check = (
        f'{{"account":"{CUSTOMER}","type":"llm.request","data":{{"model":"atlas-small"}},'
        '"bounds":[{"fields":["input_tokens"],"up_to":1200},{"fields":["output_tokens"],"up_to":4096}],'
        '"hold":{"ttl_s":60}}'
    )
    return [
        "",
        f"tallygate is up at {url}   (documents: {url}/openapi.json)",
        f"customer {CUSTOMER}, plan {PLAN}" + (f", with {GRANT} USD of credit" if made else ", as it was left"),
        f"key      {key}",
        f"         also in {run_dir / ACCESS_FILE}; more keys: tallygate keys create",
        f"in another shell, `. {run_dir / ENVIRONMENT_FILE}` names Postgres and Kafka to commands that read them",
        "",
        "send a usage event, ask before the next request, see the balance:",
        "",
        f"curl -sS {url}/v1/events -H 'Authorization: Bearer {key}' "
        f"-H 'Content-Type: application/cloudevents+json' -d '{event}'",
        "",
        f"curl -sS {url}/v1/check -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{check}'",
        "",
        f"curl -sS {url}/v1/customers/{CUSTOMER}/balance -H 'Authorization: Bearer {key}'",
        "",
        "Ctrl-C stops everything in order; the next start finds it again",
    ]
