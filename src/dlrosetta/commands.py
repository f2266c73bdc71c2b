"""What the commands do, between the command line and the modules that do the work. Each returns an exit status."""

from __future__ import annotations

from typing import Any

from dlrosetta import console, frameworks, paths, texts

STEADY = 1e-4  # a float32 rounding error above this is a tipped kink, not rounding


def prove(
    text: str,
    names: str | None,
    dtype: str | None,
    verbose: bool,
    as_json: bool,
    patience: float,
    stone: tuple[str, ...],
    frameworks_dir: tuple[str, ...],
) -> int:
    """`rosetta prove`: a table a text, then a line for each cell that is not simply proven."""
    from dlrosetta.proof import run

    known = frameworks.find(frameworks_dir)
    wanted = frameworks.select(names, known)
    dtypes = [dtype] if dtype else list(run.DTYPES)
    documents, good = [], True
    for one in texts.select(text, texts.find(paths.stone_dirs(stone))):
        with progress(f"proving {one.name}", len(wanted) * len(dtypes)) as advance:
            cells = run.prove(one, wanted, dtypes, patience, on_cell=lambda cell: advance())  # noqa: B023
        good = good and all(cell.verdict in ("proven", "waived", "cannot") for cell in cells)
        documents.append({"schema": 1, "text": one.name, "cells": [cell.document() for cell in cells]})
        if not as_json:
            _show(one, cells, verbose)
    if as_json:
        console.print_json(documents[0] if text != "all" else {"schema": 1, "texts": documents})
    return 0 if good else 1


def _show(text: texts.Text, cells: list[Any], verbose: bool) -> None:
    screen = console.out()
    if verbose:
        for cell in cells:
            if cell.checks:
                screen.print(console.checks_table(cell))
                screen.print()
            if cell.verdict == "failed" and cell.detail:
                screen.print(cell.detail, markup=False)
    screen.print(console.proof_table(f"{text.title}: is it the same model?", cells))
    lines = console.reasons(cells)
    if lines:
        screen.print()
    for line in lines:
        screen.print(line)


def compare(
    text: str,
    names: str | None,
    profile: str,
    budget: float,
    as_json: bool,
    patience: float,
    stone: tuple[str, ...],
    frameworks_dir: tuple[str, ...],
) -> int:
    """`rosetta compare`: one result file a text, and its table."""
    from dlrosetta import compare as module

    wanted = frameworks.select(names, frameworks.find(frameworks_dir))
    documents, good = [], True
    for one in texts.select(text, texts.find(paths.stone_dirs(stone))):
        with console.err().status(f"{one.name}: starting") as status:
            found = module.compare(one, wanted, profile, budget, patience, say=lambda line: status.update(f"{one.name}: {line}"))  # noqa: B023
        document = found.document()
        documents.append(document)
        path = module.save(document)
        good = good and all(cell["verdict"] in ("proven", "waived", "cannot") for cell in document["cells"])
        if not as_json:
            console.show_comparison(one, document, path)
    if as_json:
        console.print_json(documents[0] if text != "all" else {"schema": 1, "texts": documents})
    return 0 if good else 1


class progress:
    """A progress bar on stderr, shown only on a terminal: `with progress("proving", 6) as advance: advance()`."""

    def __init__(self, label: str, total: int):
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console.err(), transient=True)
        self._bar.disable = not self._bar.console.is_terminal
        self._task = self._bar.add_task(label, total=total)

    def __enter__(self) -> Any:
        self._bar.start()
        return lambda label=None: self._bar.update(self._task, advance=1, **({"description": label} if label else {}))

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def golden(text: str, stone: tuple[str, ...], frameworks_dir: tuple[str, ...]) -> int:
    """`rosetta golden`: run the reference in float64 and float32 and write golden.npz."""
    from dlrosetta import golden as module

    for one in texts.select(text, texts.find(paths.stone_dirs(stone))):
        with console.err().status(f"running {one.reference}"):
            built = module.build(one)
        module.save(built, one.golden)
        worst = max(built.tensors.items(), key=lambda item: item[1].rounding)
        console.out().print(
            f"{one.golden}: {len(built.tensors)} tensors, {one.golden.stat().st_size / 1024:.0f} kB; "
            f"largest float32 rounding error {worst[1].rounding:.1e} ({worst[0]})"
        )
        if worst[1].rounding > STEADY:
            console.err().print(
                f"Not steady: on the way a ReLU or a pooling window lies within rounding of a tie, which tips its gradient over. "
                f"Expected rounding errors below {STEADY:.0e}. Next: try another proof.seed in {one.folder / 'text.toml'}"
            )
    return 0
