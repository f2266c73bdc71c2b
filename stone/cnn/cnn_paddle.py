"""CNN on CIFAR-10 in PaddlePaddle."""

# %% Imports
import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.io import DataLoader, TensorDataset

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
    train = paddle.to_tensor(train_images), paddle.to_tensor(train_labels, "int64")
    test = paddle.to_tensor(test_images), paddle.to_tensor(test_labels, "int64")
    return train, test


def batches(images, labels, shuffle):
    return DataLoader(TensorDataset([images, labels]), batch_size=BATCH_SIZE, shuffle=shuffle)


# %% Model
class CNN(nn.Layer):
    def __init__(self):
        super().__init__()
        glorot_uniform = nn.initializer.XavierUniform()  # Linear's default, but not Conv2D's; biases start at zero
        self.conv1 = nn.Conv2D(3, 50, 3, padding=1, weight_attr=glorot_uniform)
        self.conv2 = nn.Conv2D(50, 50, 3, padding=1, weight_attr=glorot_uniform)
        self.dropout1 = nn.Dropout(DROPOUT1)
        self.conv3 = nn.Conv2D(50, 100, 3, padding=1, weight_attr=glorot_uniform)
        self.conv4 = nn.Conv2D(100, 100, 3, padding=1, weight_attr=glorot_uniform)
        self.dropout2 = nn.Dropout(DROPOUT2)
        self.fc1 = nn.Linear(100 * 8 * 8, 512)
        self.dropout3 = nn.Dropout(DROPOUT3)
        self.fc2 = nn.Linear(512, 10)

    def forward(self, x):  # (N, 3, 32, 32)
        x = F.relu(self.conv1(x))  # (N, 50, 32, 32)
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # (N, 50, 16, 16)
        x = self.dropout1(x)
        x = F.relu(self.conv3(x))  # (N, 100, 16, 16)
        x = F.relu(F.max_pool2d(self.conv4(x), 2))  # (N, 100, 8, 8)
        x = self.dropout2(x)
        x = F.relu(self.fc1(paddle.flatten(x, 1)))  # (N, 512)
        x = self.dropout3(x)
        return self.fc2(x)  # (N, 10)


def build_model():
    return CNN()


# %% Loss
def loss_fn(model, images, labels):
    return F.cross_entropy(model(images), labels)


# %% Optimizer
def make_optimizer(model):
    return paddle.optimizer.Momentum(LEARNING_RATE, MOMENTUM, parameters=model.parameters())


# %% Train step
def train_step(model, optimizer, images, labels):
    model.train()
    loss = loss_fn(model, images, labels)
    loss.backward()
    optimizer.step()
    optimizer.clear_grad()
    return loss


# %% Evaluation
@paddle.no_grad()
def evaluate(model, images, labels):
    model.eval()
    correct = 0
    for x, y in batches(images, labels, shuffle=False):
        correct += (model(x).argmax(1) == y).sum()
    return correct.item() / len(labels)


# %% Run
def main():
    paddle.seed(SEED)
    np.random.seed(SEED)  # DataLoader shuffles with NumPy
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
