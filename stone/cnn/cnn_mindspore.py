"""CNN on CIFAR-10 in MindSpore."""

# %% Imports
import mindspore as ms
import numpy as np
from mindspore import nn, ops
from mindspore.dataset import NumpySlicesDataset

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
    return data.cifar10()  # twice (N, 3, 32, 32) in 0–1, (N,): for training, for testing


def batches(images, labels, shuffle):
    # Once a seed is set, `shuffle=True` draws the same order whenever a pipeline is built.
    order = np.random.permutation(len(labels)) if shuffle else np.arange(len(labels))
    dataset = NumpySlicesDataset((images, labels), sampler=order.tolist()).batch(BATCH_SIZE)
    return dataset.create_tuple_iterator(num_epochs=1)


# %% Model
def conv3x3(in_channels, out_channels):  # bias and padding are not the default
    return nn.Conv2d(
        in_channels, out_channels, 3, pad_mode="pad", padding=1, has_bias=True,
        weight_init="xavier_uniform", bias_init="zeros",
    )  # fmt: skip


def dense(in_features, out_features):
    return nn.Dense(in_features, out_features, weight_init="xavier_uniform", bias_init="zeros")


class CNN(nn.Cell):
    def __init__(self):
        super().__init__()
        self.conv1 = conv3x3(3, 50)
        self.conv2 = conv3x3(50, 50)
        self.dropout1 = nn.Dropout(p=DROPOUT1)
        self.conv3 = conv3x3(50, 100)
        self.conv4 = conv3x3(100, 100)
        self.dropout2 = nn.Dropout(p=DROPOUT2)
        self.fc1 = dense(100 * 8 * 8, 512)
        self.dropout3 = nn.Dropout(p=DROPOUT3)
        self.fc2 = dense(512, 10)

    def construct(self, x):  # (N, 3, 32, 32)
        x = ops.relu(self.conv1(x))  # (N, 50, 32, 32)
        x = ops.relu(ops.max_pool2d(self.conv2(x), 2))  # (N, 50, 16, 16)
        x = self.dropout1(x)
        x = ops.relu(self.conv3(x))  # (N, 100, 16, 16)
        x = ops.relu(ops.max_pool2d(self.conv4(x), 2))  # (N, 100, 8, 8)
        x = self.dropout2(x)
        x = ops.relu(self.fc1(ops.flatten(x)))  # (N, 512)
        x = self.dropout3(x)
        return self.fc2(x)  # (N, 10)


def build_model():
    return CNN()


# %% Loss
def loss_fn(model, images, labels):
    return ops.cross_entropy(model(images), labels)


# %% Optimizer
def make_optimizer(model):
    return nn.Momentum(model.trainable_params(), LEARNING_RATE, MOMENTUM)


# %% Train step
def train_step(model, optimizer, images, labels):
    model.set_train()
    loss, gradients = ms.value_and_grad(loss_fn, None, optimizer.parameters)(model, images, labels)
    optimizer(gradients)
    return loss


# %% Evaluation
def evaluate(model, images, labels):
    model.set_train(False)
    correct = 0
    for x, y in batches(images, labels, shuffle=False):
        correct += (model(x).argmax(1) == y).sum()
    return correct.item() / len(labels)


# %% Run
def main():
    ms.set_seed(SEED)  # NumPy's too
    (train_images, train_labels), (test_images, test_labels) = load_data()
    model = build_model()
    optimizer = make_optimizer(model)
    for epoch in range(EPOCHS):
        for images, labels in batches(train_images, train_labels, shuffle=True):
            loss = train_step(model, optimizer, images, labels)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    print(f"test accuracy {evaluate(model, test_images, test_labels):.3f}")


if __name__ == "__main__":
    main()
