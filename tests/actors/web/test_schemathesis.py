"""Every operation is called with what the API's own document allows, and with what it forbids."""

from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from actors.keys import KeyScope
from tests.actors.web.fakes import Stage

EXAMPLES = 8  # of each operation; some thousands in a night find no more
STAGE = Stage(key_in_flight_max=10_000)
KEY = STAGE.keys.add(*KeyScope)

schema = schemathesis.openapi.from_asgi("/openapi.json", STAGE.app)
schema.config.generation.update(
    modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE], with_security_parameters=False
)
schema.config.checks.negative_data_rejection.expected_statuses = ["400", "404", "413", "414"]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@schema.exclude(path_regex="/stream$").parametrize()
@settings(
    max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
def test_the_api_does_as_its_document_says(case: "schemathesis.Case[Any]") -> None:
    # In a path or a query a wrong value may be one that cannot be told from a right one once it is written down.
    strict = [negative_data_rejection] if isinstance(case.body, dict) else []
    case.call_and_validate(headers={"Authorization": f"Bearer {KEY}"}, checks=[*CHECKS, *strict])


def test_the_document_has_operations() -> None:
    assert len(list(schema.get_all_operations())) > 10
