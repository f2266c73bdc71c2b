"""The command line. Each command is thin: it reads options, calls the module that does the work, and prints.

Heavy imports stay inside commands, so that `rosetta --help` answers at once. Exit status: 0 all well; 1 something
differs or failed; 2 the call is wrong.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import click

from dlrosetta import __version__, cli_machine, cli_results, cli_site
from dlrosetta.errors import RosettaError
from dlrosetta.options import (
    DEVICE,
    DIR,
    FRAMEWORKS,
    FRAMEWORKS_DIR,
    JSON,
    NAMES,
    PATIENCE,
    TRACK,
    Duration,
    Suggesting,
    places,
)


@click.group(cls=Suggesting, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rosetta")
@places
@click.pass_context
def rosetta(ctx: click.Context, stone: tuple[str, ...], frameworks_dir: tuple[str, ...]) -> None:
    """The same deep-learning models in every framework, proven to be the same, and timed fairly.

    Alone, it shows every text and framework and the state of each cell on this machine.
    """
    if ctx.invoked_subcommand and (stone or frameworks_dir):
        command = f"rosetta {ctx.invoked_subcommand} … --stone DIR --frameworks-dir DIR"
        raise click.UsageError(f"Expected --stone and --frameworks-dir behind the command: {command}", ctx)
    if ctx.invoked_subcommand is None:
        from dlrosetta import matrix

        matrix.show(stone, frameworks_dir)


@rosetta.command(short_help="The same sections of several versions side by side.")
@click.argument("text")
@click.argument("frameworks", metavar="FRAMEWORK...", nargs=-1, required=True)
@click.option("--section", "sections", metavar="NAME", multiple=True, help="Only this section. Repeatable.")
@places
def read(text: str, frameworks: tuple[str, ...], sections: tuple[str, ...], **where: Any) -> None:
    """The same sections of TEXT in each FRAMEWORK side by side, in the order given.

    Where the terminal is too narrow for code in columns, they stand one below another.
    """
    from dlrosetta import reading

    sys.exit(reading.show(text, frameworks, sections, **where))


@rosetta.command(short_help="Is it the same model?")
@click.argument("text")
@FRAMEWORKS
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64", "bfloat16"]),
    help="One precision only; bfloat16: mixed. [default: float32 and float64]",
)
@click.option("--verbose", is_flag=True, help="Show every tensor.")
@click.option(
    "--devices",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Are train steps spread over so many devices those of one?",
)
@TRACK
@JSON
@PATIENCE
@places
def prove(
    text: str,
    frameworks: str | None,
    dtype: str | None,
    verbose: bool,
    devices: int,
    track: str,
    as_json: bool,
    patience: float,
    **where: Any,
) -> None:
    """Is it the same model? Proves the versions of TEXT ("all": every text) against the reference."""
    from dlrosetta import commands

    sys.exit(commands.prove(text, frameworks, dtype, verbose, as_json, patience, devices, track, **where))


@rosetta.command(short_help="How fast is it, and how good?")
@click.argument("text")
@FRAMEWORKS
@click.option(
    "--profile",
    type=click.Choice(["quick", "full"]),
    default="quick",
    show_default=True,
    help="full: also train as the text says, for seconds and accuracy.",
)
@click.option(
    "--budget",
    type=Duration(),
    default="60s",
    show_default=True,
    help="Time for the rounds of all cells together.",
)
@click.option("--threads", type=click.IntRange(1), help="Of each worker.  [default: one a core]")
@click.option(
    "--resume", is_flag=True, help="Go on with the same one that was killed: no round twice, nor with --on ray a cell."
)
@click.option(
    "--dtype",
    "dtypes",
    type=click.Choice(["float32", "bfloat16"]),
    multiple=True,
    default=("float32",),
    show_default=True,
    help="The precision of all cells; bfloat16: mixed. Repeatable.",
)
@click.option(
    "--track",
    "tracks",
    type=click.Choice(["default", "tuned"]),
    multiple=True,
    default=("default",),
    show_default=True,
    help="tuned: with the switches for speed that text.toml has measured. Repeatable.",
)
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(1),
    multiple=True,
    metavar="N",
    help="Examples a step. Repeatable. [default: what the text says]",
)
@click.option(
    "--on",
    default="local",
    show_default=True,
    metavar="local|ray|ray://HOST:PORT",
    help="ray: a Ray cluster, each cell alone on one of its nodes.",
)
@DEVICE
@JSON
@PATIENCE
@places
def compare(
    text: str,
    frameworks: str | None,
    profile: str,
    budget: float,
    threads: int | None,
    resume: bool,
    dtypes: tuple[str, ...],
    tracks: tuple[str, ...],
    batches: tuple[int, ...],
    on: str,
    devices: tuple[str, ...],
    as_json: bool,
    patience: float,
    **where: Any,
) -> None:
    """How fast is it, and with --profile full how good? Proves each cell of TEXT ("all": every text), then times those
    that hold.
    """
    if on == "local" and len(devices) > 1:
        raise click.UsageError(f"Expected one --device: several are for --on ray. Received: {', '.join(devices)}")
    if on == "local":
        from dlrosetta import commands

        how = (profile, budget, threads, resume, dtypes, tracks, batches, devices[0] if devices else None)
        sys.exit(commands.compare(text, frameworks, *how, as_json, patience, **where))
    if threads:
        raise click.UsageError("Expected --threads without --on ray: a node says how many it offers")
    if unknown := [name for name in devices if name not in ("cpu", "cuda")]:
        raise click.UsageError(f"Expected --device cpu or cuda with --on ray: Ray assigns GPUs. Received: {unknown[0]}")
    from dlrosetta import on_ray

    axes = {"dtypes": dtypes, "tracks": tracks, "batches": batches, "devices": devices}
    sys.exit(on_ray.show(on, text, frameworks, profile, budget, resume, axes, as_json, patience, **where))


rosetta.add_command(cli_machine.selftest)
rosetta.add_command(cli_machine.roof)
rosetta.add_command(cli_machine.doctor)


@rosetta.command(short_help="Train and evaluate one version as its author wrote it.")
@click.argument("text")
@click.argument("framework")
@places
def run(text: str, framework: str, **where: Any) -> None:
    """Train and evaluate the version of TEXT in FRAMEWORK as its author wrote it, in its environment, on all cores."""
    from dlrosetta import running

    sys.exit(running.show(text, framework, **where))


rosetta.add_command(cli_results.results)
rosetta.add_command(cli_results.report)
rosetta.add_command(cli_site.site)


@rosetta.command()
@click.argument("text")
@places
def golden(text: str, **where: Any) -> None:
    """Compute the golden of TEXT anew from its reference."""
    from dlrosetta import commands

    sys.exit(commands.golden(text, **where))


@rosetta.group(cls=Suggesting)
def env() -> None:
    """The frameworks' environments: list, create, remove, lock."""


