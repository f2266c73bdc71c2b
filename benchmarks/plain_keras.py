"""Keras's `fit`, as in https://keras.io/examples/vision/mnist_convnet/, and its `predict`"""

import keras
import numpy as np


def make(version, text):
    model = version.build_model()
    if text == "resnet50":
        return lambda batches: model.predict(np.concatenate([x for x, _ in batches]), version.BATCH_SIZE, verbose=0)

    loss, metrics = keras.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"]
    if text == "cnn":
        optimizer = keras.optimizers.SGD(version.LEARNING_RATE, momentum=version.MOMENTUM)
    elif text == "gpt":
        rate = keras.optimizers.schedules.CosineDecay(version.LEARNING_RATE, version.DECAY_STEPS)
        optimizer, metrics = keras.optimizers.AdamW(rate, global_clipnorm=version.CLIP_NORM), []
    else:
        optimizer = keras.optimizers.Adam(version.LEARNING_RATE)
    if text == "densenet121":
        loss, metrics = keras.losses.BinaryCrossentropy(from_logits=True), []
    model.compile(loss=loss, optimizer=optimizer, metrics=metrics)

    def train(batches):
        x, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        history = model.fit(x, y, batch_size=version.BATCH_SIZE, epochs=1, verbose=0)
        return history.history["loss"][0]

    return train
