"""DenseNet-121 on chest X-rays in Equinox."""

# %% Imports
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
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


def preprocess(path, training):
    x = np.array(Image.open(path).convert("RGB"))[:, :: -1 if training and rng.random() < 0.5 else 1]
    x = jax.image.resize(x / np.float32(255), (RESIZE, RESIZE, 3), "bilinear", antialias=True)  # compiled by shape
    top, left = rng.integers(RESIZE - SIZE + 1, size=2) if training else [(RESIZE - SIZE) // 2] * 2
    x = jax.lax.dynamic_slice(x, (top, left, 0), (SIZE, SIZE, 3))  # not x[top:…], which is compiled for each place
    return jnp.moveaxis((x - jnp.array(MEAN)) / jnp.array(DEVIATION), 2, 0)  # (3, 224, 224)


def batches(paths, labels, training):
    order = rng.permutation(len(labels)) if training else np.arange(len(labels))
    for chosen in np.split(order, range(BATCH_SIZE, len(order), BATCH_SIZE)):  # the last is smaller, of its own shape
        yield jnp.stack([preprocess(paths[number], training) for number in chosen]), labels[chosen]


# %% Model
def conv(inputs, outputs, size, keys, stride=1):  # layers never change: one with another kernel is a new one
    layer = eqx.nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, use_bias=False, key=next(keys))
    kernel = jax.nn.initializers.he_uniform(in_axis=1, out_axis=0)(next(keys), layer.weight.shape)
    return eqx.tree_at(lambda layer: layer.weight, layer, kernel)


def norm(channels):  # momentum weighs the old
    return eqx.nn.BatchNorm(channels, "batch", NORM_EPSILON, momentum=1 - NORM_MOMENTUM, mode="batch")


class DenseLayer(eqx.Module):
    norm1: eqx.nn.BatchNorm
    conv1: eqx.nn.Conv2d
    norm2: eqx.nn.BatchNorm
    conv2: eqx.nn.Conv2d

    def __call__(self, x, state):  # `state` holds the running statistics
        y, state = self.norm1(x, state)
        y, state = self.norm2(self.conv1(jax.nn.relu(y)), state)
        return jnp.concatenate([x, self.conv2(jax.nn.relu(y))]), state


class Transition(eqx.Module):
    norm: eqx.nn.BatchNorm
    conv: eqx.nn.Conv2d

    def __call__(self, x, state):
        x, state = self.norm(x, state)
        return eqx.nn.AvgPool2d(2, stride=2)(self.conv(jax.nn.relu(x))), state  # the stride is 1 by default


class DenseNet(eqx.Module):
    conv0: eqx.nn.Conv2d
    norm0: eqx.nn.BatchNorm
    block1: list
    transition1: Transition
    block2: list
    transition2: Transition
    block3: list
    transition3: Transition
    block4: list
    norm5: eqx.nn.BatchNorm
    classifier: eqx.nn.Linear

    def __init__(self, key):
        keys = iter(jax.random.split(key, 4 * sum(BLOCKS) + 2 * len(BLOCKS) + 2))  # two a kernel
        self.conv0, self.norm0 = conv(3, WIDTH, 7, keys, stride=2), norm(WIDTH)
        channels = WIDTH
        for number, count in enumerate(BLOCKS, 1):
            layers = []
            for _ in range(count):
                conv1, conv2 = conv(channels, 4 * GROWTH, 1, keys), conv(4 * GROWTH, GROWTH, 3, keys)
                layers.append(DenseLayer(norm(channels), conv1, norm(4 * GROWTH), conv2))
                channels += GROWTH
            setattr(self, f"block{number}", layers)
            if number < len(BLOCKS):
                setattr(self, f"transition{number}", Transition(norm(channels), conv(channels, channels // 2, 1, keys)))
                channels //= 2
        self.norm5, linear = norm(channels), eqx.nn.Linear(channels, CLASSES, key=next(keys))
        kernel = jax.nn.initializers.glorot_uniform(in_axis=1, out_axis=0)(next(keys), linear.weight.shape)
        self.classifier = eqx.tree_at(lambda layer: (layer.weight, layer.bias), linear, (kernel, jnp.zeros(CLASSES)))

    def __call__(self, x, state):  # one X-ray: (3, 224, 224)
        x, state = self.norm0(self.conv0(x), state)  # (64, 112, 112)
        x = eqx.nn.MaxPool2d(3, stride=2, padding=1)(jax.nn.relu(x))  # (64, 56, 56)
        layers = [*self.block1, self.transition1, *self.block2, self.transition2, *self.block3, self.transition3]
        for layer in layers + self.block4:
            x, state = layer(x, state)  # to (128, 28, 28), (256, 14, 14), (512, 7, 7), (1024, 7, 7)
        x, state = self.norm5(x, state)
        return self.classifier(jax.nn.relu(x).mean((1, 2))), state  # (14,)


def build_model():
    return eqx.nn.make_with_state(DenseNet)(jax.random.key(SEED))


# %% Loss
def loss_fn(model, state, images, labels):
    logits, state = jax.vmap(model, (0, None), (0, None), axis_name="batch")(images, state)  # (N, 14), one state
    return optax.sigmoid_binary_cross_entropy(logits, labels).mean(), state


# %% Optimizer
def make_optimizer(model):
    optimizer = optax.adam(LEARNING_RATE, BETA1, BETA2, EPSILON)
    return optimizer, optimizer.init(eqx.filter(model, eqx.is_inexact_array))


# %% Train step
@eqx.filter_jit(donate="all")
def train_step(model, state, optimizer, opt_state, images, labels):
    if len(images) % DEVICES.size == 0:  # an uneven last batch is every device's as a whole
        images, labels = jax.lax.with_sharding_constraint((images, labels), SPREAD)
    (loss, state), gradients = eqx.filter_value_and_grad(loss_fn, has_aux=True)(model, state, images, labels)
    updates, opt_state = optimizer.update(gradients, opt_state)
    # Counts n of batches stay 0: by 1 - 0.9ⁿ inference divides all statistics, though the variance starts at 1, not 0.
    state = jax.tree.map(lambda x: x if eqx.is_inexact_array(x) else 0 * x, state)
    return eqx.apply_updates(model, updates), state, opt_state, loss


# %% Evaluation
def evaluate(model, state, paths, labels):
    predict = eqx.filter_jit(eqx.filter_vmap(eqx.nn.inference_mode(model), in_axes=(0, None), out_axes=(0, None)))
    logits = np.concatenate([predict(images, state)[0] for images, _ in batches(paths, labels, training=False)])
    return roc_auc_score(labels, logits, average="macro")  # of logits as of probabilities: only ranks count


# %% Run
def main():
    (train_paths, train_labels), (test_paths, test_labels) = load_data()
    model, state = build_model()
    optimizer, opt_state = make_optimizer(model)
    for epoch in range(EPOCHS):
        for images, labels in batches(train_paths, train_labels, training=True):
            model, state, opt_state, loss = train_step(model, state, optimizer, opt_state, images, labels)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    print(f"test AUC {evaluate(model, state, test_paths, test_labels):.3f}")


if __name__ == "__main__":
    main()
