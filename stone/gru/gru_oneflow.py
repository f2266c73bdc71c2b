"""GRU on IMDB in OneFlow."""

# %% Imports
import oneflow as flow
import oneflow.nn.functional as F
from oneflow import nn
from oneflow.utils.data import DataLoader, TensorDataset

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
DEVICE = "cuda" if flow.cuda.is_available() else "cpu"


# %% Data
def load_data():
    (train_tokens, train_labels), (test_tokens, test_labels) = data.imdb(VOCABULARY, LENGTH)  # (N, 150), (N,)
    train = flow.from_numpy(train_tokens), flow.from_numpy(train_labels)
    test = flow.from_numpy(test_tokens), flow.from_numpy(test_labels)
    return train, test


def batches(tokens, labels, shuffle):
    return DataLoader(TensorDataset(tokens, labels), BATCH_SIZE, shuffle=shuffle)


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
        nn.init.zeros_(self.fc.bias)

    def forward(self, tokens):  # (N, 150)
        x = self.embedding(tokens)  # (N, 150, 125)
        outputs, _ = self.gru(x)  # (N, 150, 100)
        return self.fc(outputs[:, -1])  # (N, 2)


def build_model():
    return GRU().to(DEVICE)


# %% Loss
def loss_fn(model, tokens, labels):
    return F.cross_entropy(model(tokens), labels)


# %% Optimizer
def make_optimizer(model):
    return flow.optim.Adam(model.parameters(), lr=LEARNING_RATE, betas=(BETA1, BETA2), eps=EPSILON)


# %% Train step
def train_step(model, optimizer, tokens, labels):
    tokens, labels = tokens.to(DEVICE), labels.to(DEVICE)
    model.train()
    optimizer.zero_grad()
    loss = loss_fn(model, tokens, labels)
    loss.backward()
    optimizer.step()
    return loss.detach()


# %% Evaluation
@flow.no_grad()
def evaluate(model, tokens, labels):
    model.eval()
    correct = 0
    for x, y in batches(tokens, labels, shuffle=False):
        correct += (model(x.to(DEVICE)).argmax(1) == y.to(DEVICE)).sum()
    return correct.item() / len(labels)


# %% Run
def main():
    flow.manual_seed(SEED)
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
