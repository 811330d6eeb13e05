"""What a run shows: a table in a terminal, now and then a line where there is none."""

from io import StringIO

from msgspec.structs import replace
from rich.console import Console

from loadtest.live import LINE_EVERY_S, LiveView, Moment, Near

MOMENT = Moment(
    seconds=12.0,
    phase="rating",
    sent=45_678,
    rated=40_000,
    rate=4_321.6,
    lag=5_678,
    alerts=17,
    depleted=329,
    shards="shard-0: 4 partitions, 80 MiB",
    nearest=[Near("cus_[bold]0007", "-1.50", "31.25")],
)


def shown(terminal: bool, live: bool, *moments: Moment, say: str = "") -> str:
    out = StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, color_system=None, legacy_windows=False)
    with LiveView(console, live) as view:
        for moment in moments:
            view.show(moment)
        if say:
            view.say(say)
    return out.getvalue()


def test_a_terminal_gets_a_table_with_every_figure() -> None:
    text = shown(True, True, MOMENT)
    for expected in (
        "rating",
        "12 s",
        "45,678",
        "40,000",
        "4,322/s",
        "5,678",
        "17",
        "depleted 329",
        "shard-0: 4 partitions, 80 MiB",
    ):
        assert expected in text
    for expected in ("-1.50", "31.25", "nearest depletion"):
        assert expected in text


def test_an_account_named_like_markup_is_shown_as_it_is() -> None:
    """Its id is the customer's to choose."""
    assert "cus_[bold]0007" in shown(True, True, MOMENT)


def test_a_terminal_is_redrawn_with_each_moment() -> None:
    assert "99,999" in shown(True, True, MOMENT, replace(MOMENT, sent=99_999))


def test_without_a_terminal_there_is_a_line_now_and_then() -> None:
    later = [replace(MOMENT, seconds=MOMENT.seconds + step) for step in (1.0, LINE_EVERY_S, LINE_EVERY_S + 1)]
    lines = shown(False, True, MOMENT, *later).splitlines()
    assert len(lines) == 2
    assert lines[0] == "   12 s  rating: sent 45,678, rated 40,000 (4,322/s), lag 5,678, alerts 17"
    assert lines[1].startswith("   17 s")


def test_a_terminal_that_wants_no_table_gets_lines() -> None:
    text = shown(True, False, MOMENT)
    assert "nearest depletion" not in text
    assert "sent 45,678" in text


def test_what_is_said_stays() -> None:
    for terminal in (True, False):
        assert "SIGKILL to [bold]shard-1" in shown(terminal, True, MOMENT, say="SIGKILL to [bold]shard-1")
