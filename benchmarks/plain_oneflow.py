"""The train and the test loop of OneFlow's quickstart, https://docs.oneflow.org/en/master/basics/01_quickstart.html"""

import oneflow as flow
from oneflow import nn


def make(version, text):
    model = version.build_model()
    if text == "resnet50":

        def test(batches):
            model.eval()
            with flow.no_grad():
                for x, _ in batches:
                    pred = model(x.to(version.DEVICE))
            return pred

        return test

    loss_fn = nn.CrossEntropyLoss().to(version.DEVICE)
    if text == "cnn":
        optimizer = flow.optim.SGD(model.parameters(), lr=version.LEARNING_RATE, momentum=version.MOMENTUM)
    else:
        optimizer = flow.optim.Adam(model.parameters(), lr=version.LEARNING_RATE)

    def train(batches):
        model.train()
        for x, y in batches:
            x, y = x.to(version.DEVICE), y.to(version.DEVICE)
            pred = model(x)
            loss = loss_fn(pred, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss

    return train
