"""Every setting of a deployment: its default, unit, safe range, and the reason for the default.

This is the only reader of settings from the environment and of the settings file. Values are taken, strongest first,
from `TALLYGATE_<GROUP>__<NAME>`, from the well-known variables below (`DATABASE_URL`, `TALLYGATE_URL` ...), from the TOML
file that `TALLYGATE_SETTINGS` names (else `tallygate.toml` in the working directory, if there is one), and from the
defaults below. `tallygate settings` prints them all.

What is a law of rating (periods, the duplicate window, the allowed skew) is not a setting: engine/README.md.
"""

import base64
import binascii
import ipaddress
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import parse_qs, urlsplit

from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as UnreadableVariable

PREFIX: Final = "TALLYGATE_"
DELIMITER: Final = "__"
FILE_VARIABLE: Final = "TALLYGATE_SETTINGS"
PLUGIN_PREFIX: Final = (
    "TALLYGATE_SERVED_"  # of the plug-in in inference servers, which may share an environment with us
)
FILE_NAME: Final = "tallygate.toml"
FILE_BYTES_MAX: Final = 1 << 20
CONTROL_KEY_BYTES_MIN: Final = 32

# Variables that other tools set too, and the setting each one fills.
WELL_KNOWN: Final[Mapping[str, tuple[str, ...]]] = {
    "DATABASE_URL": ("postgres", "dsn"),
    "KAFKA_BOOTSTRAP_SERVERS": ("kafka", "bootstrap_servers"),
    "RAY_ADDRESS": ("ray_address",),
    "TRACE": ("trace",),
    "TALLYGATE_URL": ("client", "url"),
    "TALLYGATE_KEY": ("client", "key"),
    "TALLYGATE_REASON": ("client", "reason"),
}

_SECRETS: Final = frozenset({"dsn", "secret", "control_key", "key", "sasl_password"})
_SHARED_NETWORK: Final = ipaddress.IPv4Network("100.64.0.0/10")  # of carriers, clouds and overlay networks; not routed
_TOPIC_PATTERN: Final = r"^[A-Za-z0-9._-]{1,249}$"  # what Kafka accepts as a topic name
_SCHEMA_PATTERN: Final = r"^[a-z][a-z0-9_]{0,62}$"  # an identifier that needs no quotes in SQL


