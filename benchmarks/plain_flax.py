"""The train loop of Flax's MNIST tutorial, https://flax.readthedocs.io/en/stable/mnist_tutorial.html"""

import optax
from flax import nnx


def make(version):
    model = version.build_model()
    optimizer = nnx.Optimizer(model, optax.sgd(version.LEARNING_RATE, version.MOMENTUM), wrt=nnx.Param)
    metrics = nnx.MultiMetric(accuracy=nnx.metrics.Accuracy(), loss=nnx.metrics.Average("loss"))

    def loss_fn(model, images, labels):
        logits = model(images)
        return optax.softmax_cross_entropy_with_integer_labels(logits=logits, labels=labels).mean(), logits

    @nnx.jit
    def train_step(model, optimizer, metrics, images, labels):
        (loss, logits), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model, images, labels)
        metrics.update(loss=loss, logits=logits, labels=labels)
        optimizer.update(model, grads)
        return loss

    def train(batches):
        model.train()
        for images, labels in batches:
            loss = train_step(model, optimizer, metrics, images, labels)
        loss.block_until_ready()
        return loss

    return train
