"""What the commands do, between the command line and the modules that do the work. Each returns an exit status."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
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
    devices: int,
    track: str,
    stone: tuple[str, ...],
    frameworks_dir: tuple[str, ...],
) -> int:
    """`rosetta prove`: a table a text, then a line for each cell that is not simply proven."""
    from dlrosetta.errors import UsageError
    from dlrosetta.proof import FINE, run

    if devices > 1 and dtype == run.MIXED:
        raise UsageError(
            f"Expected --devices in float32 or float64. Received: {dtype}", f"rosetta prove {text} --devices 2"
        )
    known = frameworks.find(frameworks_dir)
    asked = frameworks.select(names, known)
    dtypes = [dtype] if dtype else list(run.DTYPES)
    documents, good = [], True
    for one in texts.select(text, texts.find(paths.stone_dirs(stone))):
        wanted = [one.on_track(framework, track) for framework in asked]
        pythons = run.interpreters(one, wanted, devices)
        with progress(f"proving {one.name}", len(pythons) * len(dtypes)) as advance:
            cells = run.prove(one, wanted, dtypes, patience, lambda cell: advance(), pythons, devices)
        good = good and all(cell.verdict in FINE for cell in cells)
        more = {**({"devices": devices} if devices > 1 else {}), **({"track": track} if track != "default" else {})}
        documents.append({"schema": 1, "text": one.name, **more, "cells": [cell.document() for cell in cells]})
        if not as_json:
            _show(one, cells, verbose, devices, track)
    if as_json:
        console.print_json(documents[0] if text != "all" else {"schema": 1, "texts": documents})
    return 0 if good else 1


def _show(text: texts.Text, cells: list[Any], verbose: bool, devices: int, track: str) -> None:
    screen = console.out()
    if verbose:
        for cell in cells:
            if cell.checks:
                screen.print(console.checks_table(cell))
                screen.print()
            if cell.verdict == "failed" and cell.detail:
                screen.print(cell.detail, markup=False)
    asked = "is it the same model?" if devices == 1 else f"are {devices} devices the same as one?"
    asked += " (tuned)" if track == "tuned" else ""
    screen.print(console.proof_table(f"{text.title}: {asked}", cells))
    only = console.evaluated(cells)
    lines = [*console.reasons(cells), *([only] if only else [])]
    if lines:
        screen.print()
    for line in lines:
        screen.print(line)


def compare(
    text: str,
    names: str | None,
    profile: str,
    budget: float,
    threads: int | None,
    resume: bool,
    dtypes: tuple[str, ...],
    tracks: tuple[str, ...],
    batches: tuple[int, ...],
    device: str | None,
    as_json: bool,
    patience: float,
    stone: tuple[str, ...],
    frameworks_dir: tuple[str, ...],
) -> int:
    """`rosetta compare`: one result file a text, precision, track and batch size, and its table."""
    from dlrosetta import client, gpus
    from dlrosetta import compare as module
    from dlrosetta.errors import RosettaError
    from dlrosetta.proof import FINE, run

    wanted = frameworks.select(names, frameworks.find(frameworks_dir))
    chosen = gpus.choose(device) if device else None
    documents, journals, good, unsaved = [], [], True, None
    known = texts.select(text, texts.find(paths.stone_dirs(stone)))
    module.check_batches(known, profile, batches)
    for one, dtype, track, batch in product(known, dtypes, tracks, batches or (None,)):
        obtain(one)
        obtain_weights(one)
        pythons = run.interpreters(one, wanted)
        how = (pythons, dtype, track, batch, resume, threads, chosen)
        with (
            client.environment(chosen.environ if chosen else {}),
            console.err().status(f"{one.name}: starting") as status,
        ):
            found = module.compare(one, wanted, profile, budget, patience, status.update, *how)
        document = found.document()
        documents.append(document)
        journals.append(found.journal)
        path = None
        try:
            path = module.save(document)
        except RosettaError as error:  # what was measured is shown all the same
            unsaved = error
        good = good and all(cell["verdict"] in FINE for cell in document["cells"])
        if not as_json:
            console.show_comparison(one, document, path)
    if as_json:
        several = text == "all" or len(documents) > 1
        console.print_json({"schema": 1, "texts": documents} if several else documents[0])
    if unsaved:
        raise unsaved
    for journal in journals:
        if journal:
            journal.remove()  # not before: of several texts, a killed comparison goes on with the one it was at
    return 0 if good else 1


def selftest(as_json: bool) -> int:
    """`rosetta selftest timing`: each claim, whether it held, and what was seen."""
    from dlrosetta.selftest import timing

    found = []
    for check in timing.CHECKS:
        with console.err().status(check.__name__.removeprefix("check_").replace("_", " ")):
            found.append(check())
        if not as_json:
            console.show_check(found[-1])
    if as_json:
        console.print_json({"schema": 1, "checks": [check.document() for check in found]})
    return 0 if all(check.held for check in found) else 1


def roof(names: str | None, as_json: bool, patience: float, frameworks_dir: tuple[str, ...]) -> int:
    """`rosetta roof`: 1 where a framework has no product and copy to show."""
    from dlrosetta import environments
    from dlrosetta import roof as module

    wanted = frameworks.select(names, frameworks.find(frameworks_dir))
    pythons = environments.ensure_all(wanted)
    with console.err().status("starting") as status:
        document = module.document(module.measure_all(wanted, pythons, patience, status.update))
    if as_json:
        console.print_json(document)
    else:
        console.show_roof(document)
    return 1 if document["roof"]["reasons"] else 0


def doctor(
    names: str | None,
    text: str,
    named: tuple[str, ...],
    as_json: bool,
    patience: float,
    stone: tuple[str, ...],
    frameworks_dir: tuple[str, ...],
) -> int:
    """`rosetta doctor`: what is wrong here, and what to change; 1 where something is. Bands are of the folders `named`,
    else of the results of this checkout: one's own may be of a day on which the same was wrong.
    """
    from dlrosetta import environments, results
    from dlrosetta.doctor import shown, visit

    known = frameworks.find(frameworks_dir)
    wanted = frameworks.select(names, known)
    ready = [one for one in wanted if environments.state(one) == "ready"]
    not_ready = [one.slug for one in wanted if one not in ready]
    (stepped,) = texts.select(text, texts.find(paths.stone_dirs(stone)))[:1]
    published = paths.project_results()
    folders = results.folders(named) if named else [published] if published else []
    with console.err().status("looking") as status:
        document = visit.document(ready, not_ready, stepped, folders, patience, status.update)
    if as_json:
        console.print_json(document)
    else:
        shown.show(document)
    return 1 if document["findings"] else 0


def obtain(text: texts.Text) -> None:
    """Download the text's data set where it is neither here nor declined; where that fails, say so and let the sample
    stand in.
    """
    import os

    from dlrosetta import data
    from dlrosetta.errors import RosettaError

    if os.environ.get("ROSETTA_DATA") == "sample":
        return
    try:
        there = data.where(text.data).kind == "real"
    except data.DataError as error:  # unknown, or a damaged copy, which is not replaced unasked
        raise RosettaError(error.message, error.hint) from error
    if not there:
        _download(text.data, partial(data.fetch, text.data), data.where(text.data).name)


def obtain_weights(text: texts.Text) -> None:
    """Download the text's published weights where they are not here; where that fails, say so: the seed's stand in."""
    import os

    from dlrosetta import weights

    if text.weights and os.environ.get("ROSETTA_DATA") != "sample" and not weights.kept(text).is_file():
        _download(f"weights of {text.name}", partial(weights.fetch, text), f"weights {weights.SEEDED}")


def _download(what: str, fetch: Callable[..., Any], instead: str) -> None:
    """Call `fetch` with a progress bar; where the download fails, say why and what is used instead."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from dlrosetta import data

    screen = console.err()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    try:
        with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
            task = bar.add_task(f"downloading {what}", total=None)
            fetch(lambda done, total: bar.update(task, completed=done, total=total), tries=2, stall=10)
    except data.DataError as error:
        screen.print(f"{error.message}. Using {instead}.", markup=False)


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
        for variant in (None, *(each["name"] for each in one.variants)):
            with console.err().status(f"running {one.reference} {variant or ''}"):
                built = module.build(one, variant)
            path = one.golden_of(variant)
            module.save(built, path)
            worst = max(built.tensors.items(), key=lambda item: item[1].rounding)
            console.out().print(
                f"{path}: {len(built.tensors)} tensors, {path.stat().st_size / 1024:.0f} kB; "
                f"largest float32 rounding error {worst[1].rounding:.1e} ({worst[0]})"
            )
            if worst[1].rounding > STEADY:
                console.err().print(
                    "Not steady: on the way a ReLU or a pooling window lies within rounding of a tie, which tips its "
                    f"gradient over. Expected rounding errors below {STEADY:.0e}. "
                    f"Next: try another proof.seed in {one.folder / 'text.toml'}"
                )
    return 0


