"""The peer: LiteLLM's budget path, called as its proxy calls it, without a provider, a database or an HTTP hop.

It is imported in an environment of its own (requirements/peers.txt). Prices are those that it brings along.
"""

import os
from typing import Any, Final

MODEL: Final = "gpt-4o"
ROUTE: Final = "/v1/chat/completions"
QUIET: Final = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
}  # no fetching of prices, no line per call


class LitellmBudget:
    """One virtual key with a budget; in this process's memory until it is given a Redis."""

    def __init__(self, key: str, budget: float) -> None:
        os.environ.update(QUIET)  # read on import
        import litellm
        from litellm.proxy import proxy_server
        from litellm.proxy._types import UserAPIKeyAuth
        from litellm.proxy.auth import auth_checks
        from litellm.proxy.spend_tracking import budget_reservation

        self.litellm: Any = litellm
        self._server: Any = proxy_server
        self._checks: Any = auth_checks
        self._reserving: Any = budget_reservation
        self._key: Any = UserAPIKeyAuth(api_key=key, max_budget=budget)
        self._router: Any = litellm.Router(
            model_list=[{"model_name": MODEL, "litellm_params": {"model": MODEL, "api_key": "none is called"}}]
        )

    def use_redis(self, port: int) -> None:
        """From now on the counters are there."""
        from litellm.caching.redis_cache import RedisCache

        self._server.spend_counter_cache.attach_redis_cache(RedisCache(host="127.0.0.1", port=port))

    def tokens(self, messages: list[dict[str, str]]) -> int:
        """Of a prompt, by the model's own tokeniser."""
        return int(self.litellm.token_counter(model=MODEL, messages=messages))

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """Dollars, by the peer's own prices."""
        parts = self.litellm.cost_per_token(model=MODEL, prompt_tokens=input_tokens, completion_tokens=output_tokens)
        return float(sum(parts))

    def estimate_is(self, dollars: float, input_tokens: int) -> None:
        """From now on the worst case is known beforehand: what is left of a reservation is the decision alone."""

        async def counts(**_: Any) -> dict[str, int]:
            return {MODEL: input_tokens}

        self._reserving.count_request_input_tokens = counts
        self._reserving.estimate_request_max_cost = lambda **_: dollars
        self._reserving.estimate_request_input_cost = lambda **_: dollars

    async def check(self) -> None:
        """Whether the key is within its budget, as its auth asks; raises when it is not."""
        await self._checks.virtual_key_max_budget_check(self._key, self._server.proxy_logging_obj)

    async def reserve(self, body: dict[str, Any]) -> Any:
        """The worst case of a request, added to the counter; the handle, or None where nothing was reserved."""
        return await self._reserving.reserve_budget_for_request(
            request_body=body,
            route=ROUTE,
            llm_router=self._router,
            valid_token=self._key,
            team_object=None,
            user_object=None,
            prisma_client=None,
            user_api_key_cache=self._server.user_api_key_cache,
            proxy_logging_obj=self._server.proxy_logging_obj,
        )

    async def settle(self, reservation: Any, dollars: float) -> None:
        """What it cost in the end."""
        await self._reserving.reconcile_budget_reservation(reservation, dollars)

    async def spent(self) -> float:
        """The counter."""
        return float(await self._server.get_current_spend(f"spend:key:{self._key.token}", 0.0))
