"""The second witness: each drift is a sentence, and no drift is none."""

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from actors.drift import Drift
from actors.reconcile.run import Report
from config.settings import Settings
from config.stack.supervisor import Say
from loadtest.chaos import witness


async def test_each_drift_is_a_sentence_and_of_many_the_first_and_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    async def reconcile(*_: object, share: float, say: Say, **_more: object) -> AsyncIterator[Report]:
        asked.append(share)
        say("Partition 0: folded to offset 9 of 9")
        yield Report(0, 0, 9)
        report = Report(1, 0, 9)
        report.take([Drift("ledger", 1, "acme", f"burn {number}", "1.0", "1.1") for number in range(30)])
        yield report

    monkeypatch.setattr(witness, "reconcile", reconcile)
    heard: list[str] = []
    found = await witness.drifts(Settings(control_key=SecretStr("0" * 64)), heard.append)
    assert len(found) == witness.SAMPLE + 1
    assert found[0].startswith("reconcile: ledger: partition 1, account acme: burn 0: expected 1.0, found 1.1")
    assert found[-1] == "reconcile: partition 1: 30 drifts in all"
    assert asked == [1.0], "every account is rated again"
    assert heard == ["reconcile: Partition 0: folded to offset 9 of 9"]
