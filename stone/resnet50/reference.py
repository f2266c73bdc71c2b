"""What the text `resnet50` means: preprocessing and forward pass in plain NumPy.

This is the judge of every version; no framework is. Arrays are channels first, in the precision of what is passed in.
`tap(layer, input, output)` is called once for each layer of `layers()`, in order of computation.
"""

import numpy as np

# Set from text.toml.
WIDTH, BLOCKS, NORM_EPSILON = 64, [3, 4, 6, 3], 1e-5
RESIZE, SIZE, MEAN, DEVIATION = 256, 224, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def layers():
    """Layers with parameters in order of computation. Kernels are (out, in, height, width)."""
    found = []

    def conv(name, inputs, outputs, side):
        weight = {"shape": [outputs, inputs, side, side], "role": "conv", "initial": "he_uniform"}
        found.append({"name": name, "parameters": {"weight": weight}})

    def norm(name, channels):
        parameters = {
            "weight": {"shape": [channels], "role": "vector", "initial": "ones"},
            "bias": {"shape": [channels], "role": "vector", "initial": "zeros"},
            "running_mean": {"shape": [channels], "role": "statistic", "initial": "zeros"},
            "running_var": {"shape": [channels], "role": "statistic", "initial": "ones"},
        }
        found.append({"name": name, "parameters": parameters})

    conv("conv1", 3, WIDTH, 7)
    norm("bn1", WIDTH)
    inputs = WIDTH
    for stage, blocks in enumerate(BLOCKS):
        width = WIDTH * 2**stage
        for number in range(blocks):
            block = f"layer{stage + 1}.{number}."
            if number == 0:
                conv(block + "shortcut_conv", inputs, 4 * width, 1)
                norm(block + "shortcut_bn", 4 * width)
            conv(block + "conv1", inputs, width, 1)
            norm(block + "bn1", width)
            conv(block + "conv2", width, width, 3)
            norm(block + "bn2", width)
            conv(block + "conv3", width, 4 * width, 1)
            norm(block + "bn3", 4 * width)
            inputs = 4 * width
    return found


def forward(parameters, images, tap=lambda layer, x, y: None, keep=None):
    """Features (N, 32 WIDTH) of images (N, 3, SIZE, SIZE). Batch norm goes by its running statistics."""

    def conv(layer, x, stride=1):
        weight = parameters[layer + ".weight"]
        y = convolution(x, weight, stride, padding=weight.shape[2] // 2)
        tap(layer, x, y)
        return y

    def norm(layer, x):
        names = ("weight", "bias", "running_mean", "running_var")
        weight, bias, mean, variance = (parameters[f"{layer}.{name}"].reshape(-1, 1, 1) for name in names)
        y = (x - mean) / np.sqrt(variance + NORM_EPSILON) * weight + bias
        tap(layer, x, y)
        return y

    x = max_pool3x3(relu(norm("bn1", conv("conv1", images, stride=2))))  # (N, 64, 56, 56)
    for stage, blocks in enumerate(BLOCKS):
        for number in range(blocks):
            block = f"layer{stage + 1}.{number}."
            stride = 2 if number == 0 and stage > 0 else 1
            shortcut = x
            if number == 0:
                shortcut = norm(block + "shortcut_bn", conv(block + "shortcut_conv", x, stride))
            y = relu(norm(block + "bn1", conv(block + "conv1", x)))
            y = relu(norm(block + "bn2", conv(block + "conv2", y, stride)))
            x = relu(norm(block + "bn3", conv(block + "conv3", y)) + shortcut)
    return np.mean(x, axis=(2, 3))


def preprocess(photo):
    """An image (3, SIZE, SIZE) of a photo (height, width, 3) of 0 to 255, in its precision.

    The shorter side becomes RESIZE long, the longer one in proportion (fractions are dropped); the middle is cut out;
    0 to 255 becomes 0 to 1, and of that MEAN is subtracted and by DEVIATION it is divided.
    """
    height, width = photo.shape[:2]
    short = min(height, width)
    x = photo / 255
    x = resize(resize(x, height * RESIZE // short, axis=0), width * RESIZE // short, axis=1)
    top, left = (x.shape[0] - SIZE) // 2, (x.shape[1] - SIZE) // 2
    x = (x[top : top + SIZE, left : left + SIZE] - np.array(MEAN, x.dtype)) / np.array(DEVIATION, x.dtype)
    return np.transpose(x, (2, 0, 1))


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
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
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
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    return np.max([padded[:, :, i : i + h : 2, j : j + w : 2] for i in range(3) for j in range(3)], axis=0)


def relu(x):
    """Zero below zero."""
    return x * (x > 0)
