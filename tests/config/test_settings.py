"""Settings: where they come from, what is refused, and that no secret is shown."""

import os
import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from config.settings import FILE_BYTES_MAX, Settings, SettingsError, load_settings, setting_rows

KEY = "0f" * 32
SAFE = {
    "TALLYGATE_PROFILE": "production",
    "TALLYGATE_CONTROL_KEY": KEY,
    "TALLYGATE_POSTGRES__DSN": "postgresql://engine:hunter2@db.internal/tallygate?sslmode=verify-full",
    "TALLYGATE_KAFKA__BOOTSTRAP_SERVERS": "a:9092,b:9092",
    "TALLYGATE_KAFKA__TLS": "true",
    "TALLYGATE_KAFKA__SASL_MECHANISM": "SCRAM-SHA-512",
    "TALLYGATE_KAFKA__SASL_USERNAME": "tallygate",
    "TALLYGATE_KAFKA__SASL_PASSWORD": "hunter2",
    "TALLYGATE_KAFKA__REPLICATION_FACTOR": "3",
    "TALLYGATE_KAFKA__MIN_INSYNC_REPLICAS": "2",
    "TALLYGATE_WEBHOOKS__URL": "https://hooks.example.com/alerts",
    "TALLYGATE_WEBHOOKS__SECRET": "whsec_" + "A" * 32,
}


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in list(os.environ):
        if variable.startswith("TALLYGATE_") or variable in (
            "DATABASE_URL",
            "KAFKA_BOOTSTRAP_SERVERS",
            "RAY_ADDRESS",
            "TRACE",
        ):
            monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)


def setenv(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for variable, value in values.items():
        monkeypatch.setenv(variable, value)


def faults() -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings()
    return caught.value.faults


def test_without_anything_said_the_defaults_hold() -> None:
    settings = load_settings()
    assert settings == Settings()
    assert (settings.kafka.partitions, settings.shard.shards, settings.lease.lease_s) == (8, 2, 1.2)
    assert settings.postgres.dsn is None


def test_a_variable_beats_the_well_known_one_which_beats_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tallygate.toml").write_text(
        '[postgres]\ndsn = "postgresql://file/db"\nlock_timeout_ms = 700\n[kafka]\nbootstrap_servers = "file:1"\n'
    )
    monkeypatch.setenv("DATABASE_URL", "postgresql://url/db")
    monkeypatch.setenv("TALLYGATE_POSTGRES__DSN", "postgresql://own/db")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "known:2")
    monkeypatch.setenv("TRACE", "trace.csv")
    settings = load_settings()
    assert settings.postgres.dsn is not None
    assert settings.postgres.dsn.get_secret_value() == "postgresql://own/db"
    assert settings.postgres.lock_timeout_ms == 700
    assert settings.kafka.bootstrap_servers == "known:2"
    assert settings.trace == Path("trace.csv")


def test_an_empty_variable_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, {"DATABASE_URL": "", "TALLYGATE_SHARD__SHARDS": ""})
    assert load_settings() == Settings()


def test_the_file_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYGATE_SETTINGS", "elsewhere.toml")
    assert faults() == ["elsewhere.toml: cannot be read: No such file or directory"]


@pytest.mark.parametrize(
    ("body", "told"), [(b"[kafka\n", "is not TOML"), (b"\xff", "is not TOML"), (b"#" * (FILE_BYTES_MAX + 1), "larger")]
)
def test_a_file_that_cannot_be_used_is_a_fault(body: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "tallygate.toml").write_bytes(body)
    (fault,) = faults()
    assert fault.startswith("tallygate.toml: ")
    assert told in fault


