"""What the phases put into the report; what they do is tested on real servers, in tests/integration."""

import base64
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from types import SimpleNamespace

import orjson
import pytest

from actors.deployment import NotReady
from actors.ports import Outgoing
from config.settings import Settings
from config.stack.supervisor import silent
from loadtest.chaos import judgement, phases
from loadtest.chaos.acknowledged import digest_of, read_acknowledged
from loadtest.chaos.audit import Audit, PartitionUpdate
from loadtest.chaos.links import LinkedShards
from loadtest.chaos.phases import Counts, Phase, run_phases
from loadtest.chaos.report import Report
from loadtest.chaos.verifier import Case, Verdict
from loadtest.deployment import Deployment, settings_of
from loadtest.receiver import ReceivedAlert, Receiver


def without_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases, "start_postgres", lambda _: SimpleNamespace(superuser_dsn=""))
    monkeypatch.setattr(phases, "start_kafka", lambda _, listeners: None)


def test_a_phase_that_reports_twice_adds_up() -> None:
    report = Report("make chaos")
    first = {"checkpoints": 3, "full": ["tables"], "outcomes": {"rated": 1}}
    second = {"checkpoints": 4, "full": ["tables", "log"], "outcomes": {"rated": 2, "tick": 1}}
    phases._add(report, Phase.DISK, first, [])
    phases._add(report, Phase.DISK, second, ["a sentence"])
    both = {"checkpoints": 7, "full": ["tables", "log"], "outcomes": {"rated": 3, "tick": 1}}
    assert report.phases["disk"] == both
    assert report.wrong == ["disk: a sentence"]


async def test_no_phase_starts_no_server(tmp_path: Path) -> None:
    await run_phases([], Counts(), 1, tmp_path / "run", Report("make chaos"), silent)
    assert not (tmp_path / "run").exists()


async def test_where_no_disk_can_be_mounted_the_report_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases, "why_not", lambda: "only root may")
    report, said = Report("make chaos"), list[str]()
    servers = phases.Servers(None, "", None)  # type: ignore[arg-type]  # nothing may be asked of them
    await phases._disk(servers, Counts(), Random(1), report, said.append)
    assert report.phases["disk"] == {"skipped": "only root may"}
    assert said == ["disk: SKIPPED, only root may"]
    assert report.faults == {}
    assert report.left_out == ["disk"]
    assert not report.holds


