"""`tallygate up` where nobody tries it: what production gets, and what it does not."""

from pathlib import Path

import pytest

from actors import up
from actors.deployment import NotReady
from config.settings import Settings

PRODUCTION = Settings().model_copy(update={"profile": "production"})
ACCESS = {"url": "https://api.example", "key": "tg_live_secret", "kafka": "b:9092"}


class Shelf:
    """A store that has the published versions up to `latest`; any other call is an error."""

    def __init__(self, latest: int | None) -> None:
        self._latest = latest
        self.open = False

    async def start(self) -> None:
        self.open = True

    async def stop(self) -> None:
        self.open = False

    async def latest_catalogue_version(self) -> int | None:
        assert self.open
        return self._latest


@pytest.mark.parametrize("latest", [None, 3])
async def test_production_charges_nobody_by_the_example(latest: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, said = Shelf(latest), list[str]()
    monkeypatch.setattr(up, "postgres_store", lambda settings: shelf)
    monkeypatch.setattr(up, "kafka_log", lambda settings: None)  # which nothing may be written to
    if latest is None:
        with pytest.raises(NotReady, match="no catalogue is published yet: run `tallygate catalogue publish FILE`"):
            await up._publish_first(PRODUCTION, said.append)
    else:
        await up._publish_first(PRODUCTION, said.append)
    assert (said, shelf.open) == ([], False)


def test_production_says_where_its_key_is_and_not_the_key() -> None:
    told = "\n".join(up._told_in_production(ACCESS, Path("/run")))
    assert ACCESS["url"] in told and "/run/access.json" in told
    assert ACCESS["key"] not in told
    assert any(ACCESS["key"] in line for line in up._welcome(ACCESS, True, Path("/run"))), "who tries it pastes it"


def test_a_shell_beside_it_is_told_how_kafka_lets_one_in() -> None:
    kafka = {"bootstrap_servers": "b:9092", "tls": True, "tls_ca_file": "/etc/ca.pem", "topic_usage": "events"}
    kafka |= {"sasl_mechanism": "SCRAM-SHA-512", "sasl_username": "me", "sasl_password": "it's"}
    postgres = {"dsn": "postgresql://o@h/d", "schema_name": "mine"}
    settings = Settings.model_validate({"control_key": "5a" * 32, "kafka": kafka, "postgres": postgres})
    lines = up._environment(settings, ACCESS).decode().splitlines()
    for line in (
        "export TALLYGATE_KAFKA__TLS=True",
        "export TALLYGATE_KAFKA__TLS_CA_FILE=/etc/ca.pem",
        "export TALLYGATE_KAFKA__SASL_USERNAME=me",
        """export TALLYGATE_KAFKA__SASL_PASSWORD='it'"'"'s'""",
        "export TALLYGATE_KAFKA__TOPIC_USAGE=events",
        "export TALLYGATE_POSTGRES__SCHEMA_NAME=mine",
    ):
        assert line in lines
    assert not any("BOOTSTRAP_SERVERS" in line and "TALLYGATE_" in line for line in lines)


def test_only_who_tries_it_gets_a_shadow_unasked() -> None:
    assert up._with_shadows(PRODUCTION).shadow.actors == 0
    assert up._with_shadows(Settings()).shadow.actors == 1
