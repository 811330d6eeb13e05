"""An account's partition is the one every Kafka client with murmur2 computes."""

import pytest
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as reference
from hypothesis import given
from hypothesis import strategies as st

from engine.placement import murmur2, partition_for

# The first six stand in Kafka's own test of its Java client (signed there, unsigned here).
VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
    b"": 275646681,
}


@pytest.mark.parametrize(("key", "signed"), VECTORS.items())
def test_known_vectors(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed & 0xFFFFFFFF


@given(st.binary(max_size=300))
def test_agrees_with_the_client_library(key: bytes) -> None:
    assert murmur2(key) == reference(key)


@given(st.binary(max_size=40), st.integers(1, 1024))
def test_partition_is_the_one_a_producer_picks(key: bytes, partitions: int) -> None:
    everywhere = list(range(partitions))
    assert partition_for(key, partitions) == DefaultPartitioner()(key, everywhere, everywhere)
