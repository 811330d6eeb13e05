"""The verdict over partitions: what crosses them is counted, and every fault of one partition reaches the whole."""

from collections import Counter

import numpy as np
import pytest

from loadtest.chaos.acknowledged import DIGEST_BYTES, identity_of
from loadtest.chaos.forwards import Forward
from loadtest.chaos.verifier import IDENTITY, Finding, conclude
from loadtest.journal import CheckAnswer, Decided, Journal


def identities(*numbers: int) -> bytes:
    return np.array([identity_of("acme", "gw", f"e{number}") for number in numbers], IDENTITY).tobytes()


def test_what_was_promised_in_one_partition_may_be_rated_in_another() -> None:
    verdict = conclude(
        [
            Finding(0, rated=identities(1, 2), owed=identities(1, 3), outcomes=Counter(rated=2), alerts=["a"]),
            Finding(1, rated=identities(3), owed=identities(2, 2), outcomes=Counter(rated=1, duplicate=1)),
        ],
        Journal(),
        ["a"],
    )
    assert verdict.wrong == []
    assert (verdict.lost, verdict.double, verdict.rated) == (0, 0, 3)
    assert verdict.outcomes == {"duplicate": 1, "rated": 3}


def test_an_acknowledged_event_that_was_rated_nowhere_is_lost() -> None:
    verdict = conclude([Finding(0, rated=identities(1), owed=identities(1, 2))], Journal(), [])
    assert verdict.lost == 1
    assert verdict.wrong == ["1 acknowledged events were rated nowhere"]


def test_an_event_rated_in_two_partitions_is_double() -> None:
    verdict = conclude([Finding(0, rated=identities(1)), Finding(1, rated=identities(1))], Journal(), [])
    assert verdict.double == 1
    assert verdict.wrong == ["1 events were rated at more than one place"]


def test_what_was_forwarded_and_never_arrived_is_a_sentence() -> None:
    arrived, gone = b"a" * DIGEST_BYTES, b"b" * DIGEST_BYTES
    findings = [
        Finding(0, forwards=[Forward(0, 3, 1, arrived), Forward(0, 4, 1, gone)], digests=gone),
        Finding(1, digests=b"c" * DIGEST_BYTES + arrived),
    ]
    assert conclude(findings, Journal(), []).wrong == [
        "partition 0, offset 4: expected to be forwarded, found nowhere in partition 1"
    ]


@pytest.mark.parametrize(("received", "missing", "extra"), [([], 1, 0), (["a", "b"], 0, 1), (["b"], 1, 1)])
def test_alerts_are_told_each_and_no_other(received: list[str], missing: int, extra: int) -> None:
    verdict = conclude([Finding(0, alerts=["a"])], Journal(), received)
    assert (verdict.alerts_missing, verdict.alerts_extra) == (missing, extra)
    assert len(verdict.wrong) == missing + extra


def test_figures_and_sentences_of_all_partitions_add_up() -> None:
    findings = [
        Finding(number, lost=1, double=2, overspend=3, accounts=4, accounts_identical=3, sentences=[f"in {number}"])
        for number in range(2)
    ]
    verdict = conclude(findings, Journal(), [])
    assert (verdict.lost, verdict.double, verdict.overspend) == (2, 4, 6)
    assert (verdict.accounts, verdict.accounts_identical) == (8, 6)
    assert verdict.wrong == ["in 0", "in 1"]


def test_a_denial_must_follow_from_its_own_figures() -> None:
    journal = Journal()
    answer = CheckAnswer(False, "credit_depleted", False, None, 5, 10, 0, 10, 0, 0, 1, 3)
    journal.decided.append(Decided(1, "acme", answer))
    assert len(conclude([Finding(0)], journal, []).wrong) == 1
