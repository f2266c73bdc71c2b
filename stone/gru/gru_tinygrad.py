"""GRU on IMDB in tinygrad."""

# %% Imports
from functools import cache

import numpy as np
from tinygrad import Context, Tensor, TinyJit, nn

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
def load_data():
    return data.imdb(VOCABULARY, LENGTH)  # twice (N, 150), (N,): for training, for testing


def batches(tokens, labels, shuffle):
    order = np.random.permutation(len(labels)) if shuffle else np.arange(len(labels))
    for start in range(0, len(labels), BATCH_SIZE):
        chosen = order[start : start + BATCH_SIZE]
        yield Tensor(tokens[chosen]), Tensor(labels[chosen])


# %% Model
def uniform(bound, *shape):
    return Tensor.uniform(*shape, low=-bound, high=bound)


class GRULayer:  # tinygrad has an LSTM cell alone
    def __init__(self):
        self.weight_ih = uniform(0.1, 3 * HIDDEN, EMBEDDING)  # gates in the order reset, update, new
        self.weight_hh = uniform(0.1, 3 * HIDDEN, HIDDEN)
        self.bias_ih = uniform(0.1, 3 * HIDDEN)
        self.bias_hh = uniform(0.1, 3 * HIDDEN)

    def __call__(self, x):  # (N, 150, 125)
        from_inputs = x.linear(self.weight_ih.T, self.bias_ih).contiguous()  # (N, 150, 300), one product for all steps
        state = Tensor.zeros(x.shape[0], HIDDEN, dtype=x.dtype)
        for step in range(x.shape[1]):
            r, z, n = from_inputs[:, step].contiguous().chunk(3, dim=1)  # copied, so that all steps share their kernels
            r_state, z_state, n_state = state.linear(self.weight_hh.T, self.bias_hh).chunk(3, dim=1)
            r, z = (r + r_state).sigmoid(), (z + z_state).sigmoid()
            n = (n + r * n_state).tanh()
            state = ((1 - z) * n + z * state).contiguous()  # or kernels would compute earlier states again
        return state  # (N, 100), the last


class GRU:
    def __init__(self):
        self.embedding = nn.Embedding(VOCABULARY, EMBEDDING)
        self.gru = GRULayer()
        self.fc = nn.Linear(HIDDEN, 2)
        self.embedding.weight = uniform(0.05, VOCABULARY, EMBEDDING)
        self.fc.weight = Tensor.glorot_uniform(2, HIDDEN)
        self.fc.bias = Tensor.zeros(2)

    def __call__(self, tokens):  # (N, 150)
        x = self.embedding(tokens)  # (N, 150, 125)
        x = self.gru(x)  # (N, 100)
        return self.fc(x)  # (N, 2)


def build_model():
    model = GRU()
    Tensor.realize(*nn.state.get_parameters(model))  # together: after one by one, a step is a "cycle" to it
    return model


# %% Loss
def loss_fn(model, tokens, labels):
    return model(tokens).sparse_categorical_crossentropy(labels)


# %% Optimizer
def make_optimizer(model):
    return nn.optim.Adam(nn.state.get_parameters(model), LEARNING_RATE, BETA1, BETA2, EPSILON)


# %% Train step
@cache
def compiled_step(model, optimizer, size):  # TinyJit records one model, and batches of one size
    @TinyJit
    @Context(TRAINING=1, USE_ATOMICS=1)  # or the embedding's gradient is a product with one-hot rows
    def step(tokens, labels):
        optimizer.zero_grad()
        loss = loss_fn(model, tokens, labels).backward()
        return loss.realize(*optimizer.schedule_step())

    return step


def train_step(model, optimizer, tokens, labels):
    return compiled_step(model, optimizer, len(labels))(tokens, labels)


# %% Evaluation
@cache
def compiled_count(model, size):
    return TinyJit(lambda tokens, labels: (model(tokens).argmax(1) == labels).sum().realize())


def evaluate(model, tokens, labels):
    correct = 0
    for x, y in batches(tokens, labels, shuffle=False):
        correct += compiled_count(model, len(y))(x, y).item()
    return correct / len(labels)


# %% Run
def main():
    Tensor.manual_seed(SEED)
    np.random.seed(SEED)
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
