"""GRU on IMDB in PaddlePaddle."""

# %% Imports
import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.io import DataLoader, TensorDataset

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
    train = paddle.to_tensor(train_tokens, "int64"), paddle.to_tensor(train_labels, "int64")
    test = paddle.to_tensor(test_tokens, "int64"), paddle.to_tensor(test_labels, "int64")
    return train, test


def batches(tokens, labels, shuffle):
    return DataLoader(TensorDataset([tokens, labels]), batch_size=BATCH_SIZE, shuffle=shuffle)


# %% Model
class GRU(nn.Layer):
    def __init__(self):
        super().__init__()
        uniform = nn.initializer.Uniform
        self.embedding = nn.Embedding(VOCABULARY, EMBEDDING, weight_attr=uniform(-0.05, 0.05))
        self.gru = nn.GRU(  # gates in the order reset, update, new
            EMBEDDING,
            HIDDEN,
            weight_ih_attr=uniform(-0.1, 0.1),
            weight_hh_attr=uniform(-0.1, 0.1),
            bias_ih_attr=uniform(-0.1, 0.1),
            bias_hh_attr=uniform(-0.1, 0.1),
        )
        self.fc = nn.Linear(HIDDEN, 2)  # starts with Glorot uniform and a bias of zero

    def forward(self, tokens):  # (N, 150)
        x = self.embedding(tokens)  # (N, 150, 125)
        outputs, _ = self.gru(x)  # (N, 150, 100)
        return self.fc(outputs[:, -1])  # (N, 2)


def build_model():
    return GRU()


# %% Loss
def loss_fn(model, tokens, labels):
    return F.cross_entropy(model(tokens), labels)


# %% Optimizer
def make_optimizer(model):
    return paddle.optimizer.Adam(LEARNING_RATE, BETA1, BETA2, EPSILON, model.parameters())


# %% Train step
def train_step(model, optimizer, tokens, labels):
    model.train()
    loss = loss_fn(model, tokens, labels)
    loss.backward()
    optimizer.step()
    optimizer.clear_grad()
    return loss


# %% Evaluation
@paddle.no_grad()
def evaluate(model, tokens, labels):
    model.eval()
    correct = 0
    for x, y in batches(tokens, labels, shuffle=False):
        correct += (model(x).argmax(1) == y).sum()
    return correct.item() / len(labels)


# %% Run
def main():
    paddle.seed(SEED)
    np.random.seed(SEED)  # DataLoader shuffles with NumPy
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
