"""ResNet-50 features of photos in Flax NNX."""

# %% Imports
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
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
    return (x - jnp.array(MEAN)) / jnp.array(DEVIATION)  # (224, 224, 3)


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
class Bottleneck(nnx.Module):
    def __init__(self, inputs, width, stride, project, rngs):
        conv = partial(nnx.Conv, use_bias=False, rngs=rngs)
        norm = partial(nnx.BatchNorm, epsilon=NORM_EPSILON, rngs=rngs)
        self.conv1 = conv(inputs, width, (1, 1))
        self.bn1 = norm(width)
        self.conv2 = conv(width, width, (3, 3), stride, padding=1)  # "SAME" pads one side only where the stride is 2
        self.bn2 = norm(width)
        self.conv3 = conv(width, 4 * width, (1, 1))
        self.bn3 = norm(4 * width)
        self.project = project
        if project:
            self.shortcut_conv = conv(inputs, 4 * width, (1, 1), stride)
            self.shortcut_bn = norm(4 * width)

    def __call__(self, x):
        shortcut = self.shortcut_bn(self.shortcut_conv(x)) if self.project else x
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = nnx.relu(self.bn2(self.conv2(y)))
        return nnx.relu(self.bn3(self.conv3(y)) + shortcut)


class ResNet(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, WIDTH, (7, 7), strides=2, padding=3, use_bias=False, rngs=rngs)
        self.bn1 = nnx.BatchNorm(WIDTH, epsilon=NORM_EPSILON, rngs=rngs)
        inputs = WIDTH
        for stage, blocks in enumerate(BLOCKS):
            width, stride = WIDTH * 2**stage, 1 if stage == 0 else 2
            layer = [Bottleneck(inputs, width, stride, project=True, rngs=rngs)]
            layer += [Bottleneck(4 * width, width, 1, project=False, rngs=rngs) for _ in range(blocks - 1)]
            setattr(self, f"layer{stage + 1}", nnx.List(layer))
            inputs = 4 * width

    def __call__(self, x):  # (N, 224, 224, 3)
        x = nnx.relu(self.bn1(self.conv1(x)))  # (N, 112, 112, 64)
        x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))  # (N, 56, 56, 64)
        for layer in self.layer1, self.layer2, self.layer3, self.layer4:  # (N, 56, 56, 256) to (N, 7, 7, 2048)
            for block in layer:
                x = block(x)
        return x.mean((1, 2))  # (N, 2048)


def build_model():
    return nnx.view(ResNet(nnx.Rngs(0)), use_running_average=True)  # batch norm goes by its running statistics


# %% Evaluation
@nnx.jit
def predict(model, images):
    return model(images)


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
