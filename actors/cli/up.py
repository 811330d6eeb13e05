"""`tallygate up`: a whole deployment on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from actors.cli.over_http import UP_DIR
from actors.cli.terminal import FAILED, expected_errors, fail, outside_errors
from config.settings import load_settings

RunDir = Annotated[Path, typer.Option(help="The run folder of `tallygate up`.")]


def run_up(run_dir: RunDir = UP_DIR) -> None:
    """Keep a whole deployment running on this machine, with a customer and a key to try it; Ctrl-C stops it in order."""
    from actors import up
    from actors.api_client import ApiAway, ApiRefused
    from actors.deployment import NotReady
    from config.stack.kafka import KafkaUnavailable
    from config.stack.postgres import PostgresUnavailable
    from config.stack.ray_local import RayOpen
    from config.stack.supervisor import RunFolderInUse

    with expected_errors(), outside_errors():
        try:
            up.run(load_settings(), run_dir, lambda line: typer.echo(line))
        except (
            *(ApiAway, ApiRefused, KafkaUnavailable, NotReady),
            *(PostgresUnavailable, RayOpen, RunFolderInUse),
        ) as error:
            fail(str(error), FAILED)
