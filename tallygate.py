"""The command line. Errors go to stderr, a line each; 0 is success, 1 a failed check, 2 a wrong input."""

from pathlib import Path
from typing import Annotated

import typer

from actors.cli import (
    adjustments,
    audit,
    balance,
    bases,
    caps,
    catalogue,
    clock,
    costs,
    customers,
    dead_letters,
    explain,
    export,
    gateways,
    gpu_rates,
    grants,
    keys,
    limits,
    margin,
    migrate,
    periods,
    rebuild,
    reconcile,
    rerate,
    rules,
    settings,
    shards,
    tail,
    telemetry,
    top_up,
    topics,
    training,
    unbilled,
    up,
    webhooks,
    whatif,
)
from actors.cli.terminal import expected_errors
from config.settings import load_settings

app = typer.Typer(
    help="tallygate rates AI usage the moment it happens.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(catalogue.app, name="catalogue")
app.add_typer(keys.app, name="keys")
app.add_typer(customers.app, name="customers")
app.add_typer(grants.app, name="grants")
app.add_typer(caps.app, name="caps")
app.add_typer(rules.app, name="rules")
app.add_typer(adjustments.app, name="adjustments")
app.add_typer(periods.app, name="periods")
app.add_typer(top_up.app, name="top-up")
app.add_typer(rerate.app, name="rerate")
app.add_typer(shards.app, name="shards")
app.add_typer(clock.app, name="clock")
app.add_typer(topics.app, name="topics")
app.add_typer(bases.app, name="base")
app.add_typer(costs.app, name="costs")
app.add_typer(export.app, name="export")
app.add_typer(gateways.app, name="gateways")
app.add_typer(gpu_rates.app, name="gpu-rates")
app.add_typer(telemetry.app, name="telemetry")
app.add_typer(training.app, name="training")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(limits.app, name="limits")
app.add_typer(webhooks.app, name="webhooks")
app.command("audit")(audit.show_audit)
app.command("migrate")(migrate.migrate_tables)
app.command("settings")(settings.show_settings)
app.command("up")(up.run_up)
app.command("balance")(balance.show_balance)
app.command("explain")(explain.explain_event)
app.command("tail")(tail.tail_rated)
app.command("rebuild")(rebuild.rebuild_accounts)
app.add_typer(margin.app, name="margin")
app.command("whatif")(whatif.show_what_if)
app.command("unbilled")(unbilled.find_unbilled_tokens)
app.command("reconcile")(reconcile.reconcile_partitions)


@app.command("demo")
def run_demo(
    events: Annotated[int, typer.Option(min=1_000, max=100_000_000, help="Usage events to send.")] = 200_000,
    customers: Annotated[int, typer.Option(min=1, max=1_000_000, help="Accounts that use.")] = 1_000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed offers the same load.")] = 1,
    kill: Annotated[bool, typer.Option(help="Kill a shard in mid-run.")] = True,
    live: Annotated[bool, typer.Option(help="Show a live table.")] = True,
    report: Annotated[Path, typer.Option(help="Where to write the report.")] = Path("build/demo.json"),
) -> None:
    """Run the whole path for a few minutes, kill a shard in the middle, and check every amount."""
    from loadtest import demo

    options = demo.DemoOptions(events=events, customers=customers, seed=seed, kill=kill, live=live, report=report)
    with expected_errors():
        code = demo.run(load_settings(), options)
    raise typer.Exit(code)


def main() -> None:
    """The entry point `tallygate`."""
    app()


if __name__ == "__main__":
    main()
