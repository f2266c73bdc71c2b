"""The train loop of TensorFlow's quickstart for experts, https://www.tensorflow.org/tutorials/quickstart/advanced, and
its test step
"""

import tensorflow as tf


def make(version, text):
    model = version.build_model()
    if text == "resnet50":

        @tf.function
        def test_step(images):
            return model(images, training=False)

        def test(batches):
            for images, _ in batches:
                predictions = test_step(images)
            return predictions

        return test

    loss_object = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if text == "cnn":
        optimizer = tf.keras.optimizers.SGD(version.LEARNING_RATE, momentum=version.MOMENTUM)
    elif text == "gpt":
        rate = tf.keras.optimizers.schedules.CosineDecay(version.LEARNING_RATE, version.DECAY_STEPS)
        optimizer = tf.keras.optimizers.AdamW(rate, global_clipnorm=version.CLIP_NORM)
    else:
        optimizer = tf.keras.optimizers.Adam(version.LEARNING_RATE)
    if text == "densenet121":
        loss_object = tf.keras.losses.BinaryCrossentropy(from_logits=True)
    train_loss = tf.keras.metrics.Mean()

    # A model of its own modules, and no Keras model, has a mode only if it has a layer that asks for one.
    mode = {"training": True} if text in ("cnn", "densenet121") else {}

    @tf.function
    def train_step(images, labels):
        with tf.GradientTape() as tape:
            predictions = model(images, **mode)
            loss = loss_object(labels, predictions)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        train_loss(loss)

    def train(batches):
        for images, labels in batches:
            train_step(images, labels)
        return train_loss.result()

    return train
