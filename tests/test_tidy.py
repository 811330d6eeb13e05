"""The house style, executed by reading the tree: what may import what, what may stand where, and what has a test."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("engine", "config", "actors", "loadtest")
SDK = ROOT / "sdk" / "tallygate_sdk"  # a package of its own, installed beside an application
SERVED = ROOT / "sdk" / "served" / "tallygate_served"  # likewise, into an inference server or a gateway

# All that the engine may import. Everything here is a pure function of its arguments, or a type. What waits, draws lots
# or looks at a clock, a file or the environment would make a replay differ from the run.
ENGINE_MAY_IMPORT = frozenset(
    [
        "engine",
        "array",
        "base64",
        "binascii",
        "bisect",
        "calendar",
        "collections",
        "dataclasses",
        "datetime",
        "decimal",
        "enum",
        "fractions",
        "functools",
        "hashlib",
        "heapq",
        "hmac",
        "itertools",
        "math",
        "operator",
        "re",
        "struct",
        "typing",
        "zoneinfo",
        "msgspec",
        "numpy",
        "xxhash",
        "tzdata",
    ]
)
ENGINE_ALSO = {
    "importlib.resources": "engine/periods.py reads the pinned tzdata, which is part of the engine's version"
}
ENGINE_MAY_NOT_CALL = frozenset(
    ["float", "open", "print", "input", "eval", "exec", "now", "utcnow", "today", "getenv", "id", "hash"]
)

ENVIRONMENT_READERS = {
    "loadtest/peers/litellm_budget.py": "the peer takes its own settings from the environment only, on import",
    "config/settings.py": "the one reader of settings",
    "config/stack/ray_local.py": "Ray takes its own settings from the environment only, and they are put there",
}
TESTED_ELSEWHERE = {
    "actors/cli/balance.py": "tests/actors/cli/test_over_http.py",  # the command by which asking is tested
    "actors/cli/proving.py": "tests/actors/cli/test_rebuild.py",  # what its commands have in common
    "actors/cli/up.py": "tests/integration/test_up.py",  # needs a process of its own, to crash
    "actors/clock.py": "tests/contracts/test_clock.py",  # one suite for the real clock and the simulator's
    "actors/kafka.py": "tests/contracts/test_log.py",  # likewise
    "actors/local_runs.py": "tests/contracts/test_local_runs.py",  # likewise
    "actors/membership.py": "tests/contracts/test_membership.py",  # likewise
    "actors/ports.py": "tests/contracts/test_store.py",  # protocols and facts: every contract suite is their test
    "actors/cluster.py": "tests/integration/test_cluster.py",  # needs a real Ray
    "actors/api.py": "tests/integration/test_serve.py",  # likewise
    "actors/proofs.py": "tests/integration/test_proofs.py",  # opens the doors of a real deployment
    "actors/up.py": "tests/integration/test_up.py",  # needs a process of its own, to crash
    "loadtest/deployment.py": "tests/integration/test_shard_process.py",  # needs servers, and processes to end
    "loadtest/processes.py": "tests/integration/test_shard_process.py",  # likewise
    "loadtest/chaos/links.py": "tests/integration/test_cuts.py",  # likewise
    "loadtest/chaos/disk.py": "tests/integration/test_disk_full.py",  # likewise
    "loadtest/chaos/packets.py": "tests/integration/test_packets.py",  # likewise
    "loadtest/chaos/cuts.py": "tests/integration/test_cuts.py",  # likewise
    "loadtest/chaos/pauses.py": "tests/integration/test_pauses.py",  # likewise
    "loadtest/process_child.py": "tests/integration/test_shard_process.py",  # likewise
    "loadtest/bench/one_shard.py": "tests/integration/test_bench.py",  # needs Kafka, Postgres and Ray
    "loadtest/bench/stage.py": "tests/integration/test_bench.py",  # likewise
    "loadtest/chaos/__main__.py": "tests/integration/test_chaos.py",  # needs a deployment of its own, to be killed
    "loadtest/chaos/deployer.py": "tests/integration/test_chaos.py",  # likewise
    "loadtest/chaos/faults.py": "tests/integration/test_chaos.py",  # likewise
    "loadtest/chaos/run.py": "tests/integration/test_chaos.py",  # likewise
    "loadtest/chaos/stage.py": "tests/integration/test_chaos.py",  # likewise
    "loadtest/chaos/traffic.py": "tests/integration/test_chaos.py",  # likewise
    "loadtest/patterns/ground.py": "tests/integration/test_patterns.py",  # needs Kafka, Postgres and Ray
    "loadtest/patterns/truth.py": "tests/integration/test_patterns.py",  # likewise
    "loadtest/patterns/try_hosted.py": "tests/integration/test_patterns.py",  # likewise
    "loadtest/patterns/try_by_lease.py": "tests/integration/test_patterns.py",  # likewise
    "loadtest/patterns/try_in_process.py": "tests/integration/test_patterns.py",  # likewise
    "loadtest/patterns/try_ours.py": "tests/integration/test_patterns.py",  # likewise
    "loadtest/patterns/try_redis.py": "tests/integration/test_patterns.py",  # likewise
    # The oracle is tested whole: a rule of money lies across its files, as its text does.
    "loadtest/oracle/accounts.py": "tests/loadtest/test_oracle.py",
    "loadtest/oracle/aggregates.py": "tests/loadtest/test_oracle.py",
    "loadtest/oracle/approvals.py": "tests/loadtest/test_oracle.py",
    "loadtest/oracle/catalogue.py": "tests/loadtest/test_oracle.py",
    "loadtest/oracle/commands.py": "tests/loadtest/test_oracle.py",
    "loadtest/oracle/contract.py": "tests/loadtest/test_oracle.py",
    "loadtest/oracle/corrections.py": "tests/loadtest/test_oracle.py",
    "loadtest/oracle/credit.py": "tests/loadtest/test_oracle.py",
    "loadtest/oracle/expressions.py": "tests/loadtest/test_oracle.py",
    "loadtest/oracle/fold.py": "tests/loadtest/test_oracle.py",
    "loadtest/oracle/limits.py": "tests/loadtest/test_oracle.py",
    "loadtest/oracle/meters.py": "tests/loadtest/test_oracle.py",
    "loadtest/oracle/period_lines.py": "tests/loadtest/test_oracle.py",
    "loadtest/oracle/periods.py": "tests/loadtest/test_oracle.py",
    "loadtest/oracle/prices.py": "tests/loadtest/test_oracle.py",
    "loadtest/oracle/quantity_grants.py": "tests/loadtest/test_oracle.py",
    "loadtest/oracle/recurring.py": "tests/loadtest/test_oracle.py",
    "loadtest/oracle/records.py": "tests/loadtest/test_oracle.py",
    "loadtest/oracle/rerating.py": "tests/loadtest/test_oracle.py",
    "loadtest/oracle/rules.py": "tests/loadtest/test_oracle.py",
    "loadtest/oracle/sessions.py": "tests/loadtest/test_oracle.py",
    "loadtest/oracle/tokens.py": "tests/loadtest/test_oracle.py",
    "loadtest/oracle/top_up.py": "tests/loadtest/test_oracle.py",
    "loadtest/oracle/waivers.py": "tests/loadtest/test_oracle.py",
    "tallygate.py": "tests/test_cli.py",
    "sdk/tallygate_sdk/answers.py": "tests/sdk/test_client.py",  # types, which the real app's answers are read into
    "sdk/tallygate_sdk/errors.py": "tests/sdk/test_calls.py",  # types, made where an answer is read
    "sdk/tallygate_sdk/retrying.py": "tests/sdk/test_client.py",  # seen by what a client puts again
}
BANNED_NAMES = frozenset({"utils", "util", "common", "base", "types", "helpers", "helper", "misc", "stuff", "manager"})

# Made of parts, so that this file does not find itself.
FOREIGN_PLACES = re.compile(
    "|".join(
        [
            r"(?<![\w.])/" + r"(?:work|home|Users)/\w",
            r"(?:py" + r"pi\.org|python" + r"hosted\.org|repo1?\.mav" + r"en\.|maven" + r"\.org)",
            r"https?://[^\s\"')]+\.(?:whl|jar|zip|t" + r"gz|tar\.\w+)\b",
        ]
    )
)
TEXT_SUFFIXES = frozenset(
    {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".in", ".sql", ".xml", ".properties", ".cfg"}
)


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def tree_files() -> list[Path]:
    """Every file of the project: not what is installed, built or cached beside it."""
    found = []
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") and part != ".ci" for part in parts)
        made = "__pycache__" in parts or parts[0] == "build" or any(part.endswith(".egg-info") for part in parts)
        if path.is_file() and not hidden and not made:
            found.append(path)
    return found


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{named(path)}:{node.lineno}: import by the full name"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def calls(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            function = node.func
            yield node.lineno, function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def test_imports_point_down() -> None:
    """The contracts in pyproject.toml."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", python_files("engine"), ids=named)
