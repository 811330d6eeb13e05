"""A real broker that lets nobody in without a certificate or a password: who may come, and what is told to who may not."""

import asyncio
import secrets
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from pydantic import SecretStr

from actors.assembly import NotConfigured, brokers, topic_settings
from actors.kafka import KafkaAppender, TopicReader, create_topics
from actors.ports import LogUnavailable, Outgoing
from config.settings import KafkaSettings, Settings
from config.stack.kafka import Listener, default_cache_dir, fetch_jars, find_java, start_kafka
from config.stack.ports import free_ports
from config.stack.supervisor import Supervisor
from tallygate_served.sink import KafkaSink

PASSWORD = secrets.token_urlsafe(16)
LOGIN = "org.apache.kafka.common.security"


class Door:
    """The ways into one broker, and what shows it who asks."""

    def __init__(self, folder: Path, servers: dict[str, str]) -> None:
        self.folder = folder
        self.servers = servers

    def settings(self, way: str, **kafka: object) -> Settings:
        """Of whoever comes this way; `sasl` may be left out, or wrong."""
        run = secrets.token_hex(4)
        names = {f"topic_{name}": f"{name}-{run}" for name in ("usage", "rated", "dead_letters")}
        stated = {"bootstrap_servers": self.servers[way], "partitions": 1} | names | kafka
        return Settings(kafka=KafkaSettings.model_validate(stated))

    def file(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture(scope="module")
def door(supervisor: Supervisor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("certificates")
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    stranger.cert_pem.write_to_path(folder / "other-ca.pem")
    _write(authority.issue_cert("127.0.0.1"), folder / "broker.pem")
    _write(authority.issue_cert("elsewhere.example"), folder / "elsewhere.pem")
    _write(authority.issue_cert("engine@example.org"), folder / "engine.pem")

    def shown(certificate: str) -> dict[str, str]:
        return {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(folder / certificate)}

    mutual = {"ssl.client.auth": "required", "ssl.truststore.type": "PEM"}
    mutual["ssl.truststore.location"] = str(folder / "ca.pem")
    users = f'{LOGIN}.plain.PlainLoginModule required user_engine="{PASSWORD}";'
    plain = {"sasl.enabled.mechanisms": "PLAIN", "plain.sasl.jaas.config": users}
    scram = {"sasl.enabled.mechanisms": "SCRAM-SHA-512"}
    scram["scram-sha-512.sasl.jaas.config"] = f"{LOGIN}.scram.ScramLoginModule required;"
    ports = free_ports(5)
    listeners = [
        Listener("TLS", ports[0], ports[0], protocol="SSL", settings=shown("broker.pem")),
        Listener("MUTUAL", ports[1], ports[1], protocol="SSL", settings=shown("broker.pem") | mutual),
        Listener("PLAIN", ports[2], ports[2], protocol="SASL_SSL", settings=shown("broker.pem") | plain),
        Listener("SCRAM", ports[3], ports[3], protocol="SASL_SSL", settings=shown("broker.pem") | scram),
        Listener("MISNAMED", ports[4], ports[4], protocol="SSL", settings=shown("elsewhere.pem")),
    ]
    broker = start_kafka(supervisor, listeners=listeners)
    _add_user(broker.bootstrap_servers)
    yield Door(folder, {each.name: f"127.0.0.1:{each.port}" for each in listeners})
    supervisor.stop(broker.pid)


def _write(certificate: trustme.LeafCert, path: Path) -> None:
    """A key, and what vouches for it. Kafka reads keys in this form only."""
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem + b"".join(each.bytes() for each in certificate.cert_chain_pems))


def _add_user(servers: str) -> None:
    """The name and password that SCRAM asks for are kept by the brokers themselves."""
    jars = fetch_jars(default_cache_dir(), lambda _: None)
    command = [str(find_java()), "-cp", f"{jars}/*", "kafka.admin.ConfigCommand", "--bootstrap-server", servers]
    command += ["--alter", "--entity-type", "users", "--entity-name", "engine"]
    added = ["--add-config", f"SCRAM-SHA-512=[password={PASSWORD}]"]
    subprocess.run([*command, *added], check=True, capture_output=True, timeout=120)


def sasl(mechanism: str, password: str = PASSWORD) -> dict[str, object]:
    return {"sasl_mechanism": mechanism, "sasl_username": "engine", "sasl_password": SecretStr(password)}


async def write_and_read(settings: Settings) -> bytes | None:
    """Topics are made, a record is written, and read back: by every kind of client there is."""
    asked = brokers(settings)
    await create_topics(asked, topic_settings(settings))
    names = {"usage": settings.kafka.topic_usage, "rated": settings.kafka.topic_rated}
    appender = KafkaAppender(asked, names | {"dead-letters": settings.kafka.topic_dead_letters}, timeout_s=5.0)
    await appender.start()
    try:
        await appender.append([Outgoing("usage", b"value", b"key")])
    finally:
        await appender.stop()
    reader = TopicReader(asked, timeout_s=5.0)
    await reader.start()
    try:
        (record,) = await reader.read_all(settings.kafka.topic_usage, 0)
        return record.value
    finally:
        await reader.stop()


@pytest.mark.parametrize(
    ("way", "kafka"),
    [
        ("TLS", {}),
        ("MUTUAL", {"tls_cert_file": "engine.pem"}),
        ("PLAIN", sasl("PLAIN")),
        ("SCRAM", sasl("SCRAM-SHA-512")),
    ],
)
async def test_who_shows_what_the_broker_wants_writes_and_reads(door: Door, way: str, kafka: dict[str, object]) -> None:
    kafka = {name: door.file(str(value)) if name.endswith("_file") else value for name, value in kafka.items()}
    settings = door.settings(way, tls=True, tls_ca_file=door.file("ca.pem"), **kafka)
    assert await write_and_read(settings) == b"value"


@pytest.mark.parametrize(
    ("way", "kafka"),
    [
        ("TLS", {"tls": False}),
        ("TLS", {"tls_ca_file": "other-ca.pem"}),
        ("MISNAMED", {}),
        ("MUTUAL", {}),
        ("PLAIN", sasl("PLAIN", "wrong")),
        ("SCRAM", sasl("SCRAM-SHA-512", "wrong")),
        ("SCRAM", {}),
    ],
)
async def test_nobody_else_comes_in_and_no_password_is_told(door: Door, way: str, kafka: dict[str, object]) -> None:
    stated: dict[str, object] = {"tls": True, "tls_ca_file": "ca.pem"} | kafka
    if stated["tls"] is False:
        del stated["tls_ca_file"]
    stated = {name: door.file(str(value)) if name.endswith("_file") else value for name, value in stated.items()}
    settings = door.settings(way, **stated)
    with pytest.raises(LogUnavailable) as refused:
        await create_topics(brokers(settings), topic_settings(settings), timeout_s=5.0)
    told = str(refused.value)
    assert PASSWORD not in told and "wrong" not in told
    assert ("over TLS" if settings.kafka.tls else "without TLS") in told
    assert ("as engine by" in told) == (settings.kafka.sasl_username is not None)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"tls_ca_file": "nowhere.pem"}, r"kafka\.tls_ca_file: .*nowhere\.pem: No such file"),
        ({"tls_cert_file": "nowhere.pem"}, r"kafka\.tls_cert_file: .*nowhere\.pem, with the key in it: No such file"),
        ({"tls_cert_file": "ca.pem"}, r"kafka\.tls_cert_file: .*ca\.pem, with the key in it: \[SSL\]"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(door: Door, files: dict[str, str], told: str) -> None:
    stated = {name: door.file(value) for name, value in files.items()}
    with pytest.raises(NotConfigured, match=told):
        brokers(door.settings("TLS", tls=True, **stated))


async def test_an_inference_server_comes_in_too(door: Door) -> None:
    settings = door.settings("SCRAM", tls=True, tls_ca_file=door.file("ca.pem"), **sasl("SCRAM-SHA-512"))
    await create_topics(brokers(settings), topic_settings(settings))
    context = ssl.create_default_context(cafile=door.file("ca.pem"))
    security = {"security_protocol": "SASL_SSL", "ssl_context": context, "sasl_mechanism": "SCRAM-SHA-512"}
    security |= {"sasl_plain_username": "engine", "sasl_plain_password": PASSWORD}
    sink = KafkaSink(door.servers["SCRAM"], settings.kafka.topic_usage, security=security)
    sink.put(b"key", b"value")
    await asyncio.to_thread(sink.close, 60)
    assert (sink.sent, sink.lost) == (1, 0)


def test_brokers_never_show_a_password(door: Door) -> None:
    settings = door.settings("SCRAM", **sasl("SCRAM-SHA-512"))
    assert PASSWORD not in repr(brokers(settings)) + str(brokers(settings))
