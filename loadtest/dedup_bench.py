"""What the memory of rated events costs when its window is full: `make bench-dedup`.

    python -m loadtest.dedup_bench [--ids 50000000] [--report build/bench-dedup.json]

One process, one partition, five buckets of seven days. New identities arrive in batches as large as a shard's; every
50,000 a checkpoint takes what is fresh, and what it closes is sealed, written to a folder, mapped and put behind a sieve
at once, in the same thread, so that all of it counts. Then identities that are known, and a takeover: a memory loaded as
from Postgres, outlines only, that is asked at once and fetches single rows.

As in a shard's process, large blocks of memory go back to the system when they are free.
Memory is told twice: what the process has resident, anonymous and file-backed apart (file-backed pages are copies of the
folder's files, which the system drops when it needs the room), and what the memory's own parts count up to.
"""

import argparse
import ctypes
import gc
import mmap
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from actors.incarnation import give_back_large_blocks
from actors.shard import EXPECT_MAX
from engine.dedup import BUCKET_US, Dedup, Place, identity
from engine.outcomes import DedupSegment
from engine.runs import ROW_BYTES, Run, Sealed, outline_bytes, seal
from loadtest.machine import machine, resident

BUCKETS: Final = 5
CHECKPOINT_EVERY: Final = 50_000
MARK: Final = b"mark"

Say = Callable[[str], None]


def batch_of(number: int, size: int) -> list[bytes]:
    """The identities of a batch; the same every time."""
    drawn = np.random.default_rng((7, number)).bytes(12 * size)
    return [drawn[at : at + 12] for at in range(0, 12 * size, 12)]


class Spent:
    """Wall and processor seconds by what they went to."""

    def __init__(self) -> None:
        self.wall_s: dict[str, float] = {}
        self.cpu_s: dict[str, float] = {}

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall_s[name] = self.wall_s.get(name, 0.0) + time.perf_counter() - wall
        self.cpu_s[name] = self.cpu_s.get(name, 0.0) + time.process_time() - cpu

    def each(self, count: int) -> dict[str, Any]:
        """Microseconds for each of `count`, by part and in all."""
        parts = {name: round(seconds / count * 1e6, 3) for name, seconds in self.cpu_s.items()}
        return {
            "cpu_us": parts,
            "cpu_us_all": round(sum(self.cpu_s.values()) / count * 1e6, 3),
            "wall_us_all": round(sum(self.wall_s.values()) / count * 1e6, 3),
        }


