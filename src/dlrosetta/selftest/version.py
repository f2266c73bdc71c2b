"""A version whose train step takes as long as it is told: `rosetta selftest timing` measures it in place of a model."""

import hashlib
import threading
import time

import numpy as np

BATCH_SIZE = 1
WORK, MILLISECONDS = "sleep", 5.0  # set over by the self-test


class Model:
    weight = np.zeros(1, np.float32)
    pending = None  # a thread that works on after the step has returned


def load_data():
    images, labels = np.zeros((4, 3, 32, 32), np.float32), np.zeros(4, np.int64)
    return (images, labels), (images, labels)


def batches(images, labels, shuffle):
    for start in range(0, len(labels), BATCH_SIZE):
        yield images[start : start + BATCH_SIZE], labels[start : start + BATCH_SIZE]


def build_model():
    return Model()


def loss_fn(model, images, labels):
    return np.float32(0)


def make_optimizer(model):
    return None


def train_step(model, optimizer, images, labels):
    """ "sleep" takes that time whatever else the machine does; "hash" takes processor time; "early" and "never" return
    at once and work on, where "never" cannot even be waited for.
    """
    if WORK == "sleep":
        time.sleep(MILLISECONDS / 1000)
    elif WORK == "hash":
        hashlib.sha256(bytes(int(MILLISECONDS * 10**6)))
    elif WORK in ("early", "never"):
        before = model.pending

        def work():
            if before:
                before.join()
            time.sleep(MILLISECONDS / 1000)

        model.pending = threading.Thread(target=work)
        model.pending.start()
        return model
    return np.float32(0)


def evaluate(model, images, labels):
    return 0.0


def main():
    pass
