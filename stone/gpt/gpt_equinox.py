"""GPT on the bytes of IMDB in Equinox."""

# %% Imports
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from equinox import nn
from jax import random

from dlrosetta import data

# %% Configuration
SEED = 0
BATCH_SIZE = 64
EPOCHS = 1
LEARNING_RATE = 0.001
WARMUP_STEPS, DECAY_STEPS = 100, 4000
BETA1, BETA2, EPSILON = 0.9, 0.95, 1e-8
WEIGHT_DECAY = 0.1
CLIP_NORM = 1.0
VOCABULARY, CONTEXT = 256, 128
EMBEDDING, HEADS, LAYERS = 128, 4, 4
NORM_EPSILON = 1e-5


# %% Data
rng = np.random.default_rng(SEED)


def load_data():
    return data.imdb_bytes(CONTEXT)  # twice bytes (N, 128) and those that follow (N, 128): for training, for testing


def batches(tokens, labels, shuffle):
    order = rng.permutation(len(labels)) if shuffle else np.arange(len(labels))
    for start in range(0, len(labels), BATCH_SIZE):  # the last batch is smaller, and compiled for its own shape
        chosen = order[start : start + BATCH_SIZE]
        yield tokens[chosen], labels[chosen]


# %% Model
def normal(key, *shape):
    return 0.02 * random.normal(key, shape)


def linear(inputs, outputs, key):  # a layer never changes: what has another kernel is a new one
    layer = nn.Linear(inputs, outputs, use_bias=False, key=key)
    return eqx.tree_at(lambda layer: layer.weight, layer, normal(key, outputs, inputs))


class Block(eqx.Module):
    norm1: nn.LayerNorm
    qkv: nn.Linear
    projection: nn.Linear
    norm2: nn.LayerNorm
    expand: nn.Linear
    contract: nn.Linear

    def __init__(self, key):
        keys = random.split(key, 4)
        self.norm1 = nn.LayerNorm(EMBEDDING, NORM_EPSILON, use_bias=False)
        self.qkv = linear(EMBEDDING, 3 * EMBEDDING, keys[0])
        self.projection = linear(EMBEDDING, EMBEDDING, keys[1])
        self.norm2 = nn.LayerNorm(EMBEDDING, NORM_EPSILON, use_bias=False)
        self.expand = linear(EMBEDDING, 4 * EMBEDDING, keys[2])
        self.contract = linear(4 * EMBEDDING, EMBEDDING, keys[3])

    def __call__(self, x):  # one window: (L, 128); layers take one position
        heads = jax.vmap(self.qkv)(jax.vmap(self.norm1)(x)).reshape(len(x), 3, HEADS, -1)  # (L, 3, 4, 32)
        q, k, v = jnp.moveaxis(heads, 1, 0)  # each (L, 4, 32)
        attended = jax.nn.dot_product_attention(q, k, v, is_causal=True)  # (L, 4, 32)
        x = x + jax.vmap(self.projection)(attended.reshape(x.shape))  # (L, 128)
        expanded = jax.nn.gelu(jax.vmap(self.expand)(jax.vmap(self.norm2)(x)), approximate=True)  # (L, 512)
        return x + jax.vmap(self.contract)(expanded)  # (L, 128)


class GPT(eqx.Module):
    token_embedding: nn.Embedding
    position_embedding: nn.Embedding
    blocks: list
    norm: nn.LayerNorm

    def __init__(self, key):
        keys = random.split(key, LAYERS + 2)
        self.token_embedding = nn.Embedding(weight=normal(keys[0], VOCABULARY, EMBEDDING))
        self.position_embedding = nn.Embedding(weight=normal(keys[1], CONTEXT, EMBEDDING))
        self.blocks = [Block(key) for key in keys[2:]]
        self.norm = nn.LayerNorm(EMBEDDING, NORM_EPSILON, use_bias=False)

    def __call__(self, tokens):  # one window: (L,)
        positions = jnp.arange(len(tokens))
        x = jax.vmap(self.token_embedding)(tokens) + jax.vmap(self.position_embedding)(positions)  # (L, 128)
        for block in self.blocks:
            x = block(x)
        return jax.vmap(self.norm)(x) @ self.token_embedding.weight.T  # (L, 256)


def build_model():
    return GPT(random.key(SEED))


# %% Loss
def loss_fn(model, tokens, labels):
    return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(model)(tokens), labels).mean()


# %% Optimizer
def make_optimizer(model):
    schedule = optax.warmup_cosine_decay_schedule(0.0, LEARNING_RATE, WARMUP_STEPS, DECAY_STEPS)
    matrices = jax.tree.map(lambda array: array.ndim == 2, eqx.filter(model, eqx.is_inexact_array))
    adamw = optax.adamw(schedule, BETA1, BETA2, EPSILON, weight_decay=WEIGHT_DECAY, mask=matrices)
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP_NORM), adamw)
    return optimizer, optimizer.init(eqx.filter(model, eqx.is_inexact_array))


# %% Train step
@eqx.filter_jit(donate="all")
def train_step(model, optimizer, opt_state, tokens, labels):
    loss, gradients = eqx.filter_value_and_grad(loss_fn)(model, tokens, labels)
    updates, opt_state = optimizer.update(gradients, opt_state, eqx.filter(model, eqx.is_inexact_array))
    return eqx.apply_updates(model, updates), opt_state, loss


# %% Evaluation
def evaluate(model, tokens, labels):
    nats = 0
    for x, y in batches(tokens, labels, shuffle=False):
        nats += eqx.filter_jit(loss_fn)(model, x, y) * len(x)
    return nats.item() / len(tokens) / math.log(2)  # bits per byte


def generate(model, prompt, length):
    text, logits = list(prompt), eqx.filter_jit(model)
    for key in random.split(random.key(SEED), length):
        window = text[-CONTEXT:]
        padded = jnp.pad(jnp.array(window), (0, CONTEXT - len(window)))  # later bytes change no earlier output
        text.append(int(random.categorical(key, logits(padded)[len(window) - 1])))
    return bytes(text)


# %% Run
def main():
    (train_tokens, train_labels), (test_tokens, test_labels) = load_data()
    model = build_model()
    optimizer, opt_state = make_optimizer(model)
    for epoch in range(EPOCHS):
        for tokens, labels in batches(train_tokens, train_labels, shuffle=True):
            model, opt_state, loss = train_step(model, optimizer, opt_state, tokens, labels)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    print(f"test bits per byte {evaluate(model, test_tokens, test_labels):.3f}")
    print(generate(model, b"The ", 200).decode(errors="replace"))


if __name__ == "__main__":
    main()
