import re
from typing import Any

import jsonschema
import orjson
import pytest

from actors.web.api import all_routes
from actors.web.health import Health
from actors.web.openapi import document, page
from tests.actors.web.asgi_client import Client
from tests.actors.web.fakes import Stage

ROUTES = all_routes(Health("test"))
DOCUMENT = document(ROUTES)
SCHEMAS = DOCUMENT["components"]["schemas"]


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    return schema | {"components": DOCUMENT["components"]}


async def test_anybody_may_read_the_document(stage: Stage) -> None:
    answer = await Client(stage.app).get("/openapi.json")
    told = answer.json()
    assert answer.status == 200 and told["openapi"] == "3.1.0"
    assert told["paths"].keys() == {route.path for route in ROUTES} - {"/openapi.json"}


def test_every_reference_leads_somewhere() -> None:
    text = orjson.dumps(DOCUMENT).decode()
    assert set(re.findall(r'"#/components/schemas/(\w+)"', text)) <= SCHEMAS.keys()


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_every_schema_is_json_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names)) == len(ROUTES)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_examples_obey_their_schemas(route: Any) -> None:
    for shape, example in ((route.request, route.example.request), (route.response, route.example.response)):
        if shape is not None:
            schema = resolved({"$ref": f"#/components/schemas/{shape.__name__}"})
            jsonschema.Draft202012Validator(schema).validate(example)


def test_two_shapes_of_one_name_are_told_apart() -> None:
    """msgspec would write both out under longer names, and the references by short name would lead nowhere."""
    shapes = {shape for route in ROUTES for shape in (route.request, route.response) if shape is not None}
    assert len({shape.__name__ for shape in shapes}) == len(shapes)


def test_the_page_has_every_operation_with_its_example() -> None:
    text = page(ROUTES)
    for route in ROUTES:
        assert f"## {route.method} {route.path}\n" in text
    assert '"up_to": "4096"' in text
