"""What the text `gru` means: forward pass, loss and optimizer in plain NumPy, differentiated by `autograd`.

This is the judge of every version; no framework is. Arrays are batch first, in the precision of what is passed in.
`tap(layer, input, output)` is called once for each layer of text.toml, in order of computation.
"""

import autograd.numpy as np

# Set from text.toml.
LEARNING_RATE, BETA1, BETA2, EPSILON = 0.001, 0.9, 0.999, 1e-8
EPSILON_HAT = False  # of a variant: epsilon is added to the root of the uncorrected second moment


def forward(parameters, tokens, tap=lambda layer, x, y: None):
    """Logits (N, 2) of tokens (N, L): the last state of a GRU over their embeddings, through a dense layer."""
    x = parameters["embedding.weight"][tokens]  # (N, L, E)
    tap("embedding", tokens, x)
    state = gru(x, *(parameters["gru." + name] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")))  # (N, H)
    tap("gru", x, state)
    logits = state @ parameters["fc.weight"].T + parameters["fc.bias"]  # (N, 2)
    tap("fc", state, logits)
    return logits


def loss(logits, labels):
    """Cross-entropy in nats, averaged over the batch, of logits (N, 2) and labels (N,)."""
    shifted = logits - np.max(logits, axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))
    return -np.mean(log_probabilities[np.arange(len(labels)), labels])


def metric(logits, labels):
    """Accuracy: the share of examples whose largest logit is the label's."""
    return np.mean(np.argmax(logits, axis=1) == labels)


def initial_state(parameters):
    """Optimizer state before the first step: two moments a parameter."""
    return {moment + name: np.zeros_like(value) for name, value in parameters.items() for moment in ("m/", "v/")}


def update(parameters, gradients, state, step):
    """One step of Adam (Kingma and Ba 2015, algorithm 1). `step` counts from 1.

    Powers of the decay rates are taken in the precision of the arrays, as a compiled step takes them: in float32
    1 - 0.999 then has lost four digits, which is the reference's own rounding error.
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


def gru(x, weight_ih, weight_hh, bias_ih, bias_hh):
    """Last state (N, H) over x (N, L, E), from a state of zeros.

    The reset gate acts on the state's contribution after its product and bias (Cho et al. 2014, v1 of the paper, as in
    cuDNN), and the update gate keeps what it lets through: h = (1 - z) n + z h.
    """
    state = np.zeros((len(x), weight_hh.shape[1]), x.dtype)
    for step in range(x.shape[1]):
        from_input = np.split(x[:, step] @ weight_ih.T + bias_ih, 3, axis=1)
        from_state = np.split(state @ weight_hh.T + bias_hh, 3, axis=1)
        r = sigmoid(from_input[0] + from_state[0])
        z = sigmoid(from_input[1] + from_state[1])
        n = np.tanh(from_input[2] + r * from_state[2])
        state = (1 - z) * n + z * state
    return state


def sigmoid(x):
    """The logistic function."""
    return 0.5 * (np.tanh(0.5 * x) + 1)
