"""What is written is what the service reads."""

import pytest

from engine.cost import served as service
from tallygate_served import BadRecord, GpuPart, ReplicaUp, Served, Status

RECORD = Served(
    "evt-1", "llama-0", "m", 10, 20, 30, 100, 60, 20, Status.ABORTED, "acme", "team:red", "chat", 2, 1, "talk-3"
)


def test_the_service_reads_what_is_written() -> None:
    key, value = RECORD.encoded()
    assert service.parse_served(value, key) == service.Served(
        request="evt-1",
        replica="llama-0",
        model="m",
        scheduled_us=10,
        first_us=20,
        last_us=30,
        prompt=100,
        cached=60,
        output=20,
        status=service.Status.ABORTED,
        account="acme",
        scope="team:red",
        feature="chat",
        run="talk-3",
        attempt=2,
        seq=1,
    )
    with pytest.raises(BadRecord, match="run"):
        Served("evt-1", "llama-0", "m", 10, None, 30, 100, run="").encoded()
    key, value = Served("evt-1", "llama-0", "m", 10, None, 30, 100).encoded()
    assert service.parse_served(value, key) == service.Served("evt-1", "llama-0", "m", 10, None, 30, 100)


def test_a_replica_too() -> None:
    key, value = ReplicaUp(
        "llama-0", "m", (GpuPart("GPU-1", "h100-sxm"), GpuPart("GPU-2", "h100", 1, 3, 7)), 5, 6
    ).encoded()
    assert service.parse_served(value, key) == service.ReplicaUp(
        "llama-0", "m", (service.GpuPart("GPU-1", "h100-sxm"), service.GpuPart("GPU-2", "h100", 1, 3, 7)), 5, 6
    )


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (Served("", "r", "m", 1, 2, 3, 1), "request"),
        (Served("e", "r", "m" * 257, 1, 2, 3, 1), "model"),
        (Served("e", "r", "m", 3, 2, 3, 1), "do not follow"),
        (Served("e", "r", "m", 1, 2, 3, 1, 2), "cached: 2 of 1"),
        (Served("e", "r", "m", 1, None, 3, 1, 0, 5), "no first_us"),
        (ReplicaUp("r", "m", (), 1), "gpus"),
    ],
)
def test_what_the_service_would_refuse_is_refused_here(record: Served | ReplicaUp, told: str) -> None:
    with pytest.raises(BadRecord, match=told):
        record.encoded()
