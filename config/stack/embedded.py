"""Postgres and Kafka for whoever brings none: fresh ones that go with the run, or ones that a run folder keeps."""

import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from config.settings import Settings
from config.stack.kafka import KafkaUnavailable, start_kafka
from config.stack.postgres import PostgresUnavailable, kept_data_dir, start_postgres
from config.stack.supervisor import Supervisor

_KEY_FILE: Final = "control-key"
_PORTS_FILE: Final = "kafka-ports.json"


def fresh_stack(supervisor: Supervisor, settings: Settings) -> Settings:
    """The settings with what the operator has not given: a new Postgres, Kafka and control key, gone with the run."""
    folder = supervisor.run_dir / "kafka"  # its logs stay after the run, for whoever asks what happened
    shutil.rmtree(folder, ignore_errors=True)
    dsn = settings.postgres.dsn or SecretStr(start_postgres(supervisor).superuser_dsn)
    _refuse_tls(settings)
    bootstrap = settings.kafka.bootstrap_servers or start_kafka(supervisor, dir=folder).bootstrap_servers
    return _completed(settings, dsn, bootstrap, SecretStr(secrets.token_hex(32)))


def kept_stack(supervisor: Supervisor, settings: Settings) -> Settings:
    """As `fresh_stack`, but with data and control key of the run folder: the next run finds everything again.

    Raises PostgresUnavailable where there is a database and no key: a run folder was removed, and as root its Postgres lies
    elsewhere. Checkpoints of a log that is gone, sealed by a key that is gone, are of no use."""
    _refuse_tls(settings)
    dsn, key_file = settings.postgres.dsn, supervisor.run_dir / _KEY_FILE
    data_dir = kept_data_dir(supervisor) if dsn is None else None
    if data_dir is not None and data_dir.exists() and not key_file.exists():
        raise PostgresUnavailable(
            f"{data_dir.parent} is the Postgres of a run whose folder, {supervisor.run_dir}, was removed with its log and key: "
            "remove it as well to begin anew"
        )
    control_key = SecretStr(_kept_key(key_file))
    if dsn is None:
        dsn = SecretStr(start_postgres(supervisor, data_dir).superuser_dsn)
    bootstrap = settings.kafka.bootstrap_servers
    if bootstrap is None:
        bootstrap = _kept_kafka(supervisor)
    return _completed(settings, dsn, bootstrap, control_key)


def _refuse_tls(settings: Settings) -> None:
    kafka = settings.kafka
    if kafka.bootstrap_servers is None and (kafka.tls or kafka.sasl_mechanism is not None):
        raise KafkaUnavailable(
            "kafka.tls and kafka.sasl_mechanism are for brokers of your own, and kafka.bootstrap_servers names none: the "
            "one that is started here speaks neither"
        )


def _completed(settings: Settings, dsn: SecretStr, bootstrap: str, control_key: SecretStr) -> Settings:
    return settings.model_copy(
        update={
            "postgres": settings.postgres.model_copy(update={"dsn": dsn}),
            "kafka": settings.kafka.model_copy(update={"bootstrap_servers": bootstrap}),
            "control_key": settings.control_key or control_key,
        }
    )


def _kept_kafka(supervisor: Supervisor) -> str:
    """A broker's ports are part of its data: they are kept beside it."""
    folder = supervisor.run_dir / "kafka"
    kept = folder / _PORTS_FILE
    ports: tuple[int, int] | None = None
    if kept.exists():
        broker_port, controller_port = json.loads(kept.read_text())
        ports = (broker_port, controller_port)
    broker = start_kafka(supervisor, dir=folder, ports=ports)
    kept.write_text(json.dumps(broker.ports))
    return broker.bootstrap_servers


def _kept_key(path: Path) -> str:
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, secrets.token_hex(32).encode())
        finally:
            os.close(descriptor)
    return path.read_text().strip()
