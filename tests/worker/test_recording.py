"""What is seen of layers, and that adapters whose layers see nothing concrete may record in their own way."""

import types

import numpy as np
import pytest

from dlrosetta.worker.layouts import Layouts
from dlrosetta.worker.recording import record
from dlrosetta.worker.session import Session


class Double:
    def __call__(self, x):
        x *= 2
        return x


def test_values_are_copied_before_and_after_a_call():
    one, other = Double(), Double()
    x = np.ones(3)
    seen, result = record({"one": one, "other": other}, lambda: other(one(x)), np.array)
    assert result is x
    assert {name: (a.tolist(), b.tolist()) for name, (a, b) in seen.items()} == {
        "one": ([1, 1, 1], [2, 2, 2]),
        "other": ([2, 2, 2], [4, 4, 4]),
    }


def test_the_class_is_left_as_it_was():
    original = Double.__call__
    with pytest.raises(ZeroDivisionError):
        record({"one": Double()}, lambda: 1 / 0, np.array)
    assert Double.__call__ is original


def test_copy_may_keep_what_is_not_yet_an_array():
    """As an adapter does whose layers run inside a transformation: it gets the values out itself."""
    kept = object()
    layer = type("Layer", (), {"__call__": lambda self, x: x})()
    seen, _ = record({"layer": layer}, lambda: layer(kept), lambda value: value)
    assert seen["layer"] == (kept, kept)


def test_an_adapter_may_record_and_replace_models():
    asked = []
    adapter = types.SimpleNamespace(
        record=lambda state, inputs, training: asked.append((state.model, inputs, training)) or ({}, "logits"),
        set_parameters=lambda model, arrays: model + 1,
    )
    session = Session(adapter, {"conv": "OIHW", "dense": "OI", "activations": "channels_first"})
    session.state.model, session.dtype, session.layouts = 1, np.dtype("float32"), Layouts(session.layout, [])
    session._set_parameters({})
    assert session.state.model == 2
    assert session._seen("inputs", True) == ({}, "logits")
    assert asked == [(2, "inputs", True)]