@env.command(name="list", short_help="What is ready here, and what it takes on disk.")
@JSON
@FRAMEWORKS_DIR
def env_list(as_json: bool, frameworks_dir: tuple[str, ...]) -> None:
    """Every framework's environment: whether it is ready here, and what it takes on disk."""
    from dlrosetta import commands

    sys.exit(commands.env_list(as_json, frameworks_dir))


@env.command(name="create", short_help="Make environments.")
@NAMES
@FRAMEWORKS_DIR
def env_create(names: tuple[str, ...], frameworks_dir: tuple[str, ...]) -> None:
    """Make the environments of the named frameworks ("all": every one) unless they are ready."""
    from dlrosetta import commands

    sys.exit(commands.env_create(names, frameworks_dir))


@env.command(name="remove", short_help="Remove environments.")
@NAMES
@FRAMEWORKS_DIR
def env_remove(names: tuple[str, ...], frameworks_dir: tuple[str, ...]) -> None:
    """Remove the environments of the named frameworks ("all": every one), outdated ones too. They can be made again."""
    from dlrosetta import commands

    sys.exit(commands.env_remove(names, frameworks_dir))


@env.command(name="lock", short_help="Pin what an environment is made of.")
@click.argument("name")
@FRAMEWORKS_DIR
def env_lock(name: str, frameworks_dir: tuple[str, ...]) -> None:
    """Write requirements.lock of one framework anew from its requirements.in."""
    from dlrosetta import commands

    sys.exit(commands.env_lock(name, frameworks_dir))


@rosetta.group(cls=Suggesting)
def new() -> None:
    """Start a framework, a text or a version of your own."""


@new.command(name="framework", short_help="Start a framework.")
@click.argument("name")
@DIR
@click.option(
    "--text", "wanted", metavar="TEXT", multiple=True, default=("cnn",), show_default=True,
    help="Also start its version of this text. Repeatable.",
)  # fmt: skip
@places
def new_framework(name: str, folder: str | None, wanted: tuple[str, ...], **where: Any) -> None:
    """Start the framework NAME: its folder, and its version of a text. `rosetta prove` then asks for the rest."""
    from dlrosetta import commands

    sys.exit(commands.new("framework", name, folder, wanted, **where))


@new.command(name="text", short_help="Start a text.")
@click.argument("name")
@DIR
@click.option(
    "--framework", "wanted", metavar="NAME", multiple=True, help="Also start its version in this one. Repeatable."
)
@places
def new_text(name: str, folder: str | None, wanted: tuple[str, ...], **where: Any) -> None:
    """Start the text NAME: a tiny model that is complete, to make your own."""
    from dlrosetta import commands

    sys.exit(commands.new("text", name, folder, wanted, **where))


@new.command(name="version", short_help="Start a version of a text in a framework.")
@click.argument("text")
@click.argument("framework")
@places
def new_version(text: str, framework: str, **where: Any) -> None:
    """Start the version of TEXT in FRAMEWORK: the nine sections, each saying what it wants."""
    from dlrosetta import commands

    sys.exit(commands.new("version", text, framework, None, **where))


def _terminated(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


def main() -> None:
    """Run the command line: errors become one line and the next command; interruptions leave nothing behind."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        try:
            rosetta(standalone_mode=False)
        finally:
            sys.stdout.flush()  # a full disk or a closed pipe shows here
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(1)
    except RosettaError as error:
        click.echo(f"Error: {error.message}", err=True)
        if error.hint:
            click.echo(f"Next: {error.hint}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        _silence()
        sys.exit(1)
    except OSError as error:
        _silence()
        click.echo(f"Error: {error.filename or 'the output'} cannot be used: {error.strerror}.", err=True)
        click.echo("Next: free some room, or name a folder that has it and that you may write to", err=True)
        sys.exit(1)


def _silence() -> None:
    """Nobody can read what is left in the buffer: Python is not to try once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
