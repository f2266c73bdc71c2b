"""What the text `gpt` means: forward pass, loss and optimizer in plain NumPy, differentiated by `autograd`.

This is the judge of every version; no framework is. Arrays are batch first, in the precision of what is passed in.
`tap(layer, input, output)` is called once for each layer of `layers()`, in order of computation.
"""

import autograd.numpy as np

# Set from text.toml.
VOCABULARY, CONTEXT, EMBEDDING, HEADS, LAYERS, NORM_EPSILON = 256, 128, 128, 4, 4, 1e-5
LEARNING_RATE, WARMUP_STEPS, DECAY_STEPS, BETA1, BETA2, EPSILON = 0.001, 100, 4000, 0.9, 0.95, 1e-8
WEIGHT_DECAY, CLIP_NORM = 0.1, 1.0
EPSILON_HAT = False  # of a variant: epsilon is added to the root of the uncorrected second moment
CLIP_EPSILON = 0.0  # of a variant: added to the norm of the gradients before they are divided by it


def layers():
    """Layers with parameters in order of computation. Dense kernels are (out, in); `qkv` has queries, keys, values."""
    matrix = {"initial": "normal", "std": 0.02}

    def layer(name, shape, role):
        kind = {"role": "vector", "initial": "ones"} if role == "norm" else {"role": role, **matrix}
        return {"name": name, "parameters": {"weight": {"shape": shape, **kind}}}

    found = [
        layer("token_embedding", [VOCABULARY, EMBEDDING], "embedding"),  # the output layer too
        layer("position_embedding", [CONTEXT, EMBEDDING], "embedding"),
    ]
    for number in range(LAYERS):
        block = f"blocks.{number}."
        found += [
            layer(block + "norm1", [EMBEDDING], "norm"),
            layer(block + "qkv", [3 * EMBEDDING, EMBEDDING], "dense"),
            layer(block + "projection", [EMBEDDING, EMBEDDING], "dense"),
            layer(block + "norm2", [EMBEDDING], "norm"),
            layer(block + "expand", [4 * EMBEDDING, EMBEDDING], "dense"),
            layer(block + "contract", [EMBEDDING, 4 * EMBEDDING], "dense"),
        ]
    return [*found, layer("norm", [EMBEDDING], "norm")]


def forward(parameters, tokens, tap=lambda layer, x, y: None):
    """Logits (N, L, V) of the byte that follows each of tokens (N, L)."""

    def dense(layer, x):
        y = x @ parameters[layer + ".weight"].T
        tap(layer, x, y)
        return y

    def norm(layer, x):
        y = layer_norm(x) * parameters[layer + ".weight"]
        tap(layer, x, y)
        return y

    def embedding(layer, indices):
        y = parameters[layer + ".weight"][indices]
        tap(layer, indices, y)
        return y

    length = tokens.shape[1]
    x = embedding("token_embedding", tokens) + embedding("position_embedding", np.arange(length))  # (N, L, E)
    for number in range(LAYERS):
        block = f"blocks.{number}."
        x = x + dense(block + "projection", attention(dense(block + "qkv", norm(block + "norm1", x))))
        x = x + dense(block + "contract", gelu(dense(block + "expand", norm(block + "norm2", x))))
    return norm("norm", x) @ parameters["token_embedding.weight"].T  # (N, L, V)


def loss(logits, labels):
    """Cross-entropy in nats, averaged over all bytes of the batch, of logits (N, L, V) and labels (N, L)."""
    shifted = logits - np.max(logits, axis=2, keepdims=True)
    log_probabilities = shifted - np.log(np.sum(np.exp(shifted), axis=2, keepdims=True))
    rows, columns = np.indices(labels.shape)
    return -np.mean(log_probabilities[rows, columns, labels])


def metric(logits, labels):
    """Bits per byte: the same in bits."""
    return loss(logits, labels) / np.log(2)


def initial_state(parameters):
    """Optimizer state before the first step: two moments a parameter."""
    return {moment + name: np.zeros_like(value) for name, value in parameters.items() for moment in ("m/", "v/")}


def update(parameters, gradients, state, step):
    """One step of AdamW (Loshchilov and Hutter 2019, algorithm 2) on clipped gradients. `step` counts from 1.

    Powers of the decay rates, and the rate, are computed in the precision of the arrays, as a compiled step computes
    them.
    """
    norm = np.sqrt(sum(np.sum(gradient**2) for gradient in gradients.values()))
    scale = np.minimum(1, CLIP_NORM / (norm + CLIP_EPSILON))
    new_parameters, new_state = {}, {}
    for name, value in parameters.items():
        beta1, beta2 = np.array([BETA1, BETA2], value.dtype)
        rate = learning_rate(np.array(step - 1, value.dtype))
        gradient = gradients[name] * scale
        m = BETA1 * state["m/" + name] + (1 - BETA1) * gradient
        v = BETA2 * state["v/" + name] + (1 - BETA2) * gradient**2
        root = np.sqrt(1 - beta2**step)
        denominator = np.sqrt(v) + EPSILON if EPSILON_HAT else np.sqrt(v) + EPSILON * root
        decay = WEIGHT_DECAY * value if value.ndim > 1 else 0
        new_parameters[name] = value - rate * (root / (1 - beta1**step) * m / denominator + decay)
        new_state["m/" + name], new_state["v/" + name] = m, v
    return new_parameters, new_state


def learning_rate(step):
    """The rate of a step counted from 0: linear from 0, then half a cosine down to 0."""
    if step < WARMUP_STEPS:
        return LEARNING_RATE * step / WARMUP_STEPS
    progress = np.minimum(1, (step - WARMUP_STEPS) / (DECAY_STEPS - WARMUP_STEPS))
    return LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * progress))


def attention(qkv):
    """Causal attention of HEADS heads: qkv (N, L, 3 E), each third heads by dimensions, to (N, L, E)."""
    n, length, width = qkv.shape
    split = np.reshape(qkv, (n, length, 3, HEADS, width // 3 // HEADS))
    q, k, v = (np.transpose(split[:, :, part], (0, 2, 1, 3)) for part in range(3))  # (N, H, L, D)
    scores = np.matmul(q, np.transpose(k, (0, 1, 3, 2))) / np.sqrt(np.array(q.shape[3], qkv.dtype))
    scores = np.where(np.tril(np.ones((length, length), bool)), scores, -np.inf)
    weights = np.exp(scores - np.max(scores, axis=3, keepdims=True))
    weights = weights / np.sum(weights, axis=3, keepdims=True)
    return np.reshape(np.transpose(np.matmul(weights, v), (0, 2, 1, 3)), (n, length, width // 3))


def layer_norm(x):
    """Mean 0 and variance 1 over the last axis; NORM_EPSILON is added to the variance, which divides by n."""
    centred = x - np.mean(x, axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + NORM_EPSILON)


def gelu(x):
    """GELU by its tanh approximation (Hendrycks and Gimpel 2016), as GPT-2 has it."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(np.array(2 / np.pi, x.dtype)) * (x + 0.044715 * x**3)))
