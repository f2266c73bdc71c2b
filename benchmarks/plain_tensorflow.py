"""The train loop of TensorFlow's quickstart for experts, https://www.tensorflow.org/tutorials/quickstart/advanced"""

import tensorflow as tf


def make(version):
    model = version.build_model()
    loss_object = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = tf.keras.optimizers.SGD(version.LEARNING_RATE, momentum=version.MOMENTUM)
    train_loss = tf.keras.metrics.Mean()
    train_accuracy = tf.keras.metrics.SparseCategoricalAccuracy()

    @tf.function
    def train_step(images, labels):
        with tf.GradientTape() as tape:
            predictions = model(images, training=True)
            loss = loss_object(labels, predictions)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        train_loss(loss)
        train_accuracy(labels, predictions)

    def train(batches):
        for images, labels in batches:
            train_step(images, labels)
        return train_loss.result()

    return train
