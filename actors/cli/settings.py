"""`tallygate settings`: what may be set, and what is."""

import textwrap
from collections.abc import Iterator

import typer

from actors.cli.terminal import expected_errors
from config.settings import SettingRow, load_settings, setting_rows


def show_settings() -> None:
    """Print every setting with unit, range, default and reason, as a file that can be saved as tallygate.toml."""
    with expected_errors():
        rows = setting_rows(load_settings())
    group = ""
    for row in rows:
        above, _, name = row.key.rpartition(".")
        if above != group:
            group = above
            typer.echo(f"[{group}]")
        for line in _setting_lines(row, name):
            typer.echo(line)
        typer.echo()


def _setting_lines(row: SettingRow, name: str) -> Iterator[str]:
    yield from textwrap.wrap(row.reason, 100, initial_indent="# ", subsequent_indent="# ")
    facts = [row.unit, f"safe from {row.safe_range}" if row.safe_range else "", row.variable]
    yield f"# {'; '.join(fact for fact in facts if fact)}"
    if row.secret and row.value:
        yield f"# {name} is set, and not shown"
    elif row.value and row.value != row.default:
        yield f"{name} = {row.value}  # default: {row.default or 'not set'}"
    else:
        yield f"# {name} = {row.default}" if row.default else f"# {name} is not set"
