"""What cost attribution is worth, and what it costs: `make bench-cost`.

    python -m loadtest.cost_bench [--requests 900000] [--rows 0] [--rounds 3] [--live-seconds 30] [--live-rate 500]
                                  [--traces FOLDER] [--report build/bench-cost.json]

Accuracy: a server that batches continuously is simulated (loadtest/batching.py) under the arrivals of the Azure LLM inference
traces 2023 (conversation, code; Patel et al., "Splitwise", ISCA 2024; CC-BY-4.0), as they were, and two and four times as
dense. What each request truly cost there is known. `misallocated` is the share of the cost of busy time that an estimator puts
on the wrong request: by attribution with the server's profile, with one that is off by a factor, and without any; beside them
what others do: tokens in proportion 1:2 and 1:5, and the hour's time in each phase spread over its tokens. Without the traces
a seeded generator draws their lengths, and the report says so. The truth has the form of the profile; a real server's differs.

Conservation: the GPUs' cost, from the rates alone, less all that was told; over how many shares.

Speed: one process, one core, no servers; in turns, over the same records, a bare loop that decodes them, and the whole fold
with its windows, rows and lines. A second is one of CPU. `ratio` is the fold's records per second over the loop's, the median
of the rounds.

Visible: a deployment on a real broker, database and Ray serves requests of a generated fleet (loadtest/cost_live.py). From the
append of what was served to the instant at which its cost stands on the topic, in the margin's rows, and in an answer over HTTP
(loadtest/cost_sight.py). `--live-seconds 0` leaves it out."""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson

from actors.assembly import GC_THRESHOLDS
from config.settings import load_settings
from engine.cost.attribution import TOPIC, Attribution, Horizons, Published
from engine.cost.gpu_rates import HOUR_US, parse_rates
from engine.cost.lines import request_line, window_line
from engine.cost.served import GpuPart, ReplicaUp, Served, encode_served
from engine.cost.window import Bucket
from engine.events import seal
from loadtest.batching import DECODE_NS, PREFILL_NS, READ_NS, Asked, Ran, drawn, from_trace, serve
from loadtest.cost_live import LiveOptions
from loadtest.cost_live import run as run_live
from loadtest.machine import machine

KEY: Final = b"control key of the bench of cost"
START_US: Final = 500_000 * HOUR_US
MODEL: Final = "atlas-large"
REPLICAS: Final = 8  # of the bench of speed
SPEED_REQUESTS: Final = 200_000  # at most
PUBLISH_EVERY: Final = 5_000  # records
KINDS: Final = ("conv", "code")
SPEEDS: Final = (1, 2, 4)
PROFILE: Final = (PREFILL_NS * 1_000, DECODE_NS * 1_000, READ_NS * 1_000)
HORIZONS: Final = Horizons()

Say = Callable[[str], None]
Weigh = Callable[[Ran], float]


def rates(profile: tuple[int, int, int] | None) -> bytes:
    """$3.60 an hour, and a tenth beside it."""
    names = ("prefill_token_ps", "decode_token_ps", "context_read_ps")
    document = {
        "version": 1,
        "currency": "USD",
        "rates": [{"kind": "h100", "from_us": 0, "per_hour": "3.6", "overhead_ppm": 100_000}],
        "profiles": {} if profile is None else {MODEL: dict(zip(names, profile, strict=True))},
    }
    return msgspec.json.encode(document)


def prepared(replicas: int, profile: tuple[int, int, int] | None) -> Attribution:
    """A partition that knows its rates and its replicas."""
    fold = Attribution(0, KEY, HORIZONS)
    fold.apply(seal(KEY, TOPIC, 0, rates(profile)), b"rates", START_US)
    for number in range(replicas):
        key, value = encode_served(ReplicaUp(name_of(number), MODEL, gpus_of(number), START_US, START_US))
        fold.apply(value, key, START_US)
    return fold


def name_of(number: int) -> str:
    return f"replica-{number}"


def gpus_of(number: int) -> tuple[GpuPart, ...]:
    """One or two GPUs each."""
    return tuple(GpuPart(f"GPU-{number}-{index}", "h100") for index in range(1 + number % 2))


def record_of(number: int, ran: Ran, replica: str) -> Served:
    return Served(
        *(f"chatcmpl-{number:024x}", replica, MODEL),
        *(START_US + ran.scheduled_us, START_US + ran.first_us, START_US + ran.last_us),
        *(ran.asked.prompt, 0, ran.asked.output),
        account=f"cus_{number % 499:016d}",
        feature="chat",
    )


# ------------------------------------------------------------------------------------------------------------ accuracy


