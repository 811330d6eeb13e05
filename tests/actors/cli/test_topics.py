"""`tallygate topics`: made once, checked, never changed."""

import pytest

from actors.cli.terminal import FAILED, WRONG_INPUT
from tests.actors.cli.calling import call


@pytest.mark.parametrize("command", ["create", "check"])
def test_topics_without_brokers_say_what_to_set(command: str) -> None:
    result = call("topics", command)
    assert result.exit_code == WRONG_INPUT
    assert "KAFKA_BOOTSTRAP_SERVERS" in result.stderr


def test_topics_are_made_and_checked_on_a_real_broker(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
    roles = ("USAGE", "RATED", "DEAD_LETTERS", "SERVED", "GPU_TELEMETRY", "COSTS")
    for role in roles:
        monkeypatch.setenv(f"TALLYGATE_KAFKA__TOPIC_{role}", f"cli-{role}")
    assert call("topics", "check").exit_code == FAILED
    created = call("topics", "create")
    assert (created.exit_code, created.stdout) == (0, f"created {', '.join(f'cli-{role}' for role in roles)}\n")
    assert call("topics", "create").stdout == "all topics exist\n"
    assert call("topics", "check").exit_code == 0
    monkeypatch.setenv("TALLYGATE_KAFKA__PARTITIONS", "4")
    differs = call("topics", "check")
    assert differs.exit_code == FAILED
    assert "cli-USAGE has 8 partitions, kafka.partitions is 4" in differs.stderr