class SettingsError(ValueError):
    """The settings cannot be used; `faults` says, a line each, which one and why. Values are never shown."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def _setting(
    default: Any,
    reason: str,
    unit: str = "",
    *,
    ge: float | None = None,
    le: float | None = None,
    gt: float | None = None,
    pattern: str | None = None,
) -> Any:
    return Field(
        default=default, description=reason, json_schema_extra={"unit": unit}, ge=ge, le=le, gt=gt, pattern=pattern
    )


class _Group(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class PostgresSettings(_Group):
    dsn: SecretStr | None = _setting(
        None,
        "where the checkpoints live, as postgresql://user:password@host:port/database?sslmode=verify-full; "
        "without it the demo and the tests start a Postgres of their own",
        "URL",
    )
    schema_name: str = _setting(
        "tallygate",
        "keeps the tables apart from others in the same database; the engine's role is one for all of a server, so two "
        "deployments need two servers",
        pattern=_SCHEMA_PATTERN,
    )
    statement_timeout_ms: int = _setting(
        10_000,
        "a checkpoint of 5,000 accounts takes about 100 ms; a statement that takes 100 times as long is stuck, and the "
        "log is re-read from the last checkpoint instead",
        "milliseconds",
        ge=1_000,
        le=600_000,
    )
    lock_timeout_ms: int = _setting(
        1_000,
        "only the owner of a partition writes its row, so a longer wait means that another owner is at work",
        "milliseconds",
        ge=100,
        le=60_000,
    )

    @field_validator("dsn")
    @classmethod
    def _is_a_postgres_url(cls, dsn: SecretStr | None) -> SecretStr | None:
        if dsn is not None:
            try:
                parts = urlsplit(dsn.get_secret_value())
                named = parts.hostname or "host" in parse_qs(parts.query)
                _ = parts.port  # raises when it is not a port
            except ValueError:
                raise ValueError("is not a URL") from None
            if parts.scheme not in ("postgresql", "postgres") or not named:
                raise ValueError("must be postgresql://user:password@host:port/database")
        return dsn


class KafkaSettings(_Group):
    bootstrap_servers: str | None = _setting(
        None,
        "brokers to ask first, as host:port,host:port; without it the demo and the tests start a broker of their own",
        "host:port list",
        pattern=r"^[^\s,]+:[0-9]{1,5}(,[^\s,]+:[0-9]{1,5})*$",
    )
    tls: bool = _setting(
        False, "speaks TLS to the brokers, and checks their certificates and names; production refuses to go without"
    )
    tls_ca_file: Path | None = _setting(
        None, "the authorities that vouch for the brokers, as PEM; without it those that this machine trusts", "file"
    )
    tls_cert_file: Path | None = _setting(
        None, "what shows the brokers who we are, as PEM; it may hold the key too", "file"
    )
    tls_key_file: Path | None = _setting(None, "the key of that certificate, as PEM without a password", "file")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = _setting(
        None, "how we say to the brokers who we are, where they want a name and a password"
    )
    sasl_username: str | None = _setting(None, "the name", pattern=r"^.{1,256}$")
    sasl_password: SecretStr | None = _setting(None, "the password")
    topic_usage: str = _setting("usage", "the log: usage events and control records", pattern=_TOPIC_PATTERN)
    topic_rated: str = _setting("rated", "blocks of charges, for a warehouse", pattern=_TOPIC_PATTERN)
    topic_dead_letters: str = _setting(
        "dead-letters", "records that could not be rated, with the reason", pattern=_TOPIC_PATTERN
    )
    topic_served: str = _setting(
        "served", "requests as they were executed, and replicas as they come and go", pattern=_TOPIC_PATTERN
    )
    topic_gpu_telemetry: str = _setting(
        "gpu-telemetry", "what GPUs and inference engines say of themselves", pattern=_TOPIC_PATTERN
    )
    topic_costs: str = _setting("costs", "what requests and GPUs cost, as lines", pattern=_TOPIC_PATTERN)
    partitions: int = _setting(
        8,
        "the most shards that can ever share the work, since an account's partition follows from this number: "
        "changing it later is a migration, not a setting",
        "partitions",
        ge=1,
        le=1_024,
    )
    replication_factor: int = _setting(
        1,
        "one broker is all a laptop has; production needs 3, to lose a broker without losing the log",
        "replicas",
        ge=1,
        le=7,
    )
    min_insync_replicas: int = _setting(
        1, "replicas that must hold a record before it counts as written; production needs 2", "replicas", ge=1, le=6
    )
    fetch_max_wait_ms: int = _setting(
        25,
        "how long a broker may hold a fetch open while nothing arrives; the client's own default of 500 ms would be "
        "the delay of every alert",
        "milliseconds",
        ge=1,
        le=500,
    )
    fetch_records_max: int = _setting(
        2_000,
        "one batch is rated in about 60 ms at 30 microseconds each: long enough to amortise the fetch, short enough "
        "not to delay a lease",
        "records",
        ge=1,
        le=50_000,
    )
    retention_days: int = _setting(
        42,
        "the duplicate window of 35 days, so that the duplicate memory can be rebuilt from the log, and a week for the "
        "longest outage; it must also cover the age of the oldest sealed base that is still to be of use",
        "days",
        ge=36,
        le=3_650,
    )

    @model_validator(mode="after")
    def _replicas_suffice(self) -> Self:
        if self.min_insync_replicas > self.replication_factor:
            raise ValueError("min_insync_replicas is above replication_factor: no record could ever be written")
        topics = [getattr(self, name) for name in type(self).model_fields if name.startswith("topic_")]
        if len(set(topics)) < len(topics):
            raise ValueError("two of the topics have one name: each must be a topic of its own")
        return self

    @field_validator("tls_ca_file", "tls_cert_file", "tls_key_file")
    @classmethod
    def _is_found_from_anywhere(cls, path: Path | None) -> Path | None:
        """Shards and replicas do not start in the folder that this process was started in."""
        if path == Path():
            raise ValueError("names no file")
        return None if path is None else path.absolute()

    @model_validator(mode="after")
    def _the_way_in_is_whole(self) -> Self:
        if self.sasl_password is not None and not self.sasl_password.get_secret_value():
            raise ValueError("sasl_password is empty")
        sasl = (self.sasl_mechanism, self.sasl_username, self.sasl_password)
        if None in sasl and sasl != (None, None, None):
            raise ValueError("sasl_mechanism, sasl_username and sasl_password belong together")
        if not self.tls and (self.tls_ca_file or self.tls_cert_file or self.tls_key_file):
            raise ValueError("tls is off, and so its files would be of no use")
        if self.tls_key_file is not None and self.tls_cert_file is None:
            raise ValueError("tls_key_file is the key of tls_cert_file, which is not set")
        if self.sasl_mechanism == "PLAIN" and not self.tls:
            raise ValueError(
                "sasl_mechanism PLAIN would show the password to the network: set tls, or take SCRAM-SHA-512"
            )
        return self


class ShardSettings(_Group):
    shards: int = _setting(
        2,
        "processes that rate; two, so that a live one can take over when the other dies",
        "processes",
        ge=1,
        le=1_024,
    )
    checkpoint_interval_s: float = _setting(
        1.0,
        "how much of the log a successor reads again after a crash: shorter costs Postgres more, longer delays it. Where "
        "more than 1,000 accounts change in that time, it is a second for each 1,000 of them",
        "seconds",
        ge=0.2,
        le=10.0,
    )
    checkpoint_interval_max_s: float = _setting(
        10.0,
        "but never longer than this",
        "seconds",
        ge=0.2,
        le=60.0,
    )
    checkpoint_dirty_max: int = _setting(
        20_000,
        "changed accounts that start a checkpoint before its time; at 20 microseconds each it takes Postgres 0.4 s",
        "accounts",
        ge=100,
        le=1_000_000,
    )
    rating_slice_events: int = _setting(
        2,
        "rating looks at the clock after so many events: one takes 0.02 ms where nothing is crossed, and ten times that "
        "where much is, while a look costs a hundredth of the cheapest",
        "events",
        ge=1,
        le=10_000,
    )
    rating_slice_ms: float = _setting(
        0.3,
        "rating lets others run after this long: nobody who asks about a balance waits for a whole batch",
        "milliseconds",
        ge=0.05,
        le=50.0,
    )
    door_network: str = _setting(
        "127.0.0.0/8",
        "a shard's door, which answers the API and SmartClient, listens at its machine's address in this network: by default "
        "for that machine alone. Shards and API on several machines need one that all of them are in, such as 10.0.0.0/16; "
        "a door speaks no TLS, so choose one that is closed or encrypted",
        "network",
    )
    dedup_folder: Path = _setting(
        Path.home() / ".cache" / "tallygate" / "runs",
        "where copies of sealed runs of the memory of rated events lie, so that a search reads them in place and a "
        "takeover on this machine need not fetch them; shared by all shards of a machine, safe to delete at any time",
        "path",
    )
    dedup_disk_gb: float = _setting(
        20.0,
        "above this, the copies used longest ago are deleted; 50 million events per partition in 35 days take 0.9 GB",
        "GB",
        ge=0.1,
        le=10_000.0,
    )
    hold_ttl_max_s: float = _setting(
        120.0,
        "the longest life of a hold without an extension: longer streams extend. After a crash of its owner, an "
        "account's held credit may be withheld for this long, the report delay and about 16 s more",
        "seconds",
        ge=1.0,
        le=43_200.0,
    )
    report_delay_s: float = _setting(
        60.0,
        "how long after a hold's expiry its usage may still reach the log and be covered by it; credit that nobody "
        "used is free again only then",
        "seconds",
        ge=1.0,
        le=3_600.0,
    )

    @field_validator("door_network")
    @classmethod
    def _is_a_network(cls, network: str) -> str:
        try:
            ipaddress.ip_network(network)
        except ValueError:
            raise ValueError("is no network, such as 10.0.0.0/16") from None
        return network

    @model_validator(mode="after")
    def _intervals_fit(self) -> Self:
        if self.checkpoint_interval_s > self.checkpoint_interval_max_s:
            raise ValueError("checkpoint_interval_s is above checkpoint_interval_max_s")
        return self


class ShadowSettings(_Group):
    actors: int = _setting(
        0,
        "processes that rate live usage a second time under drafts of the catalogue (`tallygate catalogue shadow`); each "
        "holds the accounts of its partitions twice for each shadow",
        "processes",
        ge=0,
        le=64,
    )
    interval_s: float = _setting(
        1.0,
        "between two looks at what the owners of the log have written",
        "seconds",
        ge=0.1,
        le=60.0,
    )


class CostSettings(_Group):
    actors: int = _setting(
        0,
        "processes that attribute GPU cost to requests; 0 where no GPUs of one's own serve them. A core attributes some "
        "tens of thousands of ended requests a second",
        "processes",
        ge=0,
        le=256,
    )
    interval_s: float = _setting(
        0.5,
        "between two looks at what has come: what a request cost is told, and in the margin, within one of them and what "
        "two looks take; each look works the last windows out again, so half of it costs about twice the processor",
        "seconds",
        ge=0.1,
        le=60.0,
    )
    window_s: int = _setting(
        10,
        "what a replica costs is settled by windows of this length; it divides an hour",
        "seconds",
        ge=1,
        le=600,
    )
    settle_s: int = _setting(
        960,
        "how long a window waits for what is late: what comes behind it is a correction. A quarter of an hour, and a "
        "minute for clocks that differ",
        "seconds",
        ge=1,
        le=86_400,
    )
    close_s: int = _setting(
        21_600,
        "how long an hour can still be corrected; a new owner reads the records of that time again, and holds them in "
        "memory: about 1.7 kB for each request, and 3 kB more of one with three rated lines to know its margin",
        "seconds",
        ge=3_600,
        le=604_800,
    )

    change_rows_days: int = _setting(
        7,
        "how long the single differences are kept that made what an hour cost: a week to see who was corrected, and when. "
        "At 2,000 requests a second there are 3,400 a second; what they come to is kept for good",
        "days",
        ge=1,
        le=3_650,
    )
    run_rows_days: int = _setting(
        400,
        "how long the margin of each run is kept, by hour: a year to look back on, and a month to do so. What an hour earned "
        "and cost in all is kept for good; only which run it was is dropped",
        "days",
        ge=36,
        le=3_650,
    )

    @model_validator(mode="after")
    def _windows_fit(self) -> Self:
        if 3_600 % self.window_s:
            raise ValueError(f"window_s: an hour is no whole number of windows of {self.window_s} s")
        if self.settle_s > self.close_s:
            raise ValueError("settle_s is above close_s: an hour would close before it has settled")
        return self


class LeaseSettings(_Group):
    lease_s: float = _setting(
        1.2,
        "how long a silent shard may still believe that it owns its partitions; a successor waits it out unless it "
        "has proof of death, so this bounds the pause after a lost machine",
        "seconds",
        ge=0.5,
        le=30.0,
    )
    renew_every_s: float = _setting(
        0.3, "four attempts in a lease of 1.2 s, so that one slow answer does not cost it", "seconds", ge=0.05, le=10.0
    )
    controller_lease_s: float = _setting(
        3.0, "the controller is off the data path, so its successor may come later", "seconds", ge=1.0, le=60.0
    )
    rebalance_after_s: float = _setting(
        30.0,
        "how long no shard may have come, gone or moved anything before a few partitions go to one that has fewer: "
        "a shard that keeps crashing gets none, and a rollout moves them once",
        "seconds",
        ge=0.5,
        le=3_600.0,
    )
    clock_jump_max_s: float = _setting(
        300.0,
        "a broker's append time that runs ahead of our clock by more halts the partition, since log time never goes "
        "back; equals the skew that an event's own time is allowed",
        "seconds",
        ge=10.0,
        le=3_600.0,
    )

    @model_validator(mode="after")
    def _renews_in_time(self) -> Self:
        if self.renew_every_s * 2 > self.lease_s:
            raise ValueError("renew_every_s must be at most half of lease_s: one lost answer would end the lease")
        return self


class WebhookSettings(_Group):
    url: str | None = _setting(
        None, "who is told of alerts; without it they stay in the outbox", "URL", pattern=r"^https?://[^\s]{1,2000}$"
    )
    secret: SecretStr | None = _setting(
        None, "signs each alert: whsec_ and 24 to 64 bytes in base64, as Standard Webhooks has it"
    )
    attempts_max: int = _setting(
        12,
        "about two and a half hours with the back-off below; then the alert is given up, and says so",
        "attempts",
        ge=1,
        le=100,
    )
    backoff_base_s: float = _setting(
        5.0, "the wait after the first failure; it doubles each time, with jitter", "seconds", ge=0.05, le=60.0
    )
    backoff_max_s: float = _setting(
        3_600.0, "the longest wait between two attempts, an hour", "seconds", ge=1.0, le=86_400.0
    )
    timeout_s: float = _setting(
        15.0, "a whole attempt, name look-up included; Standard Webhooks advises 15 to 30", "seconds", ge=1.0, le=60.0
    )
    concurrency: int = _setting(
        16,
        "attempts in flight at once at this receiver, per shard; an endpoint made through the API gets four",
        "attempts",
        ge=1,
        le=512,
    )
    pending_max: int = _setting(
        10_000,
        "alerts in memory; more wait in the outbox, so that a dead receiver cannot fill the memory",
        "alerts",
        ge=100,
        le=1_000_000,
    )
    allow_loopback: bool = _setting(
        False, "lets alerts go to this machine, for a receiver under development; private networks stay closed"
    )

    @model_validator(mode="after")
    def _url_and_secret_belong_together(self) -> Self:
        if (self.url is None) != (self.secret is None):
            raise ValueError("url and secret belong together: set both, or neither")
        if self.backoff_base_s > self.backoff_max_s:
            raise ValueError("backoff_base_s is above backoff_max_s")
        return self


class ApiSettings(_Group):
    host: str = _setting(
        "127.0.0.1",
        "the address that the HTTP API listens on; it has no TLS of its own",
        pattern=r"^[0-9a-fA-F.:]{2,45}$",
    )
    port: int = _setting(8400, "the port of the HTTP API; no other well-known server uses it", "port", ge=1, le=65_535)
    replicas: int = _setting(
        2, "with one, a crash is an outage of seconds; with two, the other goes on", "replicas", ge=1, le=64
    )
    proxies: Literal["every_node", "head"] = _setting(
        "every_node",
        "where Serve's proxy listens on the port: on every machine that runs a replica, or on the head of the cluster "
        "alone, which nodes that share one machine need",
    )
    in_flight_max: int = _setting(
        1_000,
        "of one replica; a request takes about 2 ms, so that what waits behind more would be answered too late to be "
        "of use, and is told to come again",
        "requests",
        ge=10,
        le=100_000,
    )
    key_in_flight_max: int = _setting(
        64,
        "of one key in one replica: a caller who floods waits for itself, not everybody",
        "requests",
        ge=1,
        le=10_000,
    )
    body_deadline_s: float = _setting(
        5.0,
        "within which a body must have arrived, or a slow sender would hold a place for ever",
        "seconds",
        ge=0.5,
        le=60.0,
    )
    tls_in_front: bool = _setting(
        False, "says that whatever stands before the API ends TLS; production refuses an open address without it"
    )
    key_environment: str = _setting(
        "live", "stands in every key, so that one of a test deployment is known at sight", pattern=r"^[a-z0-9]{1,12}$"
    )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in ("127.0.0.1", "::1")


class ClientSettings(_Group):
    url: str | None = _setting(
        None,
        "the API that the command line talks to; without it, the one that `tallygate up` runs in this folder",
        "URL",
        pattern=r"^https?://[^\s]{1,2000}$",
    )
    key: SecretStr | None = _setting(None, "the API key that the command line shows there")
    reason: str | None = _setting(
        None,
        "why the command line changes something: stands in the audit trail with each change that it asks for",
        pattern=r"^[^\x00-\x1f\x7f]{1,500}$",
    )
    plain_http: bool = _setting(
        False, "lets the key cross a network in the clear, where something else (a mesh, a tunnel) encrypts"
    )


class Settings(_Group):
    """All settings of a deployment. Immutable; printing it shows no secret."""

    profile: Literal["development", "production"] = _setting(
        "development", "production refuses settings that are only safe on a developer's machine"
    )
    control_key: SecretStr | None = _setting(
        None,
        "seals the control records: whoever has it can grant credit; at least 32 bytes, in hex or base64; without it "
        "the demo makes one per run",
    )
    sandbox: bool = _setting(
        False, "lets an admin key move the clock of the log forward, to try a year of billing in a minute"
    )
    ray_address: str | None = _setting(
        None, "the Ray cluster to join; without it the demo and the tests start a local one", "address"
    )
    trace: Path | None = _setting(
        None, "the request trace that the demo replays; without it the demo generates one of the same shape", "file"
    )
    postgres: PostgresSettings = PostgresSettings()
    kafka: KafkaSettings = KafkaSettings()
    shard: ShardSettings = ShardSettings()
    cost: CostSettings = CostSettings()
    shadow: ShadowSettings = ShadowSettings()
    lease: LeaseSettings = LeaseSettings()
    webhooks: WebhookSettings = WebhookSettings()
    api: ApiSettings = ApiSettings()
    client: ClientSettings = ClientSettings()

    @field_validator("control_key")
    @classmethod
    def _is_a_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and len(_key_bytes(key)) < CONTROL_KEY_BYTES_MIN:
            raise ValueError(f"must hold at least {CONTROL_KEY_BYTES_MIN} bytes")
        return key

    @model_validator(mode="after")
    def _production_is_safe(self) -> Self:
        if self.profile == "production" and (breaches := list(_breaches(self))):
            raise ValueError("\n".join(breaches))
        return self

    def control_key_bytes(self) -> bytes:
        """The key that seals control records. Raises SettingsError when none is set."""
        if self.control_key is None:
            raise SettingsError(
                [
                    f"control_key: is not set; set {PREFIX}CONTROL_KEY to the deployment's own "
                    "(of a new one: 32 random bytes in hex)"
                ]
            )
        return _key_bytes(self.control_key)

    def reveal(self) -> dict[str, Any]:
        """Plain values, SECRETS INCLUDED, to hand to another process: `Settings.model_validate` takes them back."""
        revealed: dict[str, Any] = _revealed(self.model_dump())
        return revealed


def _revealed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _revealed(item) for key, item in value.items()}
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value) if isinstance(value, Path) else value


def _key_bytes(key: SecretStr) -> bytes:
    text = key.get_secret_value()
    try:
        return bytes.fromhex(text)
    except ValueError:
        pass
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is neither hex nor base64") from None


def _breaches(settings: Settings) -> Iterator[str]:
    if settings.sandbox:
        yield "sandbox: must be off, or whoever has an admin key can make usage too old to be rated"
    if settings.control_key is None:
        yield f"control_key: is missing; set {CONTROL_KEY_BYTES_MIN} random bytes or more"
    dsn = settings.postgres.dsn
    if dsn is None:
        yield "postgres.dsn: is missing"
    else:
        parts = urlsplit(dsn.get_secret_value())
        if not parts.password:
            yield "postgres.dsn: has no password"
        if parse_qs(parts.query).get("sslmode") != ["verify-full"]:
            yield "postgres.dsn: must end in ?sslmode=verify-full, or the connection can be read and redirected"
    if settings.kafka.bootstrap_servers is None:
        yield "kafka.bootstrap_servers: is missing"
    if not settings.kafka.tls:
        yield "kafka.tls: must be on, or usage can be read, and made up, on its way"
    if settings.kafka.sasl_mechanism is None and settings.kafka.tls_cert_file is None:
        yield "kafka.sasl_mechanism: brokers cannot tell who writes usage; set it, or kafka.tls_cert_file"
    if settings.kafka.replication_factor < 3:
        yield "kafka.replication_factor: must be 3 or more, or the loss of a broker may lose the log"
    if settings.kafka.min_insync_replicas < 2:
        yield "kafka.min_insync_replicas: must be 2 or more, or a record may be acknowledged and lost"
    network = ipaddress.ip_network(settings.shard.door_network)
    shared = isinstance(network, ipaddress.IPv4Network) and network.subnet_of(_SHARED_NETWORK)
    if not network.is_private and not shared:
        yield "shard.door_network: must be a private network: a door speaks no TLS, and opens every account"
    if settings.webhooks.allow_loopback:
        yield "webhooks.allow_loopback: must be off, or alerts can be aimed at this machine's own services"
    if not settings.api.loopback and not settings.api.tls_in_front:
        yield "api.host: keys would cross the network in the clear; end TLS in front of it, and set api.tls_in_front"
    if settings.webhooks.url is not None and not settings.webhooks.url.startswith("https://"):
        yield "webhooks.url: must be https"


# ----------------------------------------------------------------------------------------------------------- reading


class _Outside(Settings, BaseSettings):
    """The settings as environment and file state them; only `load_settings` makes one."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter=DELIMITER, env_ignore_empty=True, extra="forbid"
    )

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *args: PydanticBaseSettingsSource, **sources: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (
            EnvSettingsSource(settings_cls),
            InitSettingsSource(settings_cls, _well_known()),
            InitSettingsSource(settings_cls, _file()),
        )