def env_list(as_json: bool, frameworks_dir: tuple[str, ...]) -> int:
    """`rosetta env list`: a row a framework, and what no framework wants any more."""
    from rich.table import Table

    from dlrosetta import environments, matrix

    known = frameworks.find(frameworks_dir)
    with console.err().status("measuring"):
        made = environments.list_all()
    wanted = {slug: environments.folder(one) for slug, one in known.items() if one.python and one.lock.is_file()}
    measured = {one.path: one.size_mb for one in made}
    sizes = {slug: measured.get(wanted[slug], one.size_mb) if slug in wanted else 0.0 for slug, one in known.items()}
    old = [one for one in made if one.path not in wanted.values()]
    if as_json:
        rows = [
            {
                "framework": slug,
                "python": one.python,
                "state": matrix.environment(one).plain,
                "size_mb": sizes[slug],
                "path": str(wanted[slug]) if slug in wanted else None,
            }
            for slug, one in known.items()
        ]
        left = [{"framework": one.slug, "size_mb": one.size_mb, "path": str(one.path)} for one in old]
        console.print_json({"schema": 1, "root": str(environments.root()), "environments": rows, "outdated": left})
        return 0
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("framework", "python", "environment", "size", "last release", "status"):
        table.add_column(name, no_wrap=True, justify="right" if name == "size" else "left")
    for slug, one in known.items():
        size = matrix.megabytes(sizes[slug]) if sizes[slug] else ""
        table.add_row(slug, one.python or "", matrix.environment(one), size, one.release, one.status)
    screen = console.out()
    screen.print(table)
    screen.print()
    total = matrix.megabytes(sum(measured.values()))
    screen.print(f"{len(made)} on this machine, {total}, in {environments.root()}", style="dim", soft_wrap=True)
    for left_over in old:
        line = f"outdated: {left_over.path.name}, {matrix.megabytes(left_over.size_mb)}; all of its framework's go with"
        screen.print(f"{line}: rosetta env remove {left_over.slug}", style="yellow", soft_wrap=True)
    return 0


