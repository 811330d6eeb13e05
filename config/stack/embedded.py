"""Postgres and Kafka for whoever brings none: fresh ones that go with the run, or ones that a run folder keeps."""

import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from config.settings import Settings
from config.stack.kafka import start_kafka
from config.stack.postgres import kept_data_dir, start_postgres
from config.stack.supervisor import Supervisor

_KEY_FILE: Final = "control-key"
_PORTS_FILE: Final = "kafka-ports.json"


def fresh_stack(supervisor: Supervisor, settings: Settings) -> Settings:
    """The settings with what the operator has not given: a new Postgres, Kafka and control key, gone with the run."""
    folder = supervisor.run_dir / "kafka"  # its logs stay after the run, for whoever asks what happened
    shutil.rmtree(folder, ignore_errors=True)
    dsn = settings.postgres.dsn or SecretStr(start_postgres(supervisor).superuser_dsn)
    bootstrap = settings.kafka.bootstrap_servers or start_kafka(supervisor, dir=folder).bootstrap_servers
    return _completed(settings, dsn, bootstrap, SecretStr(secrets.token_hex(32)))


def kept_stack(supervisor: Supervisor, settings: Settings) -> Settings:
    """As `fresh_stack`, but with data and control key of the run folder: the next run finds everything again."""
    dsn = settings.postgres.dsn
    if dsn is None:
        dsn = SecretStr(start_postgres(supervisor, kept_data_dir(supervisor)).superuser_dsn)
    bootstrap = settings.kafka.bootstrap_servers
    if bootstrap is None:
        bootstrap = _kept_kafka(supervisor)
    return _completed(settings, dsn, bootstrap, SecretStr(_kept_key(supervisor.run_dir / _KEY_FILE)))


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
