"""The commands of the reading room. As thin as those of cli.py."""

from __future__ import annotations

import sys
from typing import Any

import click

from dlrosetta.options import Suggesting, places


@click.group(cls=Suggesting, short_help="The reading room: the texts as web pages.")
def site() -> None:
    """The reading room: texts in columns, a search of every name, proofs and speeds, as a web page."""


@site.command(name="build", short_help="Make the pages.")
@click.option("--output", metavar="DIR", help="Where to put them. [default: site/ in the cache folder]")
@places
def site_build(output: str | None, **where: Any) -> None:
    """Make the pages from the tree and its result files; no environment is needed and no network reached.

    DIR must be new, empty, or of an earlier build, which is replaced.
    """
    from dlrosetta.site import build

    sys.exit(build.show(output, **where))


@site.command(name="serve", short_help="Show the pages on this machine.")
@click.argument("folder", metavar="[DIR]", required=False)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free.")
def site_serve(folder: str | None, port: int) -> None:
    """Show the pages that `rosetta site build` has put into DIR, to this machine alone, until Ctrl-C."""
    from dlrosetta.site import serve

    sys.exit(serve.show(folder, port))
