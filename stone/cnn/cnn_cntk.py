"""CNN on CIFAR-10 in CNTK."""

# %% Imports
import cntk as C
import numpy as np
from cntk.layers import Convolution, Dense, Dropout, MaxPooling, Sequential

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
    (train_images, train_labels), (test_images, test_labels) = data.cifar10()  # (N, 3, 32, 32) in 0–1, (N,)
    return (train_images, train_labels.astype(np.float32)), (test_images, test_labels.astype(np.float32))


def batches(images, labels, shuffle):
    order = np.random.permutation(len(labels)) if shuffle else np.arange(len(labels))
    for start in range(0, len(labels), BATCH_SIZE):
        chosen = order[start : start + BATCH_SIZE]
        yield images[chosen], labels[chosen]


# %% Model
def build_model():
    with C.layers.default_options(pad=True):  # of convolutions: pooling has its own
        layers = Sequential(
            [
                Convolution((3, 3), 50, name="conv1"),
                C.relu,  # (N, 50, 32, 32)
                Convolution((3, 3), 50, name="conv2"),
                MaxPooling((2, 2), strides=2, pad=False),  # strides are 1 by default
                C.relu,  # (N, 50, 16, 16)
                Dropout(DROPOUT1, name="dropout1"),
                Convolution((3, 3), 100, name="conv3"),
                C.relu,  # (N, 100, 16, 16)
                Convolution((3, 3), 100, name="conv4"),
                MaxPooling((2, 2), strides=2, pad=False),
                C.relu,  # (N, 100, 8, 8)
                Dropout(DROPOUT2, name="dropout2"),
                Dense(512, name="fc1"),  # takes images as they are: its kernel is (100, 8, 8, 512)
                C.relu,  # (N, 512)
                Dropout(DROPOUT3, name="dropout3"),
                Dense(10, name="fc2"),  # (N, 10)
            ]
        )
    return layers(C.input_variable((3, 32, 32)))  # (N, 3, 32, 32)


# %% Loss
def loss_fn(logits, labels):
    return C.cross_entropy_with_softmax(logits, C.one_hot(labels, 10))  # (N,): the trainer takes the mean


# %% Optimizer
def make_optimizer(model):
    # Without unit_gain=False the gradient would be weighed by 1 - MOMENTUM. A schedule without a minibatch_size is for
    # the mean gradient of batches of any size.
    rate, momentum = C.learning_parameter_schedule(LEARNING_RATE), C.momentum_schedule(MOMENTUM)
    learner = C.momentum_sgd(model.parameters, rate, momentum, unit_gain=False)
    return C.Trainer(model, loss_fn(model, C.input_variable(())), learner)


# %% Train step
def train_step(model, optimizer, images, labels):
    inputs, answers = optimizer.loss_function.arguments
    optimizer.train_minibatch({inputs: images, answers: labels})
    return optimizer.previous_minibatch_loss_average


# %% Evaluation
def evaluate(model, images, labels):
    correct = 0
    for x, y in batches(images, labels, shuffle=False):
        correct += (model.eval(x).argmax(1) == y).sum()
    return correct / len(labels)


# %% Run
def main():
    C.cntk_py.set_fixed_random_seed(SEED)  # parameters and dropout
    np.random.seed(SEED)  # shuffling
    (train_images, train_labels), (test_images, test_labels) = load_data()
    model = build_model()
    optimizer = make_optimizer(model)
    for epoch in range(EPOCHS):
        for images, labels in batches(train_images, train_labels, shuffle=True):
            loss = train_step(model, optimizer, images, labels)
        print(f"epoch {epoch + 1}: loss {loss:.3f}")
    print(f"test accuracy {evaluate(model, test_images, test_labels):.3f}")


if __name__ == "__main__":
    main()
