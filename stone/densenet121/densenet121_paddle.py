"""DenseNet-121 on chest X-rays in PaddlePaddle."""

# %% Imports
import itertools

import numpy as np
import paddle
import paddle.distributed as dist
import paddle.nn.functional as F
from paddle import nn
from paddle.io import DataLoader, Dataset, DistributedBatchSampler
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
RANK, REPLICAS = dist.get_rank(), dist.get_world_size()  # of paddle.distributed.launch


# %% Data
def load_data():
    return data.chestxray()  # paths, labels (N, 14)


class XRays(Dataset):
    def __init__(self, paths, labels, training):
        self.paths, self.labels, self.training = paths, labels, training

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, number):
        photo = Image.open(self.paths[number]).convert("RGB")
        # Pillow rounds to bytes what it resizes, but not channels of floats.
        channels = [
            channel.convert("F").resize((RESIZE, RESIZE), Image.Resampling.BILINEAR) for channel in photo.split()
        ]
        x = np.stack(channels) / 255  # (3, 264, 264)
        top = left = (RESIZE - SIZE) // 2
        if self.training:
            top, left = np.random.randint(RESIZE - SIZE + 1, size=2)
            if np.random.rand() < 0.5:
                x = x[:, :, ::-1]
        x = x[:, top : top + SIZE, left : left + SIZE]  # (3, 224, 224)
        return (x - np.float32(MEAN).reshape(3, 1, 1)) / np.float32(DEVIATION).reshape(3, 1, 1), self.labels[number]


epochs = itertools.count()


def batches(paths, labels, training):
    replicas, rank = (REPLICAS, RANK) if training else (1, 0)  # evaluation is each process's own
    images = XRays(paths, labels, training)
    sampler = DistributedBatchSampler(images, BATCH_SIZE // replicas, replicas, rank, shuffle=training)
    sampler.set_epoch(next(epochs))  # seeds the order
    return DataLoader(images, batch_sampler=sampler)


# %% Model
def norm(channels):
    return nn.BatchNorm2D(channels, 1 - NORM_MOMENTUM, NORM_EPSILON)  # Paddle's momentum weighs the old


def conv(inputs, outputs, size, stride=1):
    he_uniform = nn.initializer.KaimingUniform()
    return nn.Conv2D(inputs, outputs, size, stride, size // 2, weight_attr=he_uniform, bias_attr=False)


class DenseLayer(nn.Layer):
    def __init__(self, inputs):
        super().__init__()
        self.norm1, self.conv1 = norm(inputs), conv(inputs, 4 * GROWTH, 1)
        self.norm2, self.conv2 = norm(4 * GROWTH), conv(4 * GROWTH, GROWTH, 3)

    def forward(self, x):
        y = self.conv1(F.relu(self.norm1(x)))
        return paddle.concat([x, self.conv2(F.relu(self.norm2(y)))], axis=1)


class Transition(nn.Layer):
    def __init__(self, inputs):
        super().__init__()
        self.norm, self.conv = norm(inputs), conv(inputs, inputs // 2, 1)

    def forward(self, x):
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2)


class DenseNet(nn.Layer):
    def __init__(self):
        super().__init__()
        self.conv0, self.norm0 = conv(3, WIDTH, 7, stride=2), norm(WIDTH)
        channels = WIDTH
        for number, count in enumerate(BLOCKS, 1):
            layers = [DenseLayer(channels + GROWTH * i) for i in range(count)]
            self.add_sublayer(f"block{number}", nn.Sequential(*layers))
            channels += GROWTH * count
            if number < len(BLOCKS):
                self.add_sublayer(f"transition{number}", Transition(channels))
                channels //= 2
        self.norm5 = norm(channels)
        self.classifier = nn.Linear(channels, CLASSES)  # starts Glorot uniform, its bias at zero

    def forward(self, x):  # (N, 3, 224, 224)
        x = F.max_pool2d(F.relu(self.norm0(self.conv0(x))), 3, stride=2, padding=1)  # (N, 64, 56, 56)
        x = self.transition1(self.block1(x))  # (N, 128, 28, 28)
        x = self.transition2(self.block2(x))  # (N, 256, 14, 14)
        x = self.transition3(self.block3(x))  # (N, 512, 7, 7)
        x = F.relu(self.norm5(self.block4(x)))  # (N, 1024, 7, 7)
        return self.classifier(x.mean([2, 3]))  # (N, 14)


def build_model():
    return paddle.DataParallel(DenseNet()) if REPLICAS > 1 else DenseNet()


# %% Loss
def loss_fn(model, images, labels):
    logits = model(images)
    return F.binary_cross_entropy_with_logits(logits, labels.astype(logits.dtype))


# %% Optimizer
def make_optimizer(model):
    return paddle.optimizer.Adam(LEARNING_RATE, BETA1, BETA2, EPSILON, model.parameters())


# %% Train step
def train_step(model, optimizer, images, labels):
    model.train()
    loss = loss_fn(model, images, labels)
    loss.backward()
    optimizer.step()
    optimizer.clear_grad()
    return loss


# %% Evaluation
@paddle.no_grad()
def evaluate(model, paths, labels):
    model.eval()
    logits = paddle.concat([model(images) for images, _ in batches(paths, labels, training=False)])
    return roc_auc_score(labels, logits.numpy(), average="macro")  # of logits as of probabilities: only ranks count


# %% Run
def main():
    paddle.seed(SEED)
    np.random.seed(SEED + RANK)  # of crops and mirrors: each process augments images of its own
    if REPLICAS > 1:
        dist.init_parallel_env()
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
