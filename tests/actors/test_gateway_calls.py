"""What a gateway is asked, byte by byte."""

import pytest

from actors.gateway_calls import GatewayKind, gateway_call
from engine.money import NotADecimal


@pytest.mark.parametrize(
    ("kind", "budget", "blocked", "method", "path", "body"),
    [
        ("litellm_budget", "100.5", True, "POST", "/key/update", b'{"key":"k/1","max_budget":0}'),
        ("litellm_budget", "100.5", False, "POST", "/key/update", b'{"key":"k/1","max_budget":100.5}'),
        ("litellm_budget", None, False, "POST", "/key/update", b'{"key":"k/1","max_budget":null}'),
        ("litellm_block", "5", True, "POST", "/key/block", b'{"key":"k/1"}'),
        ("litellm_block", "5", False, "POST", "/key/unblock", b'{"key":"k/1"}'),
        ("openrouter", "0.000000000001", False, "PATCH", "/api/v1/keys/k%2F1", b'{"limit":0.000000000001}'),
        ("openrouter", None, True, "PATCH", "/api/v1/keys/k%2F1", b'{"limit":0}'),
    ],
)
def test_each_kind_is_asked_as_its_interface_has_it(
    kind: str, budget: str | None, blocked: bool, method: str, path: str, body: bytes
) -> None:
    call = gateway_call(GatewayKind(kind), "https://llm.example.com/", "k/1", budget, blocked=blocked)
    assert (call.method, call.url, call.body) == (method, f"https://llm.example.com{path}", body)


def test_nothing_but_a_decimal_gets_into_a_body() -> None:
    with pytest.raises(NotADecimal):
        gateway_call(GatewayKind.OPENROUTER, "https://llm.example.com", "k", '1,"disabled":false', blocked=False)
