"""ResNet-50 features of photos in tinygrad."""

# %% Imports
from functools import cache

import numpy as np
from PIL import Image
from tinygrad import Tensor, TinyJit, nn

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


def preprocess(path):
    photo = Image.open(path).convert("RGB")
    size = [side * RESIZE // min(photo.size) for side in photo.size]
    # Pillow rounds to bytes what it resizes, but not channels of floats.
    channels = [channel.convert("F").resize(size, Image.Resampling.BILINEAR) for channel in photo.split()]
    x = np.stack(channels) / 255  # (3, 256, …)
    top, left = (x.shape[1] - SIZE) // 2, (x.shape[2] - SIZE) // 2
    x = x[:, top : top + SIZE, left : left + SIZE]  # (3, 224, 224)
    return (x - np.float32(MEAN).reshape(3, 1, 1)) / np.float32(DEVIATION).reshape(3, 1, 1)


def batches(paths):
    for start in range(0, len(paths), BATCH_SIZE):
        yield Tensor(np.stack([preprocess(path) for path in paths[start : start + BATCH_SIZE]]))


# %% Model
def conv(inputs, outputs, side, stride=1):
    return nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, bias=False)


class Bottleneck:
    def __init__(self, inputs, width, stride, project):
        self.conv1 = conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm(width, NORM_EPSILON)
        self.conv2 = conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm(width, NORM_EPSILON)
        self.conv3 = conv(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm(4 * width, NORM_EPSILON)
        self.project = project
        if project:
            self.shortcut_conv = conv(inputs, 4 * width, 1, stride)
            self.shortcut_bn = nn.BatchNorm(4 * width, NORM_EPSILON)

    def __call__(self, x):
        shortcut = self.shortcut_bn(self.shortcut_conv(x)) if self.project else x
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(y)) + shortcut).relu()


def stage(number):
    width, stride = WIDTH * 2**number, 1 if number == 0 else 2
    blocks = [Bottleneck(WIDTH if number == 0 else 2 * width, width, stride, project=True)]
    return blocks + [Bottleneck(4 * width, width, 1, project=False) for _ in range(BLOCKS[number] - 1)]


class ResNet:
    def __init__(self):
        self.conv1 = conv(3, WIDTH, 7, stride=2)
        self.bn1 = nn.BatchNorm(WIDTH, NORM_EPSILON)
        self.layer1, self.layer2, self.layer3, self.layer4 = (stage(number) for number in range(4))

    def __call__(self, x):  # (N, 3, 224, 224)
        x = self.bn1(self.conv1(x)).relu()  # (N, 64, 112, 112)
        x = x.max_pool2d(3, stride=2, padding=1)  # (N, 64, 56, 56)
        x = x.sequential(self.layer1)  # (N, 256, 56, 56)
        x = x.sequential(self.layer2)  # (N, 512, 28, 28)
        x = x.sequential(self.layer3)  # (N, 1024, 14, 14)
        x = x.sequential(self.layer4)  # (N, 2048, 7, 7)
        return x.mean((2, 3))  # (N, 2048)


def build_model():
    return ResNet()


# %% Evaluation
@cache
def compiled(model, size):  # TinyJit records one model, and batches of one size
    return TinyJit(lambda images: model(images).realize())


def predict(model, images):
    return compiled(model, len(images))(images)


def evaluate(model, paths):
    # Copied batch by batch: what is compiled puts every result into the same buffer.
    return np.concatenate([predict(model, images).numpy() for images in batches(paths)])  # (N, 2048)


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
