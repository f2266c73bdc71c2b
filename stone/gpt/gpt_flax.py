"""GPT on the bytes of IMDB in Flax NNX."""

# %% Imports
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

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
normal = nnx.initializers.normal(0.02)


class Block(nnx.Module):
    def __init__(self, rngs):
        linear = partial(nnx.Linear, use_bias=False, kernel_init=normal, rngs=rngs)
        # The fast variance is E[x²] - E[x]², which cancels where the mean is large.
        norm = partial(nnx.LayerNorm, epsilon=NORM_EPSILON, use_bias=False, use_fast_variance=False, rngs=rngs)
        self.norm1 = norm(EMBEDDING)
        self.qkv = linear(EMBEDDING, 3 * EMBEDDING)
        self.projection = linear(EMBEDDING, EMBEDDING)
        self.norm2 = norm(EMBEDDING)
        self.expand = linear(EMBEDDING, 4 * EMBEDDING)
        self.contract = linear(4 * EMBEDDING, EMBEDDING)

    def __call__(self, x):  # (N, L, 128)
        heads = self.qkv(self.norm1(x)).reshape(*x.shape[:2], 3, HEADS, -1)  # (N, L, 3, 4, 32)
        q, k, v = jnp.moveaxis(heads, 2, 0)  # each (N, L, 4, 32)
        attended = nnx.dot_product_attention(q, k, v, is_causal=True)  # (N, L, 4, 32)
        x = x + self.projection(attended.reshape(x.shape))  # (N, L, 128)
        return x + self.contract(nnx.gelu(self.expand(self.norm2(x)), approximate=True))  # (N, L, 128)


class GPT(nnx.Module):
    def __init__(self, rngs):
        self.token_embedding = nnx.Embed(VOCABULARY, EMBEDDING, embedding_init=normal, rngs=rngs)
        self.position_embedding = nnx.Embed(CONTEXT, EMBEDDING, embedding_init=normal, rngs=rngs)
        self.blocks = nnx.List([Block(rngs) for _ in range(LAYERS)])
        self.norm = nnx.LayerNorm(EMBEDDING, epsilon=NORM_EPSILON, use_bias=False, use_fast_variance=False, rngs=rngs)

    def __call__(self, tokens):  # (N, L)
        x = self.token_embedding(tokens) + self.position_embedding(jnp.arange(tokens.shape[1]))  # (N, L, 128)
        for block in self.blocks:
            x = block(x)
        return self.token_embedding.attend(self.norm(x))  # (N, L, 256)


def build_model():
    return GPT(nnx.Rngs(SEED))


# %% Loss
def loss_fn(model, tokens, labels):
    return optax.softmax_cross_entropy_with_integer_labels(model(tokens), labels).mean()


# %% Optimizer
def make_optimizer(model):
    schedule = optax.warmup_cosine_decay_schedule(0.0, LEARNING_RATE, WARMUP_STEPS, DECAY_STEPS)

    def is_matrix(parameters):
        return jax.tree.map(lambda parameter: parameter.ndim == 2, parameters)

    adamw = optax.adamw(schedule, BETA1, BETA2, EPSILON, weight_decay=WEIGHT_DECAY, mask=is_matrix)
    return nnx.Optimizer(model, optax.chain(optax.clip_by_global_norm(CLIP_NORM), adamw), wrt=nnx.Param)


# %% Train step
@nnx.jit(donate_argnames=("model", "optimizer"))
def train_step(model, optimizer, tokens, labels):
    loss, gradients = nnx.value_and_grad(loss_fn)(model, tokens, labels)
    optimizer.update(model, gradients)
    return loss


# %% Evaluation
evaluation_loss = nnx.jit(loss_fn)


def evaluate(model, tokens, labels):
    nats = 0
    for x, y in batches(tokens, labels, shuffle=False):
        nats += evaluation_loss(model, x, y) * len(x)
    return nats.item() / len(tokens) / math.log(2)  # bits per byte


@nnx.jit
def next_byte(model, key, tokens, length):
    return jax.random.categorical(key, model(tokens[None])[0, length - 1])


def generate(model, prompt, length):
    text, keys = list(prompt), jax.random.split(jax.random.key(SEED), length)
    for key in keys:
        window = text[-CONTEXT:]
        padded = np.pad(window, (0, CONTEXT - len(window)))  # of one shape: later bytes change no earlier output
        text.append(int(next_byte(model, key, padded, len(window))))
    return bytes(text)


# %% Run
def main():
    (train_tokens, train_labels), (test_tokens, test_labels) = load_data()
    model = build_model()
    optimizer = make_optimizer(model)
    for epoch in range(EPOCHS):
        for tokens, labels in batches(train_tokens, train_labels, shuffle=True):
            loss = train_step(model, optimizer, tokens, labels)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    print(f"test bits per byte {evaluate(model, test_tokens, test_labels):.3f}")
    print(generate(model, b"The ", 200).decode(errors="replace"))


if __name__ == "__main__":
    main()