def _well_known() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable, (*groups, name) in WELL_KNOWN.items():
        if value := os.environ.get(variable):
            target = found
            for group in groups:
                target = target.setdefault(group, {})
            target[name] = value
    return found


def _file() -> dict[str, Any]:
    named = os.environ.get(FILE_VARIABLE)
    path = Path(named or FILE_NAME)
    if named is None and not path.exists():
        return {}
    try:
        with path.open("rb") as source:
            body = source.read(FILE_BYTES_MAX + 1)
        if len(body) > FILE_BYTES_MAX:
            raise SettingsError([f"{path}: is larger than {FILE_BYTES_MAX} bytes"])
        return tomllib.loads(body.decode())
    except OSError as error:
        raise SettingsError([f"{path}: cannot be read: {error.strerror}"]) from error
    except ValueError as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError([f"{path}: is not TOML: {error}"]) from error


def load_settings() -> Settings:
    """The settings of this process. Raises SettingsError with every fault found."""
    faults = list(_unknown_variables())
    try:
        # The plain class again: what travels to other processes must not read their environment.
        settings = Settings.model_validate(_Outside().reveal())
    except ValidationError as error:
        faults += [
            fault for details in error.errors(include_url=False, include_input=False) for fault in _told(details)
        ]
    except UnreadableVariable as error:
        faults.append(str(error))
    if faults:
        raise SettingsError(faults)
    return settings


