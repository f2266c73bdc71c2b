"""GRU on IMDB in Flax NNX."""

# %% Imports
from functools import partial

import numpy as np
import optax
from flax import nnx

from dlrosetta import data

# %% Configuration
SEED = 0
BATCH_SIZE = 64
EPOCHS = 3
LEARNING_RATE = 0.001
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
VOCABULARY = 30_000
LENGTH = 150
EMBEDDING = 125
HIDDEN = 100


# %% Data
rng = np.random.default_rng(SEED)


def load_data():
    return data.imdb(VOCABULARY, LENGTH)  # twice (N, 150), (N,): for training, for testing


def batches(tokens, labels, shuffle):
    order = rng.permutation(len(labels)) if shuffle else np.arange(len(labels))
    for start in range(0, len(labels), BATCH_SIZE):  # the last batch is smaller, and compiled for its own shape
        chosen = order[start : start + BATCH_SIZE]
        yield tokens[chosen], labels[chosen]


# %% Model
def uniform(half_width):
    """nnx.initializers.uniform draws from 0 up to its scale."""
    draw = nnx.initializers.uniform(2 * half_width)
    return lambda key, shape, dtype: draw(key, shape, dtype) - half_width


class GRU(nnx.Module):
    def __init__(self, rngs):
        linear = partial(nnx.Linear, kernel_init=uniform(0.1), bias_init=uniform(0.1), rngs=rngs)
        self.embedding = nnx.Embed(VOCABULARY, EMBEDDING, embedding_init=uniform(0.05), rngs=rngs)
        cell = nnx.GRUCell(EMBEDDING, HIDDEN, rngs=rngs)  # gates in the order reset, update, new
        cell.dense_i = linear(EMBEDDING, 3 * HIDDEN)
        cell.dense_h = linear(HIDDEN, 3 * HIDDEN)  # with a bias, which that of nnx.GRUCell lacks
        self.gru = nnx.RNN(cell)
        self.fc = nnx.Linear(HIDDEN, 2, kernel_init=nnx.initializers.glorot_uniform(), rngs=rngs)

    def __call__(self, tokens):  # (N, 150)
        x = self.embedding(tokens)  # (N, 150, 125)
        outputs = self.gru(x)  # (N, 150, 100)
        return self.fc(outputs[:, -1])  # (N, 2)


def build_model():
    return GRU(nnx.Rngs(SEED))


# %% Loss
def loss_fn(model, tokens, labels):
    return optax.softmax_cross_entropy_with_integer_labels(model(tokens), labels).mean()


# %% Optimizer
def make_optimizer(model):
    return nnx.Optimizer(model, optax.adam(LEARNING_RATE, BETA1, BETA2, EPSILON), wrt=nnx.Param)


# %% Train step
@nnx.jit(donate_argnames=("model", "optimizer"))
def train_step(model, optimizer, tokens, labels):
    loss, gradients = nnx.value_and_grad(loss_fn)(model, tokens, labels)
    optimizer.update(model, gradients)
    return loss


# %% Evaluation
@nnx.jit
def count_correct(model, tokens, labels):
    return (model(tokens).argmax(1) == labels).sum()


def evaluate(model, tokens, labels):
    correct = 0
    for x, y in batches(tokens, labels, shuffle=False):
        correct += count_correct(model, x, y)
    return correct.item() / len(labels)


# %% Run
def main():
    (train_tokens, train_labels), (test_tokens, test_labels) = load_data()
    model = build_model()
    optimizer = make_optimizer(model)
    for epoch in range(EPOCHS):
        for tokens, labels in batches(train_tokens, train_labels, shuffle=True):
            loss = train_step(model, optimizer, tokens, labels)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    print(f"test accuracy {evaluate(model, test_tokens, test_labels):.3f}")


if __name__ == "__main__":
    main()
