from typing import Any

from actors.keys import Key, KeyScope
from actors.web.wire import Call, Example, Reply, Route


async def nothing(call: Call) -> Reply:
    return Reply()


def call(key: Key | None) -> Call:
    services: Any = None
    return Call(key, {}, {}, None, {b"content-type": b"text/plain"}, "r", None, services)


def route(path: str, paginated: bool = False) -> Route:
    return Route(
        method="GET",
        path=path,
        scope=None,
        handler=nothing,
        summary="",
        description="",
        tags=(),
        example=Example(),
        paginated=paginated,
    )


def test_a_call_knows_who_asks_and_for_which_account() -> None:
    key = Key("abc", "name", frozenset({KeyScope.READ}), "acme")
    assert (call(key).actor, call(key).account) == ("key:abc", "acme")
    assert (call(None).actor, call(None).account) == ("public", None)


def test_headers_are_asked_for_by_name() -> None:
    assert call(None).header("content-type") == "text/plain" and call(None).header("accept") is None


def test_operation_ids_follow_from_method_and_path() -> None:
    assert route("/v1/customers/{account}/grants").operation_id == "get_customers_account_grants"
    assert route("/openapi.json").operation_id == "get_openapi_json"


def test_paging_adds_its_parameters() -> None:
    assert [item.name for item in route("/", paginated=True).parameters] == ["limit", "cursor"]
    assert route("/").parameters == ()
