"""A sieve may let through what is in no run, seldom; it never holds back what is in one."""

import random

import pytest

from engine import runs as runs_module
from engine import sieve as module
from engine.runs import Batch, Run, seal
from engine.sieve import WIDTH, Sieve, Sought, suspects


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
        passed = {number for number, runs in suspects([sieve], Sought(Batch(keys))) if run in runs}
        assert passed == set(range(len(keys)))


@pytest.mark.parametrize("count", [1, WIDTH])
def test_few_strangers_pass(count: int) -> None:
    """One in four hundred by design; what the words happen to hold moves that a little."""
    sieve = chained([made(4_096, number) for number in range(count)])
    passed = {number for number, _ in suspects([sieve], Sought(Batch(strangers(100_000))))}
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
    before = list(suspects([sieve], Sought(Batch(keys))))
    sieve.beside(second)
    assert list(suspects([sieve], Sought(Batch(keys)))) == before


def test_sieves_that_are_asked_together_answer_as_each_alone() -> None:
    full = [[made(3_000, 10 * start + number) for number in range(WIDTH)] for start in range(2)]
    other = [made(40_000, 30)]
    beside = [made(3_000, 40 + number) for number in range(3)]
    made_runs = [*full[0], *full[1], *other, *beside]
    sieves = [chained(runs) for runs in (full[0], beside, other, full[1])]
    keys = [key for _, keys in made_runs for key in keys[::100]] + strangers(2_000)
    sought = Sought(Batch(keys))
    alone = [(number, runs) for sieve in sieves for number, runs in suspects([sieve], sought)]
    together = list(suspects(sieves, sought))
    assert len(together) == len(alone)
    assert {(number, tuple(run.generation for run in runs)) for number, runs in together} == {
        (number, tuple(run.generation for run in runs)) for number, runs in alone
    }
    assert len({number for number, _ in together if number < len(keys) - 2_000}) == len(keys) - 2_000
