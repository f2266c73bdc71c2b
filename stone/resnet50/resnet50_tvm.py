"""ResNet-50 features of photos in Apache TVM."""

# %% Imports
import numpy as np
import tvm
from PIL import Image
from tvm import relax
from tvm.relax.frontend import nn

from dlrosetta import data

# %% Configuration
BATCH_SIZE = 32
RESIZE, SIZE = 256, 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WIDTH = 64
BLOCKS = (3, 4, 6, 3)
NORM_EPSILON = 1e-5
TARGET = tvm.target.Target("llvm")  # of any such CPU: untuned loops with all instructions of this one are slower


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
        yield np.stack([preprocess(path) for path in paths[start : start + BATCH_SIZE]])


# %% Model
def conv(inputs, outputs, side, stride=1):
    return nn.Conv2D(inputs, outputs, side, stride, padding=side // 2, bias=False)


def relaxed(operation, x, *args, **kwargs):  # what nn has not: an operation of Relax, wrapped as nn wraps its own
    return nn.wrap_nested(operation(x._expr, *args, **kwargs), operation.__name__)


class BatchNorm(nn.Module):
    def __init__(self, channels):
        self.weight, self.bias = nn.Parameter((channels,)), nn.Parameter((channels,))
        self.running_mean, self.running_var = nn.Parameter((channels,)), nn.Parameter((channels,))

    def forward(self, x):
        given = [one._expr for one in (self.weight, self.bias, self.running_mean, self.running_var)]
        return relaxed(relax.op.nn.batch_norm, x, *given, axis=1, epsilon=NORM_EPSILON, training=False)[0]


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride, project):
        self.conv1 = conv(inputs, width, 1)
        self.bn1 = BatchNorm(width)
        self.conv2 = conv(width, width, 3, stride)
        self.bn2 = BatchNorm(width)
        self.conv3 = conv(width, 4 * width, 1)
        self.bn3 = BatchNorm(4 * width)
        self.project = project
        if project:
            self.shortcut_conv = conv(inputs, 4 * width, 1, stride)
            self.shortcut_bn = BatchNorm(4 * width)

    def forward(self, x):
        shortcut = self.shortcut_bn(self.shortcut_conv(x)) if self.project else x
        y = nn.relu(self.bn1(self.conv1(x)))
        y = nn.relu(self.bn2(self.conv2(y)))
        return nn.relu(self.bn3(self.conv3(y)) + shortcut)


class ResNet(nn.Module):
    def __init__(self):
        self.conv1 = conv(3, WIDTH, 7, stride=2)
        self.bn1 = BatchNorm(WIDTH)
        inputs = WIDTH
        for stage, blocks in enumerate(BLOCKS):
            width, stride = WIDTH * 2**stage, 1 if stage == 0 else 2
            layer = [Bottleneck(inputs, width, stride, project=True)]
            layer += [Bottleneck(4 * width, width, 1, project=False) for _ in range(blocks - 1)]
            setattr(self, f"layer{stage + 1}", nn.ModuleList(layer))
            inputs = 4 * width

    def forward(self, x):  # (N, 3, 224, 224)
        x = nn.relu(self.bn1(self.conv1(x)))  # (N, 64, 112, 112)
        x = relaxed(relax.op.nn.max_pool2d, x, pool_size=(3, 3), strides=(2, 2), padding=(1, 1))  # (N, 64, 56, 56)
        x = self.layer1(x)  # (N, 256, 56, 56)
        x = self.layer2(x)  # (N, 512, 28, 28)
        x = self.layer3(x)  # (N, 1024, 14, 14)
        x = self.layer4(x)  # (N, 2048, 7, 7)
        return relaxed(relax.op.mean, x, axis=[2, 3])  # (N, 2048)


def initial(name, parameter):
    if len(parameter.shape) == 1:
        return (np.zeros if name.endswith(("bias", "running_mean")) else np.ones)(parameter.shape)
    bound = (6 / np.prod(parameter.shape[1:])) ** 0.5  # He et al. 2015
    return np.random.uniform(-bound, bound, parameter.shape)


def build_model():
    images = nn.spec.Tensor(["n", 3, SIZE, SIZE], "float32")
    graph, parameters = ResNet().export_tvm({"forward": {"x": images}})
    graph = relax.transform.DecomposeOpsForInference()(graph)  # a norm's sums and products, which are then fused
    graph = relax.get_pipeline("zero")(graph)  # operations become loops, and those that can be are fused
    machine = relax.VirtualMachine(tvm.compile(graph, TARGET), tvm.cpu())
    arrays = [initial(name, parameter).astype(parameter.dtype) for name, parameter in parameters]
    return machine["forward"], [tvm.runtime.tensor(array) for array in arrays]


# %% Evaluation
def predict(model, images):
    forward, parameters = model
    return forward(tvm.runtime.tensor(images), *parameters).numpy()


def evaluate(model, paths):
    return np.concatenate([predict(model, images) for images in batches(paths)])  # (N, 2048)


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
