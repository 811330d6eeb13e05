"""`tallygate up` as a user runs it: the printed lines pasted into a shell, a crash, another start, Ctrl-C."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from config.stack.ports import free_ports
from config.stack.postgres import kept_data_dir
from config.stack.ray_local import RayLocal
from config.stack.supervisor import Supervisor, reap

TALLYGATE = Path(sys.executable).with_name("tallygate")
START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 60.0
UP = "Ctrl-C stops everything in order"


class Up:
    """One run of `tallygate up` in `folder`/build/up."""

    def __init__(self, folder: Path, port: int, more: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._log = folder / "up.log"
        # The deployment is its own: nothing of the session's Ray, and none of its servers.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TALLYGATE_"))}
        self.environment = environment | {
            "TALLYGATE_API__PORT": str(port),
            "TALLYGATE_SANDBOX": "true",
            "COLUMNS": "200",
        }
        for name in ("DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS"):
            self.environment.pop(name, None)
        self.environment |= more or {}
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [TALLYGATE, "up"], cwd=folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )

    def said(self) -> str:
        return self._log.read_text()

    def wait_until_up(self) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while UP not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline_s, self.said()
            time.sleep(0.2)

    def lines_to_paste(self) -> list[str]:
        return [line for line in self.said().splitlines() if line.startswith("curl ")]

    def run(self, *arguments: str) -> str:
        """A command beside it, in the same folder."""
        done = subprocess.run(
            [TALLYGATE, *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def booked(self) -> str:
        """Once what was sent is rated."""
        words = self.run("balance", "acme").split()
        return words[words.index("booked") + 1]

    def wait_until_booked(self, amount: str) -> None:
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        while not self.booked().startswith(amount):
            assert time.monotonic() < deadline_s, self.booked()


def pasted(line: str) -> Any:
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def recorded(run_dir: Path) -> list[int]:
    lines = [json.loads(line) for line in (run_dir / "children.jsonl").read_text().splitlines()]
    return [line["child"]["pid"] for line in lines if "child" in line and psutil.pid_exists(line["child"]["pid"])]


@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("curl") is None, reason="the lines to paste are for curl")
def test_up_is_tried_crashes_and_is_found_again(tmp_path: Path) -> None:
    """The balance of the first run is the balance of the second, and nothing is left running."""
    port = free_ports(1)[0]
    run_dir = tmp_path / "build" / "up"
    first = Up(tmp_path, port)
    try:
        first.wait_until_up()
        for name in ("access.json", "control-key", "env"):
            assert (run_dir / name).stat().st_mode & 0o077 == 0, f"{name} is for its owner alone"
        ingest, check, balance = first.lines_to_paste()
        assert pasted(ingest) == {"accepted": 1, "refused": []}
        answer = pasted(check)
        assert (answer["allowed"], answer["price"]["currency"]) == (True, "USD"), answer
        assert pasted(balance)["account"] == "acme"
        first.wait_until_booked("24.99896")
        assert first.run("keys", "create", "ci", "--scope", "read").startswith("tg_live_")
        assert "acme" in first.run("customers", "list")
        beside = f". {run_dir / 'env'} && {TALLYGATE} shards list && {TALLYGATE} dead-letters"
        read = subprocess.run(
            ["sh", "-c", beside], cwd=tmp_path, env=first.environment, capture_output=True, text=True, timeout=60
        )
        assert read.returncode == 0 and "shard-0" in read.stdout and "Dead letters" in read.stdout, read.stderr
        until = (datetime.now(UTC) + timedelta(days=90)).isoformat(timespec="seconds").replace("+00:00", "Z")
        assert f"it is {until}" in first.run("clock", "advance", until)
        reached = first.booked()
        assert not reached.startswith("24.99896"), "the months that have closed owe the plan's fee and its least"
        left = recorded(run_dir)
        first.process.kill()
        first.process.wait()
        assert [pid for pid in left if psutil.pid_exists(pid)], "a crash leaves servers behind"

        second = Up(tmp_path, port)
        try:
            second.wait_until_up()
            assert "that an earlier run left behind" in second.said()
            assert not [pid for pid in left if psutil.pid_exists(pid)], "and the next start stops them"
            assert second.lines_to_paste()[1:] == [check, balance], "the same key, at the same place"
            assert second.booked() == reached, "the balance is found again"
            assert pasted(balance)["as_of"]["log_time"] == until, "and so is the day that the sandbox had reached"
            second.process.send_signal(signal.SIGINT)
            assert second.process.wait(STOP_TIMEOUT_S) == 0, second.said()
        finally:
            second.process.kill()
            second.process.wait()
    finally:
        first.process.kill()
        first.process.wait()  # while it lives, what it has started is its own to stop
        stopped = reap(run_dir)
        shutil.rmtree(kept_data_dir(Supervisor(run_dir)).parent)
    assert stopped == [], "Ctrl-C stops everything"


@pytest.fixture
def _serve_is_nobodys(ray_local: RayLocal) -> Iterator[None]:
    """Where it listens is settled by whoever starts it first in a Ray: it ends, before us and behind us."""
    from ray import serve

    serve.shutdown()  # type: ignore[no-untyped-call]
    yield
    serve.shutdown()  # type: ignore[no-untyped-call]


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("_serve_is_nobodys")
def test_up_comes_back_to_a_ray_that_goes_on_without_it(
    tmp_path: Path, ray_local: RayLocal, kafka: str, database: str
) -> None:
    """Behind an end in order Serve's proxy is left there, behind a kill shards and controller too: none keeps it out."""
    names = ("usage", "rated", "dead_letters", "served", "gpu_telemetry", "costs")
    settings = {f"TALLYGATE_KAFKA__TOPIC_{name.upper()}": f"up-{name}" for name in names}
    settings |= {"RAY_ADDRESS": ray_local.address, **ray_local.environment}
    settings |= {"DATABASE_URL": database, "KAFKA_BOOTSTRAP_SERVERS": kafka, "TALLYGATE_CONTROL_KEY": "5b" * 32}
    port, other = free_ports(2)
    for number, end in enumerate((signal.SIGINT, signal.SIGKILL, signal.SIGINT)):
        up = Up(tmp_path, port, settings)
        try:
            up.wait_until_up()
            up.wait_until_booked("25")
            up.process.send_signal(end)
            assert up.process.wait(STOP_TIMEOUT_S) == (0 if end is signal.SIGINT else -end), (number, up.said())
        finally:
            up.process.kill()
            up.process.wait()
    up = Up(tmp_path, other, settings)
    try:
        assert up.process.wait(START_TIMEOUT_S) == 1
        assert f"Serve runs in this Ray already, at 127.0.0.1:{port}" in up.said().replace("\n", " ")
    finally:
        up.process.kill()
        up.process.wait()
    reap(tmp_path / "build" / "up")
