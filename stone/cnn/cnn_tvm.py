"""CNN on CIFAR-10 in Apache TVM, its evaluation pass."""

# %% Imports
import numpy as np
import tvm
from tvm import relax
from tvm.relax.frontend import nn

from dlrosetta import data

# %% Configuration
SEED = 0
BATCH_SIZE = 64
TARGET = tvm.target.Target("llvm")  # of any such CPU: untuned loops with all instructions of this one are slower


# %% Data
def load_data():
    return data.cifar10()  # twice (N, 3, 32, 32) in 0–1, (N,): for training, for testing


def batches(images, labels):
    for start in range(0, len(labels), BATCH_SIZE):
        yield images[start : start + BATCH_SIZE], labels[start : start + BATCH_SIZE]


# %% Model
def max_pool(x):  # nn has none: an operation of Relax, wrapped as nn wraps its own
    return nn.wrap_nested(relax.op.nn.max_pool2d(x._expr, pool_size=(2, 2), strides=(2, 2)), "max_pool2d")


class CNN(nn.Module):
    def __init__(self):
        self.conv1 = nn.Conv2D(3, 50, 3, padding=1)
        self.conv2 = nn.Conv2D(50, 50, 3, padding=1)
        self.conv3 = nn.Conv2D(50, 100, 3, padding=1)
        self.conv4 = nn.Conv2D(100, 100, 3, padding=1)
        self.fc1 = nn.Linear(100 * 8 * 8, 512)
        self.fc2 = nn.Linear(512, 10)

    def forward(self, x):  # (N, 3, 32, 32); dropout is not there in evaluation
        x = nn.relu(self.conv1(x))  # (N, 50, 32, 32)
        x = nn.relu(max_pool(self.conv2(x)))  # (N, 50, 16, 16)
        x = nn.relu(self.conv3(x))  # (N, 100, 16, 16)
        x = nn.relu(max_pool(self.conv4(x)))  # (N, 100, 8, 8)
        x = nn.reshape(x, (-1, 100 * 8 * 8))  # (N, 6400)
        x = nn.relu(self.fc1(x))  # (N, 512)
        return self.fc2(x)  # (N, 10)


def initial(name, parameter):
    if name.endswith("bias"):
        return np.zeros(parameter.shape)
    outputs, inputs, *window = parameter.shape
    bound = (6 / ((outputs + inputs) * np.prod(window))) ** 0.5  # Glorot and Bengio 2010
    return np.random.uniform(-bound, bound, parameter.shape)


def build_model():
    images = nn.spec.Tensor(["n", 3, 32, 32], "float32")
    graph, parameters = CNN().export_tvm({"forward": {"x": images}})
    graph = relax.get_pipeline("zero")(graph)  # operations become loops, and those that can be are fused
    machine = relax.VirtualMachine(tvm.compile(graph, TARGET), tvm.cpu())
    arrays = [initial(name, parameter).astype(parameter.dtype) for name, parameter in parameters]
    return machine["forward"], [tvm.runtime.tensor(array) for array in arrays]


# %% Evaluation
def predict(model, images):
    forward, parameters = model
    return forward(tvm.runtime.tensor(images), *parameters).numpy()


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
