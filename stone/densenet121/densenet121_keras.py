"""DenseNet-121 on chest X-rays in Keras, for any backend."""

# %% Imports
import math

import keras
import numpy as np
from keras import layers, ops
from sklearn.metrics import roc_auc_score

from dlrosetta import data

BACKEND = keras.backend.backend()
if BACKEND == "tensorflow":
    import tensorflow as tf

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
DEVICES = len(keras.distribution.list_devices()) if BACKEND in ("jax", "tensorflow") else 1


# %% Data
def load_data():
    return data.chestxray()  # paths, labels (N, 14)


def load(path, training):
    x = keras.utils.img_to_array(keras.utils.load_img(path), dtype="float32") / 255  # (H, W, 3)
    x = ops.convert_to_numpy(ops.image.resize(x, (RESIZE, RESIZE), "bilinear", antialias=True))  # (264, 264, 3)
    top = left = (RESIZE - SIZE) // 2
    if training:  # RandomCrop and RandomFlip are for batches: the one cuts all its images at one place
        top, left = np.random.randint(RESIZE - SIZE + 1, size=2)
        if np.random.random() < 0.5:
            x = x[:, ::-1]
    x = x[top : top + SIZE, left : left + SIZE]  # (224, 224, 3)
    return (x - np.array(MEAN, "float32")) / np.array(DEVIATION, "float32")


class XRays(keras.utils.PyDataset):
    def __init__(self, paths, labels, training):
        super().__init__()
        self.paths, self.labels, self.training = paths, labels, training
        order = np.random.permutation(len(paths)) if training else np.arange(len(paths))
        self.order = np.resize(order, math.ceil(len(order) / DEVICES) * DEVICES)  # filled up: as many for each device
        self.size = BATCH_SIZE // DEVICES * DEVICES

    def __len__(self):
        return math.ceil(len(self.order) / self.size)

    def __getitem__(self, number):
        chosen = self.order[number * self.size : (number + 1) * self.size]
        return np.stack([load(self.paths[i], self.training) for i in chosen]), self.labels[chosen]


def batches(paths, labels, training):
    return XRays(paths, labels, training)


# %% Model
def norm():
    return layers.BatchNormalization(momentum=1 - NORM_MOMENTUM, epsilon=NORM_EPSILON)  # Keras's weighs the old


def conv(filters, side):
    return layers.Conv2D(filters, side, padding="same", use_bias=False, kernel_initializer="he_uniform")


class DenseLayer(layers.Layer):
    def __init__(self):
        super().__init__()
        self.norm1, self.conv1 = norm(), conv(4 * GROWTH, 1)
        self.norm2, self.conv2 = norm(), conv(GROWTH, 3)

    def call(self, x, training=False):
        y = self.conv1(ops.relu(self.norm1(x, training=training)))
        y = self.conv2(ops.relu(self.norm2(y, training=training)))
        return ops.concatenate([x, y], axis=-1)


class Transition(layers.Layer):
    def __init__(self, filters):
        super().__init__()
        self.norm, self.conv = norm(), conv(filters, 1)

    def call(self, x, training=False):
        return ops.average_pool(self.conv(ops.relu(self.norm(x, training=training))), 2, 2)


class DenseNet(keras.Model):
    def __init__(self):
        super().__init__()
        first = layers.Conv2D(WIDTH, 7, 2, use_bias=False, kernel_initializer="he_uniform")
        self.conv0 = keras.Sequential([layers.ZeroPadding2D(3), first])  # "same" pads one more after than before
        self.norm0 = norm()
        channels = WIDTH
        for number, count in enumerate(BLOCKS, 1):
            setattr(self, f"block{number}", [DenseLayer() for _ in range(count)])
            channels += GROWTH * count
            if number < len(BLOCKS):
                channels //= 2
                setattr(self, f"transition{number}", Transition(channels))
        self.norm5 = norm()
        self.classifier = layers.Dense(CLASSES)

    def call(self, x, training=False):  # (N, 224, 224, 3)
        x = ops.relu(self.norm0(self.conv0(x), training=training))  # (N, 112, 112, 64)
        x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))  # zeros: nothing is smaller after a ReLU
        x = ops.max_pool(x, 3, 2)  # (N, 56, 56, 64)
        early = *self.block1, self.transition1, *self.block2, self.transition2  # to (N, 28, 28, 128), (N, 14, 14, 256)
        late = *self.block3, self.transition3, *self.block4  # to (N, 7, 7, 512), (N, 7, 7, 1024)
        for layer in early + late:
            x = layer(x, training=training)
        x = ops.relu(self.norm5(x, training=training))
        return self.classifier(ops.mean(x, (1, 2)))  # (N, 14)


def build_model():
    if DEVICES > 1 and BACKEND == "jax":
        keras.distribution.set_distribution(keras.distribution.DataParallel())
    elif DEVICES > 1:
        tf.distribute.experimental_set_strategy(tf.distribute.MirroredStrategy())
    model = DenseNet()
    model(keras.Input((SIZE, SIZE, 3)))  # creates the variables, and computes nothing yet
    return model


# %% Loss
loss_fn = keras.losses.BinaryCrossentropy(from_logits=True)


# %% Optimizer
def make_optimizer(model):
    optimizer = keras.optimizers.Adam(LEARNING_RATE, BETA1, BETA2, EPSILON)
    model.compile(optimizer, loss_fn)
    return optimizer


# %% Train step
def train_step(model, images, labels):
    if DEVICES > 1 and BACKEND == "tensorflow":  # where train_on_batch gives each replica the whole batch
        return model.fit(images, labels, len(images), shuffle=False, verbose=0).history["loss"][0]
    return model.train_on_batch(images, labels)


# %% Evaluation
def evaluate(model, paths, labels):
    logits = model.predict(batches(paths, labels, training=False), verbose=0)[: len(labels)]
    return roc_auc_score(labels, logits, average="macro")  # of logits as of probabilities: only ranks count


# %% Run
def main():
    keras.utils.set_random_seed(SEED)
    (train_paths, train_labels), (test_paths, test_labels) = load_data()
    model = build_model()
    make_optimizer(model)
    for epoch in range(EPOCHS):
        for images, labels in batches(train_paths, train_labels, training=True):
            loss = train_step(model, images, labels)
        print(f"epoch {epoch + 1}: loss {loss:.3f}")
    print(f"test AUC {evaluate(model, test_paths, test_labels):.3f}")


if __name__ == "__main__":
    main()
