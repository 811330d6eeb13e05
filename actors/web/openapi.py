"""The API described from its own table of routes: as an OpenAPI 3.1 document, and as a page for people."""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import orjson

from actors.web.problems import ProblemBody
from actors.web.wire import Call, Example, Handler, QueryParameter, Reply, Route

VERSION: Final = "1"

_REFS: Final = "#/components/schemas/{name}"
_TITLE: Final = "tallygate"
_INTRODUCTION: Final = """\
Every request but those marked *public* carries a key: `Authorization: Bearer tg_...`. A key has scopes, and may be bound
to one account; about any other account it is answered as if there were none.

A refusal is a problem (RFC 9457, `application/problem+json`): `type` is stable, to branch on; `field` names what must
change; `next_step` says what to do; `instance` is the request's id, which every answer carries as `X-Request-Id`.

Money and quantities are decimal text (`"12.50"`), never JSON numbers with a fraction. Times are RFC 3339. Unknown fields
and query parameters are refused by name. Bodies are not compressed. `503` comes with `Retry-After`, and the same request
may be sent again; so it may after `504`, with the same event id, token or `Idempotency-Key`.

A change that is *repeatable* takes the header `Idempotency-Key`, of your own choice: sent again under the same key it gives
the first answer and changes nothing, for as long as stated. The header `X-Reason` goes into the audit trail.

engine/README.md explains the words (hold, lease, scope, lot ...), and lists every `reason` of a denied check ("Holds") and of
a dead letter ("A record's way").
"""
_ALWAYS: Final = {
    400: "Something in the request must change; `field` names it.",
    401: "No valid key.",
    403: "The key lacks the scope, or is bound to an account.",
    404: "Not there, or not for this key.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    414: "Path and query are too long.",
    415: "The content type is not taken, or the body is compressed.",
    431: "There are too many headers, or too large ones.",
    503: "Something needed is away, or too much is in flight; `Retry-After` says when to try again.",
    504: "No answer in time; what was asked may still happen.",
}


def openapi_handler(document: Mapping[str, Any]) -> Handler:
    """The handler that serves the document."""
    body = orjson.dumps(document)

    async def serve(call: Call) -> Reply:
        return Reply(body)

    return serve


def openapi_route(handler: Handler) -> Route:
    """GET /openapi.json."""
    return Route(
        method="GET",
        path="/openapi.json",
        scope=None,
        handler=handler,
        summary="This API as an OpenAPI 3.1 document",
        description="Generated from the table of routes that the server runs.",
        tags=("operations",),
        example=Example(),
    )


# ----------------------------------------------------------------------------------------------------------- document


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    shapes = [shape for route in routes for shape in (route.request, route.response) if shape is not None]
    _, schemas = msgspec.json.schema_components([ProblemBody, *dict.fromkeys(shapes)], ref_template=_REFS)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": _TITLE, "version": VERSION, "description": _INTRODUCTION},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "tg_<key>"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation_id,
        "summary": route.summary,
        "description": f"{route.description}\n\n{_rights(route)}",
        "tags": list(route.tags),
        "security": [] if route.scope is None else [{"key": []}],
        "responses": _responses(route),
    }
    if parameters := [*_parameters(route)]:
        operation["parameters"] = parameters
    if route.request is not None or route.raw_body:
        operation["requestBody"] = {"required": True, "content": _request_content(route)}
    return operation


def _rights(route: Route) -> str:
    if route.scope is None:
        return "Public: needs no key."
    bound = {
        "path": "A bound key: its own account only.",
        "body": "A bound key: its own account only.",
        None: "A bound key: its own account only." if route.confines else "Not for bound keys.",
    }[route.account_from]
    return f"Scope: `{route.scope}`. {bound}"


def _parameters(route: Route) -> Iterable[dict[str, Any]]:
    for name in re.findall(r"\{(\w+)\}", route.path):
        schema = {"type": "string", "minLength": 1, "maxLength": 256}
        yield {"name": name, "in": "path", "required": True, "schema": schema}
    for item in route.parameters:
        yield {
            "name": item.name,
            "in": "query",
            "required": item.required,
            "description": item.description,
            "schema": _query_schema(item),
        }
    if route.idempotent:
        schema = {"type": "string", "pattern": "^[!-~]{1,128}$"}
        text = "Of the caller's own choice; the same with every repetition of this request."
        yield {"name": "Idempotency-Key", "in": "header", "required": True, "description": text, "schema": schema}


