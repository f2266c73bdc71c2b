"""DenseNet-121 on chest X-rays in Flax NNX."""

# %% Imports
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from PIL import Image
from sklearn.metrics import roc_auc_score

from dlrosetta import data

# %% Configuration
SEED = 0
BATCH_SIZE = 16
EPOCHS = 5
LEARNING_RATE, BETA1, BETA2, EPSILON = 1e-4, 0.9, 0.999, 1e-8
RESIZE, SIZE = 264, 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = len(data.chestxray_classes())
WIDTH, GROWTH, BLOCKS = 64, 32, (6, 12, 24, 16)
NORM_EPSILON, NORM_MOMENTUM = 1e-5, 0.1
DEVICES = jax.make_mesh((jax.device_count(),), ("devices",), axis_types=(AxisType.Auto,))
SPREAD = NamedSharding(DEVICES, PartitionSpec("devices"))  # the first axis is cut, a part for each device


# %% Data
rng = np.random.default_rng(SEED)


def load_data():
    return data.chestxray()  # paths, labels (N, 14)


@jax.jit
def cut_out(x, top, left, mirrored):  # (264, 264, 3); places are arguments, else each would be compiled for
    x = jax.lax.dynamic_slice(x, (top, left, 0), (SIZE, SIZE, 3))
    x = jnp.where(mirrored, x[:, ::-1], x)
    return (x - jnp.array(MEAN)) / jnp.array(DEVIATION)  # (224, 224, 3)


def preprocess(path, training):
    x = np.array(Image.open(path).convert("RGB")) / np.float32(255)
    x = jax.image.resize(x, (RESIZE, RESIZE, 3), "bilinear", antialias=True)  # compiled for each shape of X-rays
    if training:
        return cut_out(x, *rng.integers(RESIZE - SIZE + 1, size=2), rng.random() < 0.5)
    return cut_out(x, (RESIZE - SIZE) // 2, (RESIZE - SIZE) // 2, False)


def batches(paths, labels, training):
    order = rng.permutation(len(labels)) if training else np.arange(len(labels))
    for start in range(0, len(labels), BATCH_SIZE):  # the last batch is smaller, and compiled for its own shape
        chosen = order[start : start + BATCH_SIZE]
        yield jnp.stack([preprocess(paths[number], training) for number in chosen]), labels[chosen]


# %% Model
conv = partial(nnx.Conv, use_bias=False, kernel_init=nnx.initializers.he_uniform())
# Flax's momentum weighs the old. Its fast variance is E[x²] - E[x]², which cancels where the mean is large.
norm = partial(nnx.BatchNorm, momentum=1 - NORM_MOMENTUM, epsilon=NORM_EPSILON, use_fast_variance=False)


class DenseLayer(nnx.Module):
    def __init__(self, inputs, rngs):
        self.norm1 = norm(inputs, rngs=rngs)
        self.conv1 = conv(inputs, 4 * GROWTH, (1, 1), rngs=rngs)
        self.norm2 = norm(4 * GROWTH, rngs=rngs)
        self.conv2 = conv(4 * GROWTH, GROWTH, (3, 3), padding=1, rngs=rngs)

    def __call__(self, x):
        y = self.conv1(nnx.relu(self.norm1(x)))
        y = self.conv2(nnx.relu(self.norm2(y)))
        return jnp.concatenate([x, y], axis=3)


class Transition(nnx.Module):
    def __init__(self, inputs, rngs):
        self.norm = norm(inputs, rngs=rngs)
        self.conv = conv(inputs, inputs // 2, (1, 1), rngs=rngs)

    def __call__(self, x):
        return nnx.avg_pool(self.conv(nnx.relu(self.norm(x))), (2, 2), strides=(2, 2))


class DenseNet(nnx.Module):
    def __init__(self, rngs):
        self.conv0 = conv(3, WIDTH, (7, 7), strides=2, padding=3, rngs=rngs)
        self.norm0 = norm(WIDTH, rngs=rngs)
        channels = WIDTH
        for number, count in enumerate(BLOCKS, 1):
            layers = [DenseLayer(channels + GROWTH * i, rngs) for i in range(count)]
            setattr(self, f"block{number}", nnx.List(layers))
            channels += GROWTH * count
            if number < len(BLOCKS):
                setattr(self, f"transition{number}", Transition(channels, rngs))
                channels //= 2
        self.norm5 = norm(channels, rngs=rngs)
        self.classifier = nnx.Linear(channels, CLASSES, kernel_init=nnx.initializers.glorot_uniform(), rngs=rngs)

    def __call__(self, x):  # (N, 224, 224, 3)
        x = nnx.relu(self.norm0(self.conv0(x)))  # (N, 112, 112, 64)
        x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))  # (N, 56, 56, 64)
        for layer in [*self.block1, self.transition1, *self.block2, self.transition2]:
            x = layer(x)  # to (N, 28, 28, 128), then (N, 14, 14, 256)
        for layer in [*self.block3, self.transition3, *self.block4]:
            x = layer(x)  # to (N, 7, 7, 512), then (N, 7, 7, 1024)
        x = nnx.relu(self.norm5(x))
        return self.classifier(x.mean((1, 2)))  # (N, 14)


def build_model():
    return DenseNet(nnx.Rngs(SEED))


# %% Loss
def loss_fn(model, images, labels):
    return optax.sigmoid_binary_cross_entropy(model(images), labels).mean()


# %% Optimizer
def make_optimizer(model):
    return nnx.Optimizer(model, optax.adam(LEARNING_RATE, BETA1, BETA2, EPSILON), wrt=nnx.Param)


# %% Train step
@nnx.jit(donate_argnames=("model", "optimizer"))
def train_step(model, optimizer, images, labels):
    if len(images) % DEVICES.size == 0:  # an uneven last batch is every device's as a whole
        images, labels = jax.lax.with_sharding_constraint((images, labels), SPREAD)
    model = nnx.view(model, use_running_average=False)  # a view shares the model's variables, but has its own mode
    loss, gradients = nnx.value_and_grad(loss_fn)(model, images, labels)
    optimizer.update(model, gradients)
    return loss


# %% Evaluation
@nnx.jit
def predict(model, images):
    return model(images)


def evaluate(model, paths, labels):
    model = nnx.view(model, use_running_average=True)
    logits = np.concatenate([predict(model, images) for images, _ in batches(paths, labels, training=False)])
    return roc_auc_score(labels, logits, average="macro")  # of logits as of probabilities: only ranks count


# %% Run
def main():
    (train_paths, train_labels), (test_paths, test_labels) = load_data()
    model = build_model()
    optimizer = make_optimizer(model)
    for epoch in range(EPOCHS):
        for images, labels in batches(train_paths, train_labels, training=True):
            loss = train_step(model, optimizer, images, labels)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    print(f"test AUC {evaluate(model, test_paths, test_labels):.3f}")


if __name__ == "__main__":
    main()
