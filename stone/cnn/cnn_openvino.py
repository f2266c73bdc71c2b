"""CNN on CIFAR-10 in OpenVINO, its evaluation pass."""

# %% Imports
import numpy as np
import openvino as ov
from openvino import opset16 as ops
from openvino.properties import hint

from dlrosetta import data

# %% Configuration
SEED = 0
BATCH_SIZE = 64
DEVICE = "CPU"
PRECISION = {hint.inference_precision: ov.Type.f32}  # by default bfloat16, wherever the CPU has that


# %% Data
def load_data():
    return data.cifar10()  # twice (N, 3, 32, 32) in 0–1, (N,): for training, for testing


def batches(images, labels):
    for start in range(0, len(labels), BATCH_SIZE):
        yield images[start : start + BATCH_SIZE], labels[start : start + BATCH_SIZE]


# %% Model
def parameter(name, array):
    return ops.constant(array.astype(np.float32), name=name)


def glorot_uniform(name, *shape):
    bound = (6 / ((shape[0] + shape[1]) * np.prod(shape[2:]))) ** 0.5
    return parameter(name, np.random.uniform(-bound, bound, shape))


def conv(name, x, inputs, outputs):
    weight = glorot_uniform(f"{name}.weight", outputs, inputs, 3, 3)
    bias = ops.unsqueeze(parameter(f"{name}.bias", np.zeros(outputs)), [1, 2])  # of each channel
    return ops.convolution(x, weight, strides=[1, 1], pads_begin=[1, 1], pads_end=[1, 1], dilations=[1, 1]) + bias


def dense(name, x, inputs, outputs):
    weight = glorot_uniform(f"{name}.weight", outputs, inputs)
    return ops.matmul(x, weight, transpose_a=False, transpose_b=True) + parameter(f"{name}.bias", np.zeros(outputs))


def max_pool(x):  # its other output says where the maxima are
    return ops.max_pool(x, strides=[2, 2], dilations=[1, 1], pads_begin=[0, 0], pads_end=[0, 0], kernel_shape=[2, 2])


def cnn(x):  # (N, 3, 32, 32); dropout is not there in evaluation
    x = ops.relu(conv("conv1", x, 3, 50))  # (N, 50, 32, 32)
    x = ops.relu(max_pool(conv("conv2", x, 50, 50)).output(0))  # (N, 50, 16, 16)
    x = ops.relu(conv("conv3", x, 50, 100))  # (N, 100, 16, 16)
    x = ops.relu(max_pool(conv("conv4", x, 100, 100)).output(0))  # (N, 100, 8, 8)
    x = ops.reshape(x, [0, -1], special_zero=True)  # (N, 6400)
    x = ops.relu(dense("fc1", x, 100 * 8 * 8, 512))  # (N, 512)
    return dense("fc2", x, 512, 10)  # (N, 10)


def build_model():
    images = ops.parameter([-1, 3, 32, 32], np.float32)
    return ov.compile_model(ov.Model([cnn(images)], [images]), DEVICE, PRECISION)


# %% Evaluation
def predict(model, images):
    return model(images)[0]


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
