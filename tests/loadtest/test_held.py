"""The held part's own pieces; the whole of it runs in `make demo`."""

import os
from collections import Counter
from pathlib import Path

import orjson
import pytest

from actors.clock import SystemClock
from config.catalogue import load_file
from config.settings import Settings
from engine.catalog import document_json
from loadtest.held import HeldTraffic, is_replica, replica_pid
from loadtest.verify import Verdict
from loadtest.workload import Workload

CATALOGUE_FILE = Path(__file__).parents[2] / "config" / "catalogue.example.yaml"


def test_the_replica_that_answers_names_its_process() -> None:
    metrics = 'tallygate_shard_up{shard="a"} 1\ntallygate_http_requests_total{replica="api.4711",route="check"} 3\n'
    assert replica_pid(metrics) == 4711
    assert replica_pid("tallygate_shard_up 1") is None


def test_a_process_that_is_no_replica_is_never_killed() -> None:
    assert not is_replica(os.getpid())
    assert not is_replica(2**22 + 1)


async def test_nothing_can_be_said_before_it_ran() -> None:
    catalogue = orjson.loads(document_json(load_file(CATALOGUE_FILE)))
    workload = Workload(1, 10, 2, None, 1.0, catalogue=catalogue, prefix="gw")
    made = HeldTraffic(Settings(), SystemClock(), workload, ttl_s=5.0)
    with pytest.raises(AssertionError):
        made.judge(Verdict(Counter(), 0, 0, 0, 0, [], {}, {}, 0))
