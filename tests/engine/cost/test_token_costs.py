"""Of whose tokens an execution's cost is."""

from engine.cost.gpu_rates import Profile
from engine.cost.replica import RequestCost
from engine.cost.served import Served
from engine.cost.token_costs import ModelTokenCosts, TokenClass, note, work

PROFILE = Profile(prefill_token_ps=20, decode_token_ps=50, context_read_ps=3)


def served(prompt: int, cached: int, output: int) -> Served:
    return Served("a", "r", "m", 0, 1, 2, prompt, cached, output)


def test_the_work_of_all_classes_is_that_of_both_phases() -> None:
    """10 tokens of which 4 are cached, 3 made: two decodes, which read 10 + 1 and 10 + 2 tokens."""
    assert work(served(10, 4, 3), PROFILE) == (6 * (20 + 2 * 3), 4 * 2 * 3, 2 * 50 + 3 * 3)
    assert sum(work(served(10, 4, 3), PROFILE)) == 6 * 20 + 2 * 50 + (11 + 12) * 3


def test_a_cached_token_is_cheap_and_not_free() -> None:
    uncached, cached, _ = work(served(10, 5, 100), PROFILE)
    assert 0 < cached < uncached
    assert work(served(10, 10, 1), PROFILE) == (0, 0, 0)  # the first token ends a prefill of nothing


def test_what_cannot_be_split_is_of_no_class() -> None:
    into = ModelTokenCosts()
    note(into, RequestCost(served(10, 0, 3), 0, 1_000, True, True, 0), PROFILE)
    assert sum(map(into.of, TokenClass)) == 1_000
    for cost, profile in (
        (RequestCost(served(10, 0, 3), 0, 1_000, True, False, 0), None),
        (RequestCost(served(10, 0, 3), 0, None, True, True, 0), PROFILE),
        (RequestCost(served(10, 10, 1), 0, 1_000, True, True, 0), PROFILE),
    ):
        note(into, cost, profile)
    assert sum(map(into.of, TokenClass)) == 1_000
