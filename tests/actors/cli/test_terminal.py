"""How commands end when what they call outside objects."""

import pytest

from actors import kafka
from actors.cli.terminal import FAILED
from actors.ports import LogUnavailable
from tests.actors.cli.calling import call


@pytest.mark.parametrize("error", [LogUnavailable("no broker at a:1"), kafka.TopicsDiffer("4 partitions, not 8")])
def test_a_broker_that_objects_is_a_failed_check(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    async def objects(*_: object) -> list[str]:
        raise error

    monkeypatch.setattr(kafka, "create_topics", objects)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "a:1")
    result = call("topics", "create")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (FAILED, str(error))
