"""Which API a command asks, with which key, and how a refusal is told."""

import pytest

from actors.cli.terminal import WRONG_INPUT
from tests.actors.cli.calling import FakeApi, beside_up, call


def test_without_an_api_the_next_step_is_said() -> None:
    result = call("balance", "acme")
    assert (result.exit_code, result.stdout) == (WRONG_INPUT, "")
    assert "TALLYGATE_URL and TALLYGATE_KEY" in result.stderr
    assert "tallygate up" in result.stderr


def test_beside_up_nothing_need_be_said(api: FakeApi) -> None:
    beside_up(api.url)
    result = call("balance", "acme")
    assert (result.exit_code, result.stdout) == (0, "acme  available 24.5 USD  booked 25  held 0.5  overdraft 0\n")
    assert api.asked == [("GET", "/v1/customers/acme/balance", {}, "tg_live_up")]


def test_options_go_before_the_environment_and_that_before_up(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    beside_up("http://127.0.0.1:1")
    monkeypatch.setenv("TALLYGATE_URL", api.url)
    monkeypatch.setenv("TALLYGATE_KEY", "tg_live_env")
    call("balance", "acme")
    call("balance", "acme", "--key", "tg_live_option")
    assert [asked[3] for asked in api.asked] == ["tg_live_env", "tg_live_option"]


def test_a_reason_goes_with_every_change_and_with_nothing_else(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    beside_up(api.url)
    call("caps", "remove", "acme", "a/b")
    monkeypatch.setenv("TALLYGATE_REASON", "ticket 81")
    call("caps", "remove", "acme", "a/b")
    call("balance", "acme")
    assert api.reasons == [None, "ticket 81", None]


def test_the_key_of_up_goes_to_no_other_address(api: FakeApi) -> None:
    beside_up("http://127.0.0.1:1")
    result = call("balance", "acme", "--url", api.url)
    assert (result.exit_code, api.asked) == (WRONG_INPUT, [])
    assert "TALLYGATE_KEY" in result.stderr


def test_a_key_goes_over_no_network_in_the_clear() -> None:
    result = call("balance", "acme", "--url", "http://api.example", "--key", "tg_live_x")
    assert (result.exit_code, "use https" in result.stderr) == (WRONG_INPUT, True)


def test_a_refusal_is_one_line_with_the_next_step(api: FakeApi) -> None:
    beside_up(api.url)
    result = call("balance", "gone")
    assert (result.exit_code, result.stdout) == (WRONG_INPUT, "")
    assert result.stderr == "There is no such account. Check it.\n"