def env_create(names: tuple[str, ...], frameworks_dir: tuple[str, ...]) -> int:
    """`rosetta env create`: 1 if one of them could not be made; the others are."""
    from dlrosetta import environments
    from dlrosetta.errors import RosettaError

    good = True
    known = frameworks.find(frameworks_dir)
    wanted = frameworks.select(",".join(names), known)
    if "all" in names:  # all that can have one
        wanted = [one for one in known.values() if one.python]
    for slug, made in environments.ensure_all(wanted).items():
        if isinstance(made, RosettaError):
            good = False
            console.err().print(f"{slug}: {made.message}", style="red", soft_wrap=True, markup=False)
            if made.hint:
                console.err().print(f"  Next: {made.hint}", soft_wrap=True, markup=False)
        else:
            console.out().print(f"{slug}: ready, {made.parent.parent}", soft_wrap=True, markup=False)
    return 0 if good else 1


def env_remove(names: tuple[str, ...], frameworks_dir: tuple[str, ...]) -> int:
    """`rosetta env remove`: also of frameworks that are no longer there."""
    from dlrosetta import environments
    from dlrosetta.errors import UsageError, did_you_mean

    made = {one.slug for one in environments.list_all()}
    known = sorted(made | set(frameworks.find(frameworks_dir)))
    for name in names:
        if name not in (*known, "all"):
            raise UsageError(f"Unknown framework '{name}'.{did_you_mean(name, known)}", "rosetta env list")
    for slug in sorted(made) if "all" in names else sorted(set(names)):
        removed = environments.remove(slug)
        for path in removed:
            console.out().print(f"{slug}: removed {path}", soft_wrap=True, markup=False)
        if not removed:
            console.out().print(f"{slug}: no environment was there")
    return 0


def env_lock(name: str, frameworks_dir: tuple[str, ...]) -> int:
    """`rosetta env lock`: a new lock makes a new environment at the next use."""
    from dlrosetta import environments
    from dlrosetta.errors import RosettaError

    one = frameworks.select(name, frameworks.find(frameworks_dir))[0]
    if one.python is None or not one.requirements.is_file():
        raise RosettaError(f"Expected {one.requirements}. Received: {one.language}, without such a file.")
    with console.err().status(f"{name}: resolving") as status:
        path = environments.lock(one, lambda line: status.update(f"{name}: {line}"))
    console.out().print(f"{path} is written. Next: rosetta env create {name}", soft_wrap=True, markup=False)
    return 0


def new(
    kind: str, name: str, where: str | None, wanted: Any, stone: tuple[str, ...], frameworks_dir: tuple[str, ...]
) -> int:
    """`rosetta new`: what was written, and what to type next. For a version, `where` is its framework."""
    from dlrosetta import scaffold

    if kind == "version":
        started = scaffold.version(name, str(where), stone, frameworks_dir)
    else:
        start = scaffold.framework if kind == "framework" else scaffold.text
        started = start(name, where, wanted, stone, frameworks_dir)
    screen = console.out()
    for path in started.files:
        screen.print(f"wrote {path}", soft_wrap=True, markup=False)
    screen.print()
    for command, why in started.commands:
        screen.print(f"Next: {command}", soft_wrap=True, markup=False)
        screen.print(f"      {why}", style="dim", markup=False)
    return 0
