"""The train loop of Flax's MNIST tutorial, https://flax.readthedocs.io/en/stable/mnist_tutorial.html, and its jitted
prediction
"""

import optax
from flax import nnx


def make(version, text):
    model = version.build_model()
    if text == "resnet50":

        @nnx.jit
        def pred_step(model, images):
            return model(images)

        def test(batches):
            for images, _ in batches:
                result = pred_step(model, images)
            return result.block_until_ready()

        return test

    if text == "cnn":
        rule = optax.sgd(version.LEARNING_RATE, version.MOMENTUM)
    elif text == "gpt":
        schedule = optax.warmup_cosine_decay_schedule(
            0.0, version.LEARNING_RATE, version.WARMUP_STEPS, version.DECAY_STEPS
        )
        rule = optax.chain(optax.clip_by_global_norm(version.CLIP_NORM), optax.adamw(schedule))
    else:
        rule = optax.adam(version.LEARNING_RATE)
    optimizer = nnx.Optimizer(model, rule, wrt=nnx.Param)
    metrics = nnx.MultiMetric(loss=nnx.metrics.Average("loss"))

    def loss_fn(model, images, labels):
        logits = model(images)
        if text == "densenet121":
            return optax.sigmoid_binary_cross_entropy(logits, labels).mean(), logits
        return optax.softmax_cross_entropy_with_integer_labels(logits=logits, labels=labels).mean(), logits

    @nnx.jit
    def train_step(model, optimizer, metrics, images, labels):
        (loss, _), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model, images, labels)
        metrics.update(loss=loss)
        optimizer.update(model, grads)
        return loss

    def train(batches):
        model.train()
        for images, labels in batches:
            loss = train_step(model, optimizer, metrics, images, labels)
        loss.block_until_ready()
        return loss

    return train
