"""DenseNet-121 on chest X-rays in ONNX Runtime, its evaluation pass; its graphs are written with ONNX Script."""

# %% Imports
from functools import cache, partial

import numpy as np
import onnxruntime as ort
from onnxscript import GraphBuilder, ir, nn
from PIL import Image
from sklearn.metrics import roc_auc_score

from dlrosetta import data

# %% Configuration
SEED = 0
BATCH_SIZE = 16
RESIZE, SIZE = 264, 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = len(data.chestxray_classes())
WIDTH, GROWTH, BLOCKS = 64, 32, (6, 12, 24, 16)
NORM_EPSILON = 1e-5
OPSET = 23


# %% Data
def load_data():
    return data.chestxray()  # paths, labels (N, 14)


def session(function, name, dtype, shape):
    """What runs the graph of `function(op, input)`, optimized when it is made."""
    builder = GraphBuilder(ir.Graph([], [], nodes=[], name=name, opset_imports={"": OPSET}))
    result = function(builder.op, builder.input(name, dtype, shape))
    builder.add_output(result, "result")
    model = ir.Model(builder.graph, ir_version=11)
    return ort.InferenceSession(ir.to_proto(model).SerializeToString())


def prepared(op, image, resize, size):
    x = op.Div(op.Cast(op.Transpose(image, perm=[2, 0, 1]), to=ir.DataType.FLOAT), 255.0)  # (3, H, W)
    x = op.Resize(x, None, None, [resize, resize], axes=[1, 2], mode="linear", antialias=1)  # (3, 264, 264)
    x = op.CenterCropPad(x, [size, size], axes=[1, 2])  # (3, 224, 224)
    return op.Div(op.Sub(x, op.Unsqueeze(MEAN, [1, 2])), op.Unsqueeze(DEVIATION, [1, 2]))


@cache
def preprocessing(resize, size):
    return session(partial(prepared, resize=resize, size=size), "image", ir.DataType.UINT8, ["H", "W", 3])


def preprocess(path):
    image = np.array(Image.open(path).convert("RGB"))  # (H, W, 3)
    return preprocessing(RESIZE, SIZE).run(None, {"image": image})[0]


def batches(paths, labels):
    for start in range(0, len(paths), BATCH_SIZE):
        chosen = slice(start, start + BATCH_SIZE)
        yield np.stack([preprocess(path) for path in paths[chosen]]), labels[chosen]


# %% Model
def parameter(array):
    return nn.Parameter(array.shape, data=ir.tensor(array.astype(np.float32)))


class Conv(nn.Module):
    def __init__(self, inputs, outputs, side, stride=1):
        super().__init__()
        bound = (6 / (inputs * side * side)) ** 0.5  # He et al. 2015
        self.weight = parameter(np.random.uniform(-bound, bound, (outputs, inputs, side, side)))
        self.side, self.stride = side, stride

    def forward(self, op, x):
        return op.Conv(x, self.weight, strides=[self.stride] * 2, pads=[self.side // 2] * 4)


class Norm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = parameter(np.ones(channels)), parameter(np.zeros(channels))
        self.running_mean, self.running_var = parameter(np.zeros(channels)), parameter(np.ones(channels))

    def forward(self, op, x):
        statistics = self.running_mean, self.running_var
        return op.BatchNormalization(x, self.weight, self.bias, *statistics, epsilon=NORM_EPSILON)


class DenseLayer(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.norm1, self.conv1 = Norm(inputs), Conv(inputs, 4 * GROWTH, 1)
        self.norm2, self.conv2 = Norm(4 * GROWTH), Conv(4 * GROWTH, GROWTH, 3)

    def forward(self, op, x):
        y = self.conv1(op, op.Relu(self.norm1(op, x)))
        y = self.conv2(op, op.Relu(self.norm2(op, y)))
        return op.Concat(x, y, axis=1)


class Transition(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.norm, self.conv = Norm(inputs), Conv(inputs, inputs // 2, 1)

    def forward(self, op, x):
        return op.AveragePool(self.conv(op, op.Relu(self.norm(op, x))), kernel_shape=[2, 2], strides=[2, 2])


class Classifier(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        bound = (6 / (inputs + CLASSES)) ** 0.5  # Glorot and Bengio 2010
        self.weight = parameter(np.random.uniform(-bound, bound, (CLASSES, inputs)))
        self.bias = parameter(np.zeros(CLASSES))

    def forward(self, op, x):
        return op.Gemm(x, self.weight, self.bias, transB=1)


class DenseNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv0, self.norm0 = Conv(3, WIDTH, 7, stride=2), Norm(WIDTH)
        channels = WIDTH
        for number, count in enumerate(BLOCKS, 1):
            layers = [DenseLayer(channels + GROWTH * place) for place in range(count)]
            setattr(self, f"block{number}", nn.Sequential(*layers))
            channels += GROWTH * count
            if number < len(BLOCKS):
                setattr(self, f"transition{number}", Transition(channels))
                channels //= 2
        self.norm5, self.classifier = Norm(channels), Classifier(channels)

    def forward(self, op, x):  # (N, 3, 224, 224)
        x = op.Relu(self.norm0(op, self.conv0(op, x)))  # (N, 64, 112, 112)
        x = op.MaxPool(x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])  # (N, 64, 56, 56)
        x = self.transition1(op, self.block1(op, x))  # (N, 128, 28, 28)
        x = self.transition2(op, self.block2(op, x))  # (N, 256, 14, 14)
        x = self.transition3(op, self.block3(op, x))  # (N, 512, 7, 7)
        x = op.Relu(self.norm5(op, self.block4(op, x)))  # (N, 1024, 7, 7)
        return self.classifier(op, op.ReduceMean(x, [2, 3], keepdims=0))  # (N, 14)


def build_model():
    return session(DenseNet(), "images", ir.DataType.FLOAT, ["N", 3, SIZE, SIZE])


# %% Evaluation
def predict(model, images):
    return model.run(None, {"images": images})[0]


def evaluate(model, paths, labels):
    logits = np.concatenate([predict(model, images) for images, _ in batches(paths, labels)])
    return roc_auc_score(labels, logits, average="macro")  # of logits as of probabilities: only ranks count


# %% Run
def main():
    np.random.seed(SEED)
    _, (test_paths, test_labels) = load_data()
    print(f"test AUC {evaluate(build_model(), test_paths, test_labels):.3f}, of a model that nobody has trained")


if __name__ == "__main__":
    main()
