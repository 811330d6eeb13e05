"""What checks have allowed without reserving it: how far usage that nobody holds may pass a limit (README, "Leases")."""

from collections import deque
from typing import Final

SECOND_US: Final = 1_000_000
CHECK_VALID_US: Final = 60 * SECOND_US  # how long an answer without a hold may be acted on


class Exposure:
    """Of one owner, by currency: the allows of the last CHECK_VALID_US and report delay, times the largest of them."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, dict[str, tuple[int, int]]]] = deque()  # second -> currency -> allows, largest

    def note(self, currency: str, pico: int, now_us: int) -> None:
        """A request was allowed, and nothing reserved for it."""
        second = now_us // SECOND_US
        if not self._seconds or self._seconds[-1][0] < second:
            self._seconds.append((second, {}))
        by_currency = self._seconds[-1][1]
        allows, largest = by_currency.get(currency, (0, 0))
        by_currency[currency] = allows + 1, max(largest, pico)

    def bound(self, report_delay_us: int, now_us: int) -> dict[str, int]:
        """Pico by currency: so much at most may still be used, and be reported, that was not held."""
        oldest = (now_us - CHECK_VALID_US - report_delay_us) // SECOND_US
        while self._seconds and self._seconds[0][0] < oldest:
            self._seconds.popleft()
        bounds: dict[str, tuple[int, int]] = {}
        for _, by_currency in self._seconds:
            for currency, (allows, largest) in by_currency.items():
                before = bounds.get(currency, (0, 0))
                bounds[currency] = before[0] + allows, max(before[1], largest)
        return {currency: allows * largest for currency, (allows, largest) in bounds.items()}
