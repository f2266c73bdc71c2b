"""CNN on CIFAR-10 in tinygrad."""

# %% Imports
from functools import cache

import numpy as np
from tinygrad import Context, Tensor, TinyJit, nn

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
    order = np.random.permutation(len(labels)) if shuffle else np.arange(len(labels))
    for start in range(0, len(labels), BATCH_SIZE):
        chosen = order[start : start + BATCH_SIZE]
        yield Tensor(images[chosen]), Tensor(labels[chosen])


# %% Model
def glorot_uniform(*shape):  # Tensor.glorot_uniform takes a convolution's fan-out for its number of kernels
    fan_out, fan_in = shape[0] * np.prod(shape[2:]), np.prod(shape[1:])
    bound = float(np.sqrt(6 / (fan_in + fan_out)))
    return Tensor.uniform(*shape, low=-bound, high=bound)


class CNN:
    def __init__(self):
        self.conv1 = nn.Conv2d(3, 50, 3, padding=1)
        self.conv2 = nn.Conv2d(50, 50, 3, padding=1)
        self.conv3 = nn.Conv2d(50, 100, 3, padding=1)
        self.conv4 = nn.Conv2d(100, 100, 3, padding=1)
        self.fc1 = nn.Linear(100 * 8 * 8, 512)
        self.fc2 = nn.Linear(512, 10)
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4, self.fc1, self.fc2):
            layer.weight = glorot_uniform(*layer.weight.shape)
            layer.bias = Tensor.zeros(*layer.bias.shape)

    def __call__(self, x):  # (N, 3, 32, 32)
        x = self.conv1(x).relu()  # (N, 50, 32, 32)
        x = self.conv2(x).max_pool2d(2).relu()  # (N, 50, 16, 16)
        x = x.dropout(DROPOUT1)
        x = self.conv3(x).relu()  # (N, 100, 16, 16)
        x = self.conv4(x).max_pool2d(2).relu()  # (N, 100, 8, 8)
        x = x.dropout(DROPOUT2)
        x = self.fc1(x.flatten(1)).relu()  # (N, 512)
        x = x.dropout(DROPOUT3)
        return self.fc2(x)  # (N, 10)


def build_model():
    return CNN()


# %% Loss
def loss_fn(model, images, labels):
    return model(images).sparse_categorical_crossentropy(labels)


# %% Optimizer
def make_optimizer(model):
    return nn.optim.SGD(nn.state.get_parameters(model), lr=LEARNING_RATE, momentum=MOMENTUM)


# %% Train step
@cache
def compiled_step(model, optimizer, size):  # TinyJit records one model, and batches of one size
    @TinyJit
    @Context(TRAINING=1)
    def step(images, labels):
        optimizer.zero_grad()
        loss = loss_fn(model, images, labels).backward()
        return loss.realize(*optimizer.schedule_step())

    return step


def train_step(model, optimizer, images, labels):
    return compiled_step(model, optimizer, len(labels))(images, labels)


# %% Evaluation
@cache
def compiled_count(model, size):
    return TinyJit(lambda images, labels: (model(images).argmax(1) == labels).sum().realize())


def evaluate(model, images, labels):
    correct = 0
    for x, y in batches(images, labels, shuffle=False):
        correct += compiled_count(model, len(y))(x, y).item()
    return correct / len(labels)


# %% Run
def main():
    Tensor.manual_seed(SEED)
    np.random.seed(SEED)
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
