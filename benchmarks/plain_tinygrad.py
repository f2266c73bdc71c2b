"""The train step of tinygrad's MNIST tutorial, https://docs.tinygrad.org/mnist, one TinyJit; clipping and the rate's
schedule by hand, for it has neither
"""

import math

from tinygrad import Context, Tensor, TinyJit, nn


def make(version, text):
    model = version.build_model()
    if text == "resnet50":
        jit_model = TinyJit(lambda X: model(X).realize())

        def test(batches):
            for X, _ in batches:
                result = jit_model(X)
            return result

        return test

    parameters = nn.state.get_parameters(model)
    if text == "cnn":
        optim = nn.optim.SGD(parameters, version.LEARNING_RATE, version.MOMENTUM)
    elif text == "gpt":
        optim = nn.optim.AdamW(parameters, version.LEARNING_RATE)
    else:
        optim = nn.optim.Adam(parameters, version.LEARNING_RATE)

    @TinyJit
    @Context(TRAINING=1)
    def step(X, Y):
        optim.zero_grad()
        logits = model(X)
        if text == "densenet121":
            loss = logits.binary_crossentropy_logits(Y).backward()
        elif text == "gpt":
            loss = logits.flatten(0, 1).sparse_categorical_crossentropy(Y.flatten()).backward()
            norm = sum(one.grad.square().sum() for one in optim.params).sqrt()
            for one in optim.params:
                one.grad = one.grad * (version.CLIP_NORM / norm).minimum(1)
        else:
            loss = logits.sparse_categorical_crossentropy(Y).backward()
        optim.step()
        return loss

    done = [0]

    def train(batches):
        for X, Y in batches:
            if text == "gpt":
                rate = 0.5 * version.LEARNING_RATE * (1 + math.cos(math.pi * min(1, done[0] / version.DECAY_STEPS)))
                optim.lr.assign(Tensor([rate])).realize()
                done[0] += 1
            loss = step(X, Y)
        return loss

    return train
