"""A process dies at one step, once for every step there is: the state is always the one without a crash."""

import pytest

from tests.simulation.crash_points import Crashed, crash

SAMPLED = 16  # steps that `make test` tries; `make test-long` tries all


@pytest.fixture(scope="module")
def calm() -> Crashed:
    """The run in which nobody dies."""
    run = crash(None)
    assert not run.violations, run.violations
    assert run.told and len(run.sites) > 300
    assert {"encode", "commit.before", "commit.after", "append.before", "post.after"} <= {*run.sites}
    return run


def differences(calm: Crashed, at: int) -> list[str]:
    run = crash(at)
    assert run.site == calm.sites[at - 1]
    found = [f"step {at} ({run.site}): {sentence}" for sentence in run.violations]
    if run.state != calm.state:
        found.append(f"step {at} ({run.site}): the accounts are not what they are without a crash")
    if run.told != calm.told:
        found.append(f"step {at} ({run.site}): told {run.told}, without a crash {calm.told}")
    return found


@pytest.mark.timeout(0)
def test_a_crash_at_some_steps_changes_nothing(calm: Crashed) -> None:
    every = len(calm.sites) // SAMPLED
    found = [sentence for at in range(every // 2, len(calm.sites), every) for sentence in differences(calm, at)]
    assert not found, "\n".join(found)


@pytest.mark.long
@pytest.mark.timeout(0)
def test_a_crash_at_any_step_changes_nothing(calm: Crashed) -> None:
    found = [sentence for at in range(1, len(calm.sites) + 1) for sentence in differences(calm, at)]
    assert not found, "\n".join(found)
