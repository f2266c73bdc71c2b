"""The train loop of MLX's page on optimizers, https://ml-explore.github.io/mlx/build/html/python/optimizers.html;
clipping and schedules as in the pages of `clip_grad_norm` and of `cosine_decay`
"""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim


def make(version, text):
    model = version.build_model()
    mx.eval(model.parameters())
    if text == "resnet50":

        def test(batches):
            for X, _ in batches:
                result = model(X)
                mx.eval(result)
            return result

        return test

    if text == "cnn":
        optimizer = optim.SGD(version.LEARNING_RATE, version.MOMENTUM)
    elif text == "gpt":
        optimizer = optim.AdamW(optim.cosine_decay(version.LEARNING_RATE, version.DECAY_STEPS))
    else:
        optimizer = optim.Adam(version.LEARNING_RATE)

    def loss_fn(model, X, y):
        if text == "densenet121":
            return nn.losses.binary_cross_entropy(model(X), y)
        return nn.losses.cross_entropy(model(X), y, reduction="mean")

    loss_and_grad_fn = nn.value_and_grad(model, loss_fn)

    def train(batches):
        model.train()
        for X, y in batches:
            loss, grads = loss_and_grad_fn(model, X, y)
            if text == "gpt":
                grads, _ = optim.clip_grad_norm(grads, version.CLIP_NORM)
            optimizer.update(model, grads)
            mx.eval(model.parameters(), optimizer.state)
        return loss

    return train