def _told(details: Mapping[str, Any]) -> Iterator[str]:
    keys = [str(key) for key in details["loc"]]
    if details["type"] == "value_error":
        messages = str(details["ctx"]["error"]).splitlines()
    elif details["type"] == "extra_forbidden":
        messages = ["there is no such setting" + _meant(keys[-1], _names(keys[:-1]))]
    else:
        messages = [details["msg"]]
    for message in messages:
        where = f"{'.'.join(keys)}: " if keys else ""
        named = keys or message.partition(":")[0].split(".")  # what production refuses begins with the setting's name
        yield f"{where}{message}" + (f" (file, or {_variables(named)})" if _is_setting(named) else "")


def _is_setting(keys: list[str]) -> bool:
    return bool(keys) and keys[-1] in _names(keys[:-1])


def _names(groups: list[str]) -> list[str]:
    model: type[_Group] = Settings
    for group in groups:
        field = model.model_fields.get(group)
        inner = None if field is None else _group_of(field)
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _group_of(field: FieldInfo) -> type[_Group] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, _Group) else None


def _variables(keys: list[str]) -> str:
    own = PREFIX + DELIMITER.join(keys).upper()
    return " or ".join([own, *(name for name, path in WELL_KNOWN.items() if list(path) == keys)])


def _meant(name: str, names: list[str]) -> str:
    close = get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _unknown_variables() -> Iterator[str]:
    """A misspelt variable would otherwise be ignored, and its default used in silence."""
    names = _names([])
    for variable in sorted(os.environ):
        own = variable.upper().startswith(PREFIX) and not variable.upper().startswith(PLUGIN_PREFIX)
        if own and variable.upper() not in (FILE_VARIABLE, *WELL_KNOWN):
            name = variable[len(PREFIX) :].lower().split(DELIMITER)[0]
            if name not in names:
                yield f"{variable}: there is no such setting{_meant(name, names)}"


