"""GPT on the bytes of IMDB in ONNX Runtime, its evaluation pass; the graph is written with ONNX Script."""

# %% Imports
import math

import numpy as np
import onnxruntime as ort
from onnxscript import GraphBuilder, ir, nn

from dlrosetta import data

# %% Configuration
SEED = 0
BATCH_SIZE = 64
VOCABULARY, CONTEXT = 256, 128
EMBEDDING, HEADS, LAYERS = 128, 4, 4
NORM_EPSILON = 1e-5
OPSET = 23


# %% Data
def load_data():
    return data.imdb_bytes(CONTEXT)  # twice bytes (N, 128) and those that follow (N, 128): for training, for testing


def batches(tokens, labels):
    for start in range(0, len(labels), BATCH_SIZE):
        yield tokens[start : start + BATCH_SIZE], labels[start : start + BATCH_SIZE]


# %% Model
def parameter(array):
    return nn.Parameter(array.shape, data=ir.tensor(array.astype(np.float32)))


class Embedding(nn.Module):
    def __init__(self, count, width):
        super().__init__()
        self.weight = parameter(np.random.normal(0, 0.02, (count, width)))

    def forward(self, op, tokens):
        return op.Gather(self.weight, tokens)


class Dense(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = parameter(np.random.normal(0, 0.02, (outputs, inputs)))

    def forward(self, op, x):
        return op.MatMul(x, op.Transpose(self.weight, perm=[1, 0]))


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = parameter(np.ones(EMBEDDING))

    def forward(self, op, x):
        return op.LayerNormalization(x, self.weight, axis=-1, epsilon=NORM_EPSILON)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1 = Norm()
        self.qkv = Dense(EMBEDDING, 3 * EMBEDDING)
        self.projection = Dense(EMBEDDING, EMBEDDING)
        self.norm2 = Norm()
        self.expand = Dense(EMBEDDING, 4 * EMBEDDING)
        self.contract = Dense(4 * EMBEDDING, EMBEDDING)

    def forward(self, op, x):  # (N, L, 128)
        qkv = self.qkv(op, self.norm1(op, x))  # (N, L, 384)
        q, k, v = op.Split(qkv, axis=-1, num_outputs=3, _outputs=3)  # each (N, L, 128): heads lie side by side
        attended = op.Attention(q, k, v, q_num_heads=HEADS, kv_num_heads=HEADS, is_causal=1)  # (N, L, 128)
        x = op.Add(x, self.projection(op, attended))  # (N, L, 128)
        hidden = op.Gelu(self.expand(op, self.norm2(op, x)), approximate="tanh")  # (N, L, 512)
        return op.Add(x, self.contract(op, hidden))  # (N, L, 128)


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.token_embedding = Embedding(VOCABULARY, EMBEDDING)
        self.position_embedding = Embedding(CONTEXT, EMBEDDING)
        self.blocks = nn.ModuleList([Block() for _ in range(LAYERS)])
        self.norm = Norm()

    def forward(self, op, tokens):  # (N, L)
        positions = op.Range(0, op.Squeeze(op.Shape(tokens, start=1)), 1)  # (L,)
        x = op.Add(self.token_embedding(op, tokens), self.position_embedding(op, positions))  # (N, L, 128)
        for block in self.blocks:
            x = block(op, x)
        return op.MatMul(self.norm(op, x), op.Transpose(self.token_embedding.weight, perm=[1, 0]))  # (N, L, 256)


def build_model():
    builder = GraphBuilder(ir.Graph([], [], nodes=[], name="gpt", opset_imports={"": OPSET}))
    logits = GPT()(builder.op, builder.input("tokens", ir.DataType.INT32, ["N", "L"]))
    builder.add_output(logits, "logits")
    model = ir.Model(builder.graph, ir_version=11)
    return ort.InferenceSession(ir.to_proto(model).SerializeToString())


# %% Evaluation
def predict(model, tokens):
    return model.run(None, {"tokens": tokens})[0]


def evaluate(model, tokens, labels):
    nats = 0.0
    for x, y in batches(tokens, labels):
        logits = predict(model, x)  # (N, L, 256)
        logits = logits - logits.max(-1, keepdims=True)
        chosen = np.take_along_axis(logits, y[..., None], -1)[..., 0]  # (N, L)
        nats += (np.log(np.exp(logits).sum(-1)) - chosen).sum(dtype=np.float64)
    return nats / labels.size / math.log(2)  # bits per byte


def generate(model, prompt, length):
    text = list(prompt)
    for _ in range(length):
        logits = predict(model, np.array([text[-CONTEXT:]], np.int32))[0, -1]  # (256,)
        chances = np.exp(logits.astype(np.float64) - logits.max())
        text.append(np.random.choice(VOCABULARY, p=chances / chances.sum()))
    return bytes(text)


# %% Run
def main():
    np.random.seed(SEED)
    _, (test_tokens, test_labels) = load_data()
    model = build_model()
    bits = evaluate(model, test_tokens, test_labels)
    print(f"test bits per byte {bits:.3f}, of a model that nobody has trained")
    print(generate(model, b"The ", 200).decode(errors="replace"))


if __name__ == "__main__":
    main()
