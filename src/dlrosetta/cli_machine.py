"""The commands about machine and instrument: selftest, roof, doctor. As thin as those of cli.py."""

from __future__ import annotations

import sys
from typing import Any

import click

from dlrosetta.options import FRAMEWORKS, FRAMEWORKS_DIR, JSON, PATIENCE, places

RESULTS = click.option(
    "--results",
    multiple=True,
    metavar="DIR",
    help="A folder of results to take bands from. Repeatable. [default: this checkout's]",
)


@click.group(short_help="Does the instrument measure right?")
def selftest() -> None:
    """Does the instrument measure right, on this machine, now?"""


@selftest.command(name="timing", short_help="Is the stopwatch of `compare` right?")
@JSON
def selftest_timing(as_json: bool) -> None:
    """Is the stopwatch of `compare` right? Times workers whose steps take as long as they are told: what fences cost,
    whether time grows with steps, whether a step that returns too early is caught, 5 % found, equals called equal, and
    a load that begins half-way noticed. Takes about three minutes.
    """
    from dlrosetta import commands

    sys.exit(commands.selftest(as_json))


@click.command(short_help="How fast can this device be?")
@FRAMEWORKS
@JSON
@PATIENCE
@FRAMEWORKS_DIR
def roof(frameworks: str | None, as_json: bool, patience: float, frameworks_dir: tuple[str, ...]) -> None:
    """How fast can this device be? The matrix product and the copy of each framework in float32; the best is the roof.

    A product counts two operations for each multiplication and addition, a copy the bytes read and written.
    """
    from dlrosetta import commands

    sys.exit(commands.roof(frameworks, as_json, patience, frameworks_dir))


@click.command(short_help="Is this installation as fast as it should be?")
@FRAMEWORKS
@click.option("--text", default="cnn", show_default=True, help="The text whose step is timed.")
@RESULTS
@JSON
@PATIENCE
@places
def doctor(
    frameworks: str | None, text: str, results: tuple[str, ...], as_json: bool, patience: float, **where: Any
) -> None:
    """Is this installation as fast as it should be? Looks at processors, memory, limits, variables, other programs and
    GPUs, measures products, copies, convolutions and a text's step in the frameworks that have an environment, in less
    than three minutes for all, and says what is wrong and what to change. Exit status 1 where something is.

    Slow is what published results of the same class of machine exceed; where there are none, what any machine or
    framework should do.
    """
    from dlrosetta import commands

    sys.exit(commands.doctor(frameworks, text, results, as_json, patience, **where))
