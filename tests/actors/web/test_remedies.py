"""Every reason for which a record is set aside has a next step of its own."""

import pytest

from actors.web.remedies import remedy
from engine.outcomes import DeadLetterReason

MENDED_ELSEWHERE = {
    DeadLetterReason.BAD_MAC,
    DeadLetterReason.BAD_CONTROL,
    DeadLetterReason.TOO_OLD,
    DeadLetterReason.ID_CONFLICT,
    DeadLetterReason.NOT_CANCELLABLE,
    DeadLetterReason.STREAM_OVER,
    *(reason for reason in DeadLetterReason if "correct" in reason or reason in ("superseded", "too_many_parked")),
}


@pytest.mark.parametrize("reason", DeadLetterReason)
def test_a_reason_says_what_to_do(reason: DeadLetterReason) -> None:
    text = remedy(reason, "acme", 3, 17)
    assert text != remedy("of tomorrow", "acme", 3, 17), "add it to actors/web/remedies.py"
    assert "{" not in text
    assert ("POST /v1/dead-letters/3/17/redrive" in text) is (reason not in MENDED_ELSEWHERE)


def test_a_reason_that_is_not_known_here_can_be_mended_all_the_same() -> None:
    assert "POST /v1/dead-letters/0/5/redrive" in remedy("of tomorrow", "acme", 0, 5)
    assert "/v1/customers/acme/grants" in remedy("too_old", "acme", 0, 5)
