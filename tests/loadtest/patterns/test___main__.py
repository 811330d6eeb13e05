"""The order of the trials: who cannot run here is skipped, and says why."""

from typing import Any

import pytest

from loadtest.patterns import __main__ as patterns
from loadtest.patterns.ground import Absent


async def test_who_cannot_run_is_skipped_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Ground:
        say = staticmethod(said.append)

    async def there(_: Any) -> dict[str, Any]:
        return {"overspend_pico": 0}

    async def absent(_: Any) -> dict[str, Any]:
        raise Absent("there is no server")

    monkeypatch.setattr(patterns, "TRIALS", {"first": absent, "second": there})
    ground: Any = Ground()
    figures = await patterns.measure(ground, patterns.Options(only=("first", "second")))
    assert figures["contenders"] == {"second": {"overspend_pico": 0}}
    assert figures["skipped"] == {"first": "there is no server"}
    assert "SKIPPED  first: there is no server" in said
