"""Holds' tokens: what is sealed comes back, and nothing else is taken for a hold."""

import base64
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events import TOKEN_TEXT_MAX, seal
from engine.holds import BadToken, Bound, Hold, held_by, read_token, seal_token

KEY = b"control key of the tests"
NAMES = st.text(min_size=1, max_size=20)
BOUNDS = st.builds(Bound, st.integers(0, 10**40), st.lists(NAMES, max_size=3).map(tuple), st.just(("x",)))
TIMES = st.integers(0, 1 << 60)
HOLDS = st.builds(
    Hold,
    NAMES,
    NAMES,
    st.integers(0, 1000),
    TIMES,
    TIMES,
    TIMES,
    st.integers(1, 99),
    TIMES,
    TIMES,
    TIMES,
    st.lists(BOUNDS, max_size=4).map(tuple),
)
HOLD = Hold("acme", "team:a", 3, 7, 12, 1, 1, 2, 3, 4, (Bound(5, ("x", "y"), ("x",)), Bound(6, ("x",), ("x",))))


@given(HOLDS)
def test_a_token_gives_back_its_hold(hold: Hold) -> None:
    token = seal_token(KEY, hold)
    assert read_token(KEY, token) == hold
    assert token.replace("-", "").replace("_", "").isalnum()


@given(HOLDS, st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_seen(hold: Hold, at: int, change: int) -> None:
    token = seal_token(KEY, hold)
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[at % len(raw)] ^= change
    with pytest.raises(BadToken):
        read_token(KEY, base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode())


@pytest.mark.parametrize("text", ["", "A", "====", "bm90IGEgdG9rZW4", "é" * 30, "A" * (TOKEN_TEXT_MAX + 1), "a b c"])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(BadToken):
        read_token(KEY, text)


def test_another_deployments_token_is_refused() -> None:
    with pytest.raises(BadToken, match="not sealed by this deployment"):
        read_token(b"another key", seal_token(KEY, HOLD))


def test_a_control_record_is_no_token_though_the_same_key_sealed_it() -> None:
    body = json.dumps([1, ["acme"]]).encode()
    sealed = seal(KEY, "tallygate hold", 0, body)
    with pytest.raises(BadToken):
        read_token(KEY, base64.urlsafe_b64encode(sealed[4:20] + body).decode())


@pytest.mark.parametrize("key", [KEY, b"k", b"k" * 64, b"k" * 65, b"k" * 200])
def test_a_token_is_sealed_by_hmac_sha_256(key: bytes) -> None:
    token = seal_token(key, HOLD)
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    assert raw[:16] == hmac.digest(key, b"tallygate hold\0" + raw[16:], "sha256")[:16]
    assert read_token(key, token) == HOLD


def test_the_id_names_partition_epoch_and_number() -> None:
    assert HOLD.id == "3.7.12"


def test_what_is_held_is_summed_by_price() -> None:
    assert held_by(HOLD.bounds) == HOLD.held() == {"x": 11}
