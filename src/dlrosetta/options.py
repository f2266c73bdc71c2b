"""What several commands share: parameter types, options, and a group that suggests."""

from __future__ import annotations

import functools
import re
from typing import Any

import click

from dlrosetta.errors import did_you_mean


class Suggesting(click.Group):
    """A group that answers an unknown command with the nearest known one, and lists commands as they stand here."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            known = ", ".join(self.commands)
            raise click.UsageError(
                f"Expected a command: {known}. Received: {args[0]!r}.{did_you_mean(args[0], self.commands)}", ctx
            )
        return super().resolve_command(ctx, args)


class Duration(click.ParamType):
    """Seconds, at least one: `90`, `90s`, `2m`, `1h`."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", str(value))
        seconds = float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
        if seconds < 1:
            self.fail(f"Expected a time of a second or more, as 90s or 2m. Received: {value!r}", param, ctx)
        return seconds


STONE = click.option(
    "--stone", multiple=True, metavar="DIR", help="Another folder of texts, laid out like stone/. Repeatable."
)
FRAMEWORKS_DIR = click.option(
    "--frameworks-dir", multiple=True, metavar="DIR", help="Another folder of frameworks. Repeatable."
)
FRAMEWORKS = click.option(
    "--frameworks", metavar="A,B|all", help="Which frameworks. [default: torch, flax, keras_tensorflow]"
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
PATIENCE = click.option(
    "--patience",
    type=click.FloatRange(1),
    default=600.0,
    show_default=True,
    help="Seconds a worker may take to answer.",
)
TRACK = click.option(
    "--track",
    type=click.Choice(["default", "tuned"]),
    default="default",
    show_default=True,
    help="tuned: with the switches for speed that text.toml has measured.",
)

DEVICE = click.option(
    "--device",
    "devices",
    metavar="NAME",
    multiple=True,
    help="cpu, cuda, cuda:1, or the uuid of a GPU or MIG instance; with --on ray cpu or cuda, repeatable. "
    "[default: what the framework takes; with --on ray cpu]",
)
NAMES = click.argument("names", metavar="NAME...|all", nargs=-1, required=True)
DIR = click.option(
    "--dir", "folder", metavar="DIR", help="Where to put it. [default: this checkout, else the current folder]"
)


def places(command: Any) -> Any:
    return STONE(FRAMEWORKS_DIR(command))


DAY = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])
FILTERS = (
    click.option(
        "--results", "folders", multiple=True, metavar="DIR",
        help="A folder of result files. Repeatable. [default: your own and this checkout's]",
    ),
    click.option("--text", metavar="A,B", help="Only these texts."),
    click.option("--framework", metavar="A,B", help="Only these frameworks."),
    click.option("--machine", metavar="WORDS", help="Only machines with these words in processor and cores."),
    click.option("--since", type=DAY, metavar="DATE", help="From then on, in UTC: 2026-11-29, 2026-11-29T20:00."),
    click.option("--until", type=DAY, metavar="DATE", help="Only until then; that day included."),
)  # fmt: skip


def filtering(command: Any) -> Any:
    """Give a command `folders`, and `wanted`: what the other options say (`results.Filters`)."""

    @functools.wraps(command)
    def filtered(*args: Any, text: Any, framework: Any, machine: Any, since: Any, until: Any, **rest: Any) -> Any:
        from dlrosetta import listing

        return command(*args, wanted=listing.filters(text, framework, machine, since, until), **rest)

    for option in reversed(FILTERS):
        filtered = option(filtered)
    return filtered
