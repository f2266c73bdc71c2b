"""The train loop of PyTorch's quickstart tutorial, https://docs.pytorch.org/tutorials/beginner/basics/quickstart_tutorial.html"""

import torch
from torch import nn


def make(version):
    model = version.build_model()
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=version.LEARNING_RATE, momentum=version.MOMENTUM)

    def train(batches):
        model.train()
        for X, y in batches:
            X, y = X.to(version.DEVICE), y.to(version.DEVICE)
            loss = loss_fn(model(X), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return loss.detach()

    return train
