"""Marks go through an inference engine as the ids of requests."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallygate_served import Who, mark, unmark

WHO = Who("evt-1", "acme", "team:red/user:ann", "chat", "talk-3")


@pytest.mark.parametrize("wrapped", ["{}", "chatcmpl-{}", "cmpl-{}-0", "resp_{}", "chatcmpl-{}-12"])
def test_whatever_vllm_puts_around_it(wrapped: str) -> None:
    assert unmark(wrapped.format(mark(WHO))) == WHO


@given(
    st.builds(Who, st.text(min_size=1), st.none() | st.text(), st.text(), st.none() | st.text(), st.none() | st.text())
)
def test_every_mark_comes_back(who: Who) -> None:
    assert unmark(f"cmpl-{mark(who)}-0") == unmark(mark(who)) == who
    assert set(mark(who)) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")


def test_a_mark_that_is_nested_too_deep_to_be_read_is_an_id_like_any_other() -> None:
    deep = "tg1." + base64.urlsafe_b64encode(b"[" * 20_000).decode()
    assert unmark(deep) == Who(deep)


@pytest.mark.parametrize("text", ["chatcmpl-4f3a", "tg1.", "tg1.!!", "tg1.W10"])
def test_another_id_is_the_requests_own(text: str) -> None:
    assert unmark(text) == Who(text.removeprefix("chatcmpl-"))