class Rig:
    """One memory, and the folder that stands for Postgres and the local disk."""

    def __init__(self, folder: Path, ids: int) -> None:
        self.memory = Dedup()
        self.runs: list[Run] = []
        self.loose: set[tuple[int, int]] = set()
        self._folder = folder
        self._ids = ids

    def log_time_us(self, offset: int) -> int:
        return offset * BUCKETS * BUCKET_US // self._ids

    def fill(self, number: int, size: int, spent: Spent) -> None:
        """A batch of new identities, as a shard has them: expected, asked for, remembered."""
        keys, offset = batch_of(number, size), number * EXPECT_MAX
        log_time_us, memory = self.log_time_us(offset), self.memory
        with spent.on("expect"):
            memory.expect(keys)
        with spent.on("ask and remember"):
            for key in keys:
                if memory.mark(key) is None:
                    memory.remember(key, MARK, offset, log_time_us)
                offset += 1

    def checkpoint(self, spent: Spent) -> None:
        with spent.on("checkpoint"):
            fresh = self.memory.take_fresh()
        for segment in fresh:
            self.loose.add((segment.bucket, segment.generation))
            with self.segments(segment.bucket, segment.generation).open("ab") as file:
                file.write(segment.entries)
        del fresh
        for closed in self.memory.closed():
            with spent.on("seal"):
                sealed = seal(closed.pieces)
            with spent.on("write and map"):
                run = self._mapped(closed.bucket, closed.generation, sealed)
            self.loose.remove((closed.bucket, closed.generation))
            self.segments(closed.bucket, closed.generation).unlink()
            self.memory.adopt(run)
            self.runs.append(run)
            del sealed, closed
            with spent.on("sieve"):
                while work := self.memory.unsieved():
                    self.memory.put_sieve(work, work.done())

    def segments(self, bucket: int, generation: int) -> Path:
        return self._folder / f"{bucket}-{generation}.loose"

    def path(self, bucket: int, generation: int) -> Path:
        return self._folder / f"{bucket}-{generation}.run"

    def _mapped(self, bucket: int, generation: int, sealed: Sealed) -> Run:
        with self.path(bucket, generation).open("w+b") as file:
            file.write(sealed.outline)
            file.write(sealed.rows)
            file.flush()
            whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        size = len(sealed.outline)
        return Run(bucket, generation, sealed.count, whole[:size], whole[size:])

    def loaded(self) -> Dedup:
        """As a takeover loads it: loose segments and outlines."""
        memory = Dedup()
        segments = [DedupSegment(*name, self.segments(*name).read_bytes()) for name in sorted(self.loose)]
        heads = []
        for run in self.runs:
            with self.path(run.bucket, run.generation).open("rb") as file:
                outline = file.read(outline_bytes(run.count))
            heads.append(Run(run.bucket, run.generation, run.count, outline, None))
        memory.load(segments, heads)
        return memory

    def row(self, place: Place) -> bytes:
        """As the store gives it: by a read of its own."""
        count = next(r.count for r in self.runs if (r.bucket, r.generation) == (place.bucket, place.generation))
        with self.path(place.bucket, place.generation).open("rb", buffering=0) as file:
            return os.pread(file.fileno(), ROW_BYTES, outline_bytes(count) + place.row * ROW_BYTES)


