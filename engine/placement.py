"""Where an account lives: Kafka's default partitioner, so that any Java client agrees with us."""

from functools import lru_cache

_SEED = 0x9747B28C
_MULTIPLIER = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """The 32-bit hash that Kafka's Java client takes of a record key, as an unsigned number."""
    length = len(data)
    body = length & ~3
    value = _SEED ^ length
    for start in range(0, body, 4):
        word = int.from_bytes(data[start : start + 4], "little") * _MULTIPLIER & _MASK
        word = (word ^ word >> 24) * _MULTIPLIER & _MASK
        value = (value * _MULTIPLIER & _MASK) ^ word
    if length > body:
        value = (value ^ int.from_bytes(data[body:], "little")) * _MULTIPLIER & _MASK
    value = (value ^ value >> 13) * _MULTIPLIER & _MASK
    return value ^ value >> 15


@lru_cache(maxsize=65536)  # a hash takes 5 us and more, and the same accounts come again and again
def partition_for(key: bytes, partitions: int) -> int:
    """The partition of a record with this key, in a topic of that many partitions."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
