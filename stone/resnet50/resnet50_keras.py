"""ResNet-50 features of photos in Keras, for any backend."""

# %% Imports
import math

import keras
import numpy as np
from keras import layers, ops

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
    x = keras.utils.img_to_array(keras.utils.load_img(path), dtype="float32") / 255  # (H, W, 3)
    height, width, short = *x.shape[:2], min(x.shape[:2])
    size = height * RESIZE // short, width * RESIZE // short
    x = ops.image.resize(x, size, "bilinear", antialias=True)  # (256, …, 3)
    top, left = (size[0] - SIZE) // 2, (size[1] - SIZE) // 2
    x = x[top : top + SIZE, left : left + SIZE]  # (224, 224, 3)
    return (ops.convert_to_numpy(x) - np.array(MEAN, "float32")) / np.array(DEVIATION, "float32")


class Photos(keras.utils.PyDataset):
    def __init__(self, paths):
        super().__init__()
        self.paths = paths

    def __len__(self):
        return math.ceil(len(self.paths) / BATCH_SIZE)

    def __getitem__(self, number):
        chosen = self.paths[number * BATCH_SIZE : (number + 1) * BATCH_SIZE]
        return np.stack([preprocess(path) for path in chosen])


def batches(paths):
    return Photos(paths)


# %% Model
def conv(filters, side, stride=1):
    if stride == 1 or side == 1:
        return layers.Conv2D(filters, side, stride, padding="same", use_bias=False)
    # with a stride, "same" pads one more after than before
    padding = layers.ZeroPadding2D(side // 2)
    return keras.Sequential([padding, layers.Conv2D(filters, side, stride, use_bias=False)])


def norm():
    return layers.BatchNormalization(epsilon=NORM_EPSILON)


class Bottleneck(layers.Layer):
    def __init__(self, width, stride, project):
        super().__init__()
        self.conv1 = conv(width, 1)
        self.bn1 = norm()
        self.conv2 = conv(width, 3, stride)
        self.bn2 = norm()
        self.conv3 = conv(4 * width, 1)
        self.bn3 = norm()
        self.project = project
        if project:
            self.shortcut_conv = conv(4 * width, 1, stride)
            self.shortcut_bn = norm()

    def call(self, x, training=False):
        shortcut = self.shortcut_bn(self.shortcut_conv(x), training=training) if self.project else x
        y = ops.relu(self.bn1(self.conv1(x), training=training))
        y = ops.relu(self.bn2(self.conv2(y), training=training))
        return ops.relu(self.bn3(self.conv3(y), training=training) + shortcut)


class ResNet(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv1 = conv(WIDTH, 7, stride=2)
        self.bn1 = norm()
        for stage, blocks in enumerate(BLOCKS):
            width, stride = WIDTH * 2**stage, 1 if stage == 0 else 2
            layer = [Bottleneck(width, stride, project=True)]
            layer += [Bottleneck(width, 1, project=False) for _ in range(blocks - 1)]
            setattr(self, f"layer{stage + 1}", layer)

    def call(self, x, training=False):  # (N, 224, 224, 3)
        x = ops.relu(self.bn1(self.conv1(x), training=training))  # (N, 112, 112, 64)
        x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))  # zeros: nothing is smaller after a ReLU
        x = ops.max_pool(x, 3, 2)  # (N, 56, 56, 64)
        for block in self.layer1 + self.layer2 + self.layer3 + self.layer4:
            x = block(x, training=training)  # (N, 56, 56, 256), then 28, 512; 14, 1024; 7, 2048
        return ops.mean(x, (1, 2))  # (N, 2048)


def build_model():
    model = ResNet()
    model(np.zeros((1, SIZE, SIZE, 3), "float32"))  # creates the variables
    return model


# %% Evaluation
def predict(model, images):
    return model.predict(images, verbose=0)  # of an array, or of all batches of a dataset


def evaluate(model, paths):
    return predict(model, batches(paths))  # (N, 2048)


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
