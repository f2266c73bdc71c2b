"""GRU on IMDB in Apache TVM, its evaluation pass."""

# %% Imports
import numpy as np
import tvm
from tvm import relax
from tvm.relax.frontend import nn

from dlrosetta import data

# %% Configuration
SEED = 0
BATCH_SIZE = 64
VOCABULARY = 30_000
LENGTH = 150
EMBEDDING = 125
HIDDEN = 100
TARGET = tvm.target.Target("llvm")  # of any such CPU: untuned loops with all instructions of this one are slower


# %% Data
def load_data():
    return data.imdb(VOCABULARY, LENGTH)  # twice (N, 150), (N,): for training, for testing


def batches(tokens, labels):
    for start in range(0, len(labels), BATCH_SIZE):
        yield tokens[start : start + BATCH_SIZE], labels[start : start + BATCH_SIZE]


# %% Model
class GRU(nn.Module):  # nn has no recurrent layer
    def __init__(self, inputs, hidden):
        self.weight_ih = nn.Parameter((3 * hidden, inputs))  # gates in the order reset, update, new
        self.weight_hh = nn.Parameter((3 * hidden, hidden))
        self.bias_ih, self.bias_hh = nn.Parameter((3 * hidden,)), nn.Parameter((3 * hidden,))
        self.hidden = hidden

    def forward(self, x):  # (N, L, E)
        from_input = nn.matmul(x, nn.permute_dims(self.weight_ih)) + self.bias_ih  # (N, L, 3 H), of all steps at once
        weight_hh = nn.permute_dims(self.weight_hh)
        state = nn.zeros((x.shape[0], self.hidden), x.dtype)  # (N, H)
        for step in nn.split(from_input, LENGTH, axis=1):  # a graph has no loops
            r, z, n = nn.split(nn.squeeze(step, 1), 3, axis=-1)
            state_r, state_z, state_n = nn.split(nn.matmul(state, weight_hh) + self.bias_hh, 3, axis=-1)
            r, z = nn.sigmoid(r + state_r), nn.sigmoid(z + state_z)
            state = (1 - z) * nn.tanh(n + r * state_n) + z * state
        return state  # (N, H), the last


class Model(nn.Module):
    def __init__(self):
        self.embedding = nn.Embedding(VOCABULARY, EMBEDDING)
        self.gru = GRU(EMBEDDING, HIDDEN)
        self.fc = nn.Linear(HIDDEN, 2)

    def forward(self, tokens):  # (N, 150)
        x = self.embedding(tokens)  # (N, 150, 125)
        return self.fc(self.gru(x))  # (N, 2)


def initial(name, parameter):
    if name == "fc.bias":
        return np.zeros(parameter.shape)
    bounds = {"embedding.weight": 0.05, "fc.weight": (6 / sum(parameter.shape)) ** 0.5}  # Glorot and Bengio 2010
    bound = bounds.get(name, 0.1)
    return np.random.uniform(-bound, bound, parameter.shape)


def build_model():
    tokens = nn.spec.Tensor(["n", LENGTH], "int32")
    graph, parameters = Model().export_tvm({"forward": {"tokens": tokens}})
    graph = relax.get_pipeline("zero")(graph)  # operations become loops, and those that can be are fused
    machine = relax.VirtualMachine(tvm.compile(graph, TARGET), tvm.cpu())
    arrays = [initial(name, parameter).astype(parameter.dtype) for name, parameter in parameters]
    return machine["forward"], [tvm.runtime.tensor(array) for array in arrays]


# %% Evaluation
def predict(model, tokens):
    forward, parameters = model
    return forward(tvm.runtime.tensor(tokens), *parameters).numpy()


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
