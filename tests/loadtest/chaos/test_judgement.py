"""A run proves something when something happened in it; what is wrong in one reaches the report whatever phase it is of."""

import ast
from pathlib import Path

import msgspec
import pytest

from loadtest.chaos.audit import History
from loadtest.chaos.judgement import Judged, unproven
from loadtest.chaos.packets import PacketCuts
from loadtest.chaos.report import Report
from loadtest.chaos.verifier import Verdict

ROOT = Path(__file__).resolve().parents[3]
WHOLE = Verdict(
    lost=0,
    double=0,
    alerts_missing=0,
    alerts_extra=0,
    overspend=0,
    accounts=3,
    accounts_identical=3,
    answers_backed=0,
    acknowledged=10,
    rated=9,
    checkpoints=4,
    outcomes={"rated": 9},
    wrong=[],
)


def test_a_run_in_which_everything_happened_may_be_called_proof() -> None:
    assert unproven(WHOLE, alerts=1, struck=1) == []


@pytest.mark.parametrize(
    ("verdict", "alerts", "struck", "what"),
    [
        ({"acknowledged": 0}, 1, 1, "no record was acknowledged"),
        ({"rated": 0}, 1, 1, "no event was rated"),
        ({"accounts": 0, "accounts_identical": 0}, 1, 1, "no account was compared"),
        ({"checkpoints": 0}, 1, 1, "no checkpoint was made"),
        ({}, 0, 1, "no alert was told"),
        ({}, 1, 0, "nothing was struck"),
    ],
)
def test_a_run_that_lacks_something_proves_nothing_of_it(
    verdict: dict[str, int], alerts: int, struck: int, what: str
) -> None:
    empty = msgspec.structs.replace(WHOLE, **verdict)
    assert unproven(empty, alerts, struck) == [f"{what}: such a run proves nothing of it"]


def test_what_a_run_came_to_is_counted_into_the_report_and_one_that_differs_is_not_forgotten() -> None:
    report = Report("make chaos")
    Judged(WHOLE, 5, []).count(report, 7)
    assert (report.events, report.oracle_equal) == (7, True)
    differs = msgspec.structs.replace(WHOLE, lost=1, double=2, overspend=3, accounts_identical=2)
    Judged(differs, 5, []).count(report, 7)
    Judged(WHOLE, 5, []).count(report, 7)
    assert (report.events, report.lost, report.double, report.overspend) == (21, 1, 2, 3)
    assert report.oracle_equal is False
    assert not Judged(msgspec.structs.replace(WHOLE, wrong=["a sentence"]), 5, []).equal


def test_what_a_run_in_a_namespace_says_of_itself_comes_back_whole() -> None:
    history = History(commits=4, owners={0: ["a", "b"]})
    made = PacketCuts({"kafka.down": 3}, 7, 1, Judged(WHOLE, 5, ["a sentence"], history))
    assert msgspec.json.decode(msgspec.json.encode(made), type=PacketCuts) == made


def test_an_oracle_that_saw_no_account_is_equal_to_nothing() -> None:
    assert not Judged(msgspec.structs.replace(WHOLE, accounts=0, accounts_identical=0), 5, []).equal


@pytest.mark.parametrize("module", ["judgement", "verifier", "canonical", "forwards", "acknowledged", "audit"])
def test_who_judges_knows_nothing_of_the_engine(module: str) -> None:
    for node in ast.walk(ast.parse((ROOT / "loadtest" / "chaos" / f"{module}.py").read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not [name for name in names if name.split(".")[0] == "engine"]


def test_no_phase_is_judged_by_what_the_engine_says_of_itself() -> None:
    """`loadtest/verify.py` reads accounts with the engine's own functions, and keeps no journal of acknowledgements."""
    by_the_engine = {"loadtest.verify", "loadtest.readback"}
    for path in sorted((ROOT / "loadtest" / "chaos").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.module not in by_the_engine, path
            elif isinstance(node, ast.Attribute):
                # Of `Deployment`, whose `verdict` and `check` are of `loadtest/verify.py`.
                assert (ast.unparse(node).endswith(("at.verdict", "at.check"))) is False, path
