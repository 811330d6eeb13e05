"""What an event says of a session, and what it may not."""

import pytest

from engine.meters.sessions import BadSession, SessionFields, State

FIELDS = SessionFields("gpu.session", "state", 300_000_000)


@pytest.mark.parametrize("state", ["start", "heartbeat", "stop"])
def test_an_event_tells_which_session_it_is_of_and_what_has_become_of_it(state: State) -> None:
    assert FIELDS.read("gpu", {"gpu": {"session": "s-1"}, "state": state}) == ("s-1", state)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"state": "start"}, "data.gpu.session .meter gpu. must be a string"),
        ({"gpu.session": "", "state": "start"}, "data.gpu.session"),
        ({"gpu.session": 7, "state": "start"}, "data.gpu.session"),
        ({"gpu.session": "a\x00b", "state": "start"}, "without NUL"),
        ({"gpu.session": "s" * 257, "state": "start"}, "1 to 256 characters"),
        ({"gpu.session": "s"}, "data.state .meter gpu. is None, and must be start, heartbeat, stop"),
        ({"gpu.session": "s", "state": "paused"}, "is paused"),
        ({"gpu.session": "s", "state": ["start"]}, "data.state"),
        ({"gpu.session": "s", "state": True}, "is True"),
    ],
)
def test_what_says_neither_is_refused_and_names_field_and_meter(data: dict[str, object], said: str) -> None:
    with pytest.raises(BadSession, match=said):
        FIELDS.read("gpu", data)
