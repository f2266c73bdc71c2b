"""CNN on CIFAR-10 in Keras, for any backend."""

# %% Imports
import keras
import numpy as np
from keras import layers

from dlrosetta import data

# %% Configuration
SEED = 0
BATCH_SIZE = 64
EPOCHS = 10
LEARNING_RATE = 0.01
MOMENTUM = 0.9
DROPOUT1, DROPOUT2, DROPOUT3 = 0.25, 0.25, 0.5


# %% Data
def load_data():
    return data.cifar10(channels_last=True)  # twice (N, 32, 32, 3) in 0–1, (N,): for training, for testing


def batches(images, labels, shuffle):
    order = np.random.permutation(len(labels)) if shuffle else np.arange(len(labels))
    for start in range(0, len(labels), BATCH_SIZE):
        chosen = order[start : start + BATCH_SIZE]
        yield images[chosen], labels[chosen]


# %% Model
def build_model():
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),  # (N, 32, 32, 3)
            layers.Conv2D(50, 3, padding="same", name="conv1"),
            layers.ReLU(),  # (N, 32, 32, 50)
            layers.Conv2D(50, 3, padding="same", name="conv2"),
            layers.MaxPooling2D(),
            layers.ReLU(),  # (N, 16, 16, 50)
            layers.Dropout(DROPOUT1, name="dropout1"),
            layers.Conv2D(100, 3, padding="same", name="conv3"),
            layers.ReLU(),  # (N, 16, 16, 100)
            layers.Conv2D(100, 3, padding="same", name="conv4"),
            layers.MaxPooling2D(),
            layers.ReLU(),  # (N, 8, 8, 100)
            layers.Dropout(DROPOUT2, name="dropout2"),
            layers.Flatten(),  # (N, 6400)
            layers.Dense(512, name="fc1"),
            layers.ReLU(),  # (N, 512)
            layers.Dropout(DROPOUT3, name="dropout3"),
            layers.Dense(10, name="fc2"),  # (N, 10)
        ]
    )


# %% Loss
loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


# %% Optimizer
def make_optimizer(model):
    optimizer = keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM)
    model.compile(optimizer, loss_fn, metrics=["accuracy"])
    return optimizer


# %% Train step
def train_step(model, images, labels):
    return model.train_on_batch(images, labels)[0]  # of [loss, accuracy]


# %% Evaluation
def evaluate(model, images, labels):
    return model.evaluate(images, labels, BATCH_SIZE, verbose=0)[1]  # of [loss, accuracy]


# %% Run
def main():
    keras.utils.set_random_seed(SEED)
    (train_images, train_labels), (test_images, test_labels) = load_data()
    model = build_model()
    make_optimizer(model)
    for epoch in range(EPOCHS):
        for images, labels in batches(train_images, train_labels, shuffle=True):
            loss = train_step(model, images, labels)
        print(f"epoch {epoch + 1}: loss {loss:.3f}")
    print(f"test accuracy {evaluate(model, test_images, test_labels):.3f}")


if __name__ == "__main__":
    main()
