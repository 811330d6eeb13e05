"""The whole API of one replica. Printed by `python -m actors.web.api`: docs/api.md; with `--json` the OpenAPI document."""

import sys

import orjson

from actors.web import (
    adjustments,
    batch_checks,
    billed_routes,
    billing_routes,
    contracts,
    customers,
    dialect_routes,
    draft_routes,
    explain,
    floor_routes,
    gateway_routes,
    hot,
    key_routes,
    lease_routes,
    limit_routes,
    margin_rate_routes,
    margin_routes,
    midstream_routes,
    money,
    operations,
    otlp_routes,
    period_routes,
    quantity_grant_routes,
    recurring_routes,
    reported_cost_routes,
    rerates,
    rule_routes,
    sandbox_routes,
    shadow_routes,
    top_up_routes,
    training_routes,
    webhook_routes,
    whatif_routes,
)
from actors.web.app import App
from actors.web.health import Health, health_routes
from actors.web.openapi import document, openapi_handler, openapi_route, page
from actors.web.stream import Streams, stream_route
from actors.web.wire import Route, Services


def all_routes(health: Health) -> tuple[Route, ...]:
    """Every route, in the order of the documents."""
    routes = (
        *hot.ROUTES,
        *batch_checks.ROUTES,
        *lease_routes.ROUTES,
        *midstream_routes.ROUTES,
        *dialect_routes.ROUTES,
        *otlp_routes.ROUTES,
        *explain.ROUTES,
        *customers.ROUTES,
        *contracts.ROUTES,
        *limit_routes.ROUTES,
        *rule_routes.ROUTES,
        *money.ROUTES,
        *adjustments.ROUTES,
        *period_routes.ROUTES,
        *margin_routes.ROUTES,
        *floor_routes.ROUTES,
        *margin_rate_routes.ROUTES,
        *training_routes.ROUTES,
        *billed_routes.ROUTES,
        *reported_cost_routes.ROUTES,
        *billing_routes.ROUTES,
        *recurring_routes.ROUTES,
        *quantity_grant_routes.ROUTES,
        *top_up_routes.ROUTES,
        *rerates.ROUTES,
        stream_route(Streams().stream),
        *webhook_routes.ROUTES,
        *gateway_routes.ROUTES,
        *operations.ROUTES,
        *draft_routes.ROUTES,
        *shadow_routes.ROUTES,
        *whatif_routes.ROUTES,
        *sandbox_routes.ROUTES,
        *key_routes.ROUTES,
        *health_routes(health),
    )
    description = openapi_route(openapi_handler(document(routes)))
    return (*routes, description)


def build_app(services: Services, replica: str) -> App:
    """The ASGI application. Who calls it starts and stops the services."""
    health = Health(replica)
    limits = services.settings.api
    return App(
        all_routes(health),
        services,
        observe=health.observe,
        key_in_flight_max=limits.key_in_flight_max,
        in_flight_max=limits.in_flight_max,
        body_deadline_s=limits.body_deadline_s,
    )


def main() -> None:
    """Print the documents."""
    routes = all_routes(Health("none"))
    if sys.argv[1:] == ["--json"]:
        sys.stdout.write(orjson.dumps(document(routes), option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        sys.stdout.write(page(routes))


if __name__ == "__main__":
    main()