def attributed(served: Sequence[Ran], profile: tuple[int, int, int] | None) -> list[float]:
    """What each request cost by attribution."""
    fold = prepared(1, profile)
    for number, ran in enumerate(served):
        key, value = encode_served(record_of(number, ran, name_of(0)))
        fold.apply(value, key, START_US + ran.last_us)
    settled = fold.publish(fold.log_us + HORIZONS.settle_us + HORIZONS.window_us, live=False)
    found = [0.0] * len(served)
    for cost in settled.requests:
        assert cost.amount is not None
        found[int(cost.served.request[len("chatcmpl-") :], 16)] += cost.amount
    return found


def in_proportion(served: Sequence[Ran], weigh: Weigh) -> list[float]:
    return [weigh(ran) for ran in served]


def by_phase_time(served: Sequence[Ran]) -> list[float]:
    """The time that all spent in prefill and in decode splits the cost in two, each spread over its tokens."""
    prefill = sum(ran.first_us - ran.scheduled_us for ran in served)
    decode = sum(ran.last_us - ran.first_us for ran in served)
    per_input = prefill / sum(ran.asked.prompt for ran in served)
    per_output = decode / sum(ran.asked.output for ran in served)
    return in_proportion(served, lambda ran: ran.asked.prompt * per_input + ran.asked.output * per_output)


def misallocated(shares: Sequence[float], served: Sequence[Ran]) -> float:
    """The share of the whole that is on the wrong request."""
    total, truth = sum(shares), sum(ran.truth_ns for ran in served)
    return sum(abs(share / total - ran.truth_ns / truth) for share, ran in zip(shares, served, strict=True)) / 2


def scaled(factor: float) -> tuple[int, int, int]:
    prefill, decode, read = (round(part * factor) for part in PROFILE)
    return prefill, decode, read


def accuracy(asked: Sequence[Asked]) -> dict[str, float]:
    """Of each estimator what it misallocates; and how busy the server was, with how many requests at once."""
    served = serve(asked)
    span_us = max(ran.last_us for ran in served) - min(ran.scheduled_us for ran in served)
    busy_us = sum(ran.truth_ns for ran in served) / 1_000
    inside_us = sum(ran.last_us - ran.scheduled_us for ran in served)
    found = {
        "attribution": attributed(served, PROFILE),
        "profile_x0.7": attributed(served, scaled(0.7)),
        "profile_x1.3": attributed(served, scaled(1.3)),
        "without_profile": attributed(served, None),
        "tokens_1_2": in_proportion(served, lambda ran: ran.asked.prompt + 2 * ran.asked.output),
        "tokens_1_5": in_proportion(served, lambda ran: ran.asked.prompt + 5 * ran.asked.output),
        "phase_time": by_phase_time(served),
    }
    return {name: round(misallocated(shares, served), 4) for name, shares in found.items()} | {
        "requests": len(served),
        "busy": round(busy_us / span_us, 3),
        "concurrency_when_busy": round(inside_us / busy_us, 1),
    }


def arrivals(traces: Path | None, kind: str, speed: int, rows: int | None) -> list[Asked]:
    """The trace, or what is drawn instead."""
    return drawn(rows or 5_000, speed, seed=speed) if traces is None else from_trace(trace(traces, kind), speed, rows)


def trace(folder: Path, kind: str) -> Path:
    return folder / f"azure_llm_2023_{kind}.csv"


# --------------------------------------------------------------------------------------------- conservation and speed


def records(requests: int, traces: Path | None) -> list[tuple[bytes, bytes, int]]:
    """Keys and values of `served` in the order of their ends, of several replicas; and those ends."""
    served = serve(arrivals(traces, "conv", 1, min(requests, 5_000)))
    span_us = max(ran.last_us for ran in served)
    found: list[tuple[int, bytes, bytes]] = []
    for number in range(requests):
        turn, place = divmod(number, len(served))
        lap, replica = divmod(turn, REPLICAS)  # every replica serves them, then all of them again
        ran, shift_us = served[place], lap * span_us
        moved = ran._replace(
            scheduled_us=ran.scheduled_us + shift_us, first_us=ran.first_us + shift_us, last_us=ran.last_us + shift_us
        )
        key, value = encode_served(record_of(number, moved, name_of(replica)))
        found.append((START_US + moved.last_us, key, value))
    found.sort()
    return [(key, value, at_us) for at_us, key, value in found]


def fold_all(given: Sequence[tuple[bytes, bytes, int]], seen: Callable[[Published], None]) -> Attribution:
    """The whole fold, as a cost actor that catches up does it."""
    fold = prepared(REPLICAS, PROFILE)
    for number, (key, value, at_us) in enumerate(given, start=1):
        fold.apply(value, key, at_us)
        if number % PUBLISH_EVERY == 0:
            seen(fold.publish(fold.log_us, live=False))
    seen(fold.publish(fold.log_us + HORIZONS.settle_us + HORIZONS.window_us, live=False))
    return fold


