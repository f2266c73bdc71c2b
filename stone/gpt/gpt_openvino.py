"""GPT on the bytes of IMDB in OpenVINO, its evaluation pass."""

# %% Imports
import math

import numpy as np
import openvino as ov
from openvino import opset16 as ops
from openvino.properties import hint

from dlrosetta import data

# %% Configuration
SEED = 0
BATCH_SIZE = 64
VOCABULARY, CONTEXT = 256, 128
EMBEDDING, HEADS, LAYERS = 128, 4, 4
NORM_EPSILON = 1e-5
DEVICE = "CPU"
PRECISION = {hint.inference_precision: ov.Type.f32}  # by default bfloat16, wherever the CPU has that


# %% Data
def load_data():
    return data.imdb_bytes(CONTEXT)  # twice bytes (N, 128) and those that follow (N, 128): for training, for testing


def batches(tokens, labels):
    for start in range(0, len(labels), BATCH_SIZE):
        yield tokens[start : start + BATCH_SIZE], labels[start : start + BATCH_SIZE]


# %% Model
def parameter(name, array):
    return ops.constant(array.astype(np.float32), name=name)


def normal(name, *shape):
    return parameter(name, np.random.normal(0, 0.02, shape))


def product(x, weight):  # of a weight (out, in)
    return ops.matmul(x, weight, transpose_a=False, transpose_b=True)


def dense(name, x, inputs, outputs):
    return product(x, normal(f"{name}.weight", outputs, inputs))


def norm(name, x):
    weight = parameter(f"{name}.weight", np.ones(EMBEDDING))
    return ops.mvn(x, [-1], normalize_variance=True, eps=NORM_EPSILON, eps_mode="INSIDE_SQRT") * weight


def block(name, x):  # (N, L, 128)
    qkv = dense(f"{name}.qkv", norm(f"{name}.norm1", x), EMBEDDING, 3 * EMBEDDING)  # (N, L, 384)
    heads = ops.reshape(qkv, [0, 0, 3, HEADS, EMBEDDING // HEADS], special_zero=True)  # (N, L, 3, 4, 32)
    parts = ops.split(ops.transpose(heads, [2, 0, 3, 1, 4]), 0, 3).outputs()
    q, k, v = (ops.squeeze(part, 0) for part in parts)  # each (N, 4, L, 32)
    attended = ops.scaled_dot_product_attention(q, k, v, causal=True)  # (N, 4, L, 32)
    attended = ops.reshape(ops.transpose(attended, [0, 2, 1, 3]), [0, 0, EMBEDDING], special_zero=True)  # (N, L, 128)
    x = x + dense(f"{name}.projection", attended, EMBEDDING, EMBEDDING)  # (N, L, 128)
    hidden = ops.gelu(dense(f"{name}.expand", norm(f"{name}.norm2", x), EMBEDDING, 4 * EMBEDDING), "tanh")
    return x + dense(f"{name}.contract", hidden, 4 * EMBEDDING, EMBEDDING)  # (N, L, 128)


def gpt(tokens):  # (N, L)
    token_embedding = normal("token_embedding.weight", VOCABULARY, EMBEDDING)
    position_embedding = normal("position_embedding.weight", CONTEXT, EMBEDDING)
    length = ops.gather(ops.shape_of(tokens), 1, 0)
    positions = ops.range(0, length, 1, "i64")  # (L,)
    x = ops.gather(token_embedding, tokens, 0) + ops.gather(position_embedding, positions, 0)  # (N, L, 128)
    for number in range(LAYERS):
        x = block(f"blocks.{number}", x)
    return product(norm("norm", x), token_embedding)  # (N, L, 256)


def build_model():
    tokens = ops.parameter([-1, -1], np.int32)
    return ov.compile_model(ov.Model([gpt(tokens)], [tokens]), DEVICE, PRECISION)


# %% Evaluation
def predict(model, tokens):
    return model(tokens)[0]


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
