"""The commands about what was measured before: results, publish, report. As thin as those of cli.py."""

from __future__ import annotations

import sys
from typing import Any

import click

from dlrosetta.options import JSON, Suggesting, filtering, places


@click.group(cls=Suggesting, invoke_without_command=True, short_help="What was measured before; publish it.")
@filtering
@click.option("--sql", metavar="SELECT", help="Ask a question of your own, in DuckDB's SQL.")
@JSON
@places
@click.pass_context
def results(
    ctx: click.Context,
    folders: tuple[str, ...],
    wanted: Any,
    sql: str | None,
    as_json: bool,
    **where: Any,
) -> None:
    """What was measured before: a row for each cell of each comparison, and whether it is still current.

    --sql asks the tables runs, cells, pairs and samples: docs/results.md has their columns, and so has --sql "describe
    cells". The filters hold for it too. It reads and writes no files and reaches no network.
    """
    if ctx.invoked_subcommand:
        if any(ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT for name in ctx.params):
            raise click.UsageError(
                f"Expected options behind the command: rosetta results {ctx.invoked_subcommand} …", ctx
            )
        return
    from dlrosetta import listing

    sys.exit(listing.show(folders, wanted, sql, as_json, **where))


@results.command(name="publish", short_help="Prepare a result file for a pull request.")
@click.argument("file")
@click.option("--output", metavar="DIR", help="Where to put the copy. [default: results/ of this checkout]")
@places
def results_publish(file: str, output: str | None, **where: Any) -> None:
    """Prepare a copy of the result FILE for a pull request: checked against schema and proof, without names or paths.

    It must have been measured with what is here now, and that must be proven here. Nothing is overwritten.
    """
    from dlrosetta import publish

    sys.exit(publish.show(file, output, **where))


@click.command(short_help="One HTML page and charts of what was measured.")
@click.option(
    "--output", metavar="DIR", help="Where to write report.html and charts/. [default: report/ beside your results]"
)
@filtering
@places
def report(output: str | None, folders: tuple[str, ...], wanted: Any, **where: Any) -> None:
    """One HTML page, which needs no network, and PNG charts of what was measured, run by run."""
    from dlrosetta import report as module

    sys.exit(module.show(folders, wanted, output, **where))