# ---------------------------------------------------------------------------------------------------------- printing


class SettingRow(Struct, frozen=True):
    """One setting, for people."""

    key: str  # as in the file: group.name
    variable: str
    value: str  # as TOML has it, secrets masked; "" when not set
    default: str
    secret: bool
    unit: str
    safe_range: str
    reason: str


def setting_rows(settings: Settings) -> list[SettingRow]:
    """Every setting with its meaning, in the order of this file."""
    return list(_rows(settings, []))


def _rows(group: BaseModel, keys: list[str]) -> Iterator[SettingRow]:
    for name, field in type(group).model_fields.items():
        value = getattr(group, name)
        path = [*keys, name]
        if isinstance(value, _Group):
            yield from _rows(value, path)
            continue
        extra = field.json_schema_extra
        yield SettingRow(
            key=".".join(path),
            variable=_variables(path),
            value=_shown(value),
            default=_shown(field.default),
            secret=name in _SECRETS,
            unit=str(extra["unit"]) if isinstance(extra, dict) else "",
            safe_range=_safe_range(field),
            reason=field.description or "",
        )


def _shown(value: object) -> str:
    if value is None:
        return ""
    return json.dumps(str(value) if isinstance(value, Path | SecretStr) else value)


def _safe_range(field: FieldInfo) -> str:
    low, high = (
        next((getattr(limit, name) for limit in field.metadata if hasattr(limit, name)), None) for name in ("ge", "le")
    )
    return "" if low is None else f"{low} to {high}"
