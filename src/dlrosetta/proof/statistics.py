"""Statistical tests of what is random by design: dropout, initialisation, shuffling.

Each reports −log10 p, and fails at one in a million, so that a proof of a few hundred tests raises a false alarm less
than once in a thousand runs; the effects it is for (another rate, another distribution) give hundreds of digits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dlrosetta import draws
from dlrosetta.proof.checks import SURPRISE, Check

EPOCHS = 4  # of augmented images: what is drawn at random needs many draws to show
CUT = 1e-3  # an image that was cut out differs from its whole by no more than rounding; one a pixel beside, by more


def surprise(p: float) -> float:
    """−log10 p, at most 300."""
    return -math.log10(max(float(p), 1e-300))


def dropout(name: str, rate: float, base: np.ndarray | None, dropped: np.ndarray | None, word: str) -> list[Check]:
    """A dropout layer in training: how much is zeroed, how the rest is scaled, and that each element has its own draw.

    `base` and `dropped` (N, C, …) are the same activations without and with this layer's dropout.
    """
    from scipy import stats

    names = (f"{name} rate", f"{name} scale", f"{name} independence")
    if base is None or dropped is None or base.shape != dropped.shape:
        return [Check(one, math.inf, SURPRISE, "Model", word, word=word) for one in names]
    alive = base != 0
    zeroed = alive & (dropped == 0)
    by_rate = surprise(stats.binomtest(int(zeroed.sum()), int(alive.sum()), rate).pvalue)
    kept = alive & ~zeroed
    scale = float(np.max(np.abs(dropped[kept] / base[kept] * (1 - rate) - 1), initial=0.0)) if kept.any() else math.inf
    channels = tuple(range(2, base.ndim))
    apart = max(_dispersion(zeroed, alive, rate, axes) for axes in ({channels, (0,)} if channels else {(0,), (1,)}))
    return [
        Check(names[0], by_rate, SURPRISE, "Model", word),
        Check(names[1], scale, 1e-5, "Model", word),
        Check(names[2], apart, SURPRISE, "Model", word),
    ]


def _dispersion(zeroed: np.ndarray, alive: np.ndarray, rate: float, axes: tuple[int, ...]) -> float:
    """Do counts of zeros along `axes` scatter as independent draws do? Whole channels, or one mask for all, do more."""
    from scipy import stats

    n, k = alive.sum(axis=axes).ravel().astype(float), zeroed.sum(axis=axes).ravel().astype(float)
    n, k = n[n > 0], k[n > 0]
    variance = n * rate * (1 - rate)
    spread = (k - n * rate) ** 2 / variance
    expected_variance = 2 + (1 - 6 * rate * (1 - rate)) / variance
    z = (spread - 1).sum() / math.sqrt(expected_variance.sum())
    return surprise(2 * stats.norm.sf(abs(z)))


def initialisation(parameters: dict[str, dict[str, Any]], received: dict[str, np.ndarray]) -> list[Check]:
    """What the version drew has the distribution that the text declares, for every parameter: its form
    (Kolmogorov–Smirnov), its width (which few values tell sooner), and no row of it is left at one value, as a row of
    padding is.
    """
    from scipy import stats

    checks = []
    for name, spec in parameters.items():
        values = received[name].astype(np.float64).ravel()
        layer = name.rsplit(".", 1)[0]
        if spec["initial"] in ("zeros", "ones"):
            constant = float(spec["initial"] == "ones")
            checks.append(Check(f"initial/{name}", float(np.count_nonzero(values != constant)), 0.0, "Model", layer))
            continue
        sample = values
        if values.size > 20_000:  # no value twice, which both tests would count as another
            sample = values[np.unique((draws.uniform(0, f"initial/{name}", 20_000) * values.size).astype(int))]
        bound = draws.spread(spec)
        normal = spec["initial"] == "normal"
        declared = stats.norm(0, spec["std"]) if normal else stats.uniform(-bound, 2 * bound)
        outside = not normal and np.abs(values).max() > bound * (1 + 1e-6)
        rows = values.reshape(len(received[name]), -1)
        still = rows.shape[1] > 2 and bool((rows == rows[:, :1]).all(axis=1).any())
        error = max(surprise(stats.kstest(sample, declared.cdf).pvalue), _width(sample, declared))
        error = math.inf if outside or still else error
        checks.append(Check(f"initial/{name}", error, SURPRISE, "Model", layer))
    return checks


def _width(sample: np.ndarray, declared: Any) -> float:
    """Is the mean square that of the declared distribution, around zero? Of fewer than 100 values, no answer: 0."""
    from scipy import stats

    if len(sample) < 100:
        return 0.0
    square, fourth = declared.moment(2), declared.moment(4)
    z = (np.mean(sample**2) - square) / math.sqrt((fourth - square**2) / len(sample))
    return surprise(2 * stats.norm.sf(abs(z)))


def batch_sizes(count: int, size: int, received: np.ndarray) -> Check:
    """All batches are full but the last, which has the rest."""
    expected = [min(size, count - start) for start in range(0, count, size)]
    return Check("batch sizes", float(received.tolist() != expected), 0.0, "Data")


def plain_batches(
    name: str, inputs: np.ndarray, labels: np.ndarray, size: int, received: dict[str, np.ndarray]
) -> list[Check]:
    """Unshuffled, the version's batches are the data itself, bit for bit, in order, and none is lost."""
    same = received["inputs/0"].shape == inputs.shape and np.array_equal(received["inputs/0"], inputs)
    return [
        batch_sizes(len(labels), size, received["sizes/0"]),
        Check(name, float(not same), 0.0, "Data"),
        Check("labels", float(not np.array_equal(received["labels/0"], labels)), 0.0, "Data"),
    ]


