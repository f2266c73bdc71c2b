"""ResNet-50 features of photos in OneFlow."""

# %% Imports
import numpy as np
import oneflow as flow
import oneflow.nn.functional as F
from oneflow import nn
from oneflow.utils.data import DataLoader, Dataset
from PIL import Image

from dlrosetta import data

# %% Configuration
BATCH_SIZE = 32
RESIZE, SIZE = 256, 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WIDTH = 64
BLOCKS = (3, 4, 6, 3)
NORM_EPSILON = 1e-5
DEVICE = "cuda" if flow.cuda.is_available() else "cpu"


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
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, number):
        return preprocess(self.paths[number])


def batches(paths):
    return DataLoader(Photos(paths), BATCH_SIZE)


# %% Model
class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride, project):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, NORM_EPSILON)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width, NORM_EPSILON)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width, NORM_EPSILON)
        self.project = project
        if project:
            self.shortcut_conv = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
            self.shortcut_bn = nn.BatchNorm2d(4 * width, NORM_EPSILON)

    def forward(self, x):
        shortcut = self.shortcut_bn(self.shortcut_conv(x)) if self.project else x
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + shortcut)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH, NORM_EPSILON)
        inputs = WIDTH
        for stage, blocks in enumerate(BLOCKS):
            width, stride = WIDTH * 2**stage, 1 if stage == 0 else 2
            layer = [Bottleneck(inputs, width, stride, project=True)]
            layer += [Bottleneck(4 * width, width, 1, project=False) for _ in range(blocks - 1)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layer))
            inputs = 4 * width

    def forward(self, x):  # (N, 3, 224, 224)
        x = F.relu(self.bn1(self.conv1(x)))  # (N, 64, 112, 112)
        x = F.max_pool2d(x, 3, stride=2, padding=1)  # (N, 64, 56, 56)
        x = self.layer1(x)  # (N, 256, 56, 56)
        x = self.layer2(x)  # (N, 512, 28, 28)
        x = self.layer3(x)  # (N, 1024, 14, 14)
        x = self.layer4(x)  # (N, 2048, 7, 7)
        return x.mean((2, 3))  # (N, 2048)


def build_model():
    return ResNet().to(DEVICE).eval()


# %% Evaluation
@flow.no_grad()
def predict(model, images):
    return model(images.to(DEVICE))


def evaluate(model, paths):
    return flow.cat([predict(model, images) for images in batches(paths)]).cpu().numpy()  # (N, 2048)


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