def _query_schema(item: QueryParameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": {"text": "string", "integer": "integer", "boolean": "boolean"}[item.kind]}
    low, high = ("minimum", "maximum") if item.kind == "integer" else ("minLength", "maxLength")
    if item.kind != "boolean":
        if item.minimum is not None:
            schema[low] = item.minimum
        if item.maximum is not None:
            schema[high] = item.maximum
    if item.default is not None:
        schema["default"] = item.default
    if item.choices:
        schema["enum"] = list(item.choices)
    return schema


def _request_content(route: Route) -> dict[str, Any]:
    shape: dict[str, Any] = {} if route.request is None else {"schema": _reference(route.request)}
    if route.request is not None and route.example.request is not None:
        shape["example"] = route.example.request
    return dict.fromkeys(route.raw_body or ("application/json",), shape)


def _reference(shape: type[msgspec.Struct]) -> dict[str, Any]:
    return {"$ref": _REFS.format(name=shape.__name__)}


def _responses(route: Route) -> dict[str, Any]:
    good: dict[str, Any] = {
        "description": inspect.cleandoc(route.response.__doc__ or "") if route.response else "Done."
    }
    if route.response is not None:
        content: dict[str, Any] = {"schema": _reference(route.response)}
        if route.example.response is not None:
            content["example"] = route.example.response
        good["content"] = {route.response_media: content}
    elif route.status != 204:
        good["content"] = {route.response_media: {}}
    problem = {"application/problem+json": {"schema": _reference(ProblemBody)}}
    statuses = dict(_refusals(route))
    answers = {str(status): {"description": text, "content": problem} for status, text in sorted(statuses.items())}
    for status in route.also:
        if route.scope is None and route.response is not None:  # readiness says no in its own words
            answers[str(status)]["content"] = {"application/json": {"schema": _reference(route.response)}} | problem
    return {str(route.status): good} | answers


def _refusals(route: Route) -> Iterable[tuple[int, str]]:
    has_body = route.request is not None or bool(route.raw_body)
    wanted = {400: True, 401: route.scope is not None, 403: route.scope is not None}
    wanted |= {404: "{" in route.path or route.account_from is not None}
    wanted |= {408: has_body, 413: has_body, 414: True, 415: has_body, 431: True, 503: True, 504: True}
    for status, text in _ALWAYS.items():
        if status in route.also:
            yield status, route.also[status]
        elif wanted[status]:
            yield status, text
    yield from ((status, text) for status, text in route.also.items() if status not in _ALWAYS)


# --------------------------------------------------------------------------------------------------------------- page


def page(routes: Sequence[Route]) -> str:
    """docs/api.md."""
    lines = [f"# The HTTP API of {_TITLE}", "", "Generated from the table of routes; do not edit.", "", _INTRODUCTION]
    lines += ["| operation | what | scope |", "|---|---|---|"]
    for route in routes:
        name = f"{route.method} {route.path}"
        lines.append(f"| [`{name}`](#{_anchor(name)}) | {route.summary} | {_scope(route)} |")
    for route in routes:
        lines += ["", *_section(route)]
    return "\n".join(lines).rstrip() + "\n"


def _scope(route: Route) -> str:
    return "public" if route.scope is None else f"`{route.scope}`"


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-")


def _section(route: Route) -> Iterable[str]:
    yield f"## {route.method} {route.path}"
    yield ""
    yield f"{route.summary}. {_rights(route)}"
    yield ""
    yield route.description
    if parameters := route.parameters:
        yield ""
        for item in parameters:
            default = "" if item.default is None else f" Default: {item.default}."
            yield f"- `{item.name}` ({item.kind}{', required' if item.required else ''}): {item.description}.{default}"
    if route.idempotent:
        yield ""
        yield "The header `Idempotency-Key` is required: the same request sent again under the same key changes nothing."
    if route.example.request is not None:
        yield from ("", "Request:", "", "```json", _pretty(route.example.request), "```")
    if route.example.response is not None:
        yield from ("", f"Answer, {route.status}:", "", "```json", _pretty(route.example.response), "```")
    elif route.response_media != "application/json":
        yield from ("", f"Answer, {route.status}: `{route.response_media}`.")
    if route.also:
        yield ""
        for status, text in sorted(route.also.items()):
            yield f"- {status}: {text}"


def _pretty(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
