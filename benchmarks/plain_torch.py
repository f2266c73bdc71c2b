"""The train and the test loop of PyTorch's quickstart tutorial,
https://docs.pytorch.org/tutorials/beginner/basics/quickstart_tutorial.html; clipping and schedules as in the
documentation of `torch.nn.utils.clip_grad_norm_` and `torch.optim`
"""

import torch
from torch import nn


def make(version, text):
    model = version.build_model()
    if text == "resnet50":

        def test(batches):
            model.eval()
            with torch.no_grad():
                for X, _ in batches:
                    pred = model(X.to(version.DEVICE))
            return pred

        return test

    loss_fn = nn.BCEWithLogitsLoss() if text == "densenet121" else nn.CrossEntropyLoss()
    scheduler = None
    if text == "cnn":
        optimizer = torch.optim.SGD(model.parameters(), lr=version.LEARNING_RATE, momentum=version.MOMENTUM)
    elif text == "gpt":
        optimizer = torch.optim.AdamW(model.parameters(), lr=version.LEARNING_RATE)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, version.DECAY_STEPS)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=version.LEARNING_RATE)

    def train(batches):
        model.train()
        for X, y in batches:
            X, y = X.to(version.DEVICE), y.to(version.DEVICE)
            pred = model(X)
            if text == "gpt":
                pred, y = pred.flatten(0, 1), y.flatten()
            if text == "densenet121":
                y = y.float()
            loss = loss_fn(pred, y)
            loss.backward()
            if scheduler:
                nn.utils.clip_grad_norm_(model.parameters(), version.CLIP_NORM)
            optimizer.step()
            if scheduler:
                scheduler.step()
            optimizer.zero_grad()
        return loss.detach()

    return train