def test_every_fault_is_told_at_once_with_the_variable_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(
        monkeypatch,
        {
            "TALLYGATE_SHRAD__SHARDS": "2",
            "TALLYGATE_SERVED_REPLICA": "llama-0",  # the plug-in's own
            "TALLYGATE_PROFILE": "prod",
            "TALLYGATE_KAFKA__PARTITION": "4",
            "TALLYGATE_SHARD__SHARDS": "0",
            "TALLYGATE_LEASE__LEASE_S": "nan",
        },
    )
    assert faults() == [
        "TALLYGATE_SHRAD__SHARDS: there is no such setting; did you mean shard?",
        "profile: Input should be 'development' or 'production' (file, or TALLYGATE_PROFILE)",
        "kafka.partition: there is no such setting; did you mean partitions?",
        "shard.shards: Input should be greater than or equal to 1 (file, or TALLYGATE_SHARD__SHARDS)",
        "lease.lease_s: Input should be a finite number (file, or TALLYGATE_LEASE__LEASE_S)",
    ]


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("TALLYGATE_CONTROL_KEY", "0f" * 31, "at least 32 bytes"),
        ("TALLYGATE_CONTROL_KEY", "not a key", "neither hex nor base64"),
        ("DATABASE_URL", "mysql://hunter2@db/x", "must be postgresql://"),
        ("DATABASE_URL", "postgresql://u:hunter2@db:notaport/x", "is not a URL"),
        ("KAFKA_BOOTSTRAP_SERVERS", "broker", "kafka.bootstrap_servers"),
        ("TALLYGATE_KAFKA__MIN_INSYNC_REPLICAS", "2", "no record could ever be written"),
        ("TALLYGATE_KAFKA__TOPIC_RATED", "usage", "a topic of its own"),
        ("TALLYGATE_KAFKA__TOPIC_SERVED", "usage", "a topic of its own"),
        (
            "TALLYGATE_KAFKA__SASL_PASSWORD",
            "hunter2",
            "sasl_mechanism, sasl_username and sasl_password belong together",
        ),
        ("TALLYGATE_KAFKA__SASL_MECHANISM", "hunter2", "kafka.sasl_mechanism"),
        ("TALLYGATE_KAFKA__TLS_CA_FILE", "ca.pem", "tls is off"),
        ("TALLYGATE_KAFKA__TLS_CERT_FILE", ".", "names no file"),
        ("TALLYGATE_LEASE__RENEW_EVERY_S", "0.7", "at most half of lease_s"),
        ("TALLYGATE_WEBHOOKS__URL", "https://h.example.com", "url and secret belong together"),
        ("TALLYGATE_WEBHOOKS__BACKOFF_MAX_S", "2", "backoff_base_s is above backoff_max_s"),
        ("TALLYGATE_SHARD__DOOR_NETWORK", "10.0.0.7/16", "is no network, such as 10.0.0.0/16"),
        ("TALLYGATE_KAFKA", "hunter2", "kafka"),
    ],
)
def test_an_unusable_value_is_named_and_never_shown(
    variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    (fault,) = faults()
    assert told in fault
    assert "hunter2" not in fault


def test_production_accepts_safe_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, SAFE)
    assert load_settings().control_key_bytes() == bytes.fromhex(KEY)


def test_a_file_is_found_from_wherever_a_process_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    setenv(monkeypatch, {**SAFE, "TALLYGATE_KAFKA__TLS_CA_FILE": "ca.pem"})
    assert load_settings().kafka.tls_ca_file == tmp_path / "ca.pem"


@pytest.mark.parametrize("network", ["10.0.0.0/16", "100.64.0.0/10", "100.100.1.0/24", "fd00::/8"])
def test_production_takes_a_network_that_is_not_routed(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, {**SAFE, "TALLYGATE_SHARD__DOOR_NETWORK": network})
    assert load_settings().shard.door_network == network


def test_production_listens_openly_where_tls_is_in_front(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, {**SAFE, "TALLYGATE_API__HOST": "0.0.0.0", "TALLYGATE_API__TLS_IN_FRONT": "true"})
    assert load_settings().api.host == "0.0.0.0"


@pytest.mark.parametrize("profile", ["development", "production"])
def test_the_command_line_is_told_url_and_key_by_short_names(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"TALLYGATE_URL": "https://api.example", "TALLYGATE_KEY": "tg_live_x", "TALLYGATE_PROFILE": profile}
    setenv(monkeypatch, {**SAFE, **given})
    client = load_settings().client
    assert client.key is not None
    assert (client.url, client.key.get_secret_value()) == ("https://api.example", "tg_live_x")


