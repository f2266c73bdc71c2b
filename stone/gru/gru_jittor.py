"""GRU on IMDB in Jittor."""

# %% Imports
import jittor as jt
import numpy as np
from jittor import nn
from jittor.dataset import TensorDataset

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
    # `shuffle=True` draws the same order in every new dataset, whatever the seed.
    order = np.random.permutation(len(labels)).tolist() if shuffle else None
    return TensorDataset(tokens, labels).set_attrs(batch_size=BATCH_SIZE, sampler=order)


# %% Model
class GRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, EMBEDDING)
        self.gru = nn.GRU(EMBEDDING, HIDDEN, batch_first=True)  # gates in the order reset, update, new
        self.fc = nn.Linear(HIDDEN, 2)
        nn.init.uniform_(self.embedding.weight, -0.05, 0.05)
        for parameter in self.gru.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)
        nn.init.xavier_uniform_(self.fc.weight)
        nn.init.zero_(self.fc.bias)

    def execute(self, tokens):  # (N, 150)
        x = self.embedding(tokens)  # (N, 150, 125)
        _, states = self.gru(x)  # (1, N, 100); its outputs are (150, N, 100) in spite of `batch_first`
        return self.fc(states[0])  # (N, 2)


def build_model():
    return GRU()


# %% Loss
def loss_fn(model, tokens, labels):
    return nn.cross_entropy_loss(model(tokens), labels)


# %% Optimizer
def make_optimizer(model):
    # `nn.Adam` adds epsilon to the root of the uncorrected second moment; this one, without decay, is the paper's Adam.
    return nn.AdamW(model.parameters(), LEARNING_RATE, eps=EPSILON, betas=(BETA1, BETA2))


# %% Train step
def train_step(model, optimizer, tokens, labels):
    model.train()
    loss = loss_fn(model, tokens, labels)
    optimizer.step(loss)  # differentiates the loss too
    return loss


# %% Evaluation
@jt.no_grad()
def evaluate(model, tokens, labels):
    model.eval()
    correct = 0
    for x, y in batches(tokens, labels, shuffle=False):
        prediction, _ = model(x).argmax(1)  # and the logit
        correct += (prediction == y).sum()
    return correct.item() / len(labels)


# %% Run
def main():
    jt.set_global_seed(SEED)  # NumPy's too
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
