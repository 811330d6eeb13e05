"""Frames and tokens: what is cut from a stream, and what proves membership."""

import pytest

from actors.door_wire import (
    FRAME_BYTES_MAX,
    Asked,
    BadFrame,
    Balance,
    Check,
    FieldLimit,
    Frames,
    asked_decoder,
    door_token,
    frame,
)


@pytest.mark.parametrize("piece", [1, 3, 7, 1_000])
def test_frames_are_cut_whatever_the_pieces(piece: int) -> None:
    asked = [Asked(number, 1_000, Balance("acme" * number)) for number in range(1, 20)]
    stream = b"".join(map(frame, asked))
    frames = Frames()
    bodies = [body for start in range(0, len(stream), piece) for body in frames.feed(stream[start : start + piece])]
    assert [asked_decoder.decode(body) for body in bodies] == asked


def test_a_question_survives_the_way() -> None:
    bounds = (FieldLimit(("input_tokens", "cached"), "1.5"), FieldLimit(("output_tokens",), "2"))
    check = Check("acme", "team:red", "llm", {"model": "a"}, {"region": ("x", "y")}, bounds, 3, "batch", 5_000)
    (body,) = Frames().feed(frame(Asked(7, 250, check)))
    assert asked_decoder.decode(body) == Asked(7, 250, check)


def test_a_frame_that_is_too_long_is_refused_before_it_has_come() -> None:
    with pytest.raises(BadFrame, match="262145 bytes, where 1 to 262144 are allowed"):
        Frames().feed((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
    with pytest.raises(BadFrame):
        Frames().feed(bytes(4))
    assert Frames(10).feed((10).to_bytes(4, "big")) == []
    with pytest.raises(BadFrame):
        Frames(10).feed((11).to_bytes(4, "big"))


def test_the_token_follows_from_the_key_and_is_not_the_key() -> None:
    key = b"a control key of thirty-two bytes"
    assert door_token(key) == door_token(key)
    assert door_token(key) != door_token(key[:-1] + b"S")
    assert key.hex() not in door_token(key)
    assert len(door_token(key)) == 64
