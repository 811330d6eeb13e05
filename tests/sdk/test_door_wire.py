"""The SDK's words of the door protocol against the service's own: each reads what the other writes."""

from typing import Any

import msgspec
import pytest

from actors import door_wire as service
from tallygate_sdk import door_wire as sdk

AS_OF = service.AsOf(3, 7, 18_250, 1_795_341_600_000_000, None)
BINDING = service.BindingView("cap", "team:red", "tpm", "5", 900, "tokens")
QUESTIONS = [
    (
        sdk.CheckQuestion(
            "a", "s:x", "t", {"m": "v"}, {"r": ("x", "y")}, (sdk.FieldLimit(("f", "g"), "1.5"),), 2, "feature", 900
        ),
        service.Check(
            "a", "s:x", "t", {"m": "v"}, {"r": ("x", "y")}, (service.FieldLimit(("f", "g"), "1.5"),), 2, "feature", 900
        ),
    ),
    (
        sdk.ExtendQuestion("token", 5, (sdk.FieldLimit(("f",), "1"),)),
        service.Extend("token", 5, (service.FieldLimit(("f",), "1"),)),
    ),
    (sdk.ReleaseQuestion("token"), service.Release("token")),
    (sdk.BalanceQuestion("a"), service.Balance("a")),
]
WALLET = service.WalletView("USD", "12.5", "0.03", "12.47", None)
ANSWERS: list[Any] = [
    service.Checked(
        False,
        AS_OF,
        "cap_reached",
        True,
        250,
        BINDING,
        WALLET,
        "0.03",
        4,
        "text",
        service.HoldView("3.7.41", "token", 5, 6),
        BINDING,
    ),
    service.Checked(True, AS_OF),
    service.Released(True, AS_OF),
    service.BalanceView(WALLET, AS_OF),
    service.BalanceView(WALLET, AS_OF, service.WorthView("USD", "1", "100", "0.125", "0.0003", "0.1247")),
    service.NotFound(AS_OF),
    service.WrongOwner(3),
    service.Recovering(3, 250, "12.5"),
    service.BadQuestion("n", "d"),
    service.TooLate(),
]


@pytest.mark.parametrize(("asked", "read"), QUESTIONS, ids=lambda value: type(value).__name__)
def test_the_service_reads_what_is_asked(asked: sdk.Question, read: service.Question) -> None:
    (body,) = service.Frames().feed(sdk.frame(sdk.Asked(9, 500, asked)))
    assert service.asked_decoder.decode(body) == service.Asked(9, 500, read)


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda value: type(value).__name__)
def test_what_the_service_answers_is_read_whole(answer: service.Answer) -> None:
    (body,) = sdk.Frames().feed(service.frame(service.Answered(9, answer)))
    read = sdk.answered_decoder.decode(body)
    assert read.number == 9
    assert msgspec.to_builtins(read.answer) == msgspec.to_builtins(answer)


def test_a_hello_and_a_welcome_cross() -> None:
    assert sdk.PROTOCOL == service.PROTOCOL
    (body,) = service.Frames().feed(sdk.frame(sdk.Hello(1, "t")))
    assert service.hello_decoder.decode(body) == service.Hello(1, "t")
    (body,) = sdk.Frames().feed(service.frame(service.Welcome(1, "shard-0.1")))
    assert sdk.welcome_decoder.decode(body) == sdk.Welcome(1, "shard-0.1")


def test_frames_come_out_whole_however_they_are_cut() -> None:
    whole = service.frame(service.Welcome(1, "a")) * 3
    frames = sdk.Frames()
    assert len([body for place in range(len(whole)) for body in frames.feed(whole[place : place + 1])]) == 3
    with pytest.raises(sdk.BadFrame):
        sdk.Frames().feed(b"\xff\xff\xff\xff")
    with pytest.raises(sdk.BadFrame):
        sdk.Frames().feed(b"\x00\x00\x00\x00")
