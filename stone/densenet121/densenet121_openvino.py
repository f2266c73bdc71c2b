"""DenseNet-121 on chest X-rays in OpenVINO, its evaluation pass."""

# %% Imports
from functools import cache

import numpy as np
import openvino as ov
from openvino import opset16 as ops
from openvino.properties import hint
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
DEVICE = "CPU"
PRECISION = {hint.inference_precision: ov.Type.f32}  # by default bfloat16, wherever the CPU has that


# %% Data
def load_data():
    return data.chestxray()  # paths, labels (N, 14)


@cache
def preprocessing(resize, size):
    image = ops.parameter([-1, -1, 3], np.uint8)  # (H, W, 3)
    x = ops.divide(ops.convert(image, "f32"), np.float32(255))
    x = ops.unsqueeze(ops.transpose(x, [2, 0, 1]), 0)  # (1, 3, H, W)
    # The CPU's "linear" ignores `antialias` without a word; Pillow's way of it is that of floats here.
    x = ops.interpolate(x, [resize, resize], "bilinear_pillow", "sizes", axes=[2, 3])  # (1, 3, 264, 264)
    start = (resize - size) // 2
    x = ops.slice(x, [start, start], [start + size, start + size], [1, 1], [2, 3])  # (1, 3, 224, 224)
    mean, deviation = (np.float32(value).reshape(3, 1, 1) for value in (MEAN, DEVIATION))
    return ov.compile_model(ov.Model([(x - mean) / deviation], [image]), DEVICE, PRECISION)


def preprocess(path):
    image = np.array(Image.open(path).convert("RGB"))  # (H, W, 3)
    return preprocessing(RESIZE, SIZE)(image)[0]


def batches(paths, labels):
    for start in range(0, len(paths), BATCH_SIZE):
        chosen = slice(start, start + BATCH_SIZE)
        yield np.concatenate([preprocess(path) for path in paths[chosen]]), labels[chosen]


# %% Model
def parameter(name, array):
    return ops.constant(array.astype(np.float32), name=name)


def conv(name, x, inputs, outputs, side, stride=1):
    bound = (6 / (inputs * side * side)) ** 0.5  # He et al. 2015
    weight = parameter(f"{name}.weight", np.random.uniform(-bound, bound, (outputs, inputs, side, side)))
    padding = [side // 2] * 2
    return ops.convolution(x, weight, [stride] * 2, padding, padding, dilations=[1, 1])


def norm(name, x, channels):
    weight, bias = parameter(f"{name}.weight", np.ones(channels)), parameter(f"{name}.bias", np.zeros(channels))
    mean = parameter(f"{name}.running_mean", np.zeros(channels))
    variance = parameter(f"{name}.running_var", np.ones(channels))
    return ops.batch_norm_inference(x, weight, bias, mean, variance, NORM_EPSILON)


def dense_layer(name, x, inputs):
    y = conv(f"{name}.conv1", ops.relu(norm(f"{name}.norm1", x, inputs)), inputs, 4 * GROWTH, 1)
    y = conv(f"{name}.conv2", ops.relu(norm(f"{name}.norm2", y, 4 * GROWTH)), 4 * GROWTH, GROWTH, 3)
    return ops.concat([x, y], 1)


def transition(name, x, inputs):
    x = conv(f"{name}.conv", ops.relu(norm(f"{name}.norm", x, inputs)), inputs, inputs // 2, 1)
    # Without `dilations`, which may be left out, the compiler for CPUs crashes (2026.4.1).
    return ops.avg_pool(x, [2, 2], [0, 0], [0, 0], [2, 2], exclude_pad=True, dilations=[1, 1])


def classifier(name, x, inputs):
    bound = (6 / (inputs + CLASSES)) ** 0.5  # Glorot and Bengio 2010
    weight = parameter(f"{name}.weight", np.random.uniform(-bound, bound, (CLASSES, inputs)))
    return ops.matmul(x, weight, transpose_a=False, transpose_b=True) + parameter(f"{name}.bias", np.zeros(CLASSES))


def densenet(x):  # (N, 3, 224, 224)
    x = ops.relu(norm("norm0", conv("conv0", x, 3, WIDTH, 7, stride=2), WIDTH))  # (N, 64, 112, 112)
    pooled = ops.max_pool(x, [2, 2], [1, 1], [1, 1], [1, 1], kernel_shape=[3, 3])
    x, channels = pooled.output(0), WIDTH  # (N, 64, 56, 56); the other output says where the maxima are
    for number, count in enumerate(BLOCKS, 1):
        for place in range(count):
            x = dense_layer(f"block{number}.{place}", x, channels)
            channels += GROWTH
        if number < len(BLOCKS):
            x = transition(f"transition{number}", x, channels)
            channels //= 2
        # (N, 128, 28, 28), (N, 256, 14, 14), (N, 512, 7, 7), (N, 1024, 7, 7)
    x = ops.relu(norm("norm5", x, channels))
    return classifier("classifier", ops.reduce_mean(x, [2, 3]), channels)  # (N, 14)


def build_model():
    images = ops.parameter([-1, 3, SIZE, SIZE], np.float32)
    return ov.compile_model(ov.Model([densenet(images)], [images]), DEVICE, PRECISION)


# %% Evaluation
def predict(model, images):
    return model(images)[0]


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
