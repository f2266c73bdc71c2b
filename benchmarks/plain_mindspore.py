"""The functional train step of MindSpore's tutorial, https://www.mindspore.cn/tutorials/en/master/beginner/train.html;
clipping by `ops.clip_by_global_norm`
"""

import mindspore as ms
from mindspore import nn, ops


def make(version, text):
    model = version.build_model()
    loss_fn = nn.CrossEntropyLoss()
    if text == "cnn":
        optimizer = nn.Momentum(model.trainable_params(), version.LEARNING_RATE, version.MOMENTUM)
    else:
        rates = nn.cosine_decay_lr(0.0, version.LEARNING_RATE, version.DECAY_STEPS, 1, version.DECAY_STEPS)
        optimizer = nn.AdamWeightDecay(model.trainable_params(), rates)

    def forward_fn(data, label):
        logits = model(data)
        if text == "gpt":
            logits, label = logits.flatten(start_dim=0, end_dim=1), label.flatten()
        loss = loss_fn(logits, label)
        return loss, logits

    grad_fn = ms.value_and_grad(forward_fn, None, optimizer.parameters, has_aux=True)

    def train_step(data, label):
        (loss, _), grads = grad_fn(data, label)
        if text == "gpt":
            grads = ops.clip_by_global_norm(grads, version.CLIP_NORM)
        optimizer(grads)
        return loss

    def train(batches):
        model.set_train()
        for data, label in batches:
            loss = train_step(data, label)
        return loss

    return train
