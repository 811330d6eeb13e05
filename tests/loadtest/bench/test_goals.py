"""The table of goals: measured or not, met or not."""

from typing import Any

from loadtest.bench.goals import WANTED, goals_of, missed


def figures(ratio: Any) -> dict[str, Any]:
    return {
        "parts": {"one_shard": {"saturation": {"ratio_per_core": ratio}, "ramp": {"half": {"check_ms": {"p50": 0.4}}}}}
    }


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    goals = goals_of({"parts": {}})
    assert len(goals) == len(WANTED)
    assert {goal.met for goal in goals} == {None}
    assert missed(goals) == []


def test_a_goal_has_a_side_on_which_it_is_met() -> None:
    found = {goal.what: goal for goal in goals_of(figures(0.31))}
    ratio, check = (next(goal for what, goal in found.items() if word in what) for word in ("per core", "at a door"))
    assert (ratio.met, check.met) == (True, True)
    assert not missed(goals_of(figures(0.31)))


def test_a_missed_goal_is_said_with_its_figure() -> None:
    (sentence,) = missed(goals_of(figures(0.29)))
    assert "0.29" in sentence
    assert "≥ 0.3" in sentence


def test_a_figure_that_is_none_was_not_measured() -> None:
    assert next(goal for goal in goals_of(figures(None)) if "per core" in goal.what).met is None
