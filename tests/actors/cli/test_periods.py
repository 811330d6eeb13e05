"""`tallygate periods`: what it shows."""

from tests.actors.cli.calling import FakeApi, beside_up, call


def test_lines_of_closed_periods_are_told_from_projections(api: FakeApi) -> None:
    beside_up(api.url)
    result = call("periods", "list", "acme")
    assert result.exit_code == 0
    posted, projected = [line for line in result.stdout.splitlines() if "minimum" in line]
    assert ("300" in posted, "yes" in posted) == (True, True)
    assert ("980" in projected, "projected" in projected) == (True, True)
