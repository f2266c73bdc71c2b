"""What the text `densenet121` means: preprocessing, forward pass, loss and optimizer in plain NumPy, differentiated by
`autograd`.

This is the judge of every version; no framework is. Arrays are channels first, in the precision of what is passed in.
`tap(layer, input, output)` is called once for each layer of `layers()`, in order of computation.
"""

import autograd.numpy as np

# Set from text.toml.
LEARNING_RATE, BETA1, BETA2, EPSILON = 1e-4, 0.9, 0.999, 1e-8
CLASSES, WIDTH, GROWTH, BLOCKS, NORM_EPSILON, NORM_MOMENTUM = 14, 64, 32, [6, 12, 24, 16], 1e-5, 0.1
RESIZE, SIZE, MEAN, DEVIATION = 264, 224, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
EPSILON_HAT = False  # of a variant: epsilon is added to the root of the uncorrected second moment
VARIANCE_CORRECTION = 0  # of a variant: running variances are over n - 1
REPLICAS = 1  # of a variant: into how many parts a batch is divided, each normalized by its own statistics


def layers():
    """Layers with parameters in order of computation. Kernels are (out, in, height, width)."""
    found = []

    def conv(name, inputs, outputs, side):
        weight = {"shape": [outputs, inputs, side, side], "role": "conv", "initial": "he_uniform"}
        found.append({"name": name, "parameters": {"weight": weight}})

    def norm(name, channels):
        parameters = {
            "weight": {"shape": [channels], "role": "vector", "initial": "ones"},
            # Drawn wide and below zero in proofs. What follows norm0 hardly feels its scale unless its biases are
            # large: a gradient by its weights would be the small rest of large sums, and tell of their rounding alone.
            # The same comes of a bias that opens a ReLU for every pixel: the next norm takes it away again.
            "bias": {"shape": [channels], "role": "vector", "initial": "zeros", "centre": -0.5, "bound": 0.5},
            "running_mean": {"shape": [channels], "role": "statistic", "initial": "zeros"},
            # As a batch's are, so that evaluation in proofs is not of channels that are closed to all.
            "running_var": {"shape": [channels], "role": "statistic", "initial": "ones", "centre": 0.5, "bound": 0.2},
        }
        found.append({"name": name, "parameters": parameters})

    conv("conv0", 3, WIDTH, 7)
    norm("norm0", WIDTH)
    channels = WIDTH
    for block, count in enumerate(BLOCKS, 1):
        for number in range(count):
            layer = f"block{block}.{number}."
            norm(layer + "norm1", channels)
            conv(layer + "conv1", channels, 4 * GROWTH, 1)
            norm(layer + "norm2", 4 * GROWTH)
            conv(layer + "conv2", 4 * GROWTH, GROWTH, 3)
            channels += GROWTH
        if block < len(BLOCKS):
            norm(f"transition{block}.norm", channels)
            conv(f"transition{block}.conv", channels, channels // 2, 1)
            channels //= 2
    norm("norm5", channels)
    weight = {"shape": [CLASSES, channels], "role": "dense", "initial": "glorot_uniform"}
    bias = {"shape": [CLASSES], "role": "vector", "initial": "zeros"}
    found.append({"name": "classifier", "parameters": {"weight": weight, "bias": bias}})
    return found


def forward(parameters, images, tap=lambda layer, x, y: None, keep=None):
    """Logits (N, CLASSES) of images (N, 3, SIZE, SIZE).

    With `keep`, batch norm goes by the batch's statistics, and `keep(name, value)` hears of the new running ones;
    without, by the running ones.
    """
    if not keep:
        return network(parameters, images, tap)
    heard = [keep] + [lambda name, value: None] * (REPLICAS - 1)  # the first part's statistics are handed round
    parts = zip(np.split(images, REPLICAS), heard, strict=True)
    return np.concatenate([network(parameters, part, tap, keep) for part, keep in parts])


def network(parameters, images, tap, keep=None):
    """`forward` of one part of a batch."""

    def conv(layer, x, stride=1):
        weight = parameters[layer + ".weight"]
        y = convolution(x, weight, stride, padding=weight.shape[2] // 2)
        tap(layer, x, y)
        return y

    def norm(layer, x):
        names = ("weight", "bias", "running_mean", "running_var")
        weight, bias, mean, variance = (parameters[f"{layer}.{name}"] for name in names)
        if keep:
            count = x.shape[0] * x.shape[2] * x.shape[3]
            old_mean, old_variance = mean, variance
            mean, variance = np.mean(x, axis=(0, 2, 3)), np.var(x, axis=(0, 2, 3))
            unbiased = variance * (count / (count - VARIANCE_CORRECTION))
            keep(layer + ".running_mean", (1 - NORM_MOMENTUM) * old_mean + NORM_MOMENTUM * mean)
            keep(layer + ".running_var", (1 - NORM_MOMENTUM) * old_variance + NORM_MOMENTUM * unbiased)
        scale = weight / np.sqrt(variance + NORM_EPSILON)
        y = (x - np.reshape(mean, (-1, 1, 1))) * np.reshape(scale, (-1, 1, 1)) + np.reshape(bias, (-1, 1, 1))
        tap(layer, x, y)
        return y

    x = max_pool3x3(relu(norm("norm0", conv("conv0", images, stride=2))))  # (N, 64, 56, 56)
    for block, count in enumerate(BLOCKS, 1):
        for number in range(count):
            layer = f"block{block}.{number}."
            y = conv(layer + "conv1", relu(norm(layer + "norm1", x)))
            y = conv(layer + "conv2", relu(norm(layer + "norm2", y)))
            x = np.concatenate([x, y], axis=1)
        if block < len(BLOCKS):
            x = avg_pool2x2(conv(f"transition{block}.conv", relu(norm(f"transition{block}.norm", x))))
    x = np.mean(relu(norm("norm5", x)), axis=(2, 3))  # (N, 1024)
    logits = x @ parameters["classifier.weight"].T + parameters["classifier.bias"]
    tap("classifier", x, logits)
    return logits


def loss(logits, labels):
    """Binary cross-entropy in nats of logits and labels (N, CLASSES), averaged over both axes."""
    return np.mean(np.maximum(logits, 0) - logits * labels + np.log1p(np.exp(-np.abs(logits))))


def metric(logits, labels):
    """Area under the receiver operating characteristic, averaged over the classes: of each class the share of pairs of
    a positive and a negative example of which the positive one has the larger logit.
    """
    from scipy.stats import mannwhitneyu

    areas = []
    for column, truth in zip(np.transpose(logits), np.transpose(labels) == 1, strict=True):
        positive, negative = column[truth], column[~truth]
        areas.append(mannwhitneyu(positive, negative).statistic / (len(positive) * len(negative)))
    return np.mean(areas)


def initial_state(parameters):
    """Optimizer state before the first step: two moments a parameter."""
    return {moment + name: np.zeros_like(value) for name, value in parameters.items() for moment in ("m/", "v/")}


def update(parameters, gradients, state, step):
    """One step of Adam (Kingma and Ba 2015, algorithm 1); `step` counts from 1. Powers are taken in the arrays'
    precision.
    """
    new_parameters, new_state = {}, {}
    for name, value in parameters.items():
        beta1, beta2 = np.array([BETA1, BETA2], value.dtype)
        m = BETA1 * state["m/" + name] + (1 - BETA1) * gradients[name]
        v = BETA2 * state["v/" + name] + (1 - BETA2) * gradients[name] ** 2
        root = np.sqrt(1 - beta2**step)
        denominator = np.sqrt(v) + EPSILON if EPSILON_HAT else np.sqrt(v) + EPSILON * root
        new_parameters[name] = value - LEARNING_RATE * root / (1 - beta1**step) * m / denominator
        new_state["m/" + name], new_state["v/" + name] = m, v
    return new_parameters, new_state


def preprocess(photo):
    """A normalized image (3, RESIZE, RESIZE) of a photo (height, width, 3) of 0 to 255, in its precision."""
    x = resize(resize(photo / 255, RESIZE, axis=0), RESIZE, axis=1)
    x = (x - np.array(MEAN, x.dtype)) / np.array(DEVIATION, x.dtype)
    return np.transpose(x, (2, 0, 1))


def crop(image):
    """The middle (3, SIZE, SIZE) of an image (3, RESIZE, RESIZE): what evaluation sees."""
    start = (RESIZE - SIZE) // 2
    return image[:, start : start + SIZE, start : start + SIZE]


def resize(x, size, axis):
    """Linear interpolation along an axis between the centres of pixels, each new pixel over its own width if that is
    larger than an old one's (anti-aliasing), as Pillow's BILINEAR does, but without rounding to bytes.
    """
    old = x.shape[axis]
    scale = x.dtype.type(old / size)
    reach = max(scale, x.dtype.type(1))
    half, one = x.dtype.type(0.5), x.dtype.type(1)
    centres = (np.arange(size, dtype=x.dtype) + half) * scale
    weights = np.maximum(
        0, one - np.abs(np.arange(old, dtype=x.dtype) + half - centres[:, None]) / reach
    )  # (size, old)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.moveaxis(np.tensordot(weights, x, (1, axis)), 0, axis)


def convolution(x, weight, stride, padding):
    """Cross-correlation: x (N, C, H, W), weight (O, C, k, k), zeros around, to (N, O, H / stride, W / stride)."""
    n, c, h, w = x.shape
    side = weight.shape[2]
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), "constant")
    down, right = (h + 2 * padding - side) // stride + 1, (w + 2 * padding - side) // stride + 1
    shifts = [
        padded[:, :, i : i + stride * down : stride, j : j + stride * right : stride][:, :, :down, :right]
        for i in range(side)
        for j in range(side)
    ]
    patches = np.reshape(np.stack(shifts, axis=2), (n, c * side * side, down * right))
    y = np.matmul(np.reshape(weight, (1, len(weight), -1)), patches)
    return np.reshape(y, (n, len(weight), down, right))


def max_pool3x3(x):
    """Largest of each 3×3 window, every second one, nothing around the border: (N, C, H, W) to (N, C, H/2, W/2)."""
    h, w = x.shape[2:]
    border = ((0, 0), (0, 0), (1, 1), (1, 1))
    padded = np.pad(x, border, "constant", constant_values=-np.inf)
    return np.max(np.stack([padded[:, :, i : i + h : 2, j : j + w : 2] for i in range(3) for j in range(3)]), axis=0)


def avg_pool2x2(x):
    """Mean of each 2×2 window: (N, C, H, W) to (N, C, H/2, W/2)."""
    n, c, h, w = x.shape
    return np.mean(np.reshape(x, (n, c, h // 2, 2, w // 2, 2)), axis=(3, 5))


def relu(x):
    """Zero below zero."""
    return x * (x > 0)
