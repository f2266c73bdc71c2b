"""CNN on CIFAR-10 in ONNX Runtime, its evaluation pass; the graph is written with ONNX Script."""

# %% Imports
import numpy as np
import onnxruntime as ort
from onnxscript import GraphBuilder, ir, nn

from dlrosetta import data

# %% Configuration
SEED = 0
BATCH_SIZE = 64
OPSET = 23


# %% Data
def load_data():
    return data.cifar10()  # twice (N, 3, 32, 32) in 0–1, (N,): for training, for testing


def batches(images, labels):
    for start in range(0, len(labels), BATCH_SIZE):
        yield images[start : start + BATCH_SIZE], labels[start : start + BATCH_SIZE]


# %% Model
def parameter(array):
    return nn.Parameter(array.shape, data=ir.tensor(array.astype(np.float32)))


def glorot_uniform(*shape):
    bound = (6 / ((shape[0] + shape[1]) * np.prod(shape[2:]))) ** 0.5
    return parameter(np.random.uniform(-bound, bound, shape))


class Conv(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight, self.bias = glorot_uniform(outputs, inputs, 3, 3), parameter(np.zeros(outputs))

    def forward(self, op, x):
        return op.Conv(x, self.weight, self.bias, pads=[1, 1, 1, 1])


class Dense(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight, self.bias = glorot_uniform(outputs, inputs), parameter(np.zeros(outputs))

    def forward(self, op, x):
        return op.Gemm(x, self.weight, self.bias, transB=1)


class CNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = Conv(3, 50)
        self.conv2 = Conv(50, 50)
        self.conv3 = Conv(50, 100)
        self.conv4 = Conv(100, 100)
        self.fc1 = Dense(100 * 8 * 8, 512)
        self.fc2 = Dense(512, 10)

    def forward(self, op, x):  # (N, 3, 32, 32); dropout is not there in evaluation
        x = op.Relu(self.conv1(op, x))  # (N, 50, 32, 32)
        x = op.Relu(op.MaxPool(self.conv2(op, x), kernel_shape=[2, 2], strides=[2, 2]))  # (N, 50, 16, 16)
        x = op.Relu(self.conv3(op, x))  # (N, 100, 16, 16)
        x = op.Relu(op.MaxPool(self.conv4(op, x), kernel_shape=[2, 2], strides=[2, 2]))  # (N, 100, 8, 8)
        x = op.Relu(self.fc1(op, op.Flatten(x)))  # (N, 512)
        return self.fc2(op, x)  # (N, 10)


def build_model():
    builder = GraphBuilder(ir.Graph([], [], nodes=[], name="cnn", opset_imports={"": OPSET}))
    logits = CNN()(builder.op, builder.input("images", ir.DataType.FLOAT, ["N", 3, 32, 32]))
    builder.add_output(logits, "logits")
    model = ir.Model(builder.graph, ir_version=11)
    return ort.InferenceSession(ir.to_proto(model).SerializeToString())


# %% Evaluation
def predict(model, images):
    return model.run(None, {"images": images})[0]


def evaluate(model, images, labels):
    correct = sum((predict(model, x).argmax(1) == y).sum() for x, y in batches(images, labels))
    return correct / len(labels)


# %% Run
def main():
    np.random.seed(SEED)
    _, (test_images, test_labels) = load_data()
    model = build_model()
    print(f"test accuracy {evaluate(model, test_images, test_labels):.3f}, of a model that nobody has trained")


if __name__ == "__main__":
    main()
