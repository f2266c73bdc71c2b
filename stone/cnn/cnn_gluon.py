"""CNN on CIFAR-10 in MXNet Gluon."""

# %% Imports
import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon import nn

from dlrosetta import data

# %% Configuration
SEED = 0
BATCH_SIZE = 64
EPOCHS = 10
LEARNING_RATE = 0.01
MOMENTUM = 0.9
DROPOUT1, DROPOUT2, DROPOUT3 = 0.25, 0.25, 0.5
CONTEXT = mx.gpu() if mx.context.num_gpus() else mx.cpu()


# %% Data
def load_data():
    return data.cifar10()  # twice (N, 3, 32, 32) in 0–1, (N,): for training, for testing


def batches(images, labels, shuffle):
    return gluon.data.DataLoader(gluon.data.ArrayDataset(images, labels), BATCH_SIZE, shuffle=shuffle)


# %% Model
class CNN(gluon.HybridBlock):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.pool = nn.MaxPool2D(2)
            self.conv1 = nn.Conv2D(50, 3, padding=1)
            self.conv2 = nn.Conv2D(50, 3, padding=1)
            self.dropout1 = nn.Dropout(DROPOUT1)
            self.conv3 = nn.Conv2D(100, 3, padding=1)
            self.conv4 = nn.Conv2D(100, 3, padding=1)
            self.dropout2 = nn.Dropout(DROPOUT2)
            self.flatten = nn.Flatten()
            self.fc1 = nn.Dense(512)
            self.dropout3 = nn.Dropout(DROPOUT3)
            self.fc2 = nn.Dense(10)

    def hybrid_forward(self, F, x):  # (N, 3, 32, 32); F is mx.nd, or mx.sym while the graph is built
        x = F.relu(self.conv1(x))  # (N, 50, 32, 32)
        x = F.relu(self.pool(self.conv2(x)))  # (N, 50, 16, 16)
        x = self.dropout1(x)
        x = F.relu(self.conv3(x))  # (N, 100, 16, 16)
        x = F.relu(self.pool(self.conv4(x)))  # (N, 100, 8, 8)
        x = self.dropout2(x)
        x = F.relu(self.fc1(self.flatten(x)))  # (N, 512)
        x = self.dropout3(x)
        return self.fc2(x)  # (N, 10)


def build_model():
    model = CNN()
    model.initialize(mx.init.Xavier(), ctx=CONTEXT)  # Glorot uniform; biases are zero by default
    model.hybridize(static_alloc=True, static_shape=True)
    model(mx.nd.zeros((1, 3, 32, 32), CONTEXT))  # draws the parameters, whose shapes the first input tells
    return model


# %% Loss
loss_fn = gluon.loss.SoftmaxCrossEntropyLoss()  # of logits, one loss an example
loss_fn.hybridize()


# %% Optimizer
def make_optimizer(model):
    options = {"learning_rate": LEARNING_RATE, "momentum": MOMENTUM}
    return gluon.Trainer(model.collect_params(), "sgd", options)


# %% Train step
def train_step(model, optimizer, images, labels):
    images, labels = images.as_in_context(CONTEXT), labels.as_in_context(CONTEXT)
    with autograd.record():  # training mode
        loss = loss_fn(model(images), labels)  # (N,)
    loss.backward()  # gradients of the sum
    optimizer.step(len(labels))  # divides them by the batch size
    return loss.mean()


# %% Evaluation
def evaluate(model, images, labels):
    accuracy = mx.metric.Accuracy()
    for x, y in batches(images, labels, shuffle=False):
        accuracy.update(y, model(x.as_in_context(CONTEXT)))
    return accuracy.get()[1]  # of (name, value)


# %% Run
def main():
    mx.random.seed(SEED)  # parameters and dropout
    np.random.seed(SEED)  # shuffling
    (train_images, train_labels), (test_images, test_labels) = load_data()
    model = build_model()
    optimizer = make_optimizer(model)
    for epoch in range(EPOCHS):
        for images, labels in batches(train_images, train_labels, shuffle=True):
            loss = train_step(model, optimizer, images, labels)
        print(f"epoch {epoch + 1}: loss {loss.asscalar():.3f}")
    print(f"test accuracy {evaluate(model, test_images, test_labels):.3f}")


if __name__ == "__main__":
    main()
