"""`tallygate clock`: what it asks, and what it says."""

from tests.actors.cli.calling import FakeApi, asks_once


def test_the_clock_of_a_sandbox_is_moved_by_one_request(api: FakeApi) -> None:
    asks_once(
        api,
        ("clock", "advance", "2027-01-01T00:00:00Z"),
        ("POST", "/v1/sandbox/clock", {"until": "2027-01-01T00:00:00Z"}),
        "it is 2027-01-01T00:00:00Z in 8 partitions",
    )
