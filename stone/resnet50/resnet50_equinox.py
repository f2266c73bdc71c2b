"""ResNet-50 features of photos in Equinox."""

# %% Imports
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from equinox import nn
from jax import random
from PIL import Image

from dlrosetta import data

# %% Configuration
BATCH_SIZE = 32
RESIZE, SIZE = 256, 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WIDTH = 64
BLOCKS = (3, 4, 6, 3)
NORM_EPSILON = 1e-5


# %% Data
def load_data():
    return data.photos()  # paths


@jax.jit
def resize_and_crop(photo, scale, translation):
    x = jax.image.scale_and_translate(
        photo / 255, (SIZE, SIZE, 3), (0, 1), scale, translation, "bilinear", antialias=True
    )
    return jnp.moveaxis((x - jnp.array(MEAN)) / jnp.array(DEVIATION), 2, 0)  # (3, 224, 224)


def preprocess(path):
    photo = np.array(Image.open(path).convert("RGB"))  # (H, W, 3)
    old = np.array(photo.shape[:2])
    new = old * RESIZE // old.min()
    # Each shape is compiled for: sides are brought to multiples of 256, by pixels like those of the border, and what
    # differs from photo to photo is an argument.
    photo = np.pad(photo, [(0, -old[0] % 256), (0, -old[1] % 256), (0, 0)], mode="edge")
    return resize_and_crop(photo, new / old, -((new - SIZE) // 2))


def batches(paths):
    for start in range(0, len(paths), BATCH_SIZE):  # the last batch is smaller, and compiled for its own shape
        yield jnp.stack([preprocess(path) for path in paths[start : start + BATCH_SIZE]])


# %% Model
def convolution(inputs, outputs, side, stride, key):
    return nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, use_bias=False, key=key)


def norm(channels):
    return nn.BatchNorm(channels, axis_name="batch", eps=NORM_EPSILON, mode="batch")


class Bottleneck(eqx.Module):
    conv1: nn.Conv2d
    bn1: nn.BatchNorm
    conv2: nn.Conv2d
    bn2: nn.BatchNorm
    conv3: nn.Conv2d
    bn3: nn.BatchNorm
    shortcut_conv: nn.Conv2d | None
    shortcut_bn: nn.BatchNorm | None

    def __init__(self, inputs, width, stride, project, key):
        keys = random.split(key, 4)
        self.conv1 = convolution(inputs, width, 1, 1, keys[0])
        self.bn1 = norm(width)
        self.conv2 = convolution(width, width, 3, stride, keys[1])
        self.bn2 = norm(width)
        self.conv3 = convolution(width, 4 * width, 1, 1, keys[2])
        self.bn3 = norm(4 * width)
        self.shortcut_conv = convolution(inputs, 4 * width, 1, stride, keys[3]) if project else None
        self.shortcut_bn = norm(4 * width) if project else None

    def __call__(self, x, state):  # `state` holds the running statistics, which a model that never changes cannot
        shortcut = x
        if self.shortcut_conv is not None:
            shortcut, state = self.shortcut_bn(self.shortcut_conv(x), state)
        y, state = self.bn1(self.conv1(x), state)
        y, state = self.bn2(self.conv2(jax.nn.relu(y)), state)
        y, state = self.bn3(self.conv3(jax.nn.relu(y)), state)
        return jax.nn.relu(y + shortcut), state


class ResNet(eqx.Module):
    conv1: nn.Conv2d
    bn1: nn.BatchNorm
    max_pool: nn.MaxPool2d
    layer1: list
    layer2: list
    layer3: list
    layer4: list

    def __init__(self, key):
        key, conv_key = random.split(key)
        self.conv1 = convolution(3, WIDTH, 7, 2, conv_key)
        self.bn1 = norm(WIDTH)
        self.max_pool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = WIDTH
        for stage, blocks in enumerate(BLOCKS):
            width, stride = WIDTH * 2**stage, 1 if stage == 0 else 2
            key, *keys = random.split(key, blocks + 1)
            layer = [Bottleneck(inputs, width, stride, True, keys[0])]
            layer += [Bottleneck(4 * width, width, 1, False, key) for key in keys[1:]]
            setattr(self, f"layer{stage + 1}", layer)
            inputs = 4 * width

    def __call__(self, x, state):  # one image: (3, 224, 224)
        x, state = self.bn1(self.conv1(x), state)  # (64, 112, 112)
        x = self.max_pool(jax.nn.relu(x))  # (64, 56, 56)
        for block in [*self.layer1, *self.layer2, *self.layer3, *self.layer4]:  # (256, 56, 56) to (2048, 7, 7)
            x, state = block(x, state)
        return x.mean((1, 2)), state  # (2048,)


def build_model():
    model, state = nn.make_with_state(ResNet)(random.key(0))
    return eqx.Partial(nn.inference_mode(model), state=state)


# %% Evaluation
@eqx.filter_jit
def predict(model, images):
    features, _ = jax.vmap(model, out_axes=(0, None))(images)
    return features


def evaluate(model, paths):
    return np.concatenate([predict(model, images) for images in batches(paths)])  # (N, 2048)


# %% Run
def main():
    paths = load_data()
    features = evaluate(build_model(), paths)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    likeness = features @ features.T - 2 * np.eye(len(paths))  # cosines; none with itself
    for number, nearest in enumerate(likeness.argmax(1)):
        print(f"{paths[number].name}: most like {paths[nearest].name}")


if __name__ == "__main__":
    main()