def shuffled_batches(inputs: np.ndarray, labels: np.ndarray, received: dict[str, np.ndarray]) -> list[Check]:
    """Shuffled, each epoch is a permutation of the data, input with its label, well mixed, and another each time."""
    labels = labels.astype(np.int64)
    for epoch in range(2):
        pair = received[f"inputs/{epoch}"], received[f"labels/{epoch}"]
        if (
            pair[0].shape[1:] != inputs.shape[1:]
            or pair[1].shape[1:] != labels.shape[1:]
            or len(pair[0]) != len(pair[1])
        ):
            # No pairs of the data's own.
            return [Check("shuffled epochs are permutations", float(len(labels)), 0.0, "Data")]

    def identity(one: np.ndarray, label: np.ndarray) -> bytes:
        return np.ascontiguousarray(one, inputs.dtype).tobytes() + np.ascontiguousarray(label, np.int64).tobytes()

    known: dict[bytes, list[int]] = {}
    for number, pair in enumerate(zip(inputs, labels, strict=True)):
        known.setdefault(identity(*pair), []).append(number)
    orders, missing = [], 0
    for epoch in range(2):
        counts = dict.fromkeys(known, 0)
        order = []
        for pair in zip(received[f"inputs/{epoch}"], received[f"labels/{epoch}"], strict=True):
            key = identity(*pair)
            places = known.get(key)
            order.append(places[0] if places else -1)
            if key in counts:
                counts[key] += 1
        missing += sum(abs(counts[key] - len(places)) for key, places in known.items()) + order.count(-1)
        orders.append(order)
    unmixed = sum(_unmixed(order) for order in orders) + float(orders[0] == orders[1])
    return [
        Check("shuffled epochs are permutations", float(missing), 0.0, "Data"),
        Check("shuffled epochs are shuffled", unmixed, 0.0, "Data"),
    ]


