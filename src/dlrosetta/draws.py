"""Everything random that all cells share: initial parameters and the fixed batches of the proof.

Drawn from NumPy's Philox bit generator by its raw output alone, which NumPy guarantees never to change, unlike the
streams of its distributions. Written once by the program; workers only read.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from dlrosetta.texts import Text, sized


def uniform(seed: int, name: str, count: int) -> np.ndarray:
    """`count` float64 values in [0, 1), a stream for each (seed, name)."""
    key = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16], "little")
    return (np.random.Philox(key=key).random_raw(count) >> np.uint64(11)) * 2.0**-53


def sign_bits(seed: int, name: str, count: int) -> np.ndarray:
    """`count` signs, a stream for each (seed, name): bits, eight in a byte, the first one highest; 1 stands for +1."""
    key = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16], "little")
    return np.random.Philox(key=key).random_raw(-(-count // 64)).astype("<u8").view(np.uint8)


def signs(seed: int, name: str, count: int) -> np.ndarray:
    """`count` values of ±1 as float64: those of `sign_bits`."""
    values = np.unpackbits(sign_bits(seed, name, count), count=count).astype(np.float64)
    return 2 * values - 1


def glorot_bound(shape: tuple[int, ...]) -> float:
    """Half width of Glorot's uniform distribution (Glorot and Bengio 2010, eq. 16) for a canonical kernel (out, in,
    *window).
    """
    window = math.prod(shape[2:])
    return math.sqrt(6.0 / ((shape[0] + shape[1]) * window))


def he_bound(shape: tuple[int, ...]) -> float:
    """Half width of He's uniform distribution (He et al. 2015, eq. 10) for a canonical kernel (out, in, *window)."""
    return math.sqrt(6.0 / math.prod(shape[1:]))


def spread(spec: dict[str, Any]) -> float:
    """Half width of a uniform distribution as wide as the parameter's initial one."""
    shape = tuple(spec["shape"])
    if spec["initial"] == "glorot_uniform":
        return glorot_bound(shape)
    if spec["initial"] == "he_uniform":
        return he_bound(shape)
    if spec["initial"] == "normal":
        return math.sqrt(3.0) * spec["std"]
    return spec.get("bound", 0.1)


def initial_parameters(text: Text, full: bool = False) -> dict[str, np.ndarray]:
    """Parameters that every cell starts from: float64 values that float32 holds exactly, so that no precision is
    favoured. Of the proof's model, or of the `full` one.

    Vectors are drawn too, although the text starts them at zero or one: a bias that is left out or put in the wrong
    place must show.
    """
    seed, parameters = text.proof["seed"], {}
    for name, spec in (text.full_parameters if full else text.parameters).items():
        shape = tuple(spec["shape"])
        values = uniform(seed, name, math.prod(shape)).reshape(shape) * 2 - 1
        centre = spec.get("centre", 1.0 if spec["initial"] == "ones" else 0.0)
        parameters[name] = (centre + values * spread(spec)).astype(np.float32).astype(np.float64)
    return parameters


def batch(text: Text, name: str, count: int) -> dict[str, np.ndarray]:
    """`count` examples: real numbers float64 (exact in float32), whole ones int64. `name` tells the streams apart."""
    seed, arrays = text.proof["seed"], {}
    for key, spec in text.inputs.items():
        shape = (count, *sized(spec["shape"], text.constants))
        values = uniform(seed, f"{name}/{key}", math.prod(shape)).reshape(shape)
        if spec["draw"] in ("labels", "tokens"):
            (classes,) = sized([spec["classes"]], text.constants)
            arrays[key] = (values * classes).astype(np.int64)
            if spec.get("padded"):  # as a loader pads short texts: with zeros in front
                lengths = 1 + (uniform(seed, f"{name}/{key}/length", count) * shape[1]).astype(np.int64)
                arrays[key][np.arange(shape[1]) < (shape[1] - lengths)[:, None]] = 0
        elif spec["draw"] == "patch":
            arrays[key] = _patches(
                values, spec["patch"], uniform(seed, f"{name}/{key}/place", 2 * count).reshape(count, 2)
            )
        else:
            arrays[key] = values.astype(np.float32).astype(np.float64)
    return arrays


def loud(arrays: dict[str, np.ndarray], factor: float) -> dict[str, np.ndarray]:
    """The same with every real number multiplied: what clips, saturates or caps shows at numbers far from the usual."""
    return {key: array if np.issubdtype(array.dtype, np.integer) else array * factor for key, array in arrays.items()}


def _patches(images: np.ndarray, side: int, places: np.ndarray) -> np.ndarray:
    """Black out all of each image (N, C, H, W) but one square, at a place of its own.

    Where the image is constant, so are the activations: far fewer ReLUs and pooling windows are left that rounding
    could tip the other way, and a tip is no small error but a finite jump in a gradient. Border, bias and position
    still show.
    """
    out = np.zeros_like(images)
    for number, (down, right) in enumerate(places):
        top, left = int(down * (images.shape[2] - side + 1)), int(right * (images.shape[3] - side + 1))
        square = np.s_[number, :, top : top + side, left : left + side]
        out[square] = images[square]
    return out.astype(np.float32).astype(np.float64)


def training_batches(text: Text) -> dict[str, np.ndarray]:
    """The proof's batches, stacked: inputs (steps, batch, …), labels (steps, batch, …)."""
    drawn = [batch(text, f"train/{step}", text.proof["batch"]) for step in range(text.proof.get("steps", 1))]
    return {key: np.stack([one[key] for one in drawn]) for key in drawn[0]}
