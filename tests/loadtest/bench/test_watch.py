"""What each role takes: counted once, and as a difference."""

import os
import subprocess
import sys

import pytest

from loadtest.bench.watch import Look, Taken, Watch, cores_between, families, taken_by
from tests.simulation.hand_clock import HandClock


def taken_now(roles: dict[str, list[int]]) -> dict[str, Taken]:
    return taken_by(families(roles))


def test_a_process_counts_for_the_first_role_that_names_it() -> None:
    taken = taken_now({"first": [os.getpid()], "second": [os.getpid()]})
    assert taken["first"].rss_mib > 1
    assert taken["second"] == Taken(0.0, 0.0)


def test_children_count_with_their_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        alone = taken_now({"child": [child.pid], "parent": [os.getpid()]})
        together = taken_now({"parent": [os.getpid()]})
        assert alone["child"].rss_mib > 0
        assert together["parent"].rss_mib > alone["parent"].rss_mib
        child.communicate(b"\n")


def test_who_has_ended_takes_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    assert taken_now({"gone": [child.pid]}) == {"gone": Taken(0.0, 0.0)}


def test_cores_are_processor_seconds_over_seconds() -> None:
    first = Look(10.0, {"shard": Taken(1.0, 5.0)})
    last = Look(14.0, {"shard": Taken(3.0, 6.0), "late": Taken(9.0, 1.0)})
    assert cores_between(first, last) == {"shard": 0.5}
    with pytest.raises(ValueError):
        cores_between(last, first)


def test_a_series_starts_at_its_origin() -> None:
    clock = HandClock()
    watch = Watch(clock, lambda: {"bench": [os.getpid()]})
    watch.look(rated=5, lag=2)
    (point,) = watch.series(-1.5)
    assert (point["at_s"], point["rated"], point["lag"]) == (1.5, 5, 2)
    assert point["rss_mib"]["bench"] > 1
