"""Ray is started in processes of their own: one that stops it twice over, one that is killed, and one that joins."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from config.stack import ray_local
from config.stack.ports import free_ports
from config.stack.ray_local import ray_environment
from config.stack.supervisor import Supervisor, reap, silent

ROOT = Path(__file__).resolve().parents[3]

DRIVER = textwrap.dedent(
    """
    import json, os, subprocess, sys
    from pathlib import Path
    from config.stack.ray_local import record_ray, start_ray, start_ray_node, stop_ray
    from config.stack.supervisor import Supervisor

    def say(**facts):
        print(json.dumps(facts), flush=True)

    def alive(s):
        return [c.pid for c in s.children if c.process() is not None]

    with Supervisor(Path(sys.argv[1])) as s:
        stranger = subprocess.Popen(["sleep", "60"])
        first = start_ray(s, num_cpus=1)
        recorded = len(s.children)
        stop_ray(s, first)
        say(recorded=recorded, alive=alive(s), environment=os.environ.get("RAY_AUTH_MODE"), stranger=stranger.poll())
        stranger.kill()
        local = start_ray(s, num_cpus=2)
        import ray

        @ray.remote
        class Shard:
            def priority(self):
                return os.nice(0)

        node = start_ray_node(s, local, "second", num_cpus=1)

        @ray.remote
        class Guest:
            def node(self):
                return ray.get_runtime_context().get_node_id()

        place = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        guest = ray.get(Guest.options(num_cpus=0.1, scheduling_strategy=place).remote().node.remote())
        shard = Shard.options(name="shard", lifetime="detached").remote()
        say(
            priority=ray.get(shard.priority.remote()),
            address=local.address,
            environment=dict(local.environment),
            temp_dir=str(local.temp_dir),
            node=[node.node_id, node.pid, node.raylet_pid],
            guest=guest,
            nodes=[n["NodeName"] for n in ray.nodes() if n["Alive"]],
        )
        record_ray(s)
        say(pids=alive(s))
        sys.stdin.readline()
        os.kill(os.getpid(), 9)
    """
)


@dataclass(frozen=True)
class Driver:
    run_dir: Path
    process: subprocess.Popen[str]
    after_first_stop: dict[str, Any]
    second: dict[str, Any]
    pids: list[int]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    run_dir = tmp_path_factory.mktemp("run")
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(run_dir)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            facts = [json.loads(process.stdout.readline()) for _ in range(3)]
            yield Driver(run_dir, process, facts[0], facts[1], facts[2]["pids"])
        finally:
            process.kill()
            process.wait()
            reap(run_dir)


def test_stopping_ends_every_process_and_restores_the_environment(driver: Driver) -> None:
    after = driver.after_first_stop
    assert after["recorded"] >= 5  # gcs, raylet, monitor, log monitor, agents
    assert after["alive"] == []
    assert after["environment"] is None
    assert after["stranger"] is None  # another child of the driver is none of Ray's


def test_workers_run_at_normal_priority(driver: Driver) -> None:
    assert driver.second["priority"] == 0


def test_a_further_node_joins_and_runs_actors(driver: Driver) -> None:
    node_id, pid, raylet_pid = driver.second["node"]
    assert len(driver.second["nodes"]) == 2
    assert "second" in driver.second["nodes"]
    assert driver.second["guest"] == node_id
    assert psutil.Process(raylet_pid).ppid() == pid
    # Recorded: the reaping below finds them, and whatever runs on that node.
    assert {pid, raylet_pid} < set(driver.pids)
    assert {child.pid for child in psutil.Process(raylet_pid).children()} <= set(driver.pids)


def test_ray_listens_on_loopback_only(driver: Driver) -> None:
    assert driver.second["address"].startswith("127.0.0.1:")
    found: set[str] = set()
    listening = 0
    for pid in driver.pids:
        try:
            connections = psutil.Process(pid).net_connections("tcp")
        except psutil.NoSuchProcess:  # Ray ends idle workers when it likes
            continue
        addresses = {c.laddr.ip.removeprefix("::ffff:") for c in connections if c.status == "LISTEN"}
        listening += bool(addresses)
        found |= addresses
    assert found == {"127.0.0.1"}
    assert listening >= 5  # gcs, raylet, agents, workers


def test_another_process_joins_with_the_environment_and_not_without_the_token(driver: Driver) -> None:
    script = (
        f"import ray; ray.init(address={driver.second['address']!r}, namespace='tallygate', log_to_driver=False);"
        "print(ray.get(ray.get_actor('shard').priority.remote()))"
    )
    without = {**os.environ, **driver.second["environment"], "RAY_AUTH_TOKEN_PATH": os.devnull}
    for environment, expected in (({**os.environ, **driver.second["environment"]}, 0), (without, 1)):
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == expected, done.stderr
    assert "token" in done.stderr


def test_the_token_is_the_owners_secret(driver: Driver) -> None:
    token = Path(ray_environment(driver.run_dir / "ray-token")["RAY_AUTH_TOKEN_PATH"])
    assert token.stat().st_mode & 0o777 == 0o600
    assert len(token.read_text()) == 64


def test_what_a_killed_driver_leaves_is_reaped(driver: Driver) -> None:
    assert driver.process.stdin is not None
    driver.process.stdin.write("die\n")
    driver.process.stdin.flush()
    assert driver.process.wait() == -signal.SIGKILL
    reap(driver.run_dir)
    left = [
        pid for pid in driver.pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    ]
    assert left == []
    assert not Path(driver.second["temp_dir"]).exists()


@pytest.mark.parametrize(
    ("reason", "starts"), [("The current node timed out during startup. This could happen", 2), ("no such thing", 1)]
)
def test_a_head_that_was_too_slow_is_started_once_more(
    reason: str, starts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []

    def init(num_cpus: int, _namespace: str, _temp_dir: Path) -> str:
        begun.append(num_cpus)
        if len(begun) == 1:
            raise Exception(reason)
        return "127.0.0.1:1"

    monkeypatch.setattr(ray_local, "_init", init)
    with Supervisor(tmp_path / "run") as supervisor:
        if starts == 2:
            assert ray_local._started(supervisor, 3, "tallygate", tmp_path, silent) == "127.0.0.1:1"
        else:
            with pytest.raises(Exception, match=reason):
                ray_local._started(supervisor, 3, "tallygate", tmp_path, silent)
    assert begun == [3] * starts


def test_a_caller_that_drips_its_headers_is_cut(tmp_path: Path) -> None:
    """By HAProxy as we run it, with the line of Serve's configuration that is waited on each byte."""
    (port,) = free_ports(1)
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(
        "defaults\n    mode http\n    timeout connect 1s\n    timeout client 60s\n    timeout server 1s\n"
        f"frontend all\n    bind 127.0.0.1:{port}\n    http-request return status 200\n"
    )
    proxy = subprocess.Popen([str(ray_local._confined_haproxy(tmp_path, ())), "-db", "-f", str(configuration)])
    try:
        for _ in range(200):
            try:
                caller = socket.create_connection(("127.0.0.1", port))
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        caller.settimeout(0.2)
        caller.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nx: ")
        answer: bytes | None = None
        for _ in range(200):  # 40 s, in which something comes all the time
            try:
                caller.sendall(b"x")
                answer = caller.recv(100)
                break
            except TimeoutError:
                continue
        assert answer is not None and (answer == b"" or b" 408 " in answer)
        with socket.create_connection(("127.0.0.1", port)) as other:
            other.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            assert b" 200 " in other.recv(100)
    finally:
        proxy.terminate()
        proxy.wait(10)


@pytest.mark.parametrize("mode", [None, "", "disabled"])
def test_production_joins_no_ray_that_asks_nobody_for_a_token(
    monkeypatch: pytest.MonkeyPatch, mode: str | None
) -> None:
    if mode is None:
        monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    else:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with pytest.raises(ray_local.RayOpen, match="RAY_AUTH_MODE=token"):
        ray_local.join_ray("127.0.0.1:1", guarded=True)
