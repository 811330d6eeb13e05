"""Both in one process, in turns, with the same prompt and the same price: `python -m loadtest.peers.side_by_side`.

    check            is there budget left? nothing is reserved
    decision only    reserve and settle, the token count and the worst case being known
    whole            token count, worst case, reserve, settle; both count tokens with the peer's tokeniser

Each in the peer's memory, and with its counters in Redis; ours is its engine either way. It runs in the environment of
requirements/peers.txt, and prints a JSON object.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson

from engine.money import amount_text
from loadtest.bench.latency import Latencies
from loadtest.peers.engine_budget import HOLD_US, SECOND_US, EngineBudget
from loadtest.peers.litellm_budget import MODEL, LitellmBudget

DOLLARS_IN: Final = "2.50"  # per million tokens: what the peer has for the model, which is tested
DOLLARS_OUT: Final = "10"
OUTPUT_MAX: Final = 256
OUTPUT: Final = 100
WORDS: Final = 40
BUDGET: Final = 1e9
HELD: Final = 100  # requests under way when a process is killed
TOUCH_EVERY_S: Final = 5.0  # other requests keep the key in use
HELD_WITHIN_S: Final = 60.0

Turn = Callable[[], Awaitable[None]]


async def in_turns(contenders: dict[str, Turn], rounds: int, calls: int) -> dict[str, Any]:
    """Each contender `calls` times, in `rounds` rounds; the first round warms up."""
    latencies = {name: Latencies() for name in contenders}
    seconds = dict.fromkeys(contenders, 0.0)
    for number in range(rounds + 1):
        for name, turn in contenders.items():
            began_s = time.perf_counter()
            for _ in range(calls):
                at_s = time.perf_counter()
                await turn()
                if number:
                    latencies[name].record(time.perf_counter() - at_s)
            if number:
                seconds[name] += time.perf_counter() - began_s
    return {
        name: latencies[name].summary() | {"per_s": round(rounds * calls / seconds[name], 1)} for name in contenders
    }


def beside(found: dict[str, Any]) -> dict[str, Any]:
    """With how many times ours does as many."""
    return found | {"times": round(found["ours"]["per_s"] / found["litellm"]["per_s"], 1)}


async def compared(peer: LitellmBudget, ours: EngineBudget, rounds: int, calls: int) -> dict[str, Any]:
    """The three rows. `peer` ends with its estimate fixed."""
    messages = [{"role": "user", "content": "word " * WORDS}]
    body = {"model": MODEL, "max_tokens": OUTPUT_MAX, "messages": messages}
    tokens = peer.tokens(messages)
    cost = peer.cost(tokens, OUTPUT)

    async def their_check() -> None:
        await peer.check()

    async def our_check() -> None:
        if not ours.check(MODEL, tokens, OUTPUT_MAX):
            raise AssertionError("refused")

    async def theirs() -> None:
        await peer.settle(await peer.reserve(body), cost)

    async def whole_of_ours() -> None:
        counted = peer.tokens(messages)
        settle(ours.reserve(MODEL, counted, OUTPUT_MAX))

    async def ours_alone() -> None:
        settle(ours.reserve(MODEL, tokens, OUTPUT_MAX))

    def settle(token: str | None) -> None:
        if token is None:
            raise AssertionError("refused")
        ours.settle(token, MODEL, tokens, OUTPUT)

    rows = {
        "check": beside(await in_turns({"litellm": their_check, "ours": our_check}, rounds, calls)),
        "whole": beside(await in_turns({"litellm": theirs, "ours": whole_of_ours}, rounds, calls)),
    }
    peer.estimate_is(peer.cost(tokens, OUTPUT_MAX), tokens)
    rows["decision_only"] = beside(await in_turns({"litellm": theirs, "ours": ours_alone}, rounds, calls))
    return rows


# ------------------------------------------------------------------------------------------------------- who is killed


async def hold_and_wait(key: str, port: int) -> None:
    """A process of the peer's with requests under way: it says so, and waits to be killed."""
    peer = LitellmBudget(key, BUDGET)
    peer.use_redis(port)
    body = {"model": MODEL, "max_tokens": OUTPUT_MAX, "messages": [{"role": "user", "content": "word " * WORDS}]}
    for _ in range(HELD):
        await peer.reserve(body)
    sys.stdout.write("held\n")
    sys.stdout.flush()
    await asyncio.sleep(3_600)


