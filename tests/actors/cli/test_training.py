"""`tallygate training`: a recorded run's cost, and what it asks and shows."""

from pathlib import Path

import orjson
import pytest

from actors.cli.terminal import FAILED, WRONG_INPUT
from actors.web import training_routes
from tests.actors.cli.calling import ANSWERS, FakeApi, asks_once, beside_up, call

LOG = Path(__file__).parents[2] / "pages" / "speed_monitor.txt"
RUN = "/v1/training-runs/pretrain"
OFFLINE = ("training", "cost", str(LOG), "--gpu", "h100-sxm", "--gpus", "64")


@pytest.fixture(autouse=True)
def runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANSWERS, ("PUT", RUN), (204, None))
    monkeypatch.setitem(ANSWERS, ("DELETE", RUN), (204, None))
    monkeypatch.setitem(ANSWERS, ("POST", f"{RUN}/log"), (200, training_routes.ROUTES[2].example.response))
    monkeypatch.setitem(ANSWERS, ("GET", "/v1/training-runs"), (200, training_routes.ROUTES[3].example.response))


def test_a_recorded_run_is_its_gpu_hours_times_the_price() -> None:
    shown = call(*OFFLINE, "--per-hour", "2.10", "--json")
    assert shown.exit_code == 0
    row = orjson.loads(shown.stdout)
    assert (row["gpu_hours"], row["spent"], row["projected"]) == ("3072.000", "6451.200000000000", "19353.600000000000")
    assert (row["mfu_percent"], row["told_mfu_percent"], row["mfu_agrees"]) == ("41.20", "41.20", True)
    assert "3072.000" in call(*OFFLINE, "--per-hour", "2.10").stdout


def test_a_projection_beyond_the_budget_is_an_exit_status() -> None:
    over = call(*OFFLINE, "--per-hour", "2.10", "--budget", "18000")
    assert over.exit_code == FAILED and "exceeds the budget by 1353.600000000000" in over.stderr
    assert call(*OFFLINE, "--per-hour", "2.10", "--budget", "20000").exit_code == 0


def test_rates_come_from_their_document_too(tmp_path: Path) -> None:
    document = tmp_path / "rates.json"
    rate = {"kind": "h100-sxm", "from_us": 0, "per_hour": "2", "overhead_ppm": 50_000}
    document.write_bytes(orjson.dumps({"version": 1, "currency": "EUR", "rates": [rate]}))
    row = orjson.loads(call(*OFFLINE, "--rates", str(document), "--json").stdout)
    assert (row["currency"], row["spent"]) == ("EUR", "6451.200000000000")


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    for arguments, told in (
        ((), "either --rates or --per-hour"),
        (("--per-hour", "2", "--budget", "much"), "--budget: "),
        (("--per-hour", "2", "--started", "May"), "--started: time 'May'"),
        (("--per-hour", "two"), "per_hour"),
    ):
        refused = call(*OFFLINE, *arguments)
        assert (refused.exit_code, told in refused.stderr) == (WRONG_INPUT, True), refused.stderr
    other = tmp_path / "other.txt"
    other.write_text("nothing of it\n")
    for command in (
        ("cost", str(other), "--gpu", "x", "--gpus", "1", "--per-hour", "1"),
        ("report", "pretrain", str(other)),
    ):
        nothing = call("training", *command)
        assert nothing.exit_code == FAILED and "time/total" in nothing.stderr


def test_a_run_is_declared(api: FakeApi) -> None:
    arguments = ("--gpu", "h100-sxm", "--gpus", "64", "--started", "2026-11-20T10:00:00Z", "--budget", "18000")
    asks_once(
        api,
        ("training", "set", "pretrain", *arguments),
        (
            "PUT",
            RUN,
            {
                "gpu": "h100-sxm",
                "gpus": 64,
                "started": "2026-11-20T10:00:00Z",
                "budget": "18000",
                "level": "warning",
                "unit": "hours",
                "precision": "bf16",
            },
        ),
        "pretrain: 64 h100-sxm since 2026-11-20T10:00:00Z, for at most 18000",
    )


def test_a_run_is_removed(api: FakeApi) -> None:
    asks_once(api, ("training", "remove", "pretrain"), ("DELETE", RUN, {}), "pretrain: is gone")


def test_its_log_is_sent_without_what_says_nothing(api: FakeApi) -> None:
    beside_up(api.url)
    shown = call("training", "report", "pretrain", str(LOG))
    assert shown.exit_code == 0 and "19353.6" in shown.stdout
    ((method, path, body, _),) = api.asked
    assert (method, path) == ("POST", f"{RUN}/log")
    assert not any("stdout" in line or "loss" in line for line in body["lines"])


def test_runs_are_listed(api: FakeApi) -> None:
    beside_up(api.url)
    shown = call("training", "list")
    for text in ("atlas-3-pretrain", "h100-sxm", "3072.000", "19353.6", "18000", "41.20"):
        assert text in shown.stdout
    assert '"over_budget":true' in call("training", "list", "--json").stdout