def conservation(given: Sequence[tuple[bytes, bytes, int]]) -> dict[str, int]:
    """All that was told, beside the GPUs' cost from the rates alone."""
    windows: dict[tuple[str, int], int] = {}
    direct: dict[tuple[str, int], int] = {}
    told: dict[tuple[str, str, int], int] = {}
    rows = shares = 0

    def seen(published: Published) -> None:
        nonlocal rows
        rows += sum(row.change for row in published.rows)
        for window in published.windows:
            assert window.cost is not None
            windows[window.replica, window.begin_us] = window.cost
            direct[window.replica, window.begin_us] = window.buckets[Bucket.DIRECT]
        for cost in published.requests:
            assert cost.amount is not None
            told[cost.served.replica, cost.served.request, cost.hour_us] = cost.amount

    fold = fold_all(given, seen)
    length = HORIZONS.window_us
    for _, value, _ in given:
        record = msgspec.json.decode(value, type=Served)
        shares += (record.last_us - 1) // length - record.scheduled_us // length + 1
    end_us = max(begin for _, begin in windows) + length
    bill = 0
    for number in range(REPLICAS):
        cost = parse_rates(rates(PROFILE)).cost(gpus_of(number), START_US, end_us)
        assert cost is not None
        bill += sum(cost)
    assert fold.counts["applied"] == len(given) + REPLICAS + 1, fold.counts
    return {
        "shares": shares,
        "windows": len(windows),
        "bill_pico": bill,
        "windows_error_pico": sum(windows.values()) - bill,
        "rows_error_pico": rows - bill,
        "shares_error_pico": sum(told.values()) - sum(direct.values()),
    }


def bare(given: Sequence[tuple[bytes, bytes, int]]) -> float:
    """Records per second of a loop that decodes them."""
    decode = msgspec.json.Decoder(Served).decode
    begun = time.process_time()
    for _, value, _ in given:
        decode(value)
    return len(given) / (time.process_time() - begun)


def whole(given: Sequence[tuple[bytes, bytes, int]]) -> float:
    """Records per second of the fold, with its lines."""

    def seen(published: Published) -> None:
        for cost in published.requests:
            request_line(cost, "USD", 1, 1)
        for window in published.windows:
            window_line(window, "USD", 1, 1)

    begun = time.process_time()
    fold_all(given, seen)
    return len(given) / (time.process_time() - begun)


def rounds(given: Sequence[tuple[bytes, bytes, int]], count: int) -> Iterator[tuple[float, float]]:
    """In turns. The collector is set as in a cost actor."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    for _ in range(count):
        yield bare(given), whole(given)
    gc.set_threshold(*before)
    gc.unfreeze()


def main(arguments: Sequence[str] | None = None, say: Say = print) -> int:
    """Write the report; 0 unless a pico is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=900_000, help="of the bench of conservation")
    parser.add_argument("--rows", type=int, default=0, help="at most so many requests of each trace; 0: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--live-seconds", type=float, default=30.0, help="of the fleet that serves; 0: without servers")
    parser.add_argument("--live-rate", type=int, default=500, help="requests a second of that fleet")
    parser.add_argument("--traces", type=Path, default=default_traces(), help="the folder with the Azure traces")
    parser.add_argument("--report", type=Path, default=Path("build/bench-cost.json"))
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.requests < 1 or options.rows < 0:
        parser.error("--rounds and --requests must be at least 1, --rows at least 0")
    report: dict[str, Any] = {"machine": machine()}
    if options.traces is not None and not all(trace(options.traces, kind).exists() for kind in KINDS):
        options.traces = None
    if options.traces is None:
        say("the Azure traces are not here (--traces): their lengths are drawn instead")
    report["arrivals"] = "drawn" if options.traces is None else "Azure LLM inference traces 2023"
    report["misallocated"] = {}
    for kind in KINDS:
        for speed in SPEEDS:
            found = accuracy(arrivals(options.traces, kind, speed, options.rows or None))
            report["misallocated"][f"{kind}_{speed}x"] = found
            say(f"{kind} {speed}x  " + "  ".join(f"{name} {value}" for name, value in found.items()))
    given = records(options.requests, options.traces)
    report["conservation"] = conservation(given)
    say(f"conservation  {report['conservation']}")
    found_rounds = list(rounds(given[:SPEED_REQUESTS], options.rounds))
    ratios = [fold / loop for loop, fold in found_rounds]
    report["speed"] = {
        "ends_per_s": round(statistics.median(fold for _, fold in found_rounds)),
        "bare_per_s": round(statistics.median(loop for loop, _ in found_rounds)),
        "ratio": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
    }
    say(f"speed  {report['speed']}")
    if options.live_seconds:
        report["visible"] = run_live(load_settings(), LiveOptions(options.live_rate, options.live_seconds), say)
        say(f"visible  {report['visible']}")
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    errors = ("windows_error_pico", "rows_error_pico", "shares_error_pico")
    return 0 if not any(report["conservation"][error] for error in errors) else 1


def default_traces() -> Path | None:
    """The folder of the traces beside a checkout, where there is one."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "traces"
    return folder if folder.exists() else None


if __name__ == "__main__":
    sys.exit(main())
