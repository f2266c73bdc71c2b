"""A text that does not train, and its version in nothing but numpy: what one small layer sees in photos."""

import planted

from dlrosetta import golden, texts

TOML = """
title = "What a small layer sees"
unit = "photos"
metric = "features"
data = "photos"

[hyperparameters]
BATCH_SIZE = 2
SIZE = 8
MEAN = [0.4, 0.5, 0.6]

[proof]
seed = 0
batch = 2
evaluation = 5

[proof.constants]
SIZE = 4

[inputs.images]
shape = [3, "SIZE", "SIZE"]
draw = "uniform"

[weights]
title = "somebody's weights"
address = "http://127.0.0.1:9/weights"
size = 400
unused = ["head.weight"]
names = { "first." = "fc1." }

[[layers]]
name = "fc1"
parameters.weight = { shape = [16, 3], role = "dense", initial = "glorot_uniform" }
parameters.bias = { shape = [16], role = "vector", initial = "zeros" }
"""

REFERENCE = """
import numpy as np

SIZE, MEAN = 8, [0.4, 0.5, 0.6]


def forward(parameters, images, tap=lambda layer, x, y: None):
    x = np.mean(images, axis=(2, 3))
    y = np.dot(x, parameters["fc1.weight"].T) + parameters["fc1.bias"]
    tap("fc1", x, y)
    return y * (y > 0)


def preprocess(photo):
    x = photo[:SIZE, :SIZE] / 255 - np.array(MEAN, photo.dtype)
    return np.transpose(x, (2, 0, 1))
"""

VERSION = '''"""What a small layer sees."""

# %% Imports
import numpy as np
from PIL import Image

from dlrosetta import data

# %% Configuration
BATCH_SIZE = 2
SIZE = 8
MEAN = (0.4, 0.5, 0.6)


# %% Data
def load_data():
    return data.photos()


def preprocess(path):
    photo = np.asarray(Image.open(path).convert("RGB"))
    return (photo[:SIZE, :SIZE] / 255 - MEAN).transpose(2, 0, 1).astype(np.float32)


def batches(paths):
    for start in range(0, len(paths), BATCH_SIZE):
        yield np.stack([preprocess(path) for path in paths[start : start + BATCH_SIZE]])


# %% Model
DENSE


class Model:
    def __init__(self):
        self.fc1 = Dense(3, 16)

    def parameters(self):
        return {"fc1.weight": self.fc1.weight, "fc1.bias": self.fc1.bias}

    def set(self, arrays):
        self.fc1.weight, self.fc1.bias = arrays["fc1.weight"], arrays["fc1.bias"]

    def __call__(self, images):
        return np.maximum(self.fc1(images.mean((2, 3))), 0)


def build_model():
    return Model()


# %% Evaluation
def predict(model, images):
    return model(images)


def evaluate(model, paths):
    return np.concatenate([predict(model, images) for images in batches(paths)])


# %% Run
def main():
    print(evaluate(build_model(), load_data()).shape)


if __name__ == "__main__":
    main()
'''


def write(stone):
    """Write the text `seen` and its golden into a folder of texts."""
    folder = stone / "seen"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.toml").write_text(TOML, encoding="utf-8")
    (folder / "reference.py").write_text(REFERENCE, encoding="utf-8")
    text = texts.load(folder)
    golden.save(golden.build(text), text.golden)
    return text


def write_version(stone, slug):
    """Write the version of a framework that is nothing but numpy (planted.SOLUTION's adapter)."""
    (stone / "seen" / f"seen_{slug}.py").write_text(VERSION.replace("DENSE", planted.DENSE.strip()), encoding="utf-8")
