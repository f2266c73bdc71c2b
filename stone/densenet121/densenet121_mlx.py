"""DenseNet-121 on chest X-rays in MLX."""

# %% Imports
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
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


# %% Data
def load_data():
    return data.chestxray()  # paths, labels (N, 14)


def preprocess(path, training):
    photo = Image.open(path).convert("RGB")
    # Pillow rounds to bytes what it resizes, but not channels of floats.
    channels = [channel.convert("F").resize((RESIZE, RESIZE), Image.Resampling.BILINEAR) for channel in photo.split()]
    x = np.stack(channels, axis=2) / 255  # (264, 264, 3)
    top = left = (RESIZE - SIZE) // 2
    if training:
        top, left = mx.random.randint(0, RESIZE - SIZE + 1, (2,)).tolist()
        if mx.random.uniform() < 0.5:
            x = x[:, ::-1]
    return (x[top : top + SIZE, left : left + SIZE] - np.float32(MEAN)) / np.float32(DEVIATION)  # (224, 224, 3)


def batches(paths, labels, training):
    order = mx.random.permutation(len(paths)).tolist() if training else range(len(paths))
    for start in range(0, len(paths), BATCH_SIZE):  # the last batch is smaller, and compiled for its own shape
        chosen = order[start : start + BATCH_SIZE]
        yield mx.array(np.stack([preprocess(paths[i], training) for i in chosen])), mx.array(labels[chosen])


# %% Model
norm = partial(nn.BatchNorm, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)  # which weighs the new
conv = partial(nn.Conv2d, bias=False)


class DenseLayer(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.norm1, self.conv1 = norm(inputs), conv(inputs, 4 * GROWTH, 1)
        self.norm2, self.conv2 = norm(4 * GROWTH), conv(4 * GROWTH, GROWTH, 3, padding=1)

    def __call__(self, x):
        y = self.conv1(nn.relu(self.norm1(x)))
        return mx.concatenate([x, self.conv2(nn.relu(self.norm2(y)))], axis=3)


class Transition(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.norm, self.conv = norm(inputs), conv(inputs, inputs // 2, 1)

    def __call__(self, x):
        return nn.AvgPool2d(2)(self.conv(nn.relu(self.norm(x))))


class DenseNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv0, self.norm0 = conv(3, WIDTH, 7, stride=2, padding=3), norm(WIDTH)
        channels = WIDTH
        for number, count in enumerate(BLOCKS, 1):
            self[f"block{number}"] = [DenseLayer(channels + GROWTH * i) for i in range(count)]  # a module is a dict
            channels += GROWTH * count
            if number < len(BLOCKS):
                self[f"transition{number}"] = Transition(channels)
                channels //= 2
        self.norm5, self.classifier = norm(channels), nn.Linear(channels, CLASSES)
        self.apply(lambda value: nn.init.he_uniform()(value, gain=2**0.5) if value.ndim == 4 else value)
        self.classifier.weight = nn.init.glorot_uniform()(self.classifier.weight)
        self.classifier.bias = mx.zeros_like(self.classifier.bias)

    def __call__(self, x):  # (N, 224, 224, 3)
        x = nn.MaxPool2d(3, stride=2, padding=1)(nn.relu(self.norm0(self.conv0(x))))  # (N, 56, 56, 64)
        layers = [*self.block1, self.transition1, *self.block2, self.transition2, *self.block3, self.transition3]
        for layer in layers + self.block4:
            x = layer(x)  # (N, 28, 28, 128), (N, 14, 14, 256), (N, 7, 7, 512) after transitions, (N, 7, 7, 1024)
        return self.classifier(nn.relu(self.norm5(x)).mean((1, 2)))  # (N, 14)


def build_model():
    model = DenseNet()
    mx.eval(model.parameters())  # arrays are lazy: until now nothing has been drawn
    return model


# %% Loss
def loss_fn(model, images, labels):
    return nn.losses.binary_cross_entropy(model(images), labels)  # of logits, averaged


# %% Optimizer
def make_optimizer(model):
    optimizer = optim.Adam(LEARNING_RATE, [BETA1, BETA2], EPSILON, bias_correction=True)  # not by default
    optimizer.init(model.trainable_parameters())
    return optimizer


# %% Train step
def train_step(model, optimizer):
    state = [model.state, optimizer.state]  # what a compiled step reads and writes

    @partial(mx.compile, inputs=state, outputs=state)
    def update(images, labels):
        model.train()
        loss, gradients = nn.value_and_grad(model, loss_fn)(model, images, labels)
        optimizer.update(model, gradients)
        return loss

    def step(images, labels):
        loss = update(images, labels)
        mx.eval(loss, state)  # nothing is computed before; the graph would grow from step to step
        return loss

    return step


# %% Evaluation
def evaluate(model, paths, labels):
    model.eval()
    logits = np.concatenate([model(images) for images, _ in batches(paths, labels, training=False)])
    return roc_auc_score(labels, logits, average="macro")  # of logits as of probabilities: only ranks count


# %% Run
def main():
    mx.random.seed(SEED)
    (train_paths, train_labels), (test_paths, test_labels) = load_data()
    model = build_model()
    optimizer = make_optimizer(model)
    step = train_step(model, optimizer)
    for epoch in range(EPOCHS):
        for images, labels in batches(train_paths, train_labels, training=True):
            loss = step(images, labels)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    print(f"test AUC {evaluate(model, test_paths, test_labels):.3f}")


if __name__ == "__main__":
    main()
