"""GRU on IMDB in ONNX Runtime, its evaluation pass; the graph is written with ONNX Script."""

# %% Imports
import numpy as np
import onnxruntime as ort
from onnxscript import GraphBuilder, ir, nn

from dlrosetta import data

# %% Configuration
SEED = 0
BATCH_SIZE = 64
VOCABULARY = 30_000
LENGTH = 150
EMBEDDING = 125
HIDDEN = 100
OPSET = 23


# %% Data
def load_data():
    return data.imdb(VOCABULARY, LENGTH)  # twice (N, 150), (N,): for training, for testing


def batches(tokens, labels):
    for start in range(0, len(labels), BATCH_SIZE):
        yield tokens[start : start + BATCH_SIZE], labels[start : start + BATCH_SIZE]


# %% Model
def parameter(array):
    return nn.Parameter(array.shape, data=ir.tensor(array.astype(np.float32)))


def uniform(bound, *shape):
    return parameter(np.random.uniform(-bound, bound, shape))


class Embedding(nn.Module):
    def __init__(self, count, width):
        super().__init__()
        self.weight = uniform(0.05, count, width)

    def forward(self, op, tokens):
        return op.Gather(self.weight, tokens)


class GRU(nn.Module):
    def __init__(self, inputs, hidden):
        super().__init__()
        self.weight_ih = uniform(0.1, 3 * hidden, inputs)  # gates in the order update, reset, new
        self.weight_hh = uniform(0.1, 3 * hidden, hidden)
        self.bias_ih = uniform(0.1, 3 * hidden)
        self.bias_hh = uniform(0.1, 3 * hidden)
        self.hidden = hidden

    def forward(self, op, x):  # (L, N, E): time first, the only layout that CPUs have
        weights = [op.Unsqueeze(weight, [0]) for weight in (self.weight_ih, self.weight_hh)]  # of one direction
        biases = op.Unsqueeze(op.Concat(self.bias_ih, self.bias_hh, axis=0), [0])
        # By default the reset gate acts on the state before its product.
        _, last = op.GRU(x, *weights, biases, hidden_size=self.hidden, linear_before_reset=1, _outputs=2)
        return op.Squeeze(last, [0])  # (N, H)


class Dense(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = uniform((6 / (inputs + outputs)) ** 0.5, outputs, inputs)
        self.bias = parameter(np.zeros(outputs))

    def forward(self, op, x):
        return op.Gemm(x, self.weight, self.bias, transB=1)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = Embedding(VOCABULARY, EMBEDDING)
        self.gru = GRU(EMBEDDING, HIDDEN)
        self.fc = Dense(HIDDEN, 2)

    def forward(self, op, tokens):  # (N, 150)
        x = self.embedding(op, tokens)  # (N, 150, 125)
        state = self.gru(op, op.Transpose(x, perm=[1, 0, 2]))  # (N, 100)
        return self.fc(op, state)  # (N, 2)


def build_model():
    builder = GraphBuilder(ir.Graph([], [], nodes=[], name="gru", opset_imports={"": OPSET}))
    logits = Model()(builder.op, builder.input("tokens", ir.DataType.INT32, ["N", LENGTH]))
    builder.add_output(logits, "logits")
    model = ir.Model(builder.graph, ir_version=11)
    return ort.InferenceSession(ir.to_proto(model).SerializeToString())


# %% Evaluation
def predict(model, tokens):
    return model.run(None, {"tokens": tokens})[0]


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
