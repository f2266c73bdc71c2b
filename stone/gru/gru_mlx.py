"""GRU on IMDB in MLX."""

# %% Imports
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

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
    (train_tokens, train_labels), (test_tokens, test_labels) = data.imdb(VOCABULARY, LENGTH)  # (N, 150), (N,)
    return (mx.array(train_tokens), mx.array(train_labels)), (mx.array(test_tokens), mx.array(test_labels))


def batches(tokens, labels, shuffle):
    order = mx.random.permutation(len(labels)) if shuffle else mx.arange(len(labels))
    for start in range(0, len(labels), BATCH_SIZE):  # the last batch is smaller, and compiled for its own shape
        chosen = order[start : start + BATCH_SIZE]
        yield tokens[chosen], labels[chosen]


# %% Model
class GRULayer(nn.Module):  # nn.GRU with the second bias for every gate, not for the new one alone
    def __init__(self):
        super().__init__()
        self.linear_i = nn.Linear(EMBEDDING, 3 * HIDDEN)  # gates in the order reset, update, new
        self.linear_h = nn.Linear(HIDDEN, 3 * HIDDEN)

    def __call__(self, x):  # (N, 150, 125)
        from_inputs = self.linear_i(x)  # (N, 150, 300), one product for all steps
        state = mx.zeros((len(x), HIDDEN))
        for step in range(x.shape[1]):
            r, z, n = mx.split(from_inputs[:, step], 3, axis=1)
            r_state, z_state, n_state = mx.split(self.linear_h(state), 3, axis=1)
            r, z = mx.sigmoid(r + r_state), mx.sigmoid(z + z_state)
            n = mx.tanh(n + r * n_state)
            state = (1 - z) * n + z * state
        return state  # (N, 100), the last


class GRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, EMBEDDING)
        self.gru = GRULayer()
        self.fc = nn.Linear(HIDDEN, 2)
        self.embedding.apply(nn.init.uniform(-0.05, 0.05))
        self.gru.apply(nn.init.uniform(-0.1, 0.1))
        self.fc.weight = nn.init.glorot_uniform()(self.fc.weight)
        self.fc.bias = mx.zeros_like(self.fc.bias)

    def __call__(self, tokens):  # (N, 150)
        x = self.embedding(tokens)  # (N, 150, 125)
        x = self.gru(x)  # (N, 100)
        return self.fc(x)  # (N, 2)


def build_model():
    model = GRU()
    mx.eval(model.parameters())  # arrays are lazy: until now nothing has been drawn
    return model


# %% Loss
def loss_fn(model, tokens, labels):
    return nn.losses.cross_entropy(model(tokens), labels, reduction="mean")


# %% Optimizer
def make_optimizer(model):
    optimizer = optim.Adam(LEARNING_RATE, [BETA1, BETA2], EPSILON, bias_correction=True)  # which is off by default
    optimizer.init(model.trainable_parameters())
    return optimizer


# %% Train step
def train_step(model, optimizer):
    loss_and_gradients = nn.value_and_grad(model, loss_fn)

    def step(tokens, labels):  # not compiled: of a graph of 150 steps that makes a slower one (on a CPU)
        loss, gradients = loss_and_gradients(model, tokens, labels)
        optimizer.update(model, gradients)
        mx.eval(loss, model.parameters(), optimizer.state)  # nothing is computed before
        return loss

    return step


# %% Evaluation
def evaluate(model, tokens, labels):
    correct = 0
    for x, y in batches(tokens, labels, shuffle=False):
        correct += (model(x).argmax(1) == y).sum().item()
    return correct / len(labels)


# %% Run
def main():
    mx.random.seed(SEED)
    (train_tokens, train_labels), (test_tokens, test_labels) = load_data()
    model = build_model()
    optimizer = make_optimizer(model)
    step = train_step(model, optimizer)
    for epoch in range(EPOCHS):
        for tokens, labels in batches(train_tokens, train_labels, shuffle=True):
            loss = step(tokens, labels)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    print(f"test accuracy {evaluate(model, test_tokens, test_labels):.3f}")


if __name__ == "__main__":
    main()