def test_the_engine_imports_only_what_is_pure(path: Path) -> None:
    for name in imports(path):
        allowed = name.split(".")[0] in ENGINE_MAY_IMPORT or any(name.startswith(also) for also in ENGINE_ALSO)
        assert allowed, f"{named(path)} imports {name}"


@pytest.mark.parametrize("path", python_files("engine"), ids=named)
def test_the_engine_calls_nothing_that_a_replay_would_answer_otherwise(path: Path) -> None:
    for line, function in calls(path):
        if function == "open" and named(path) == "engine/periods.py":
            continue  # the pinned tzdata
        assert function not in ENGINE_MAY_NOT_CALL, f"{named(path)}:{line}: {function}()"


@pytest.mark.parametrize("path", python_files("engine"), ids=named)
def test_the_engine_never_waits(path: Path) -> None:
    waiting = (ast.Await, ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith)
    assert not [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, waiting)]


def test_nothing_imports_the_command_line() -> None:
    for path in python_files(*PACKAGES):
        assert not [name for name in imports(path) if name.split(".")[0] in ("tallygate", "tests")], named(path)


def test_settings_alone_reads_the_environment() -> None:
    readers = {
        named(path) for path in python_files(*PACKAGES) if re.search(r"\bos\.(environ|getenv)\b", path.read_text())
    }
    assert readers == set(ENVIRONMENT_READERS)


