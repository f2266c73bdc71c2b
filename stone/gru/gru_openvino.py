"""GRU on IMDB in OpenVINO, its evaluation pass."""

# %% Imports
import numpy as np
import openvino as ov
from openvino import opset16 as ops
from openvino.properties import hint

from dlrosetta import data

# %% Configuration
SEED = 0
BATCH_SIZE = 64
VOCABULARY = 30_000
LENGTH = 150
EMBEDDING = 125
HIDDEN = 100
DEVICE = "CPU"
PRECISION = {hint.inference_precision: ov.Type.f32}  # by default bfloat16, wherever the CPU has that


# %% Data
def load_data():
    return data.imdb(VOCABULARY, LENGTH)  # twice (N, 150), (N,): for training, for testing


def batches(tokens, labels):
    for start in range(0, len(labels), BATCH_SIZE):
        yield tokens[start : start + BATCH_SIZE], labels[start : start + BATCH_SIZE]


# %% Model
def parameter(name, array):
    return ops.constant(array.astype(np.float32), name=name)


def uniform(name, bound, *shape):
    return parameter(name, np.random.uniform(-bound, bound, shape))


def embedding(name, tokens, count, width):
    return ops.gather(uniform(f"{name}.weight", 0.05, count, width), tokens, 0)


def gru(name, x, inputs, hidden):  # (N, L, E)
    weight_ih = uniform(f"{name}.weight_ih", 0.1, 3 * hidden, inputs)  # gates in the order update, reset, new
    weight_hh = uniform(f"{name}.weight_hh", 0.1, 3 * hidden, hidden)
    update_ih, reset_ih, new_ih = ops.split(uniform(f"{name}.bias_ih", 0.1, 3 * hidden), 0, 3).outputs()
    update_hh, reset_hh, new_hh = ops.split(uniform(f"{name}.bias_hh", 0.1, 3 * hidden), 0, 3).outputs()
    # Of what is only added up it takes the sum: four biases in the place of six.
    biases = ops.concat([ops.add(update_ih, update_hh), ops.add(reset_ih, reset_hh), new_ih, new_hh], 0)
    weight_ih, weight_hh, biases = (ops.unsqueeze(one, 0) for one in (weight_ih, weight_hh, biases))  # one direction
    count = ops.gather(ops.shape_of(x), [0], 0)  # N
    start = ops.broadcast(np.float32(0), ops.concat([count, np.array([1, hidden])], 0))  # (N, 1, H)
    lengths = ops.broadcast(np.int64(LENGTH), count)
    # By default the reset gate acts on the state before its product.
    states = ops.gru_sequence(
        x, start, lengths, weight_ih, weight_hh, biases, hidden, "forward", linear_before_reset=True
    )
    return ops.squeeze(states.output(1), 1)  # (N, H), the last


def dense(name, x, inputs, outputs):
    weight = uniform(f"{name}.weight", (6 / (inputs + outputs)) ** 0.5, outputs, inputs)  # Glorot and Bengio 2010
    return ops.matmul(x, weight, transpose_a=False, transpose_b=True) + parameter(f"{name}.bias", np.zeros(outputs))


def network(tokens):  # (N, 150)
    x = embedding("embedding", tokens, VOCABULARY, EMBEDDING)  # (N, 150, 125)
    state = gru("gru", x, EMBEDDING, HIDDEN)  # (N, 100)
    return dense("fc", state, HIDDEN, 2)  # (N, 2)


def build_model():
    tokens = ops.parameter([-1, LENGTH], np.int32)
    return ov.compile_model(ov.Model([network(tokens)], [tokens]), DEVICE, PRECISION)


# %% Evaluation
def predict(model, tokens):
    return model(tokens)[0]


def evaluate(model, tokens, labels):
    correct = sum((predict(model, x).argmax(1) == y).sum() for x, y in batches(tokens, labels))
    return correct / len(labels)


# %% Run
def main():
    np.random.seed(SEED)
    _, (test_tokens, test_labels) = load_data()
    model = build_model()
    print(f"test accuracy {evaluate(model, test_tokens, test_labels):.3f}, of a model that nobody has trained")


if __name__ == "__main__":
    main()
