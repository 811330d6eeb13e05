import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from config.stack.supervisor import RunFolderInUse, Supervisor, reap, reap_abandoned

ROOT = Path(__file__).resolve().parents[3]


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def shell(supervisor: Supervisor, script: str, name: str = "shell") -> int:
    return supervisor.start(name, ["sh", "-c", script], log_path=supervisor.run_dir / "log").pid


def wait_for_file(path: Path) -> str:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if path.exists() and path.read_text().endswith("\n"):
            return path.read_text()
        time.sleep(0.01)
    raise AssertionError(f"{path} was never written")


def crashed_driver(run_dir: Path, body: str) -> None:
    """Runs `body` with a supervisor `s` in another process, which then dies by SIGKILL."""
    script = textwrap.dedent(
        """
        import os, subprocess, sys, time
        from pathlib import Path
        from config.stack.supervisor import Supervisor
        run_dir = Path(sys.argv[1])
        with Supervisor(run_dir) as s:
        """
    ) + textwrap.indent(textwrap.dedent(body) + "\nos.kill(os.getpid(), 9)", "    ")
    done = subprocess.run([sys.executable, "-c", script, str(run_dir)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_a_child_is_on_record_when_start_returns(tmp_path: Path) -> None:
    with Supervisor(tmp_path / "run") as supervisor:
        pid = shell(supervisor, "sleep 60")
        entry = json.loads((tmp_path / "run" / "children.jsonl").read_text())["child"]
        assert entry["pid"] == pid
        assert entry["start_time"] == pytest.approx(psutil.Process(pid).create_time())


def test_leaving_stops_children_and_grandchildren(tmp_path: Path) -> None:
    with Supervisor(tmp_path / "run") as supervisor:
        pid = shell(supervisor, f"sleep 60 & echo $! > {tmp_path}/grandchild; wait")
        grandchild = int(wait_for_file(tmp_path / "grandchild"))
        assert is_running(grandchild)
    assert not is_running(pid)
    assert not is_running(grandchild)
    assert not (tmp_path / "run" / "children.jsonl").exists()


def test_children_stop_in_reverse_order(tmp_path: Path) -> None:
    order = tmp_path / "order"
    with Supervisor(tmp_path / "run") as supervisor:
        for name in ("first", "second", "third"):
            script = f"trap 'echo {name} >> {order}; exit' TERM; echo ready > {tmp_path}/{name}; while :; do sleep 0.05; done"
            shell(supervisor, script, name)
            wait_for_file(tmp_path / name)
    assert order.read_text().split() == ["third", "second", "first"]


def test_actions_before_the_stop_see_running_children_and_cannot_prevent_it(tmp_path: Path) -> None:
    seen: list[str] = []
    supervisor = Supervisor(tmp_path / "run").__enter__()
    pid = shell(supervisor, "sleep 60")
    supervisor.before_stop(lambda: seen.append(f"first, running: {is_running(pid)}"))
    supervisor.before_stop(lambda: os.kill(os.getpid(), 10_000))  # raises: no such signal
    with pytest.raises(OSError, match="Invalid argument"):
        supervisor.__exit__(None, None, None)
    assert seen == ["first, running: True"]
    assert not is_running(pid)


def test_a_child_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    with Supervisor(tmp_path / "run", grace_s=0.2) as supervisor:
        pid = shell(supervisor, f"trap '' TERM; echo ready > {tmp_path}/ready; while :; do sleep 0.05; done")
        wait_for_file(tmp_path / "ready")
        supervisor.stop(pid)
        assert not is_running(pid)


def test_the_next_start_stops_what_a_killed_driver_left(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    crashed_driver(run_dir, "print(s.start('a', ['sleep', '60'], log_path=run_dir / 'log').pid)")
    left = json.loads((run_dir / "children.jsonl").read_text())["child"]["pid"]
    assert is_running(left)
    lines: list[str] = []
    with Supervisor(run_dir, lines.append):
        assert not is_running(left)
    assert lines == ["stopped 1 processes that an earlier run left behind"]


def test_an_orphan_of_a_dead_child_is_stopped_once_it_was_recorded(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    crashed_driver(
        run_dir,
        """
        child = s.start('a', ['sh', '-c', f'setsid sleep 60 & echo $! > {run_dir}/orphan; wait'], log_path=run_dir / 'log')
        while not (run_dir / 'orphan').exists() or not (run_dir / 'orphan').read_text().endswith('\\n'):
            time.sleep(0.01)
        s.record_descendants('a')
        child.kill()
        child.wait()
        """,
    )
    orphan = int((run_dir / "orphan").read_text())
    assert is_running(orphan)
    assert reap(run_dir) == [orphan]
    assert not is_running(orphan)


def test_descendants_of_other_children_are_not_taken_over(tmp_path: Path) -> None:
    with Supervisor(tmp_path / "run") as supervisor:
        shell(supervisor, f"sleep 60 & echo $! > {tmp_path}/theirs; wait", "other")
        theirs = int(wait_for_file(tmp_path / "theirs"))
        shell(supervisor, "sleep 60", "ray")
        supervisor.record_descendants("ray")
        supervisor.stop_named("ray")
        assert is_running(theirs)


def test_a_stranger_with_a_recorded_pid_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        entry = {"pid": stranger.pid, "start_time": psutil.Process(stranger.pid).create_time() - 100, "name": "a"}
        (tmp_path / "children.jsonl").write_text(json.dumps({"child": entry}) + "\n")
        assert reap(tmp_path) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_torn_last_line_does_not_hide_the_lines_before_it(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    crashed_driver(run_dir, "s.start('a', ['sleep', '60'], log_path=run_dir / 'log')")
    with (run_dir / "children.jsonl").open("a") as record:
        record.write('{"child": {"pid": 1, "sta')
    assert len(reap(run_dir)) == 1


def test_a_run_folder_has_one_supervisor(tmp_path: Path) -> None:
    with Supervisor(tmp_path / "runs" / "a") as supervisor:
        pid = shell(supervisor, "sleep 60")
        with pytest.raises(RunFolderInUse, match="in use by another run"), Supervisor(tmp_path / "runs" / "a"):
            pass
        assert reap(tmp_path / "runs" / "a") == []
        assert reap_abandoned(tmp_path / "runs") == []
        assert is_running(pid)


def test_abandoned_runs_are_reaped_and_their_folders_deleted(tmp_path: Path) -> None:
    crashed_driver(
        tmp_path / "runs" / "a",
        """
        (run_dir.parent.parent / "data").mkdir()
        s.own_folder(run_dir.parent.parent / "data")
        s.start('a', ['sleep', '60'], log_path=run_dir / 'log')
        """,
    )
    assert len(reap_abandoned(tmp_path / "runs")) == 1
    assert not (tmp_path / "runs" / "a").exists()
    assert not (tmp_path / "data").exists()


def test_an_owned_folder_is_not_confused_with_a_later_one_of_its_name(tmp_path: Path) -> None:
    mine = tmp_path / "data"
    mine.mkdir()
    with Supervisor(tmp_path / "run") as supervisor:
        supervisor.own_folder(mine)
        mine.rename(tmp_path / "moved")
        mine.mkdir()
    assert mine.exists()


def test_a_supervisor_that_was_not_entered_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="with statement"):
        Supervisor(tmp_path).start("a", ["true"], log_path=tmp_path / "log")


def test_an_unknown_pid_is_not_stopped(tmp_path: Path) -> None:
    with Supervisor(tmp_path / "run") as supervisor, pytest.raises(KeyError, match="was not started under"):
        supervisor.stop(os.getpid())
