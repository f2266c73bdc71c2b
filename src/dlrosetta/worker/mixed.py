"""Mixed precision in frameworks without a switch that also casts what a model returns."""


def wrap_calls(version, change, model_of=lambda built: built):
    """Let `__call__` of the class of a version's models be `change(original)`, once for all of them. `model_of` picks
    the model from what `build_model` returns.
    """
    build_model = version.build_model

    def built():
        found = build_model()
        kind = type(model_of(found))
        if not is_wrapped(kind):
            kind.__call__, kind._unwrapped = change(kind.__call__), kind.__call__
        return found

    version.build_model = built


def is_wrapped(kind):
    return "_unwrapped" in vars(kind)
