"""What is wrong with a command in several ways is refused for the first of them in their order, and changes nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.snapshot import encode_account
from tests.engine.bench import Bench


def assert_the_first_reason_wins(
    bench: Bench, kind: str, base: Mapping[str, Any], wrong: Sequence[tuple[str, Mapping[str, Any]]]
) -> None:
    """`wrong`: (reason, what makes it so) in the order of precedence, of which all are made so at once."""
    body = {**base}
    for _, change in reversed(wrong):
        body |= change
    account, before = body.pop("account", "acme"), encode_account(bench.account())
    assert bench.command(kind, account, **body) == f"refused.{wrong[0][0]}"
    assert encode_account(bench.account()) == before
