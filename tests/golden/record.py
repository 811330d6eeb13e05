"""One recorded log with its catalogues, and the hash of the state it ends in: whatever changes a state's bytes is noticed.

`python -m tests.golden.record` writes all three anew. Do that only together with a higher `VERSION` in
engine/snapshot.py, or when the log is to hold more: a checkpoint that an older engine wrote must never be read as
something else.
"""

import base64
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from engine.catalog import document_json, load_catalogue
from engine.partition import Partition
from tests.engine.bench import HOUR, KEY, TOPIC, Bench, RandomLog, Record, versions

CATALOGUES: Final = Path(__file__).with_name("catalogues.jsonl")  # versions 1, 2, 3, a line each
LOG: Final = Path(__file__).with_name("log.jsonl")
HASH: Final = Path(__file__).with_name("state.sha256")
PARTITIONS: Final = 2
SEED: Final = 16
STEPS: Final = 1_000
VALUE_BYTES_KEPT_MAX: Final = 10_000  # a record that is too large to be rated would be most of the file


def record() -> Bench:
    """A seeded log with every kind of record."""
    bench = Bench(*versions(), partitions=PARTITIONS)
    log = RandomLog(bench, random.Random(SEED), stride_us=3 * HOUR, accounts=3)
    for _ in range(STEPS):
        log.step()
    return bench


def write(bench: Bench) -> None:
    def text(value: bytes | None) -> str | None:
        return None if value is None else base64.b64encode(value).decode()

    CATALOGUES.write_bytes(b"".join(document_json(body) + b"\n" for body in bench.documents.values()))
    lines = [
        json.dumps({"offset": row.offset, "append_ms": row.append_ms, "key": text(row.key), "value": text(row.value)})
        for row in bench.log
        if row.value is None or len(row.value) <= VALUE_BYTES_KEPT_MAX
    ]
    LOG.write_text("\n".join(lines) + "\n")
    HASH.write_text(digest(replay()) + "\n")


def read() -> Iterator[Record]:
    def raw(text: str | None) -> bytes | None:
        return None if text is None else base64.b64decode(text, validate=True)

    for line in LOG.read_text().splitlines():
        row = json.loads(line)
        yield Record(row["offset"], row["append_ms"], raw(row["key"]), raw(row["value"]))


def replay() -> Partition:
    """The recorded log, folded."""
    bodies = CATALOGUES.read_bytes().splitlines()
    library = {version: load_catalogue(version, body) for version, body in enumerate(bodies, start=1)}
    partition = Partition(0, PARTITIONS, TOPIC, KEY, library)
    for row in read():
        partition.apply(*row)
    return partition


def digest(partition: Partition) -> str:
    return hashlib.sha256(partition.state_bytes()).hexdigest()


if __name__ == "__main__":
    write(record())
