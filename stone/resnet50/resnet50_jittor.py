"""ResNet-50 features of photos in Jittor."""

# %% Imports
import jittor as jt
import numpy as np
from jittor import nn
from jittor.dataset import Dataset
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


def preprocess(path):
    photo = Image.open(path).convert("RGB")
    size = [side * RESIZE // min(photo.size) for side in photo.size]
    # Pillow rounds to bytes what it resizes, but not channels of floats.
    channels = [channel.convert("F").resize(size, Image.Resampling.BILINEAR) for channel in photo.split()]
    x = np.stack(channels) / 255  # (3, 256, …)
    top, left = (x.shape[1] - SIZE) // 2, (x.shape[2] - SIZE) // 2
    x = x[:, top : top + SIZE, left : left + SIZE]  # (3, 224, 224)
    return (x - np.float32(MEAN).reshape(3, 1, 1)) / np.float32(DEVIATION).reshape(3, 1, 1)


class Photos(Dataset):
    def __init__(self, paths):
        super().__init__(batch_size=BATCH_SIZE)
        self.paths = paths
        self.set_attrs(total_len=len(paths))

    def __getitem__(self, number):
        return preprocess(self.paths[number])


def batches(paths):
    return Photos(paths)


# %% Model
def conv(inputs, outputs, side, stride=1):
    return nn.Conv(inputs, outputs, side, stride, padding=side // 2, bias=False)


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride, project):
        super().__init__()
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

    def execute(self, x):
        shortcut = self.shortcut_bn(self.shortcut_conv(x)) if self.project else x
        y = nn.relu(self.bn1(self.conv1(x)))
        y = nn.relu(self.bn2(self.conv2(y)))
        return nn.relu(self.bn3(self.conv3(y)) + shortcut)


def stage(number):
    width, stride = WIDTH * 2**number, 1 if number == 0 else 2
    blocks = [Bottleneck(WIDTH if number == 0 else 2 * width, width, stride, project=True)]
    blocks += [Bottleneck(4 * width, width, 1, project=False) for _ in range(BLOCKS[number] - 1)]
    return nn.Sequential(*blocks)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = conv(3, WIDTH, 7, stride=2)
        self.bn1 = nn.BatchNorm(WIDTH, NORM_EPSILON)
        self.layer1, self.layer2, self.layer3, self.layer4 = (stage(number) for number in range(4))

    def execute(self, x):  # (N, 3, 224, 224)
        x = nn.relu(self.bn1(self.conv1(x)))  # (N, 64, 112, 112)
        x = nn.max_pool2d(x, 3, stride=2, padding=1)  # (N, 64, 56, 56)
        x = self.layer1(x)  # (N, 256, 56, 56)
        x = self.layer2(x)  # (N, 512, 28, 28)
        x = self.layer3(x)  # (N, 1024, 14, 14)
        x = self.layer4(x)  # (N, 2048, 7, 7)
        return x.mean((2, 3))  # (N, 2048)


def build_model():
    model = ResNet()
    model.eval()
    return model


# %% Evaluation
@jt.no_grad()
def predict(model, images):
    return model(images)


def evaluate(model, paths):
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
