"""Writes docs/commands.md from the program, lest it drift: `python -m dlrosetta.manual > docs/commands.md`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from dlrosetta.cli import rosetta

WIDTH = 100
HEAD = """# Commands

What each command's `--help` says. Written by `python -m dlrosetta.manual > docs/commands.md`; a test compares it.

Exit status: 0 all well; 1 something differs or failed; 2 the call is wrong.
"""


def render() -> str:
    """The whole page."""
    return HEAD + "".join(f"\n## `{name}`\n\n```text\n{text}\n```\n" for name, text in helps(rosetta, "rosetta"))


def helps(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """Name and help of a command, then of all below it, in the order in which they are listed."""
    context = click.Context(command, info_name=name.split()[-1], parent=parent, terminal_width=WIDTH)
    context.help_option_names = rosetta.context_settings["help_option_names"]
    yield name, "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            yield from helps(command.commands[child], f"{name} {child}", context)


if __name__ == "__main__":
    print(render(), end="")
