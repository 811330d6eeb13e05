"""The command line: what each command prints, where errors go, and the exit codes 0, 1 and 2."""

import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from typer.testing import CliRunner, Result

import tallygate
from actors import kafka
from actors.ports import LogUnavailable
from config.settings import WELL_KNOWN, Settings

EXAMPLE = Path(__file__).parents[1] / "config" / "catalogue.example.yaml"


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in WELL_KNOWN:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(tallygate.app, arguments)


def test_help_names_every_command() -> None:
    result = call("--help")
    assert result.exit_code == 0
    for command in ("catalogue", "topics", "migrate", "dead-letters", "settings", "demo"):
        assert command in result.stdout


def test_an_unknown_command_is_wrong_input() -> None:
    assert call("nothing").exit_code == tallygate.WRONG_INPUT


def test_check_counts_what_a_good_catalogue_holds() -> None:
    result = call("catalogue", "check", str(EXAMPLE))
    assert (result.exit_code, result.stdout) == (0, f"{EXAMPLE}: 2 meters, 2 plans, 12 prices; no faults\n")


def test_check_tells_every_fault_on_a_line_of_stderr(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("meters: {}\nplans: {}\nnonsense: 1\n")
    result = call("catalogue", "check", str(file))
    assert result.exit_code == tallygate.WRONG_INPUT
    assert result.stdout == ""
    assert result.stderr.splitlines() == [f"{file}:3: nonsense: there is no such key"]


def test_show_prints_every_tier() -> None:
    result = call("catalogue", "show", str(EXAMPLE))
    assert result.exit_code == 0
    for text in ("Plan growth, USD", "model = atlas-large", "20,000,000", "6.50", "1,000,000"):
        assert text in result.stdout


def test_show_takes_names_as_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "brackets.yaml"
    file.write_text(
        'meters:\n  "[/red]": {event_type: a, aggregation: count}\n'
        'plans:\n  p: {currency: USD, prices: {x: {meter: "[/red]", model: per_unit, amount: 1}}}\n'
    )
    result = call("catalogue", "show", str(file))
    assert result.exit_code == 0
    assert "[/red]" in result.stdout


def test_settings_prints_a_file_that_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYGATE_KAFKA__PARTITIONS", "12")
    monkeypatch.setenv("TALLYGATE_LEASE__LEASE_S", "2.5")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "a:1,b:2")
    monkeypatch.setenv("TRACE", 'odd "name".csv')
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:hunter2@h/db")
    result = call("settings")
    assert result.exit_code == 0
    assert "hunter2" not in result.stdout
    read = Settings.model_validate(tomllib.loads(result.stdout))
    assert (read.kafka.partitions, read.lease.lease_s) == (12, 2.5)
    assert (read.kafka.bootstrap_servers, read.trace) == ("a:1,b:2", Path('odd "name".csv'))


def test_wrong_settings_are_wrong_input_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYGATE_KAFKA__PARTITIONS", "0")
    monkeypatch.setenv("TALLYGATE_NONSENSE", "1")
    result = call("settings")
    assert result.exit_code == tallygate.WRONG_INPUT
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["TALLYGATE_NONSENSE", "kafka.partitions"]


@pytest.mark.parametrize("command", ["create", "check"])
def test_topics_without_brokers_say_what_to_set(command: str) -> None:
    result = call("topics", command)
    assert result.exit_code == tallygate.WRONG_INPUT
    assert "KAFKA_BOOTSTRAP_SERVERS" in result.stderr


@pytest.mark.parametrize("error", [LogUnavailable("no broker at a:1"), kafka.TopicsDiffer("4 partitions, not 8")])
def test_a_broker_that_objects_is_a_failed_check(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    async def objects(*_: object) -> list[str]:
        raise error

    monkeypatch.setattr(kafka, "create_topics", objects)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "a:1")
    result = call("topics", "create")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (tallygate.FAILED, str(error))


def test_topics_are_made_and_checked_on_a_real_broker(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
    for role in ("USAGE", "RATED", "DEAD_LETTERS"):
        monkeypatch.setenv(f"TALLYGATE_KAFKA__TOPIC_{role}", f"cli-{role}")
    assert call("topics", "check").exit_code == tallygate.FAILED
    created = call("topics", "create")
    assert (created.exit_code, created.stdout) == (0, "created cli-USAGE, cli-RATED, cli-DEAD_LETTERS\n")
    assert call("topics", "create").stdout == "all topics exist\n"
    assert call("topics", "check").exit_code == 0
    monkeypatch.setenv("TALLYGATE_KAFKA__PARTITIONS", "4")
    differs = call("topics", "check")
    assert differs.exit_code == tallygate.FAILED
    assert "cli-USAGE has 8 partitions, kafka.partitions is 4" in differs.stderr


def test_a_catalogue_is_published_to_a_real_database_and_broker(
    kafka: str, database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("TALLYGATE_CONTROL_KEY", "00" * 32)
    for role in ("USAGE", "RATED", "DEAD_LETTERS"):
        monkeypatch.setenv(f"TALLYGATE_KAFKA__TOPIC_{role}", f"published-{role}")
    early = call("catalogue", "publish", str(EXAMPLE))
    assert early.exit_code == tallygate.FAILED, "there are no tables yet"
    assert "applied 0001" in call("migrate").stdout
    assert "applied" not in call("migrate").stdout
    assert call("topics", "create").exit_code == 0

    assert call("catalogue", "publish", str(EXAMPLE)).stdout == f"{EXAMPLE}: version 1, in force for all event times\n"
    dearer = tmp_path / "dearer.yaml"
    dearer.write_text(EXAMPLE.read_text().replace("2.50", "2.75"))
    second = call("catalogue", "publish", str(dearer))
    assert (second.exit_code, second.stdout.split(", in force for event times from ")[0]) == (0, f"{dearer}: version 2")
    soon = call("catalogue", "publish", str(EXAMPLE), "--effective-us", "1")
    assert soon.exit_code == tallygate.WRONG_INPUT
    assert "6 minutes" in soon.stderr

    letters = call("dead-letters")
    assert (letters.exit_code, "Dead letters" in letters.stdout) == (0, True)


def test_an_empty_password_file_is_wrong_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://owner:secret@127.0.0.1:1/none")
    empty = tmp_path / "password"
    empty.write_text("")
    result = call("migrate", "--engine-password-file", str(empty))
    assert (result.exit_code, "1 to 128 characters" in result.stderr) == (tallygate.WRONG_INPUT, True)


def test_the_demo_gets_settings_and_options_and_gives_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Settings, SimpleNamespace]] = []

    def run(settings: Settings, options: SimpleNamespace) -> int:
        asked.append((settings, options))
        return tallygate.FAILED

    demo = ModuleType("loadtest.demo")
    vars(demo).update(DemoOptions=SimpleNamespace, run=run)
    monkeypatch.setitem(sys.modules, "loadtest.demo", demo)
    monkeypatch.setattr("loadtest.demo", demo, raising=False)
    assert call("demo", "--events", "5000", "--no-kill").exit_code == tallygate.FAILED
    ((settings, options),) = asked
    assert settings == Settings()
    assert (options.events, options.kill, options.report) == (5_000, False, Path("build/demo.json"))
