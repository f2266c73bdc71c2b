"""The weights that every cell of a text without training is given: those that others have trained, under the text's own
names, or what the seed draws.

Published weights are fetched once, as safetensors, renamed by text.toml's [weights], checked against the text's shapes
and kept in the data folder. No pickle is read.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlrosetta import client, draws, paths, texts
from dlrosetta.errors import RosettaError
from dlrosetta.texts import Text

SEEDED = "drawn from the seed, not trained"
NO_ROOM = "set ROSETTA_DATA, or for weights from the seed TMPDIR, to a folder with room"
NO_MEMORY = "end other programs: it takes four times the memory that the weights do"
# Not -m, by which a file in the user's folder would be imported for a package's of the same name.
APART = """
import sys
sys.path[:] = filter(None, sys.path)
import json
from dlrosetta import errors, weights
try:
    weights.{}(*sys.argv[1:])
except errors.RosettaError as error:
    print(json.dumps([error.message, error.hint]))
    sys.exit(1)
"""


@dataclass(frozen=True)
class Weights:
    """`path` of a safetensors file with every parameter of the text in full size, canonical; `title` for people."""

    path: Path
    title: str


def kept(text: Text) -> Path:
    """Where a text's published weights lie on this machine once they are fetched."""
    from dlrosetta import data

    return Path(data.data_dir()) / "weights" / f"{text.name}.safetensors"


def find(text: Text, scratch: Path) -> Weights:
    """The published weights if they are here, else seeded ones, written into the folder `scratch`. Raises RosettaError
    where that fails.
    """
    if os.environ.get("ROSETTA_DATA") != "sample" and kept(text).is_file():
        return Weights(kept(text), text.weights["title"])
    path = scratch / f"{text.name}.safetensors"
    try:
        _apart("draw", text.folder, path)
    except RosettaError as error:
        raise RosettaError(f"Weights of {text.name} could not be drawn: {error.message}", error.hint) from error
    return Weights(path, SEEDED)


def draw(folder: str, path: str) -> None:
    """Write the seed's weights of the text in `folder`, in full size, as `path`."""
    drawn = draws.initial_parameters(texts.load(Path(folder)), full=True)
    _save({name: array.astype(np.float32) for name, array in drawn.items()}, Path(path))


def _apart(function: str, *arguments: Path) -> None:
    """Call one of this module in a process of its own, whose memory goes with it: a comparison must stay small. Raises
    RosettaError where it fails.
    """
    command = [sys.executable, "-c", APART.format(function), *map(str, arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode < 0:
        raise RosettaError(f"its process was ended by {signal.Signals(-done.returncode).name}", NO_MEMORY)
    if done.stdout:
        raise RosettaError(*json.loads(done.stdout))
    if done.returncode > 0:
        last = done.stderr.strip().rpartition("\n")[2]
        raise RosettaError(last or f"its process ended with status {done.returncode}")


def fetch(text: Text, progress: Callable[[int, int], None] | None = None, **patience: Any) -> Path:
    """Download a text's published weights unless they are here; return the converted file.

    `patience` is `tries`, `stall` and `pause` of `dlrosetta.data.download`. Raises RosettaError, or DataError where
    they cannot be had.
    """
    from dlrosetta.data.download import download, locked

    path, source = kept(text), text.weights
    with locked(str(path.parent), text.name):
        if path.is_file():
            return path
        published = path.with_name(f"{text.name}.published.safetensors")
        download(source["address"], str(published), source.get("checksum"), 2 * source["size"], progress, **patience)
        try:
            _apart("convert", text.folder, published, path)
        except RosettaError as error:
            raise RosettaError(f"{source['address']}: {error.message}", error.hint) from error
        finally:
            published.unlink(missing_ok=True)
    return path


def convert(folder: str, published: str, path: str) -> None:
    """Write the file of weights `published` under the names of the text in `folder`, as `path`."""
    from safetensors.numpy import load_file

    try:
        arrays = load_file(published)
    except Exception as error:
        raise RosettaError(f"expected a safetensors file. Received: {client.one_line(error)}") from error
    _save(converted(texts.load(Path(folder)), arrays), Path(path))


def converted(text: Text, published: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Published weights under the text's names. Raises RosettaError unless they are exactly the text's parameters."""
    found = {}
    for name, array in published.items():
        if name in text.weights.get("unused", []) or name.endswith(".num_batches_tracked"):
            continue
        for theirs, ours in text.weights.get("names", {}).items():
            name = name.replace(theirs, ours)
        found[name] = array
    wanted = {name: tuple(spec["shape"]) for name, spec in text.full_parameters.items()}
    received = {name: np.shape(array) for name, array in found.items()}
    for name in sorted(set(wanted) | set(received)):
        if wanted.get(name) != received.get(name):
            raise RosettaError(
                f"Expected published weights in which {name} has shape {wanted.get(name, 'none')}. "
                f"Received: {received.get(name, 'none')}"
            )
    return {name: np.ascontiguousarray(found[name], np.float32) for name in wanted}


def _save(arrays: dict[str, np.ndarray], path: Path) -> None:
    from safetensors.numpy import save

    try:
        paths.write(path, save(arrays))
    except OSError as error:
        raise RosettaError(f"{path}: the weights could not be written: {error.strerror}", NO_ROOM) from error
