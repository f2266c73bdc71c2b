"""The adapter of the self-test's version. Its fence waits for what is pending, unless the version says "never"."""

import sys

import numpy as np


def describe():
    return {"version": "1", "device": "cpu", "threads": 1}


def seed(number):
    pass


def set_dtype(dtype):
    pass


def to_native(array):
    return array


def to_numpy(value):
    if getattr(value, "pending", None):  # a loss that is a promise
        value.pending.join()
        return np.float32(0)
    return np.asarray(value)


def make_optimizer(version, state):
    state.optimizer = None


def parameters(model):
    return {"none.weight": model.weight}


def train_step(version, state, images, labels):
    return version.train_step(state.model, state.optimizer, images, labels)


def synchronize(state, value=None):
    pending = getattr(state.model, "pending", None)
    if pending and sys.modules["rosetta_version"].WORK != "never":
        pending.join()
