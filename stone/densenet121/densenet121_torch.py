"""DenseNet-121 on chest X-rays in PyTorch."""

# %% Imports
import itertools
import os

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

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
RANK, REPLICAS = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))  # of torchrun
DEVICE = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")


# %% Data
def load_data():
    return data.chestxray()  # paths, labels (N, 14)


class XRays(Dataset):
    def __init__(self, paths, labels, training):
        self.paths, self.labels, self.training = paths, torch.from_numpy(labels), training

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, number):
        x = torch.from_numpy(np.array(Image.open(self.paths[number]).convert("RGB"))).permute(2, 0, 1)[None] / 255
        x = F.interpolate(x, (RESIZE, RESIZE), mode="bilinear", antialias=True)[0]  # (3, 264, 264)
        top = left = (RESIZE - SIZE) // 2
        if self.training:
            top, left = torch.randint(RESIZE - SIZE + 1, (2,)).tolist()
            if torch.rand(()) < 0.5:
                x = x.flip(2)
        x = x[:, top : top + SIZE, left : left + SIZE]
        return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1), self.labels[number]


epochs = itertools.count()


def batches(paths, labels, training):
    replicas, rank = (REPLICAS, RANK) if training else (1, 0)  # evaluation is each process's own
    images = XRays(paths, labels, training)
    sampler = DistributedSampler(images, replicas, rank, shuffle=training, seed=next(epochs))
    return DataLoader(images, BATCH_SIZE // replicas, sampler=sampler, pin_memory=DEVICE.type == "cuda")


# %% Model
def norm(channels):
    return nn.BatchNorm2d(channels, NORM_EPSILON, NORM_MOMENTUM)


def conv(inputs, outputs, size, stride=1):
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    return layer


class DenseLayer(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.norm1, self.conv1 = norm(inputs), conv(inputs, 4 * GROWTH, 1)
        self.norm2, self.conv2 = norm(4 * GROWTH), conv(4 * GROWTH, GROWTH, 3)

    def forward(self, x):
        y = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], dim=1)


class Transition(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.norm, self.conv = norm(inputs), conv(inputs, inputs // 2, 1)

    def forward(self, x):
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2)


class DenseNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv0, self.norm0 = conv(3, WIDTH, 7, stride=2), norm(WIDTH)
        channels = WIDTH
        for number, count in enumerate(BLOCKS, 1):
            layers = [DenseLayer(channels + GROWTH * i) for i in range(count)]
            self.add_module(f"block{number}", nn.Sequential(*layers))
            channels += GROWTH * count
            if number < len(BLOCKS):
                self.add_module(f"transition{number}", Transition(channels))
                channels //= 2
        self.norm5 = norm(channels)
        self.classifier = nn.Linear(channels, CLASSES)
        nn.init.xavier_uniform_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x):  # (N, 3, 224, 224)
        x = F.max_pool2d(F.relu(self.norm0(self.conv0(x))), 3, stride=2, padding=1)  # (N, 64, 56, 56)
        x = self.transition1(self.block1(x))  # (N, 128, 28, 28)
        x = self.transition2(self.block2(x))  # (N, 256, 14, 14)
        x = self.transition3(self.block3(x))  # (N, 512, 7, 7)
        x = F.relu(self.norm5(self.block4(x)))  # (N, 1024, 7, 7)
        return self.classifier(x.mean((2, 3)))  # (N, 14)


def build_model():
    model = DenseNet().to(DEVICE)
    return DistributedDataParallel(model) if REPLICAS > 1 else model


# %% Loss
def loss_fn(model, images, labels):
    logits = model(images)
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


# %% Optimizer
def make_optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, betas=(BETA1, BETA2), eps=EPSILON)


# %% Train step
def train_step(model, optimizer, images, labels):
    images, labels = images.to(DEVICE, non_blocking=True), labels.to(DEVICE, non_blocking=True)
    model.train()
    optimizer.zero_grad()
    loss = loss_fn(model, images, labels)
    loss.backward()
    optimizer.step()
    return loss.detach()


# %% Evaluation
@torch.inference_mode()
def evaluate(model, paths, labels):
    model.eval()
    logits = torch.cat([model(images.to(DEVICE)) for images, _ in batches(paths, labels, training=False)])
    return roc_auc_score(labels, logits.cpu(), average="macro")  # of logits as of probabilities: only ranks count


# %% Run
def main():
    torch.manual_seed(SEED + RANK)  # each process augments images of its own
    if REPLICAS > 1:
        dist.init_process_group()
        if DEVICE.type != "cpu":
            torch.accelerator.set_device_index(int(os.environ["LOCAL_RANK"]))
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
