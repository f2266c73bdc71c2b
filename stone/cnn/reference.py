"""What the text `cnn` means: forward pass, loss and optimizer in plain NumPy, differentiated by `autograd`.

This is the judge of every version; no framework is. Arrays are channels first, in the precision of what is passed in.
`tap(layer, input, output)` is called once for each layer of text.toml, in order of computation.
"""

import autograd.numpy as np


def forward(parameters, images, tap=lambda layer, x, y: None):
    """Logits (N, 10) of images (N, 3, 32, 32). Dropout is the identity: it is proven on its own."""

    def conv(layer, x):
        y = conv3x3(x, parameters[layer + ".weight"], parameters[layer + ".bias"])
        tap(layer, x, y)
        return y

    def dense(layer, x):
        y = x @ parameters[layer + ".weight"].T + parameters[layer + ".bias"]
        tap(layer, x, y)
        return y

    x = relu(conv("conv1", images))  # (N, 50, 32, 32)
    x = relu(max_pool2x2(conv("conv2", x)))  # (N, 50, 16, 16)
    x = relu(conv("conv3", x))  # (N, 100, 16, 16)
    x = relu(max_pool2x2(conv("conv4", x)))  # (N, 100, 8, 8)
    x = relu(dense("fc1", np.reshape(x, (len(x), -1))))  # (N, 512)
    return dense("fc2", x)  # (N, 10)


def loss(logits, labels):
    """Cross-entropy in nats, averaged over the batch, of logits (N, 10) and labels (N,)."""
    shifted = logits - np.max(logits, axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))
    return -np.mean(log_probabilities[np.arange(len(labels)), labels])


def metric(logits, labels):
    """Accuracy: the share of examples whose largest logit is the label's."""
    return np.mean(np.argmax(logits, axis=1) == labels)


def initial_state(parameters):
    """Optimizer state before the first step: one velocity a parameter."""
    return {"velocity/" + name: np.zeros_like(value) for name, value in parameters.items()}


def update(parameters, gradients, state, step):
    """One step of SGD with momentum; the learning rate stands outside the velocity. `step` counts from 1."""
    new_parameters, new_state = {}, {}
    for name, value in parameters.items():
        velocity = 0.9 * state["velocity/" + name] + gradients[name]
        new_state["velocity/" + name] = velocity
        new_parameters[name] = value - 0.01 * velocity
    return new_parameters, new_state


def conv3x3(x, weight, bias):
    """Cross-correlation with zero padding 1: x (N, C, H, W), weight (O, C, 3, 3), bias (O,) to (N, O, H, W)."""
    n, c, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="constant")
    shifts = [padded[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    patches = np.reshape(np.stack(shifts, axis=2), (n, c * 9, h * w))  # (N, C·9, H·W)
    y = np.matmul(np.reshape(weight, (1, len(weight), c * 9)), patches)  # (N, O, H·W)
    return np.reshape(y, (n, len(weight), h, w)) + np.reshape(bias, (1, -1, 1, 1))


def max_pool2x2(x):
    """Largest of each 2×2 window: (N, C, H, W) to (N, C, H/2, W/2)."""
    n, c, h, w = x.shape
    return np.max(np.reshape(x, (n, c, h // 2, 2, w // 2, 2)), axis=(3, 5))


def relu(x):
    """Zero below zero; its gradient at zero is zero."""
    return x * (x > 0)
