"""What a run shows while it goes: one table, redrawn, or a line now and then where there is no terminal."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

LINE_EVERY_S: Final = 5.0


class Near(Struct, frozen=True):
    """A customer near the end of the wallet; amounts are decimal text."""

    account: str
    balance: str
    spend: str


class Moment(Struct, frozen=True):
    """One look at the run."""

    seconds: float
    phase: str
    sent: int
    rated: int
    rate: float  # rated events per second since the last look
    lag: int  # records in the log that no shard has applied yet
    alerts: int  # at the receiver
    depleted: int  # customers with nothing left
    shards: str
    nearest: Sequence[Near]


def _table(moment: Moment) -> Table:
    title = (
        f"{moment.phase}   {moment.seconds:.0f} s   sent {moment.sent:,}   rated {moment.rated:,} "
        f"({moment.rate:,.0f}/s)   lag {moment.lag:,}   alerts {moment.alerts:,}   depleted {moment.depleted:,}"
    )
    table = Table(title=title, title_justify="left", caption=moment.shards, caption_justify="left")
    table.add_column("nearest depletion")
    table.add_column("balance, USD", justify="right")
    table.add_column("spend this month, USD", justify="right")
    for near in moment.nearest:
        table.add_row(escape(near.account), near.balance, near.spend)
    return table


class LiveView:
    """A context manager; `show` draws the moment."""

    def __init__(self, console: Console, live: bool) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if live and console.is_terminal else None
        self._last_line_s = float("-inf")

    def __enter__(self) -> "LiveView":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """A line that stays, above the table."""
        self._console.print(text, highlight=False, markup=False)

    def show(self, moment: Moment) -> None:
        if self._live is not None:
            self._live.update(_table(moment), refresh=True)
        elif moment.seconds - self._last_line_s >= LINE_EVERY_S:
            self._last_line_s = moment.seconds
            self.say(
                f"{moment.seconds:5.0f} s  {moment.phase}: sent {moment.sent:,}, rated {moment.rated:,} "
                f"({moment.rate:,.0f}/s), lag {moment.lag:,}, alerts {moment.alerts:,}"
            )
