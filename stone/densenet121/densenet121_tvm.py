"""DenseNet-121 on chest X-rays in Apache TVM, its evaluation pass."""

# %% Imports
import numpy as np
import tvm
from PIL import Image
from sklearn.metrics import roc_auc_score
from tvm import relax
from tvm.relax.frontend import nn

from dlrosetta import data

# %% Configuration
SEED = 0
BATCH_SIZE = 16
RESIZE, SIZE = 264, 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = len(data.chestxray_classes())
WIDTH, GROWTH, BLOCKS = 64, 32, (6, 12, 24, 16)
NORM_EPSILON = 1e-5
TARGET = tvm.target.Target("llvm")  # of any such CPU: untuned loops with all instructions of this one are slower


# %% Data
def load_data():
    return data.chestxray()  # paths, labels (N, 14)


def preprocess(path):
    photo = Image.open(path).convert("RGB")
    # Pillow rounds to bytes what it resizes, but not channels of floats.
    channels = [channel.convert("F").resize((RESIZE, RESIZE), Image.Resampling.BILINEAR) for channel in photo.split()]
    start = (RESIZE - SIZE) // 2
    x = np.stack(channels)[:, start : start + SIZE, start : start + SIZE] / 255  # (3, 224, 224)
    return (x - np.float32(MEAN).reshape(3, 1, 1)) / np.float32(DEVIATION).reshape(3, 1, 1)


def batches(paths, labels):
    for start in range(0, len(paths), BATCH_SIZE):
        chosen = slice(start, start + BATCH_SIZE)
        yield np.stack([preprocess(path) for path in paths[chosen]]), labels[chosen]


# %% Model
def conv(inputs, outputs, side, stride=1):
    return nn.Conv2D(inputs, outputs, side, stride, padding=side // 2, bias=False)


def relaxed(operation, x, *args, **kwargs):  # what nn has not: an operation of Relax, wrapped as nn wraps its own
    return nn.wrap_nested(operation(x._expr, *args, **kwargs), operation.__name__)


class Norm(nn.Module):
    def __init__(self, channels):
        self.weight, self.bias = nn.Parameter((channels,)), nn.Parameter((channels,))
        self.running_mean, self.running_var = nn.Parameter((channels,)), nn.Parameter((channels,))

    def forward(self, x):
        given = [one._expr for one in (self.weight, self.bias, self.running_mean, self.running_var)]
        return relaxed(relax.op.nn.batch_norm, x, *given, axis=1, epsilon=NORM_EPSILON, training=False)[0]


class DenseLayer(nn.Module):
    def __init__(self, inputs):
        self.norm1, self.conv1 = Norm(inputs), conv(inputs, 4 * GROWTH, 1)
        self.norm2, self.conv2 = Norm(4 * GROWTH), conv(4 * GROWTH, GROWTH, 3)

    def forward(self, x):
        y = self.conv1(nn.relu(self.norm1(x)))
        y = self.conv2(nn.relu(self.norm2(y)))
        return nn.concat([x, y], dim=1)


class Transition(nn.Module):
    def __init__(self, inputs):
        self.norm, self.conv = Norm(inputs), conv(inputs, inputs // 2, 1)

    def forward(self, x):
        x = self.conv(nn.relu(self.norm(x)))
        return relaxed(relax.op.nn.avg_pool2d, x, pool_size=(2, 2), strides=(2, 2))


class DenseNet(nn.Module):
    def __init__(self):
        self.conv0, self.norm0 = conv(3, WIDTH, 7, stride=2), Norm(WIDTH)
        channels = WIDTH
        for number, count in enumerate(BLOCKS, 1):
            layers = [DenseLayer(channels + GROWTH * place) for place in range(count)]
            setattr(self, f"block{number}", nn.ModuleList(layers))
            channels += GROWTH * count
            if number < len(BLOCKS):
                setattr(self, f"transition{number}", Transition(channels))
                channels //= 2
        self.norm5, self.classifier = Norm(channels), nn.Linear(channels, CLASSES)

    def forward(self, x):  # (N, 3, 224, 224)
        x = nn.relu(self.norm0(self.conv0(x)))  # (N, 64, 112, 112)
        x = relaxed(relax.op.nn.max_pool2d, x, pool_size=(3, 3), strides=(2, 2), padding=(1, 1))  # (N, 64, 56, 56)
        x = self.transition1(self.block1(x))  # (N, 128, 28, 28)
        x = self.transition2(self.block2(x))  # (N, 256, 14, 14)
        x = self.transition3(self.block3(x))  # (N, 512, 7, 7)
        x = nn.relu(self.norm5(self.block4(x)))  # (N, 1024, 7, 7)
        return self.classifier(relaxed(relax.op.mean, x, axis=[2, 3]))  # (N, 14)


def initial(name, parameter):
    if len(parameter.shape) == 1:
        return (np.zeros if name.endswith(("bias", "running_mean")) else np.ones)(parameter.shape)
    is_conv = len(parameter.shape) == 4  # He et al. 2015; Glorot and Bengio 2010
    bound = (6 / (np.prod(parameter.shape[1:]) if is_conv else sum(parameter.shape))) ** 0.5
    return np.random.uniform(-bound, bound, parameter.shape)


def build_model():
    images = nn.spec.Tensor(["n", 3, SIZE, SIZE], "float32")
    graph, parameters = DenseNet().export_tvm({"forward": {"x": images}})
    graph = relax.transform.DecomposeOpsForInference()(graph)  # a norm's sums and products, which are then fused
    graph = relax.get_pipeline("zero")(graph)  # operations become loops, and those that can be are fused
    machine = relax.VirtualMachine(tvm.compile(graph, TARGET), tvm.cpu())
    arrays = [initial(name, parameter).astype(parameter.dtype) for name, parameter in parameters]
    return machine["forward"], [tvm.runtime.tensor(array) for array in arrays]


# %% Evaluation
def predict(model, images):
    forward, parameters = model
    return forward(tvm.runtime.tensor(images), *parameters).numpy()


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
