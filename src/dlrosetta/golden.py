"""What the reference computes, small enough to commit: of every tensor its norm, 256 entries and its product with
random signs.

Samples show where a tensor departs; products with fixed random vectors of ±1 see every entry, so no change goes unseen
(the expected square of such a product of a difference is the difference's squared norm). Beside them stands the
rounding error that the reference itself makes in float32, by the same measure: it is what a cell is allowed, three
times over. What it makes of mixed precision with bfloat16 stands there too.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dlrosetta import draws, paths, reference
from dlrosetta.errors import RosettaError
from dlrosetta.texts import Text

SAMPLES = 256
PROJECTIONS = 4
PIECE = 8192  # entries, a multiple of 8
RUNS = 5  # of the reference in float32, and as many in mixed precision
SPREAD = ("step ", "losses", "trained ")  # what a proof on several devices compares
LARGEST = 1 / 6  # of an error in mixed precision: of what is off by more, three times that says nothing
UNIT = 2.0**-23  # a rounding error below one unit in the last place of float32 is luck, not precision


@dataclass(frozen=True)
class Tensor:
    """Of one tensor: shape, Euclidean norm, samples at `positions(name, size)`, products with `PROJECTIONS` sign
    vectors; the reference's rounding error in float32, and in mixed precision with bfloat16, or None where that has
    never been measured.
    """

    shape: tuple[int, ...]
    norm: float
    samples: np.ndarray
    projections: np.ndarray
    rounding: float = 0.0
    bfloat16: float | None = None


@dataclass(frozen=True)
class Golden:
    """Every tensor of a text's proof by name of check, the metric, and the labels of the evaluation examples."""

    tensors: dict[str, Tensor]
    metric: float
    labels: np.ndarray


def positions(name: str, size: int) -> np.ndarray:
    """Flat indices of the sampled entries: all of a small tensor, otherwise 256 drawn from the tensor's name."""
    if size <= SAMPLES:
        return np.arange(size)
    return np.unique((draws.uniform(0, f"positions/{name}", SAMPLES) * size).astype(np.int64))


def summarise(name: str, array: np.ndarray, rounding: float = 0.0) -> Tensor:
    """Reduce a full array to what the golden keeps of it."""
    flat = np.ravel(array)
    samples = flat[positions(name, flat.size)].astype(np.float64)
    norm, projections = _measures(flat, name)
    return Tensor(np.shape(array), norm, samples, projections, rounding)


