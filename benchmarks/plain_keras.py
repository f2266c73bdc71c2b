"""Keras's `fit`, as in https://keras.io/examples/vision/mnist_convnet/"""

import keras
import numpy as np


def make(version):
    model = version.build_model()
    optimizer = keras.optimizers.SGD(version.LEARNING_RATE, momentum=version.MOMENTUM)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, optimizer=optimizer, metrics=["accuracy"])

    def train(batches):
        x, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        history = model.fit(x, y, batch_size=version.BATCH_SIZE, epochs=1, verbose=0)
        return history.history["loss"][0]

    return train
