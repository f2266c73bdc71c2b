"""The loop of Jittor's example, https://github.com/Jittor/jittor/blob/master/python/jittor/notebook/example.src.md"""

import jittor as jt
from jittor import nn


def make(version, text):
    model = version.build_model()
    if text == "resnet50":

        def test(batches):
            model.eval()
            with jt.no_grad():
                for x, _ in batches:
                    pred = model(x)
                    pred.sync()  # what nobody reads is not computed
            return pred

        return test

    if text == "cnn":
        optim = nn.SGD(model.parameters(), version.LEARNING_RATE, momentum=version.MOMENTUM)
    else:
        optim = nn.Adam(model.parameters(), version.LEARNING_RATE)

    def train(batches):
        model.train()
        for x, y in batches:
            pred = model(x)
            loss = nn.cross_entropy_loss(pred, y)
            optim.step(loss)
        return loss

    return train