def _measures(flat: np.ndarray, name: str) -> tuple[float, np.ndarray]:
    """Norm of a vector and its products with its sign vectors, in float64. Piece by piece, for sign vectors as large as
    the array took half of the prover's time: a piece stays in the cache, and BLAS starts no threads for it.
    """
    bits = np.stack([draws.sign_bits(number, f"signs/{name}", flat.size) for number in range(PROJECTIONS)])
    squares, projections = 0.0, np.zeros(PROJECTIONS)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is infinitely far: see `distance`
        for start in range(0, flat.size, PIECE):
            piece = flat[start : start + PIECE].astype(np.float64)
            positive = np.unpackbits(bits[:, start // 8 : (start + PIECE) // 8], axis=1, count=piece.size)
            squares += float(piece @ piece)
            projections += 2 * (positive.astype(np.float64) @ piece) - piece.sum()
    return math.sqrt(squares), projections


def distance(received: Tensor, expected: Tensor) -> float:
    """Relative error ‖received − expected‖ / ‖expected‖; infinite where not finite.

    Of a tensor whose every entry is a sample it is known. Otherwise it is the largest of three estimates: norms bound
    it from below; samples and sign products estimate it without bias.
    """
    scale = expected.norm or 1.0
    size = max(1, int(np.prod(expected.shape)))
    if size == len(expected.samples):
        error = float(np.linalg.norm(received.samples - expected.samples)) / scale
        return error if np.isfinite(error) else float("inf")
    by_norm = abs(received.norm - expected.norm)
    by_samples = float(np.linalg.norm(received.samples - expected.samples)) * np.sqrt(
        size / max(1, len(expected.samples))
    )
    by_products = float(np.linalg.norm(received.projections - expected.projections)) / np.sqrt(PROJECTIONS)
    error = max(by_norm, by_samples, by_products) / scale
    return float(error) if np.isfinite(error) else float("inf")


def build(text: Text, variant: str | None = None) -> Golden:
    """Run the reference in float64, and in float32 and in mixed precision several times over for its rounding errors;
    or a variant of it.
    """
    chosen = next((one for one in text.variants if one["name"] == variant), {})
    text, constants = text.held_to(chosen), chosen.get("constants")
    labels = reference.evaluation_labels(text)
    exact, worst = _measured(partial(reference.run, text, labels, constants=constants))
    mixed = dict(worst)  # what is in float32 in mixed precision too makes that error
    if "devices" not in chosen:
        for number in range(RUNS):
            _widen(mixed, reference.mixed(text, number, constants), exact)
    metric = float(exact.pop("metric").samples[0]) if text.trains else 0.0
    worst, mixed = _shared(worst), _shared(mixed, LARGEST)
    tensors = {name: replace(one, rounding=worst[name], bfloat16=mixed[name]) for name, one in exact.items()}
    if "devices" in chosen:  # asked about on several devices alone, which is about train steps
        tensors = {name: replace(one, bfloat16=None) for name, one in tensors.items() if name.startswith(SPREAD)}
    return Golden(tensors, metric, labels)


def evaluated(text: Text) -> dict[str, Tensor]:
    """Activations and logits of evaluation mode, which is another where there are running statistics. They locate what
    the evaluation logits of golden.npz have found, and are not kept there: it would grow by a third.
    """
    exact, worst = _measured(partial(reference.evaluated, text))
    worst = _shared(worst)
    return {name: replace(one, rounding=worst[name]) for name, one in exact.items()}


def _measured(compute: Callable[..., reference.Arrays]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """What `compute()` returns, summarised, and the worst error of each tensor in its runs in float32."""
    exact = {name: summarise(name, array) for name, array in compute().items()}
    worst = dict.fromkeys(exact, UNIT)
    for number in range(RUNS):
        _widen(worst, compute(dtype=np.float32, wobble=number), exact)
    return exact, worst


def _widen(worst: dict[str, float], arrays: dict[str, np.ndarray], exact: dict[str, Tensor]) -> None:
    """Raise each tensor's worst error to that of these arrays."""
    for name, array in arrays.items():
        if name in exact:
            worst[name] = max(worst[name], distance(summarise(name, array), exact[name]))


def _shared(worst: dict[str, float], largest: float = math.inf) -> dict[str, float]:
    """One tensor's error is a single draw, at times a lucky one: its kin have the same cause and share the worst. One
    that is above `largest` is its own alone.
    """
    family: dict[str, float] = {}
    for name, error in worst.items():
        kin = name.rpartition("/")[0] or name
        family[kin] = max(family.get(kin, 0.0), error if error <= largest else 0.0)
    return {name: max(error, family[name.rpartition("/")[0] or name]) for name, error in worst.items()}


def save(golden: Golden, path: Path) -> None:
    """Write golden.npz, beside and renamed."""
    names = sorted(golden.tensors)
    tensors = [golden.tensors[name] for name in names]
    arrays: dict[str, Any] = {
        "names": np.array(names),
        "shapes": np.array([",".join(map(str, one.shape)) for one in tensors]),
        "norms": np.array([one.norm for one in tensors]),
        "rounding": np.array([one.rounding for one in tensors]),
        "projections": np.array([one.projections for one in tensors]),
        "counts": np.array([len(one.samples) for one in tensors]),
        "samples": np.concatenate([one.samples for one in tensors]),
        "metric": np.array(golden.metric),
        "labels": golden.labels.astype(np.int64),
    }
    if all(one.bfloat16 is not None for one in tensors):
        arrays["rounding_bfloat16"] = np.array([one.bfloat16 for one in tensors])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    try:
        paths.write(path, buffer.getvalue())
    except OSError as error:
        raise RosettaError(
            f"{path}: the golden could not be written: {error.strerror}.",
            "copy the text's folder to where there is room and you may write, and name that with --stone",
        ) from error


def load(text: Text, variant: str | None = None) -> Golden:
    """Read the golden of a text or of its variant. Raises RosettaError where there is none or it is not one."""
    path = text.golden_of(variant)
    if not path.is_file():
        raise RosettaError(f"Expected a golden at {path}. Received: none", f"rosetta golden {text.name}")
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = {key: stored[key] for key in stored.files}
        shapes = [tuple(int(part) for part in str(shape).split(",") if part) for shape in found["shapes"]]
        samples = np.split(found["samples"], np.cumsum(found["counts"])[:-1])
        errors = found["rounding"].tolist()
        mixed = found["rounding_bfloat16"].tolist() if "rounding_bfloat16" in found else [None] * len(errors)
        rows = zip(found["names"], shapes, found["norms"], samples, found["projections"], errors, mixed, strict=True)
        tensors = {str(name): Tensor(shape, float(norm), *others) for name, shape, norm, *others in rows}
        return Golden(tensors, float(found["metric"]), found["labels"])
    except (OSError, ValueError, KeyError) as error:
        raise RosettaError(f"{path}: expected a golden. Received: {error}", f"rosetta golden {text.name}") from error