def augmented_batches(wholes: list[np.ndarray], labels: np.ndarray, received: dict[str, np.ndarray]) -> list[Check]:
    """Shuffled and augmented, each epoch has every image once, with its labels: a square cut out of the whole image
    (C, H, W), anywhere, each image's at a place of its own, and half of them mirrored, another half each time.
    """
    from scipy import stats

    orders, places, missing = [], [], 0.0
    for epoch in range(EPOCHS):
        found = [
            _find(image, [number for number, known in enumerate(labels) if np.array_equal(known, label)], wholes)
            for image, label in zip(received[f"inputs/{epoch}"], received[f"labels/{epoch}"], strict=True)
        ]
        order = [one[0] for one in found if one]
        missing += len(wholes) - len(set(order)) + len(found) - len(order)
        orders.append(order)
        places.append([one[1:] for one in found if one])
    checks = [Check("augmented epochs hold every image once", missing, 0.0, "Data")]
    if missing:
        return checks
    unmixed = sum(_unmixed(order) for order in orders) + float(orders[0] == orders[1])
    drawn = np.array(places)  # (epochs, N, 3): down, right, mirrored
    free = wholes[0].shape[1] - received["inputs/0"].shape[2]
    down, right, mirrored = (drawn[:, :, axis].ravel() for axis in range(3))
    uniform = stats.randint(0, free + 1)
    apart = [float(stats.kstest(values, uniform.cdf).pvalue) for values in (down, right)]
    # Apart for the mirrored, whose right is another's left: a place on the diagonal would even out.
    pairs = [
        (down, mirrored),
        (right, mirrored),
        *((down[those], right[those]) for those in (mirrored == 0, mirrored == 1)),
    ]
    varied = [(a, b) for a, b in pairs if len(a) > 1 and np.ptp(a) and np.ptp(b)]  # else there is no correlation
    apart += [float(stats.spearmanr(a, b).pvalue) for a, b in varied]
    # The same image in two epochs, and two images of one epoch: what is drawn once for all is equal too often.
    by_image = np.array([epoch[np.argsort(order)] for epoch, order in zip(drawn, orders, strict=True)])
    again = float(np.mean(np.all(by_image[0, :, :2] == by_image[1, :, :2], axis=1)))
    together = float(np.mean(np.all(drawn[:, 1:, :2] == drawn[:, :-1, :2], axis=2)))
    # Of all images, and of those that are as they were in the first epoch, half each.
    counts = [(mirrored, mirrored.size)] + [(by_image[0, :, 2] == one[:, 2], len(wholes)) for one in by_image[1:]]
    halves = max(surprise(stats.binomtest(int(np.sum(those)), size, 0.5).pvalue) for those, size in counts)
    return [
        *checks,
        Check("augmented epochs are shuffled", unmixed, 0.0, "Data"),
        Check("squares are cut out anywhere", surprise(min(apart)), SURPRISE, "Data"),
        Check("each image has a square of its own", max(again, together), 0.25, "Data"),
        Check("half of the images are mirrored", halves, SURPRISE, "Data"),
    ]


def _find(image: np.ndarray, numbers: list[int], wholes: list[np.ndarray]) -> tuple[int, int, int, int] | None:
    """(number, down, right, mirrored) of the whole image of which this one is a part; None if it is of none."""
    side, coarse = image.shape[1], np.s_[::16, ::16]
    for number in numbers:
        windows = np.lib.stride_tricks.sliding_window_view(wholes[number][0], (side, side))[:, :, ::16, ::16]
        for mirrored in (0, 1):
            one = image[:, :, ::-1] if mirrored else image
            error = np.abs(windows - one[0][coarse]).max(axis=(2, 3))
            down, right = (int(place) for place in np.unravel_index(np.argmin(error), error.shape))
            part = wholes[number][:, down : down + side, right : right + side]
            if part.shape == one.shape and np.abs(part - one).max() < CUT:
                return number, down, right, mirrored
    return None


def _unmixed(order: list[int]) -> float:
    """1 where an order keeps too much of the data's own.

    That is, examples near their places (as a small shuffle buffer leaves them), or neighbours together (whole batches).
    """
    from scipy import stats

    if len(set(order)) < 2:
        return 1.0  # nothing of the data's own is in it, and nothing to correlate
    places, steps = np.array(order), len(order) - 1
    correlation = float(np.corrcoef(places, np.arange(len(places)))[0, 1]) * math.sqrt(steps)
    neighbours = int(np.sum(np.abs(np.diff(places)) == 1))  # of any two, one pair in N / 2 by chance
    together = stats.binomtest(neighbours, steps, min(1.0, 2 / len(order)), alternative="greater").pvalue
    return float(not abs(correlation) < 5 or surprise(together) > SURPRISE)  # 5 deviations: one in two million
