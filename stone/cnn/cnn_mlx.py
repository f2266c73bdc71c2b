"""CNN on CIFAR-10 in MLX."""

# %% Imports
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

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
    (train_images, train_labels), (test_images, test_labels) = data.cifar10(channels_last=True)
    train = mx.array(train_images), mx.array(train_labels)  # (N, 32, 32, 3) in 0–1, (N,)
    test = mx.array(test_images), mx.array(test_labels)
    return train, test


def batches(images, labels, shuffle):
    order = mx.random.permutation(len(labels)) if shuffle else mx.arange(len(labels))
    for start in range(0, len(labels), BATCH_SIZE):  # the last batch is smaller, and compiled for its own shape
        chosen = order[start : start + BATCH_SIZE]
        yield images[chosen], labels[chosen]


# %% Model
class CNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 50, 3, padding=1)
        self.conv2 = nn.Conv2d(50, 50, 3, padding=1)
        self.dropout1 = nn.Dropout(DROPOUT1)
        self.conv3 = nn.Conv2d(50, 100, 3, padding=1)
        self.conv4 = nn.Conv2d(100, 100, 3, padding=1)
        self.dropout2 = nn.Dropout(DROPOUT2)
        self.fc1 = nn.Linear(8 * 8 * 100, 512)
        self.dropout3 = nn.Dropout(DROPOUT3)
        self.fc2 = nn.Linear(512, 10)
        self.max_pool = nn.MaxPool2d(2)  # the stride is the window's
        glorot_uniform = nn.init.glorot_uniform()
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4, self.fc1, self.fc2):
            layer.weight = glorot_uniform(layer.weight)
            layer.bias = mx.zeros_like(layer.bias)

    def __call__(self, x):  # (N, 32, 32, 3)
        x = nn.relu(self.conv1(x))  # (N, 32, 32, 50)
        x = nn.relu(self.max_pool(self.conv2(x)))  # (N, 16, 16, 50)
        x = self.dropout1(x)
        x = nn.relu(self.conv3(x))  # (N, 16, 16, 100)
        x = nn.relu(self.max_pool(self.conv4(x)))  # (N, 8, 8, 100)
        x = self.dropout2(x)
        x = nn.relu(self.fc1(x.flatten(1)))  # (N, 512)
        x = self.dropout3(x)
        return self.fc2(x)  # (N, 10)


def build_model():
    model = CNN()
    mx.eval(model.parameters())  # arrays are lazy: until now nothing has been drawn
    return model


# %% Loss
def loss_fn(model, images, labels):
    return nn.losses.cross_entropy(model(images), labels, reduction="mean")


# %% Optimizer
def make_optimizer(model):
    optimizer = optim.SGD(LEARNING_RATE, momentum=MOMENTUM)
    optimizer.init(model.trainable_parameters())
    return optimizer


# %% Train step
def train_step(model, optimizer):
    state = [model.state, optimizer.state, mx.random.state]  # what a compiled step reads and writes

    @partial(mx.compile, inputs=state, outputs=state)
    def update(images, labels):
        model.train()
        loss, gradients = nn.value_and_grad(model, loss_fn)(model, images, labels)
        optimizer.update(model, gradients)
        return loss

    def step(images, labels):
        loss = update(images, labels)
        mx.eval(loss, state)  # nothing is computed before; the graph would grow from step to step
        return loss

    return step


# %% Evaluation
def evaluate(model, images, labels):
    model.eval()
    correct = 0
    for x, y in batches(images, labels, shuffle=False):
        correct += (model(x).argmax(1) == y).sum().item()
    return correct / len(labels)


# %% Run
def main():
    mx.random.seed(SEED)
    (train_images, train_labels), (test_images, test_labels) = load_data()
    model = build_model()
    optimizer = make_optimizer(model)
    step = train_step(model, optimizer)
    for epoch in range(EPOCHS):
        for images, labels in batches(train_images, train_labels, shuffle=True):
            loss = step(images, labels)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    print(f"test accuracy {evaluate(model, test_images, test_labels):.3f}")


if __name__ == "__main__":
    main()