def test_one_file_of_the_actors_reads_a_clock() -> None:
    clocks = {
        named(path) for path in python_files("actors") if "time" in (name.split(".")[0] for name in imports(path))
    }
    clocks |= {named(path) for path in python_files("actors") for _, call in calls(path) if call in ("now", "utcnow")}
    assert clocks == {"actors/clock.py"}


def test_every_module_has_its_test_file() -> None:
    missing = []
    for path in [*python_files(*PACKAGES), *SDK.glob("*.py"), *SERVED.glob("*.py"), ROOT / "tallygate.py"]:
        if path.name == "__init__.py":
            continue
        folder = {SDK: "sdk", SERVED: "served"}.get(path.parent, Path(named(path)).parent.as_posix())
        mirrored = f"tests/{folder}/test_{path.name}"
        expected = TESTED_ELSEWHERE.get(named(path), mirrored)
        if not (ROOT / expected).exists():
            missing.append(f"{named(path)}: {expected}")
    assert not missing


def test_no_exception_outlives_its_module() -> None:
    gone = [name for name in (*TESTED_ELSEWHERE, *ENVIRONMENT_READERS) if not (ROOT / name).exists()]
    assert not gone


def test_every_test_of_a_law_says_the_law() -> None:
    for path in python_files("tests/laws"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert ast.get_docstring(node), f"{named(path)}:{node.lineno}: {node.name} has no docstring"


def test_no_name_hides_what_a_file_holds() -> None:
    for path in tree_files():
        parts = {Path(part).stem for part in path.relative_to(ROOT).parts}
        assert not parts & BANNED_NAMES, named(path)


def test_no_file_names_a_machine_or_a_place_to_download_from() -> None:
    """A path of one machine is wrong on the next, and where packages come from is the installer's business."""
    found = [
        f"{named(path)}:{number}: {match[0]}"
        for path in tree_files()
        if path.suffix in TEXT_SUFFIXES or path.name == "Makefile"
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if (match := FOREIGN_PLACES.search(line))
    ]
    assert not found


def test_no_work_is_left_for_later() -> None:
    for path in [*python_files(*PACKAGES, "sdk", "tests"), ROOT / "tallygate.py"]:
        marks = re.findall(r"#.*\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b", path.read_text())
        assert not marks, f"{named(path)}: {marks}"


def test_the_page_for_operators_quotes_what_the_code_says() -> None:
    """Whoever searches a log or a dashboard for what the page names must find it."""
    page = (ROOT / "docs" / "commit-order.md").read_text()
    code = "".join(path.read_text() for path in python_files("actors"))
    logged = re.findall(r"`(?:INFO|WARNING|ERROR|CRITICAL) ([^`]+)`", page)
    metrics = re.findall(r"`(tallygate_\w+?)(?:_total)?`", page)
    assert len(logged) > 10
    assert len(metrics) > 5
    assert not [quoted for quoted in (*logged, *metrics) if f'"{quoted}' not in code]


def wheel(folder: Path, out: Path) -> set[str]:
    """The files of the package that lies in `folder`, as it would be installed elsewhere."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(out), str(folder)], check=True)
    (made,) = out.glob("*.whl")
    return set(zipfile.ZipFile(made).namelist())


def test_an_installed_tallygate_has_every_module_and_file_that_it_reads(tmp_path: Path) -> None:
    """An editable install reads the tree, and would miss nothing; a wheel holds what pyproject.toml names."""
    wanted = [path for path in tree_files() if path.relative_to(ROOT).parts[0] in PACKAGES and path.suffix != ".md"]
    for path in [*wanted, *(ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE", "tallygate.py"))]:
        copy = tmp_path / "tree" / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    held = wheel(tmp_path / "tree", tmp_path)
    assert not [named(path) for path in wanted if named(path) not in held]
    assert "tallygate.py" in held


@pytest.mark.parametrize("package", [SDK, SERVED], ids=named)
def test_an_installed_package_of_clients_has_every_module_and_says_that_it_is_typed(
    package: Path, tmp_path: Path
) -> None:
    ignored = shutil.ignore_patterns("*.egg-info", "__pycache__", "build")
    shutil.copytree(package.parent, tmp_path / "tree", ignore=ignored)
    held = wheel(tmp_path / "tree", tmp_path)
    wanted = {f"{package.name}/{path.name}" for path in package.iterdir() if path.suffix in (".py", ".typed")}
    assert len(wanted) > 5 and not wanted - held
