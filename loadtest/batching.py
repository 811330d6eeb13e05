"""An inference server that batches continuously, simulated step by step, and what each request truly cost it.

A step takes a fixed time, and so much for each prompt token computed in it, each sequence that makes a token, and each token
of context that is read for that. Every step admits what waits while there is room, computes prompts in order of arrival up to
a budget of tokens, and makes one token for every sequence behind its prompt. The truth of a step (its Shapley value): the
fixed time shared equally by all that took part, the rest by who caused it. So it knows more than any attribution can: when each
step began, and who was in it."""

import csv
import random
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

FIXED_NS: Final = 6_000_000
PREFILL_NS: Final = 20_000  # per token of the prompt
DECODE_NS: Final = 50_000  # per token made
READ_NS: Final = 43  # per token of context read
CHUNK: Final = 2_048
BATCH_MAX: Final = 256

# What is drawn without a trace: percentiles measured on the conversation part of the Azure LLM inference trace 2023, as in
# loadtest/workload.py, and its mean gap.
GAP_S: Final = 0.181
PERCENTILES: Final = (0, 1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 99.9, 100)
PROMPTS: Final = (2, 29, 181, 207, 387, 403, 703, 1020, 1071, 1130, 1315, 2735, 4083, 4142, 6179, 14050)
OUTPUTS: Final = (7, 16, 41, 54, 77, 91, 103, 129, 177, 384, 400, 424, 451, 601, 954, 1000)


class Asked(NamedTuple):
    """A request as it arrives."""

    at_us: int
    prompt: int
    output: int


class Ran(NamedTuple):
    """A request as it was served, and the nanoseconds of the server that are truly its own."""

    asked: Asked
    scheduled_us: int
    first_us: int
    last_us: int
    truth_ns: float


def from_trace(path: Path, speed: int, rows_max: int | None = None) -> list[Asked]:
    """A CSV with TIMESTAMP, ContextTokens, GeneratedTokens (the Azure LLM inference traces), its arrivals `speed` times as
    dense; at most so many rows."""
    found: list[tuple[datetime, int, int]] = []
    with path.open(newline="") as text:
        for row in csv.DictReader(text):
            instant = datetime.fromisoformat(row["TIMESTAMP"][:26])
            found.append((instant, int(row["ContextTokens"]), max(int(row["GeneratedTokens"]), 1)))
            if rows_max is not None and len(found) >= rows_max:
                break
    found.sort()
    start = found[0][0]
    return [
        Asked(int((at - start).total_seconds() * 1_000_000) // speed, max(prompt, 1), output)
        for at, prompt, output in found
    ]


def drawn(requests: int, speed: int, seed: int) -> list[Asked]:
    """As many requests, drawn: of the trace's lengths, with exponential gaps."""
    draw = random.Random(seed)
    at, found = 0.0, []
    for _ in range(requests):
        at += draw.expovariate(speed / GAP_S)
        percent = 100 * draw.random()
        prompt, output = (
            int(np.interp(share, PERCENTILES, values))
            for share, values in ((percent, PROMPTS), (100 * draw.random(), OUTPUTS))
        )
        found.append(Asked(int(at * 1_000_000), prompt, output))
    return found


def serve(asked: Sequence[Asked]) -> list[Ran]:
    """Serve all of them, in the order of their arrival."""
    count = len(asked)
    prompts = np.array([one.prompt for one in asked], dtype=np.int64)
    outputs = np.array([one.output for one in asked], dtype=np.int64)
    truth, made = np.zeros(count), np.zeros(count, dtype=np.int64)
    scheduled, first, last = (np.zeros(count, dtype=np.int64) for _ in range(3))
    left = prompts.copy()  # of the prompt
    prefilling: list[int] = []
    decoding = np.zeros(0, dtype=np.int64)
    arrived, now_ns = 0, 0
    while arrived < count or prefilling or len(decoding):
        if not prefilling and not len(decoding):
            now_ns = max(now_ns, asked[arrived].at_us * 1_000)
        while (
            arrived < count and asked[arrived].at_us * 1_000 <= now_ns and len(prefilling) + len(decoding) < BATCH_MAX
        ):
            prefilling.append(arrived)
            arrived += 1
        budget, chunks = CHUNK, []
        for index in prefilling:
            tokens = min(budget, int(left[index]))
            if tokens == 0:
                break
            if left[index] == prompts[index]:
                scheduled[index] = now_ns
            chunks.append((index, tokens))
            budget -= tokens
        reads = prompts[decoding] + made[decoding]
        own = DECODE_NS + READ_NS * reads
        length = FIXED_NS + int(own.sum()) + PREFILL_NS * sum(tokens for _, tokens in chunks)
        each = FIXED_NS / (len(decoding) + len(chunks))
        truth[decoding] += own + each
        now_ns += length
        for index, tokens in chunks:
            truth[index] += PREFILL_NS * tokens + each
            left[index] -= tokens
        made[decoding] += 1
        over = made[decoding] >= outputs[decoding]
        last[decoding[over]] = now_ns
        decoding = decoding[~over]
        ready = [index for index, _ in chunks if left[index] == 0]
        if ready:
            prefilling = prefilling[len(ready) :]
            begun = np.array(ready, dtype=np.int64)
            first[begun], made[begun] = now_ns, 1
            short = outputs[begun] <= 1
            last[begun[short]] = now_ns
            decoding = np.concatenate((decoding, begun[~short]))
    return [
        Ran(
            one,
            int(scheduled[index]) // 1_000,
            int(first[index]) // 1_000,
            int(last[index]) // 1_000,
            float(truth[index]),
        )
        for index, one in enumerate(asked)
    ]
