"""A sieve may let through what is in no run, seldom; it never holds back what is in one."""

import random

import pytest

from engine import runs as runs_module
from engine import sieve as module
from engine.runs import Batch, Run, seal
from engine.sieve import WIDTH, Sieve, Sought


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of a few thousand count as large, and have words enough."""
    monkeypatch.setattr(runs_module, "LARGE", 1_000)
    monkeypatch.setattr(module, "WORDS_MIN", 64)


def made(count: int, generation: int) -> tuple[Run, list[bytes]]:
    source = random.Random(generation)
    entries = [source.randbytes(20) for _ in range(count)]
    sealed = seal(entries)
    return Run(0, generation, count, sealed.outline, None), [entry[:12] for entry in entries]


def strangers(count: int) -> list[bytes]:
    source = random.Random(1_000)
    return [source.randbytes(12) for _ in range(count)]


def chained(made_runs: list[tuple[Run, list[bytes]]]) -> Sieve:
    sieve = Sieve.over((made_runs[0][0],))
    for run, _ in made_runs[1:]:
        assert sieve.takes(run)
        sieve = sieve.beside(run)
    return sieve


@pytest.mark.parametrize("count", [1, 2, WIDTH - 1, WIDTH])
def test_every_identity_passes_to_its_own_run(count: int) -> None:
    made_runs = [made(3_000 + number, number) for number in range(count)]
    sieve = chained(made_runs)
    assert len(sieve.groups) == (1 if count == WIDTH else count)
    for run, keys in made_runs:
        passed = set(sieve.suspects(Sought(Batch(keys))))
        assert {(number, run) for number in range(len(keys))} <= passed


@pytest.mark.parametrize("count", [1, WIDTH])
def test_few_strangers_pass(count: int) -> None:
    """One in four hundred by design; what the words happen to hold moves that a little."""
    sieve = chained([made(4_096, number) for number in range(count)])
    passed = {number for number, _ in sieve.suspects(Sought(Batch(strangers(100_000))))}
    assert 0.001 < len(passed) / 100_000 < 0.006


def test_a_sieve_has_two_bytes_an_identity() -> None:
    sieve = chained([made(8_192, number) for number in range(WIDTH)])
    assert sieve.nbytes == 2 * 8_192 * WIDTH


def test_runs_of_another_size_get_a_sieve_of_their_own() -> None:
    sieve = Sieve.over((made(4_000, 1)[0],))
    assert sieve.takes(made(5_000, 2)[0])
    assert not sieve.takes(made(40_000, 3)[0])
    full = chained([made(4_000, number) for number in range(WIDTH)])
    assert not full.takes(made(4_000, 9)[0])


def test_a_sieve_does_not_change_when_the_next_is_made() -> None:
    """The old one answers until the new one takes its place, perhaps from another thread."""
    (first, keys), (second, _) = made(3_000, 1), made(3_000, 2)
    sieve = Sieve.over((first,))
    before = list(sieve.suspects(Sought(Batch(keys))))
    sieve.beside(second)
    assert list(sieve.suspects(Sought(Batch(keys)))) == before
