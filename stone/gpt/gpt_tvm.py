"""GPT on the bytes of IMDB in Apache TVM, its evaluation pass."""

# %% Imports
import math

import numpy as np
import tvm
from tvm import relax
from tvm.relax.frontend import nn

from dlrosetta import data

# %% Configuration
SEED = 0
BATCH_SIZE = 64
VOCABULARY, CONTEXT = 256, 128
EMBEDDING, HEADS, LAYERS = 128, 4, 4
NORM_EPSILON = 1e-5
TARGET = tvm.target.Target("llvm")  # of any such CPU: untuned loops with all instructions of this one are slower


# %% Data
def load_data():
    return data.imdb_bytes(CONTEXT)  # twice bytes (N, 128) and those that follow (N, 128): for training, for testing


def batches(tokens, labels):
    for start in range(0, len(labels), BATCH_SIZE):
        yield tokens[start : start + BATCH_SIZE], labels[start : start + BATCH_SIZE]


# %% Model
def relaxed(operation, x, *args, **kwargs):  # what nn has not: an operation of Relax, wrapped as nn wraps its own
    return nn.wrap_nested(operation(x._expr, *args, **kwargs), operation.__name__)


class Norm(nn.Module):  # nn.LayerNorm has a bias too, and its kernel takes float32 and float16 alone
    def __init__(self):
        self.weight = nn.Parameter((EMBEDDING,))

    def forward(self, x):
        mean = relaxed(relax.op.mean, x, axis=-1, keepdims=True)
        variance = relaxed(relax.op.variance, x, axis=-1, keepdims=True)
        return (x - mean) / nn.sqrt(variance + NORM_EPSILON) * self.weight


class Block(nn.Module):
    def __init__(self):
        self.norm1 = Norm()
        self.qkv = nn.Linear(EMBEDDING, 3 * EMBEDDING, bias=False)
        self.projection = nn.Linear(EMBEDDING, EMBEDDING, bias=False)
        self.norm2 = Norm()
        self.expand = nn.Linear(EMBEDDING, 4 * EMBEDDING, bias=False)
        self.contract = nn.Linear(4 * EMBEDDING, EMBEDDING, bias=False)

    def forward(self, x):  # (N, L, 128)
        n, length, _ = x.shape
        parts = nn.split(self.qkv(self.norm1(x)), 3, axis=-1)  # each (N, L, 128): heads lie side by side
        q, k, v = (nn.reshape(part, (n, length, HEADS, EMBEDDING // HEADS)) for part in parts)  # each (N, L, 4, 32)
        attended = nn.scaled_dot_product_attention(q, k, v, is_causal=True)  # (N, L, 4, 32)
        x = x + self.projection(nn.reshape(attended, (n, length, EMBEDDING)))  # (N, L, 128)
        hidden = nn.gelu(self.expand(self.norm2(x)), approximate="tanh")  # (N, L, 512)
        return x + self.contract(hidden)  # (N, L, 128)


class GPT(nn.Module):
    def __init__(self):
        self.token_embedding = nn.Embedding(VOCABULARY, EMBEDDING)
        self.position_embedding = nn.Embedding(CONTEXT, EMBEDDING)
        self.blocks = nn.ModuleList([Block() for _ in range(LAYERS)])
        self.norm = Norm()

    def forward(self, tokens):  # (N, L)
        positions = nn.arange(0, tokens.shape[1], dtype="int32")  # (L,)
        x = self.token_embedding(tokens) + self.position_embedding(positions)  # (N, L, 128)
        x = self.norm(self.blocks(x))
        return nn.matmul(x, nn.permute_dims(self.token_embedding.weight))  # (N, L, 256)


def initial(parameter):
    is_norm = len(parameter.shape) == 1
    return np.ones(parameter.shape) if is_norm else np.random.normal(0, 0.02, parameter.shape)


def build_model():
    tokens = nn.spec.Tensor(["n", "length"], "int32")
    graph, parameters = GPT().export_tvm({"forward": {"tokens": tokens}})
    graph = relax.get_pipeline("zero")(graph)  # operations become loops, and those that can be are fused
    machine = relax.VirtualMachine(tvm.compile(graph, TARGET), tvm.cpu())
    arrays = [initial(parameter).astype(parameter.dtype) for _, parameter in parameters]
    return machine["forward"], [tvm.runtime.tensor(array) for array in arrays]


# %% Evaluation
def predict(model, tokens):
    forward, parameters = model
    return forward(tvm.runtime.tensor(tokens), *parameters).numpy()


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
