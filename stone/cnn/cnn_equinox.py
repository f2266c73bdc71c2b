"""CNN on CIFAR-10 in Equinox."""

# %% Imports
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from equinox import nn
from jax import random

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
    return data.cifar10()  # twice (N, 3, 32, 32) in 0–1, (N,): for training, for testing


def batches(images, labels, shuffle):
    order = rng.permutation(len(labels)) if shuffle else np.arange(len(labels))
    for start in range(0, len(labels), BATCH_SIZE):  # the last batch is smaller, and compiled for its own shape
        chosen = order[start : start + BATCH_SIZE]
        yield images[chosen], labels[chosen]


# %% Model
class CNN(eqx.Module):
    conv1: nn.Conv2d
    conv2: nn.Conv2d
    dropout1: nn.Dropout
    conv3: nn.Conv2d
    conv4: nn.Conv2d
    dropout2: nn.Dropout
    fc1: nn.Linear
    dropout3: nn.Dropout
    fc2: nn.Linear
    max_pool: nn.MaxPool2d

    def __init__(self, key):
        keys = random.split(key, 6)
        self.conv1 = nn.Conv2d(3, 50, 3, padding=1, key=keys[0])
        self.conv2 = nn.Conv2d(50, 50, 3, padding=1, key=keys[1])
        self.dropout1 = nn.Dropout(DROPOUT1)
        self.conv3 = nn.Conv2d(50, 100, 3, padding=1, key=keys[2])
        self.conv4 = nn.Conv2d(100, 100, 3, padding=1, key=keys[3])
        self.dropout2 = nn.Dropout(DROPOUT2)
        self.fc1 = nn.Linear(100 * 8 * 8, 512, key=keys[4])
        self.dropout3 = nn.Dropout(DROPOUT3)
        self.fc2 = nn.Linear(512, 10, key=keys[5])
        self.max_pool = nn.MaxPool2d(2, stride=2)  # the stride is 1 by default

    def __call__(self, x, key=None):  # one image: (3, 32, 32)
        key1, key2, key3 = (None, None, None) if key is None else random.split(key, 3)
        x = jax.nn.relu(self.conv1(x))  # (50, 32, 32)
        x = jax.nn.relu(self.max_pool(self.conv2(x)))  # (50, 16, 16)
        x = self.dropout1(x, key=key1)
        x = jax.nn.relu(self.conv3(x))  # (100, 16, 16)
        x = jax.nn.relu(self.max_pool(self.conv4(x)))  # (100, 8, 8)
        x = self.dropout2(x, key=key2)
        x = jax.nn.relu(self.fc1(x.ravel()))  # (512,)
        x = self.dropout3(x, key=key3)
        return self.fc2(x)  # (10,)


def build_model():
    def layers(model):
        return [model.conv1, model.conv2, model.conv3, model.conv4, model.fc1, model.fc2]

    key, *keys = random.split(random.key(SEED), 7)
    model = CNN(key)  # modules never change: what has other kernels and biases is a new model
    glorot_uniform = jax.nn.initializers.glorot_uniform(in_axis=1, out_axis=0)  # kernels are (out, in, …)
    kernels = [glorot_uniform(key, layer.weight.shape) for key, layer in zip(keys, layers(model), strict=True)]
    biases = [jnp.zeros_like(layer.bias) for layer in layers(model)]
    model = eqx.tree_at(lambda model: [layer.weight for layer in layers(model)], model, kernels)
    return eqx.tree_at(lambda model: [layer.bias for layer in layers(model)], model, biases)


# %% Loss
def loss_fn(model, images, labels, key):
    logits = jax.vmap(model)(images, random.split(key, len(images)))  # (N, 10), each image with dropout of its own
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


# %% Optimizer
def make_optimizer(model):
    optimizer = optax.sgd(LEARNING_RATE, momentum=MOMENTUM)
    return optimizer, optimizer.init(eqx.filter(model, eqx.is_inexact_array))


# %% Train step
@eqx.filter_jit(donate="all")
def train_step(model, optimizer, opt_state, images, labels, key):
    key, dropout_key = random.split(key)
    loss, gradients = eqx.filter_value_and_grad(loss_fn)(model, images, labels, dropout_key)
    updates, opt_state = optimizer.update(gradients, opt_state)
    return eqx.apply_updates(model, updates), opt_state, key, loss


# %% Evaluation
@eqx.filter_jit
def count_correct(model, images, labels):
    return (jax.vmap(model)(images).argmax(1) == labels).sum()


def evaluate(model, images, labels):
    model = eqx.nn.inference_mode(model)
    correct = 0
    for x, y in batches(images, labels, shuffle=False):
        correct += count_correct(model, x, y)
    return correct.item() / len(labels)


# %% Run
def main():
    (train_images, train_labels), (test_images, test_labels) = load_data()
    model = build_model()
    optimizer, opt_state = make_optimizer(model)
    key = random.key(SEED)
    for epoch in range(EPOCHS):
        for images, labels in batches(train_images, train_labels, shuffle=True):
            model, opt_state, key, loss = train_step(model, optimizer, opt_state, images, labels, key)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    print(f"test accuracy {evaluate(model, test_images, test_labels):.3f}")


if __name__ == "__main__":
    main()
