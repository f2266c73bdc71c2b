"""The train loop of Equinox's MNIST example, https://docs.kidger.site/equinox/examples/mnist, and jitted prediction"""

import equinox as eqx
import jax
import optax
from jax import random


def make(version, text):
    made = version.build_model()
    if text == "resnet50":

        @eqx.filter_jit
        def predict(model, images):
            return jax.vmap(model, out_axes=(0, None))(images)[0]

        def test(batches):
            for images, _ in batches:
                result = predict(made, images)
            return result.block_until_ready()

        return test

    if text == "cnn":
        optim = optax.sgd(version.LEARNING_RATE, version.MOMENTUM)
    elif text == "gpt":
        schedule = optax.warmup_cosine_decay_schedule(
            0.0, version.LEARNING_RATE, version.WARMUP_STEPS, version.DECAY_STEPS
        )
        optim = optax.chain(optax.clip_by_global_norm(version.CLIP_NORM), optax.adamw(schedule))
    else:
        optim = optax.adam(version.LEARNING_RATE)
    model, norms = made if text == "densenet121" else (made, None)
    opt_state = optim.init(eqx.filter(model, eqx.is_array))

    def loss_fn(model, norms, images, labels, key):
        if text == "cnn":
            logits = jax.vmap(model)(images, random.split(key, len(images)))
        elif text == "densenet121":
            logits, norms = jax.vmap(model, (0, None), (0, None), axis_name="batch")(images, norms)
            return optax.sigmoid_binary_cross_entropy(logits, labels).mean(), norms
        else:
            logits = jax.vmap(model)(images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), norms

    @eqx.filter_jit
    def make_step(model, norms, opt_state, images, labels, key):
        (loss, norms), grads = eqx.filter_value_and_grad(loss_fn, has_aux=True)(model, norms, images, labels, key)
        updates, opt_state = optim.update(grads, opt_state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), norms, opt_state, loss

    kept = [model, norms, opt_state, random.key(0)]

    def train(batches):
        model, norms, opt_state, key = kept
        for images, labels in batches:
            key, dropout_key = random.split(key)
            model, norms, opt_state, loss = make_step(model, norms, opt_state, images, labels, dropout_key)
        kept[:] = model, norms, opt_state, key
        return loss.block_until_ready()

    return train
