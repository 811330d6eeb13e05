from pathlib import Path
from typing import Any

from ray.autoscaler._private.util import prepare_config, validate_config
from ruamel.yaml import YAML

CLUSTER_FILE = Path(__file__).resolve().parents[2] / "ray_cluster.yaml"


def cluster() -> dict[str, Any]:
    return dict(prepare_config(YAML(typ="safe").load(CLUSTER_FILE)))


def test_ray_accepts_the_cluster_file() -> None:
    validate_config(cluster())


def test_the_cluster_grows_by_workers_and_never_by_heads() -> None:
    config = cluster()
    assert config["idle_timeout_minutes"] > 0
    assert config["available_node_types"]["worker"]["max_workers"] == config["max_workers"] > 2
    assert config["available_node_types"][config["head_node_type"]]["max_workers"] == 0


def test_every_node_starts_workers_at_normal_priority_and_with_the_token() -> None:
    config = cluster()
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        start = commands[-1]
        assert "ray start" in start
        assert "RAY_worker_niceness=0" in start
        assert "RAY_AUTH_MODE=token" in start
