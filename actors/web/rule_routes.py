"""Alert rules over HTTP: set, removed, listed. What a rule looks at, `engine/events.py` says; the API takes the same."""

from msgspec import Struct

from actors.web.acts import COMMAND_TEXT, commanded
from actors.web.customers import ACCOUNT, AS_OF_EXAMPLE, CHANGE, READ, described, made_example
from actors.web.hot import AsOfAnswer, as_of_answer
from actors.web.wire import Call, Example, Reply, Route
from engine.alerts import Level
from engine.events import Command, On, RemoveRule, SetRule
from engine.outcomes import Refusal


class RuleRequest(Struct, forbid_unknown_fields=True):
    """When to tell someone, and how urgent that is."""

    on: On
    level: Level = "warning"


class RuleItem(Struct):
    rule: str
    on: dict[str, str | int | None]
    level: str
    active_in: list[str]  # windows: "-", the start of a month or period in microseconds, a cap's window, a lot's


class RuleList(Struct):
    items: list[RuleItem]
    as_of: AsOfAnswer


def _rule(call: Call, key: str) -> tuple[Command, str]:
    asked: RuleRequest = call.body
    return SetRule(call.params["account"], key, call.params["rule"], asked.on, asked.level), call.params["rule"]


def _no_rule(call: Call, key: str) -> tuple[Command, str]:
    return RemoveRule(call.params["account"], key, call.params["rule"]), call.params["rule"]


async def list_rules(call: Call) -> Reply:
    """GET /v1/customers/{account}/rules."""
    view = await described(call)
    items = [RuleItem(rule.rule, rule.on, rule.level, list(rule.active_in)) for rule in view.rules]
    return Reply(RuleList(items, as_of_answer(view.as_of)))


ROUTES = (
    Route(
        method="PUT",
        path="/v1/customers/{account}/rules/{rule}",
        handler=commanded(
            "rule.set",
            _rule,
            {
                Refusal.UNKNOWN_CAP: "on.cap",
                Refusal.BAD_RULE: "on",
                Refusal.BAD_AMOUNT: "on.threshold",
                Refusal.UNKNOWN_PRICE: "on.price",
                Refusal.UNKNOWN_COMMITMENT: "on.commitment",
                Refusal.UNKNOWN_METER: "on.meter",
                Refusal.UNKNOWN_SCOPE: "on.scope",
                Refusal.TOO_MANY_CAPS: "rule",
                Refusal.TOO_MANY_RULES: "rule",
            },
        ),
        summary="Set or replace an alert rule",
        description=(
            "Evaluated at once, and with every event. Alerts go to the webhook endpoints of the account, with the rule's "
            "level; when a rule clears, that is told as well. Spend, quantities and spikes count from the moment the rule is "
            "set, but for a month's spend, which is known anyway. What `on` may look at: `cap_percent` (cap, percent, "
            "clear_percent), `balance` (threshold, clear, direction), `spend` (threshold, clear, scope, window, length_s, "
            "direction), `quantity` (the same of a meter or price), `included_percent` (price, percent, clear_percent), "
            "`commitment_percent` (commitment, percent, clear_percent: one of the plan, or the price that has it), "
            "`lot_percent` (lot, percent, clear_percent: what is left of it), `expiring` (threshold, within_s, clear: so much "
            "is left of a lot that soon expires) and `spike` (percent of an average bucket, minimum, bucket_s, clear_percent, "
            "meter or price, scope)." + COMMAND_TEXT
        ),
        example=Example(
            params={"account": "acme", "rule": "low"},
            request={"on": {"measure": "balance", "threshold": "5", "clear": "10"}, "level": "critical"},
            response=made_example("low"),
        ),
        request=RuleRequest,
        **CHANGE,
    ),
    Route(
        method="DELETE",
        path="/v1/customers/{account}/rules/{rule}",
        handler=commanded("rule.remove", _no_rule),
        summary="Remove an alert rule",
        description=(
            "Where it is active, that is told as recovered. Should a rule of this name come again, its alerts go on with the "
            "next ordinal." + COMMAND_TEXT
        ),
        example=Example(params={"account": "acme", "rule": "low"}, response=made_example("low")),
        **CHANGE,
    ),
    Route(
        path="/v1/customers/{account}/rules",
        handler=list_rules,
        summary="List alert rules",
        description="With the windows in which each is active.",
        example=Example(
            params=ACCOUNT,
            response={
                "items": [
                    {
                        "rule": "low",
                        "on": {"measure": "balance", "threshold": "5", "clear": "10", "direction": "down"},
                        "level": "critical",
                        "active_in": ["-"],
                    }
                ],
                "as_of": AS_OF_EXAMPLE,
            },
        ),
        response=RuleList,
        **READ,
    ),
)
