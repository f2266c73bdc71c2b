"""DenseNet-121 on chest X-rays in tinygrad."""

# %% Imports
from functools import cache

import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score
from tinygrad import Context, Tensor, TinyJit, nn

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
    x = np.stack(channels) / 255  # (3, 264, 264)
    top = left = (RESIZE - SIZE) // 2
    if training:
        top, left = np.random.randint(RESIZE - SIZE + 1, size=2)
        if np.random.rand() < 0.5:
            x = x[:, :, ::-1]
    x = x[:, top : top + SIZE, left : left + SIZE]  # (3, 224, 224)
    return (x - np.float32(MEAN).reshape(3, 1, 1)) / np.float32(DEVIATION).reshape(3, 1, 1)


def batches(paths, labels, training):
    order = np.random.permutation(len(paths)) if training else np.arange(len(paths))
    for start in range(0, len(paths), BATCH_SIZE):
        chosen = order[start : start + BATCH_SIZE]
        yield Tensor(np.stack([preprocess(paths[i], training) for i in chosen])), Tensor(labels[chosen])


# %% Model
def norm(channels):
    return nn.BatchNorm(channels, NORM_EPSILON, momentum=NORM_MOMENTUM)


def conv(inputs, outputs, size, stride=1):
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    layer.weight = Tensor.kaiming_uniform(*layer.weight.shape, a=0)  # of a ReLU; tinygrad's is a leaky one
    return layer


class DenseLayer:
    def __init__(self, inputs):
        self.norm1, self.conv1 = norm(inputs), conv(inputs, 4 * GROWTH, 1)
        self.norm2, self.conv2 = norm(4 * GROWTH), conv(4 * GROWTH, GROWTH, 3)

    def __call__(self, x):
        y = self.conv1(self.norm1(x).relu())
        return x.cat(self.conv2(self.norm2(y).relu()), dim=1)


class Transition:
    def __init__(self, inputs):
        self.norm, self.conv = norm(inputs), conv(inputs, inputs // 2, 1)

    def __call__(self, x):
        return self.conv(self.norm(x).relu()).avg_pool2d(2)


class DenseNet:
    def __init__(self):
        self.conv0, self.norm0 = conv(3, WIDTH, 7, stride=2), norm(WIDTH)
        channels = WIDTH
        for number, count in enumerate(BLOCKS, 1):
            setattr(self, f"block{number}", [DenseLayer(channels + GROWTH * i) for i in range(count)])
            channels += GROWTH * count
            if number < len(BLOCKS):
                setattr(self, f"transition{number}", Transition(channels))
                channels //= 2
        self.norm5, self.classifier = norm(channels), nn.Linear(channels, CLASSES)
        self.classifier.weight = Tensor.glorot_uniform(*self.classifier.weight.shape)
        self.classifier.bias = Tensor.zeros(CLASSES)

    def __call__(self, x):  # (N, 3, 224, 224)
        x = self.norm0(self.conv0(x)).relu().max_pool2d(3, stride=2, padding=1)  # (N, 64, 56, 56)
        x = self.transition1(x.sequential(self.block1))  # (N, 128, 28, 28)
        x = self.transition2(x.sequential(self.block2))  # (N, 256, 14, 14)
        x = self.transition3(x.sequential(self.block3))  # (N, 512, 7, 7)
        x = self.norm5(x.sequential(self.block4)).relu()  # (N, 1024, 7, 7)
        return self.classifier(x.mean((2, 3)))  # (N, 14)


def build_model():
    return DenseNet()


# %% Loss
def loss_fn(model, images, labels):
    return model(images).binary_crossentropy_logits(labels)


# %% Optimizer
def make_optimizer(model):
    return nn.optim.Adam(nn.state.get_parameters(model), LEARNING_RATE, BETA1, BETA2, EPSILON)


# %% Train step
@cache
def compiled_step(model, optimizer, size):  # TinyJit records one model, and batches of one size
    @TinyJit
    @Context(TRAINING=1)
    def step(images, labels):
        optimizer.zero_grad()
        loss = loss_fn(model, images, labels).backward()
        return loss.realize(*optimizer.schedule_step())  # running statistics are among these

    return step


def train_step(model, optimizer, images, labels):
    return compiled_step(model, optimizer, len(labels))(images, labels)


# %% Evaluation
@cache
def compiled(model, size):  # puts every result into the same buffer, hence a copy of each
    return TinyJit(lambda images: model(images).realize())


def evaluate(model, paths, labels):
    logits = [compiled(model, len(y))(x).numpy() for x, y in batches(paths, labels, training=False)]
    return roc_auc_score(labels, np.concatenate(logits), average="macro")  # of logits: only ranks count


# %% Run
def main():
    Tensor.manual_seed(SEED)
    np.random.seed(SEED)
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
