"""CNN on CIFAR-10 in Flax NNX."""

# %% Imports
from functools import partial

import numpy as np
import optax
from flax import nnx

from dlrosetta import data

# %% Configuration
SEED = 0
BATCH_SIZE = 64
EPOCHS = 10
LEARNING_RATE = 0.01
MOMENTUM = 0.9
DROPOUT1, DROPOUT2, DROPOUT3 = 0.25, 0.25, 0.5


# %% Data
rng = np.random.default_rng(SEED)


def load_data():
    return data.cifar10(channels_last=True)  # twice (N, 32, 32, 3) in 0–1, (N,): for training, for testing


def batches(images, labels, shuffle):
    order = rng.permutation(len(labels)) if shuffle else np.arange(len(labels))
    for start in range(0, len(labels), BATCH_SIZE):  # the last batch is smaller, and compiled for its own shape
        chosen = order[start : start + BATCH_SIZE]
        yield images[chosen], labels[chosen]


# %% Model
class CNN(nnx.Module):
    def __init__(self, rngs):
        glorot_uniform = nnx.initializers.glorot_uniform()
        conv = partial(nnx.Conv, kernel_size=(3, 3), padding="SAME", kernel_init=glorot_uniform, rngs=rngs)
        linear = partial(nnx.Linear, kernel_init=glorot_uniform, rngs=rngs)
        self.conv1 = conv(3, 50)
        self.conv2 = conv(50, 50)
        self.dropout1 = nnx.Dropout(DROPOUT1, rngs=rngs)
        self.conv3 = conv(50, 100)
        self.conv4 = conv(100, 100)
        self.dropout2 = nnx.Dropout(DROPOUT2, rngs=rngs)
        self.fc1 = linear(8 * 8 * 100, 512)
        self.dropout3 = nnx.Dropout(DROPOUT3, rngs=rngs)
        self.fc2 = linear(512, 10)

    def __call__(self, x):  # (N, 32, 32, 3)
        max_pool = partial(nnx.max_pool, window_shape=(2, 2), strides=(2, 2))  # strides are 1 by default
        x = nnx.relu(self.conv1(x))  # (N, 32, 32, 50)
        x = nnx.relu(max_pool(self.conv2(x)))  # (N, 16, 16, 50)
        x = self.dropout1(x)
        x = nnx.relu(self.conv3(x))  # (N, 16, 16, 100)
        x = nnx.relu(max_pool(self.conv4(x)))  # (N, 8, 8, 100)
        x = self.dropout2(x)
        x = nnx.relu(self.fc1(x.reshape(len(x), -1)))  # (N, 512)
        x = self.dropout3(x)
        return self.fc2(x)  # (N, 10)


def build_model():
    return CNN(nnx.Rngs(SEED))


# %% Loss
def loss_fn(model, images, labels):
    return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()


# %% Optimizer
def make_optimizer(model):
    return nnx.Optimizer(model, optax.sgd(LEARNING_RATE, momentum=MOMENTUM), wrt=nnx.Param)


# %% Train step
@nnx.jit(donate_argnames=("model", "optimizer"))
def train_step(model, optimizer, images, labels):
    model = nnx.view(model, deterministic=False)  # a view shares the model's variables, but has a mode of its own
    loss, gradients = nnx.value_and_grad(loss_fn)(model, images, labels)
    optimizer.update(model, gradients)
    return loss


# %% Evaluation
@nnx.jit
def count_correct(model, images, labels):
    return (model(images).argmax(1) == labels).sum()


def evaluate(model, images, labels):
    model = nnx.view(model, deterministic=True)
    correct = 0
    for x, y in batches(images, labels, shuffle=False):
        correct += count_correct(model, x, y)
    return correct.item() / len(labels)


# %% Run
def main():
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
