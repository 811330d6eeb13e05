"""The lines of the topic `costs`: from before the first hour on, and what is none is counted."""

from actors.cost_lines import read_cost_lines
from engine.cost.attribution import AHEAD_US
from engine.cost.lines import RequestLine, WindowLine
from tests.actors.test_margin import H, request, window
from tests.actors.test_whatif import NAMES, Topics


async def test_lines_are_read_from_before_their_hours_on() -> None:
    topics = Topics()
    topics.append(NAMES.topic_costs, H - AHEAD_US - 1_000, b"r", window(9, 9, 0))
    topics.append(NAMES.topic_costs, H - AHEAD_US, b"r", request("a", 5, 1) + b"\n" + window(7, 5, 1) + b"\n{")
    topics.append(NAMES.topic_costs, H, b"r", request("a", 6, 2))
    found = await read_cost_lines(topics, NAMES.topic_costs, H)
    assert [(type(line), line.seq) for line in found.lines] == [(RequestLine, 1), (WindowLine, 1), (RequestLine, 2)]
    assert found.unreadable == 1