def bench(ids: int, folder: Path, say: Say) -> dict[str, Any]:
    """All figures."""
    figures: dict[str, Any] = {"machine": machine(), "ids": ids, "batch": EXPECT_MAX}
    give_back_large_blocks()
    rig = Rig(folder, ids)
    gc.collect()
    gc.freeze()
    ctypes.CDLL(None).malloc_trim(0)
    before = resident()
    built, full = Spent(), Spent()
    batches, began = ids // EXPECT_MAX, time.perf_counter()
    for number in range(batches):
        rig.fill(number, EXPECT_MAX, built if number < batches * 9 // 10 else full)
        if (number + 1) * EXPECT_MAX % CHECKPOINT_EVERY == 0 or number == batches - 1:
            rig.checkpoint(built if number < batches * 9 // 10 else full)
        if (number + 1) % (batches // 10 or 1) == 0:
            grown = {kind: size - before[kind] for kind, size in resident().items()}
            held = (number + 1) * EXPECT_MAX
            each = grown["anonymous"] / held
            say(f"  {held:>11,} identities, {time.perf_counter() - began:5.0f} s, anonymous {each:.2f} B each")
    build_s = time.perf_counter() - began
    count = len(rig.memory)
    assert count == batches * EXPECT_MAX, "every identity is remembered once"
    grown = {kind: size - before[kind] for kind, size in resident().items()}
    at_rest = sum(path.stat().st_size for path in folder.iterdir())
    figures["memory"] = {
        "at_rest_bytes_per_id": round(at_rest / count, 3),
        "resident_anonymous_bytes_per_id": round(grown["anonymous"] / count, 3),
        "resident_anonymous_bytes_per_id_once_free_memory_is_given_back": round(_given_back(before) / count, 3),
        "resident_file_backed_bytes_per_id": round(grown["file_backed"] / count, 3),
        "counted_bytes_per_id": {part: round(size / count, 3) for part, size in rig.memory.sizes().items()},
        "runs": len(rig.runs),
    }
    first = batches * 9 // 10
    figures["new"] = {
        "build_s": round(build_s, 1),
        "first_nine_tenths": built.each(first * EXPECT_MAX),
        "last_tenth": full.each((batches - first) * EXPECT_MAX),
    }
    figures["known"] = _known(rig, batches, say)
    figures["identity_us"] = _identities()
    figures["takeover"] = _takeover(rig, batches, say)
    return figures


def _given_back(before: dict[str, int]) -> int:
    """Anonymous bytes once the C library has handed free memory to the system: it keeps up to 64 MiB for later."""
    ctypes.CDLL(None).malloc_trim(0)
    return resident()["anonymous"] - before["anonymous"]


def _known(rig: Rig, batches: int, say: Say) -> dict[str, Any]:
    spent, asked = Spent(), 0
    for number in range(0, batches, max(1, batches // 400)):
        keys = batch_of(number, EXPECT_MAX)
        with spent.on("expect and find"):
            rig.memory.expect(keys)
            found = [rig.memory.find(key) for key in keys]
        assert found == [(MARK, number * EXPECT_MAX + at) for at in range(EXPECT_MAX)], "every one is known, exactly"
        asked += EXPECT_MAX
    say(f"  {asked:,} known identities were found, each with its fingerprint and offset")
    return {"asked": asked} | spent.each(asked)


def _identities() -> float:
    names = [(f"cus_{number % 1000:04}", "gateway-1", f"req-{number:016x}") for number in range(100_000)]
    began = time.process_time()
    for account, source, event_id in names:
        identity(account, source, event_id)
    return round((time.process_time() - began) / len(names) * 1e6, 3)


def _takeover(rig: Rig, batches: int, say: Say) -> dict[str, Any]:
    began = time.perf_counter()
    memory = rig.loaded()
    load_s = time.perf_counter() - began
    new = batch_of(batches + 1, EXPECT_MAX)
    asked_s = time.perf_counter()
    memory.expect(new)
    doubts = memory.doubts()
    memory.supply([(place, rig.row(place)) for place in doubts])
    assert [memory.find(key) for key in new] == [None] * EXPECT_MAX, "all are new, and said to be so"
    first_s = time.perf_counter() - asked_s
    known = batch_of(batches // 2, EXPECT_MAX)
    memory.expect(known)
    memory.supply([(place, rig.row(place)) for place in memory.doubts()])
    assert None not in [memory.find(key) for key in known], "what was rated before is known before its run is here"
    sieve_s = time.perf_counter()
    while work := memory.unsieved():
        memory.put_sieve(work, work.done())
    say(f"  taken over in {load_s:.2f} s; the first {EXPECT_MAX} events needed {len(doubts)} single rows")
    return {
        "load_s": round(load_s, 6),
        "loaded_bytes_per_id": round(sum(outline_bytes(run.count) for run in rig.runs) / len(rig.memory), 3),
        "first_batch_ms": round(first_s * 1000, 1),
        "first_batch_rows_fetched": len(doubts),
        "sieves_s": round(time.perf_counter() - sieve_s, 2),
    }


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.dedup_bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--ids", type=int, default=50_000_000, help="identities in the window")
    parser.add_argument("--report", type=Path, default=Path("build/bench-dedup.json"), help="where the figures go")
    parser.add_argument(
        "--folder", type=Path, default=None, help="for the runs, 18 bytes an identity; removed at the end"
    )
    options = parser.parse_args(arguments)
    if options.ids < BUCKETS * EXPECT_MAX:
        parser.error(f"--ids must be at least {BUCKETS * EXPECT_MAX}")
    options.report.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dedup-", dir=options.folder or options.report.parent) as folder:
        figures = bench(options.ids, Path(folder), lambda line: print(line, file=sys.stderr))  # noqa: T201
    text = orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    options.report.write_bytes(text)
    sys.stdout.write(text.decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