async def test_a_phase_that_breaks_off_is_a_sentence_and_not_the_end_of_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(*_: object) -> None:
        raise NotReady("waited 120 s for a checkpoint")

    monkeypatch.setitem(phases._PHASES, Phase.CUTS, breaks)
    without_servers(monkeypatch)
    report = Report("make chaos")
    await run_phases([Phase.CUTS], Counts(), 1, tmp_path / "run", report, silent)
    assert report.wrong == ["cuts: NotReady: waited 120 s for a checkpoint"]


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.KILLS])
async def test_a_phase_of_which_no_fault_is_asked_for_is_left_out_and_never_called_proof(
    phase: Phase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_servers(monkeypatch)
    report = Report("make chaos")
    await run_phases([phase], Counts(0, 0, 0, 0, 0, 0), 1, tmp_path / "run", report, silent)
    assert report.phases == {phase: {"skipped": "no fault was asked for"}}
    assert not report.holds


class Watched(Audit):
    """Postgres' own history of a run: so many checkpoints of partition 0, each by its owner."""

    def __init__(self, commits: int) -> None:
        super().__init__("", "run")
        self._commits = commits

    async def updates(self) -> list[PartitionUpdate]:
        return [PartitionUpdate(0, 1, 1, seq, seq + 1, seq, seq + 1, "a", 9, 9) for seq in range(self._commits)]


class Run(LinkedShards):
    """Two shards that have ended already."""

    async def end(self) -> None:
        pass


def a_run(folder: Path, alerts: int, commits: int) -> LinkedShards:
    secret = "whsec_" + base64.b64encode(bytes(32)).decode()
    receiver = Receiver(secret)
    receiver.alerts = {f"alert_{number}": ReceivedAlert(0, {}) for number in range(alerts)}
    settings = settings_of("postgresql://engine@127.0.0.1/run", "127.0.0.1:9092", "run", "http://127.0.0.1/", secret)
    at = Deployment(settings, None, None, receiver)  # type: ignore[arg-type]  # nothing is read or appended
    return Run(at, Watched(commits), [], folder)


async def judged_phase(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    verdict: Verdict,
    *,
    alerts: int,
    commits: int,
    struck: int,
    witnessed: Collection[str] = (),
) -> tuple[Report, list[Case]]:
    """A phase in which nothing was done but to count faults; what the verifier was asked."""
    asked: list[Case] = []

    async def verify(case: Case, *_: object) -> Verdict:
        asked.append(case)
        return verdict

    @asynccontextmanager
    async def linked(*_: object) -> AsyncIterator[LinkedShards]:
        yield a_run(tmp_path, alerts, commits)

    async def drifts(_: Settings, _say: object) -> list[str]:
        return list(witnessed)

    monkeypatch.setattr(judgement, "verify", verify)
    monkeypatch.setattr(judgement, "drifts", drifts)
    monkeypatch.setattr(phases, "linked_shards", linked)
    broker = SimpleNamespace(bootstrap_servers="", listeners=())
    servers = phases.Servers(SimpleNamespace(run_dir=tmp_path), "", broker)  # type: ignore[arg-type]
    report = Report("make chaos")
    report.struck("a fault of another phase")
    async with phases._judged(servers, Phase.PAUSES, report, silent) as run:
        run.acknowledged.write(["event"], [Outgoing("usage", EVENT, b"acme", 0)], [0])
        for _ in range(struck):
            report.struck("pause.any")
    return report, asked


EMPTY = Verdict(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {}, [])
EVENT = orjson.dumps({"subject": "acme", "source": "gw", "id": "e1"})


async def test_a_phase_in_which_nothing_was_rated_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, _ = await judged_phase(monkeypatch, tmp_path, EMPTY, alerts=0, commits=0, struck=0)
    assert not report.holds
    for what in ("no event was rated", "no alert was told", "no checkpoint was made", "nothing was struck"):
        assert f"pauses: {what}: such a run proves nothing of it" in report.wrong


async def test_a_phase_is_judged_by_the_verifier_and_by_what_kafka_has_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Verdict(0, 0, 0, 0, 0, 3, 3, 0, 10, 9, 4, {"rated": 9}, [])
    report, [case] = await judged_phase(monkeypatch, tmp_path, whole, alerts=1, commits=4, struck=1)
    assert report.wrong == []
    assert report.holds
    assert report.events == 1
    assert report.phases["pauses"]["accounts_identical"] == 3
    [entry] = [each for partition in range(4) for each in read_acknowledged(Path(case.acknowledged), partition)]
    assert bytes(entry["digest"]) == digest_of(b"acme", EVENT)
    assert set(case.catalogues) == {1}


async def test_checkpoints_that_postgres_has_not_seen_being_made_are_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Verdict(0, 0, 0, 0, 0, 3, 3, 0, 10, 9, 4, {"rated": 9}, [])
    report, _ = await judged_phase(monkeypatch, tmp_path, whole, alerts=1, commits=3, struck=1)
    assert report.wrong == ["pauses: Postgres has written down 3 checkpoints, the partitions count 4"]


async def test_what_the_engines_own_proof_finds_is_wrong_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Verdict(0, 0, 0, 0, 0, 3, 3, 0, 10, 9, 4, {"rated": 9}, [])
    drift = ["reconcile: a drift"]
    report, _ = await judged_phase(monkeypatch, tmp_path, whole, alerts=1, commits=4, struck=1, witnessed=drift)
    assert report.wrong == ["pauses: reconcile: a drift"]
    assert report.oracle_equal is True, "the verifier has said so, and is not asked to agree"


def test_a_cut_by_which_nothing_was_lost_on_the_way_is_named() -> None:
    effects = {"cut.postgres.up": 0, "cut.kafka.down": 7}
    assert phases.without_effect(effects) == ["cut.postgres.up: 0, so that it proves nothing"]
