"""ResNet-50 features of photos in OpenVINO."""

# %% Imports
from functools import cache

import numpy as np
import openvino as ov
from openvino import opset16 as ops
from openvino.properties import hint
from PIL import Image

from dlrosetta import data

# %% Configuration
BATCH_SIZE = 32
RESIZE, SIZE = 256, 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WIDTH = 64
BLOCKS = (3, 4, 6, 3)
NORM_EPSILON = 1e-5
DEVICE = "CPU"
PRECISION = {hint.inference_precision: ov.Type.f32}  # by default bfloat16, wherever the CPU has that


# %% Data
def load_data():
    return data.photos()  # paths


@cache
def preprocessing():
    photo = ops.parameter([-1, -1, 3], np.uint8)  # (H, W, 3)
    x = ops.divide(ops.convert(photo, "f32"), np.float32(255))
    x = ops.unsqueeze(ops.transpose(x, [2, 0, 1]), 0)  # (1, 3, H, W)
    shape = ops.gather(ops.shape_of(x), [2, 3], 0)
    size = shape * RESIZE / ops.reduce_min(shape, 0, keep_dims=True)  # of integers: fractions are dropped
    # The CPU's "linear" ignores `antialias` without a word; Pillow's way of it is that of floats here.
    x = ops.interpolate(x, size, "bilinear_pillow", "sizes", axes=[2, 3])  # (1, 3, 256, …)
    start = (size - SIZE) / 2
    x = ops.slice(x, start, start + SIZE, [1, 1], [2, 3])  # (1, 3, 224, 224)
    mean, deviation = (np.float32(value).reshape(3, 1, 1) for value in (MEAN, DEVIATION))
    return ov.compile_model(ov.Model([(x - mean) / deviation], [photo]), DEVICE, PRECISION)


def preprocess(path):
    photo = np.array(Image.open(path).convert("RGB"))  # (H, W, 3)
    return preprocessing()(photo)[0]


def batches(paths):
    for start in range(0, len(paths), BATCH_SIZE):
        yield np.concatenate([preprocess(path) for path in paths[start : start + BATCH_SIZE]])


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


def bottleneck(name, x, inputs, width, stride, project):
    shortcut = x
    if project:
        shortcut = conv(f"{name}.shortcut_conv", x, inputs, 4 * width, 1, stride)
        shortcut = norm(f"{name}.shortcut_bn", shortcut, 4 * width)
    y = conv(f"{name}.conv1", x, inputs, width, 1)
    y = ops.relu(norm(f"{name}.bn1", y, width))
    y = conv(f"{name}.conv2", y, width, width, 3, stride)
    y = ops.relu(norm(f"{name}.bn2", y, width))
    y = conv(f"{name}.conv3", y, width, 4 * width, 1)
    return ops.relu(norm(f"{name}.bn3", y, 4 * width) + shortcut)


def resnet(x):  # (N, 3, 224, 224)
    x = ops.relu(norm("bn1", conv("conv1", x, 3, WIDTH, 7, stride=2), WIDTH))  # (N, 64, 112, 112)
    pooled = ops.max_pool(x, [2, 2], [1, 1], [1, 1], [1, 1], kernel_shape=[3, 3])
    x, inputs = pooled.output(0), WIDTH  # (N, 64, 56, 56); the other output says where the maxima are
    for stage, blocks in enumerate(BLOCKS):
        width, stride = WIDTH * 2**stage, 1 if stage == 0 else 2
        x = bottleneck(f"layer{stage + 1}.0", x, inputs, width, stride, project=True)
        inputs = 4 * width
        for number in range(1, blocks):
            x = bottleneck(f"layer{stage + 1}.{number}", x, inputs, width, 1, project=False)
        # (N, 256, 56, 56), (N, 512, 28, 28), (N, 1024, 14, 14), (N, 2048, 7, 7)
    return ops.reduce_mean(x, [2, 3])  # (N, 2048)


def build_model():
    images = ops.parameter([-1, 3, SIZE, SIZE], np.float32)
    return ov.compile_model(ov.Model([resnet(images)], [images]), DEVICE, PRECISION)


# %% Evaluation
def predict(model, images):
    return model(images)[0]


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
