"""ResNet-50 features of photos in TensorFlow."""

# %% Imports
import numpy as np
import tensorflow as tf
from tensorflow.keras import layers

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
    # Decodes PNGs too. The default of JPEGs is a faster, less accurate inverse DCT.
    photo = tf.io.decode_jpeg(tf.io.read_file(path), channels=3, dct_method="INTEGER_ACCURATE")  # (H, W, 3)
    x = tf.cast(photo, tf.float32) / 255
    size = tf.shape(x)[:2] * RESIZE // tf.reduce_min(tf.shape(x)[:2])
    x = tf.image.resize(x, size, "bilinear", antialias=True)  # (256, …, 3)
    top, left = tf.unstack((size - SIZE) // 2)
    x = tf.image.crop_to_bounding_box(x, top, left, SIZE, SIZE)  # (224, 224, 3)
    return (x - MEAN) / DEVIATION


def batches(paths):
    dataset = tf.data.Dataset.from_tensor_slices([str(path) for path in paths])
    return dataset.map(preprocess, tf.data.AUTOTUNE).batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)


# %% Model
def conv(filters, side, stride=1):
    if stride == 1 or side == 1:
        return layers.Conv2D(filters, side, stride, padding="same", use_bias=False)
    # with a stride, "same" pads one more after than before
    padding = layers.ZeroPadding2D(side // 2)
    return tf.keras.Sequential([padding, layers.Conv2D(filters, side, stride, use_bias=False)])


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
        y = tf.nn.relu(self.bn1(self.conv1(x), training=training))
        y = tf.nn.relu(self.bn2(self.conv2(y), training=training))
        return tf.nn.relu(self.bn3(self.conv3(y), training=training) + shortcut)


class ResNet(tf.keras.Model):
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
        x = tf.nn.relu(self.bn1(self.conv1(x), training=training))  # (N, 112, 112, 64)
        x = tf.nn.max_pool2d(x, 3, 2, [[0, 0], [1, 1], [1, 1], [0, 0]])  # (N, 56, 56, 64)
        for block in self.layer1 + self.layer2 + self.layer3 + self.layer4:
            x = block(x, training=training)  # (N, 56, 56, 256), then 28, 512; 14, 1024; 7, 2048
        return tf.reduce_mean(x, (1, 2))  # (N, 2048)


def build_model():
    model = ResNet()
    model(tf.zeros((1, SIZE, SIZE, 3)))  # creates the variables
    return model


# %% Evaluation
@tf.function
def predict(model, images):
    return model(images, training=False)


def evaluate(model, paths):
    return tf.concat([predict(model, images) for images in batches(paths)], axis=0).numpy()  # (N, 2048)


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