def test_production_names_every_unsafe_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, {"TALLYGATE_PROFILE": "production", "TALLYGATE_WEBHOOKS__ALLOW_LOOPBACK": "true"})
    assert [fault.split(":")[0] for fault in faults()] == [
        "control_key",
        "postgres.dsn",
        "kafka.bootstrap_servers",
        "kafka.tls",
        "kafka.sasl_mechanism",
        "kafka.replication_factor",
        "kafka.min_insync_replicas",
        "webhooks.allow_loopback",
    ]


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("TALLYGATE_POSTGRES__DSN", "postgresql://engine@db/x?sslmode=verify-full", "has no password"),
        ("TALLYGATE_POSTGRES__DSN", "postgresql://engine:hunter2@db/x?sslmode=require", "verify-full"),
        ("TALLYGATE_KAFKA__MIN_INSYNC_REPLICAS", "1", "must be 2 or more"),
        ("TALLYGATE_KAFKA__TLS", "false", "kafka.tls: must be on"),
        ("TALLYGATE_WEBHOOKS__URL", "http://hooks.example.com", "must be https"),
        ("TALLYGATE_API__HOST", "0.0.0.0", "set api.tls_in_front"),
        ("TALLYGATE_SANDBOX", "true", "sandbox: must be off"),
        ("TALLYGATE_SHARD__DOOR_NETWORK", "0.0.0.0/0", "must be a private network"),
    ],
)
def test_production_refuses_one_unsafe_setting(
    variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    setenv(monkeypatch, {**SAFE, variable: value})
    (fault,) = faults()
    assert told in fault
    assert variable in fault, "so that it can be set"
    assert "hunter2" not in fault


def test_no_secret_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    setenv(monkeypatch, SAFE)
    settings = load_settings()
    printed = repr(settings) + str(settings) + repr(setting_rows(settings)) + settings.model_dump_json()
    for secret in (KEY, "hunter2", SAFE["TALLYGATE_WEBHOOKS__SECRET"]):
        assert secret not in printed


def test_settings_travel_to_another_process_whole_and_without_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setenv(monkeypatch, SAFE)
    settings = load_settings()
    revealed = pickle.loads(pickle.dumps(settings.reveal()))  # noqa: S301 - our own bytes, as Ray would carry them
    monkeypatch.setenv("TALLYGATE_SHARD__SHARDS", "7")
    arrived = Settings.model_validate(revealed)
    assert arrived == settings
    assert arrived.shard.shards == 2


def test_a_control_key_may_be_base64() -> None:
    key = "++//" * 11  # 33 bytes
    assert len(Settings.model_validate({"control_key": key}).control_key_bytes()) == 33


def test_asking_for_a_key_that_is_not_set_says_what_to_set() -> None:
    with pytest.raises(SettingsError, match="TALLYGATE_CONTROL_KEY"):
        Settings().control_key_bytes()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().kafka.partitions = 3  # type: ignore[misc]  # the point of the test


def test_every_setting_gives_a_reason_and_every_number_a_range_and_a_unit() -> None:
    for row in setting_rows(Settings()):
        assert row.reason, row.key
        if row.default.replace(".", "").isdigit():
            assert row.safe_range, row.key
            assert row.unit, row.key


def test_a_row_says_whether_its_value_is_a_secret() -> None:
    full = Settings.model_validate(
        {
            "control_key": KEY,
            "postgres": {"dsn": "postgresql://u@h/db"},
            "kafka": {"sasl_mechanism": "SCRAM-SHA-512", "sasl_username": "u", "sasl_password": "hunter2"},
            "webhooks": {"url": "https://h", "secret": "whsec_x"},
            "client": {"key": "tg_live_x"},
        }
    )
    masked = {row.key for row in setting_rows(full) if "**" in row.value}
    assert masked == {row.key for row in setting_rows(full) if row.secret}
