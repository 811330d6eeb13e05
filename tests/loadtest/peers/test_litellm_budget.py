"""The peer's package is in an environment of its own: here only that nothing of it is imported before it is asked for."""

import sys

from loadtest.peers import litellm_budget


def test_the_peer_is_imported_by_its_first_use_alone() -> None:
    assert "litellm" not in sys.modules
    assert litellm_budget.QUIET["LITELLM_LOCAL_MODEL_COST_MAP"] == "True", "it would fetch prices from elsewhere"
