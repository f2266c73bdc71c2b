"""ResNet-50 features of photos in ONNX Runtime; its graphs are written with ONNX Script."""

# %% Imports
from functools import cache

import numpy as np
import onnxruntime as ort
from onnxscript import GraphBuilder, ir, nn
from PIL import Image

from dlrosetta import data

# %% Configuration
BATCH_SIZE = 32
RESIZE, SIZE = 256, 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WIDTH = 64
BLOCKS = (3, 4, 6, 3)
NORM_EPSILON = 1e-5
OPSET = 23


# %% Data
def load_data():
    return data.photos()  # paths


def session(function, name, dtype, shape):
    """What runs the graph of `function(op, input)`, optimized when it is made."""
    builder = GraphBuilder(ir.Graph([], [], nodes=[], name=name, opset_imports={"": OPSET}))
    result = function(builder.op, builder.input(name, dtype, shape))
    builder.add_output(result, "result")
    model = ir.Model(builder.graph, ir_version=11)
    return ort.InferenceSession(ir.to_proto(model).SerializeToString())


def prepared(op, photo):
    x = op.Div(op.Cast(op.Transpose(photo, perm=[2, 0, 1]), to=ir.DataType.FLOAT), 255.0)  # (3, H, W)
    shape = op.Shape(x, start=1)
    size = op.Div(op.Mul(shape, RESIZE), op.ReduceMin(shape))  # of integers: fractions are dropped
    x = op.Resize(x, None, None, size, axes=[1, 2], mode="linear", antialias=1)  # (3, 256, …)
    x = op.CenterCropPad(x, [SIZE, SIZE], axes=[1, 2])  # (3, 224, 224)
    return op.Div(op.Sub(x, op.Unsqueeze(MEAN, [1, 2])), op.Unsqueeze(DEVIATION, [1, 2]))


@cache
def preprocessing():
    return session(prepared, "photo", ir.DataType.UINT8, ["H", "W", 3])


def preprocess(path):
    photo = np.array(Image.open(path).convert("RGB"))  # (H, W, 3)
    return preprocessing().run(None, {"photo": photo})[0]


def batches(paths):
    for start in range(0, len(paths), BATCH_SIZE):
        yield np.stack([preprocess(path) for path in paths[start : start + BATCH_SIZE]])


# %% Model
class Conv(nn.Module):
    def __init__(self, inputs, outputs, side, stride=1):
        super().__init__()
        bound = (6 / (inputs * side * side)) ** 0.5  # He et al. 2015
        weight = np.random.uniform(-bound, bound, (outputs, inputs, side, side))
        self.weight = nn.Parameter(weight.shape, data=ir.tensor(weight.astype(np.float32)))
        self.side, self.stride = side, stride

    def forward(self, op, x):
        return op.Conv(x, self.weight, strides=[self.stride] * 2, pads=[self.side // 2] * 4)


class BatchNorm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        zeros, ones = np.zeros(channels, np.float32), np.ones(channels, np.float32)
        self.weight = nn.Parameter(ones.shape, data=ir.tensor(ones))
        self.bias = nn.Parameter(zeros.shape, data=ir.tensor(zeros))
        self.running_mean = nn.Parameter(zeros.shape, data=ir.tensor(zeros))
        self.running_var = nn.Parameter(ones.shape, data=ir.tensor(ones))

    def forward(self, op, x):
        statistics = self.running_mean, self.running_var
        return op.BatchNormalization(x, self.weight, self.bias, *statistics, epsilon=NORM_EPSILON)


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride, project):
        super().__init__()
        self.conv1 = Conv(inputs, width, 1)
        self.bn1 = BatchNorm(width)
        self.conv2 = Conv(width, width, 3, stride)
        self.bn2 = BatchNorm(width)
        self.conv3 = Conv(width, 4 * width, 1)
        self.bn3 = BatchNorm(4 * width)
        self.project = project
        if project:
            self.shortcut_conv = Conv(inputs, 4 * width, 1, stride)
            self.shortcut_bn = BatchNorm(4 * width)

    def forward(self, op, x):
        shortcut = self.shortcut_bn(op, self.shortcut_conv(op, x)) if self.project else x
        y = op.Relu(self.bn1(op, self.conv1(op, x)))
        y = op.Relu(self.bn2(op, self.conv2(op, y)))
        return op.Relu(op.Add(self.bn3(op, self.conv3(op, y)), shortcut))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = Conv(3, WIDTH, 7, stride=2)
        self.bn1 = BatchNorm(WIDTH)
        inputs = WIDTH
        for stage, blocks in enumerate(BLOCKS):
            width, stride = WIDTH * 2**stage, 1 if stage == 0 else 2
            layer = [Bottleneck(inputs, width, stride, project=True)]
            layer += [Bottleneck(4 * width, width, 1, project=False) for _ in range(blocks - 1)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layer))
            inputs = 4 * width

    def forward(self, op, x):  # (N, 3, 224, 224)
        x = op.Relu(self.bn1(op, self.conv1(op, x)))  # (N, 64, 112, 112)
        x = op.MaxPool(x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])  # (N, 64, 56, 56)
        x = self.layer1(op, x)  # (N, 256, 56, 56)
        x = self.layer2(op, x)  # (N, 512, 28, 28)
        x = self.layer3(op, x)  # (N, 1024, 14, 14)
        x = self.layer4(op, x)  # (N, 2048, 7, 7)
        return op.ReduceMean(x, [2, 3], keepdims=0)  # (N, 2048)


def build_model():
    return session(ResNet(), "images", ir.DataType.FLOAT, ["N", 3, SIZE, SIZE])


# %% Evaluation
def predict(model, images):
    return model.run(None, {"images": images})[0]


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
