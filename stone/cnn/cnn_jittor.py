"""CNN on CIFAR-10 in Jittor."""

# %% Imports
import jittor as jt
import numpy as np
from jittor import nn
from jittor.dataset import TensorDataset

from dlrosetta import data

# %% Configuration
SEED = 0
BATCH_SIZE = 64
EPOCHS = 10
LEARNING_RATE = 0.01
MOMENTUM = 0.9
DROPOUT1, DROPOUT2, DROPOUT3 = 0.25, 0.25, 0.5


# %% Data
def load_data():
    return data.cifar10()  # twice (N, 3, 32, 32) in 0–1, (N,): for training, for testing


def batches(images, labels, shuffle):
    # `shuffle=True` draws the same order in every new dataset, whatever the seed.
    order = np.random.permutation(len(labels)).tolist() if shuffle else None
    return TensorDataset(images, labels).set_attrs(batch_size=BATCH_SIZE, sampler=order)


# %% Model
class CNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv(3, 50, 3, padding=1)
        self.conv2 = nn.Conv(50, 50, 3, padding=1)
        self.dropout1 = nn.Dropout(DROPOUT1)
        self.conv3 = nn.Conv(50, 100, 3, padding=1)
        self.conv4 = nn.Conv(100, 100, 3, padding=1)
        self.dropout2 = nn.Dropout(DROPOUT2)
        self.fc1 = nn.Linear(100 * 8 * 8, 512)
        self.dropout3 = nn.Dropout(DROPOUT3)
        self.fc2 = nn.Linear(512, 10)
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4, self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zero_(layer.bias)

    def execute(self, x):  # (N, 3, 32, 32)
        x = nn.relu(self.conv1(x))  # (N, 50, 32, 32)
        x = nn.relu(nn.max_pool2d(self.conv2(x), 2))  # (N, 50, 16, 16)
        x = self.dropout1(x)
        x = nn.relu(self.conv3(x))  # (N, 100, 16, 16)
        x = nn.relu(nn.max_pool2d(self.conv4(x), 2))  # (N, 100, 8, 8)
        x = self.dropout2(x)
        x = nn.relu(self.fc1(jt.flatten(x, 1)))  # (N, 512)
        x = self.dropout3(x)
        return self.fc2(x)  # (N, 10)


def build_model():
    return CNN()


# %% Loss
def loss_fn(model, images, labels):
    return nn.cross_entropy_loss(model(images), labels)


# %% Optimizer
def make_optimizer(model):
    return nn.SGD(model.parameters(), LEARNING_RATE, momentum=MOMENTUM)


# %% Train step
def train_step(model, optimizer, images, labels):
    model.train()
    loss = loss_fn(model, images, labels)
    optimizer.step(loss)  # differentiates the loss too
    return loss


# %% Evaluation
@jt.no_grad()
def evaluate(model, images, labels):
    model.eval()
    correct = 0
    for x, y in batches(images, labels, shuffle=False):
        prediction, _ = model(x).argmax(1)  # and the logit
        correct += (prediction == y).sum()
    return correct.item() / len(labels)


# %% Run
def main():
    jt.set_global_seed(SEED)  # NumPy's too
    (train_images, train_labels), (test_images, test_labels) = load_data()
    model = build_model()
    optimizer = make_optimizer(model)
    for epoch in range(EPOCHS):
        for images, labels in batches(train_images, train_labels, shuffle=True):
            loss = train_step(model, optimizer, images, labels)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    print(f"test accuracy {evaluate(model, test_images, test_labels):.3f}")


if __name__ == "__main__":
    main()