async def after_a_kill(port: int, watch_s: float) -> dict[str, Any]:
    """What a killed process's reservations leave behind: how long each side goes on counting them."""
    key = f"sk-killed-{os.getpid()}"
    command = [sys.executable, "-m", "loadtest.peers.side_by_side", "--hold", key, "--redis-port", str(port)]
    child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    try:
        async with asyncio.timeout(HELD_WITHIN_S):
            while (line := await child.stdout.readline()).strip() != b"held":
                if not line:
                    raise RuntimeError("the peer's process ended before it held anything")
    finally:
        child.send_signal(signal.SIGKILL)
        await child.wait()
    peer = LitellmBudget(key, BUDGET)
    peer.use_redis(port)
    body = {"model": MODEL, "max_tokens": OUTPUT_MAX, "messages": [{"role": "user", "content": "word"}]}
    seen, began_s = [(0.0, await peer.spent())], time.monotonic()
    while time.monotonic() - began_s < watch_s:
        await asyncio.sleep(TOUCH_EVERY_S)
        await peer.settle(await peer.reserve(body), 0.0)
        seen.append((round(time.monotonic() - began_s, 1), round(await peer.spent(), 6)))
    return {"litellm_phantom_dollars": seen, "ours": freed(HELD)}


def freed(count: int) -> dict[str, Any]:
    """Holds that nobody settles, and after how many seconds of log time their money is free again."""
    ours = EngineBudget(DOLLARS_IN, DOLLARS_OUT)
    for _ in range(count):
        assert ours.reserve(MODEL, WORDS, OUTPUT_MAX) is not None
    _, held = ours.wallet()
    seconds = 0
    while ours.wallet()[1]:
        ours.pass_time(1)
        seconds += 1
    return {"held_dollars": amount_text(held), "free_after_s": seconds, "ttl_s": HOLD_US // SECOND_US}


async def main(asked: argparse.Namespace) -> None:
    if asked.hold:
        await hold_and_wait(asked.hold, asked.redis_port)
        return
    peer = LitellmBudget("sk-memory", BUDGET)
    figures: dict[str, Any] = {
        "peer": {"version": _version("litellm"), "model": MODEL},
        "in_memory": await compared(peer, EngineBudget(DOLLARS_IN, DOLLARS_OUT), asked.rounds, asked.calls),
    }
    if asked.redis_port:
        figures["with_redis"] = orjson.loads(await asyncio.to_thread(in_redis, asked))
        figures["after_a_kill"] = await after_a_kill(asked.redis_port, asked.watch_s)
    sys.stdout.write(orjson.dumps(figures).decode() + "\n")


def in_redis(asked: argparse.Namespace) -> bytes:
    """`compared` in a process of its own: the peer's functions have been given an estimate in this one."""
    command = [sys.executable, "-m", "loadtest.peers.side_by_side", "--redis-only"]
    command += ["--redis-port", str(asked.redis_port), "--rounds", str(asked.rounds), "--calls", str(asked.calls)]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1]


async def redis_only(asked: argparse.Namespace) -> None:
    peer = LitellmBudget("sk-redis", BUDGET)
    peer.use_redis(asked.redis_port)
    found = await compared(peer, EngineBudget(DOLLARS_IN, DOLLARS_OUT), asked.rounds, max(1, asked.calls // 4))
    sys.stdout.write(orjson.dumps(found).decode() + "\n")


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--redis-port", type=int, default=0)
    parser.add_argument("--redis-only", action="store_true")
    parser.add_argument("--watch-s", type=float, default=75.0)
    parser.add_argument("--hold", default="")
    arguments = parser.parse_args()
    asyncio.run(redis_only(arguments) if arguments.redis_only else main(arguments))
