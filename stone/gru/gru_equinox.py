"""GRU on IMDB in Equinox."""

# %% Imports
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from equinox import nn
from jax import lax, random

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
def uniform(key, shape, half_width):
    return random.uniform(key, shape, minval=-half_width, maxval=half_width)


class GRULayer(eqx.Module):  # nn.GRUCell with the second bias for every gate, not for the new one alone
    weight_ih: jax.Array
    weight_hh: jax.Array
    bias_ih: jax.Array
    bias_hh: jax.Array

    def __init__(self, key):
        keys = random.split(key, 4)  # gates in the order reset, update, new
        self.weight_ih = uniform(keys[0], (3 * HIDDEN, EMBEDDING), 0.1)
        self.weight_hh = uniform(keys[1], (3 * HIDDEN, HIDDEN), 0.1)
        self.bias_ih = uniform(keys[2], (3 * HIDDEN,), 0.1)
        self.bias_hh = uniform(keys[3], (3 * HIDDEN,), 0.1)

    def __call__(self, x):  # (150, 125)
        def step(state, from_input):  # (100,), (300,)
            from_state = self.weight_hh @ state + self.bias_hh  # (300,)
            (r, z, n), (r_state, z_state, n_state) = jnp.split(from_input, 3), jnp.split(from_state, 3)
            r, z = jax.nn.sigmoid(r + r_state), jax.nn.sigmoid(z + z_state)
            n = jnp.tanh(n + r * n_state)
            return (1 - z) * n + z * state, None

        from_inputs = x @ self.weight_ih.T + self.bias_ih  # (150, 300), one product for all steps
        state, _ = lax.scan(step, jnp.zeros(self.weight_hh.shape[1]), from_inputs)
        return state  # (100,), the last


class GRU(eqx.Module):
    embedding: nn.Embedding
    gru: GRULayer
    fc: nn.Linear

    def __init__(self, key):
        keys = random.split(key, 3)
        self.embedding = nn.Embedding(weight=uniform(keys[0], (VOCABULARY, EMBEDDING), 0.05))
        self.gru = GRULayer(keys[1])
        self.fc = nn.Linear(HIDDEN, 2, key=keys[2])

    def __call__(self, tokens):  # one review: (150,)
        x = jax.vmap(self.embedding)(tokens)  # (150, 125)
        x = self.gru(x)  # (100,)
        return self.fc(x)  # (2,)


def build_model():
    key, kernel_key = random.split(random.key(SEED))
    model = GRU(key)  # modules never change: what has another kernel and bias is a new model
    glorot_uniform = jax.nn.initializers.glorot_uniform(in_axis=1, out_axis=0)  # kernels are (out, in)
    kernel, bias = glorot_uniform(kernel_key, model.fc.weight.shape), jnp.zeros_like(model.fc.bias)
    return eqx.tree_at(lambda model: (model.fc.weight, model.fc.bias), model, (kernel, bias))


# %% Loss
def loss_fn(model, tokens, labels):
    logits = jax.vmap(model)(tokens)  # (N, 2)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


# %% Optimizer
def make_optimizer(model):
    optimizer = optax.adam(LEARNING_RATE, BETA1, BETA2, EPSILON)
    return optimizer, optimizer.init(eqx.filter(model, eqx.is_inexact_array))


# %% Train step
@eqx.filter_jit  # on a CPU it is a little slower with donate="all"
def train_step(model, optimizer, opt_state, tokens, labels):
    loss, gradients = eqx.filter_value_and_grad(loss_fn)(model, tokens, labels)
    updates, opt_state = optimizer.update(gradients, opt_state)
    return eqx.apply_updates(model, updates), opt_state, loss


# %% Evaluation
@eqx.filter_jit
def count_correct(model, tokens, labels):
    return (jax.vmap(model)(tokens).argmax(1) == labels).sum()


def evaluate(model, tokens, labels):
    correct = 0
    for x, y in batches(tokens, labels, shuffle=False):
        correct += count_correct(model, x, y)
    return correct.item() / len(labels)


# %% Run
def main():
    (train_tokens, train_labels), (test_tokens, test_labels) = load_data()
    model = build_model()
    optimizer, opt_state = make_optimizer(model)
    for epoch in range(EPOCHS):
        for tokens, labels in batches(train_tokens, train_labels, shuffle=True):
            model, opt_state, loss = train_step(model, optimizer, opt_state, tokens, labels)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    print(f"test accuracy {evaluate(model, test_tokens, test_labels):.3f}")


if __name__ == "__main__":
    main()
