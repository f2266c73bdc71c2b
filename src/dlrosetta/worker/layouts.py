"""Canonical layout to a framework's own and back, from what framework.toml and text.toml declare.

Canonical: convolution kernels (out, in, height, width), dense kernels (out, in), activations channels first. Adapters
hand over arrays as their framework stores them; all permutation is here, once.
"""

import numpy as np

_CONV = {"OIHW": (0, 1, 2, 3), "HWIO": (3, 2, 0, 1), "OHWI": (0, 3, 1, 2)}  # native axes in canonical order
_DENSE = {"OI": (0, 1), "IO": (1, 0)}


class Layouts(object):
    """`layout` is framework.toml's table; `layers` is text.toml's list of layers with their parameters; `names` are the
    canonical names of parameters and layers that the framework calls otherwise, with what it calls them: `gru.bias[1]`
    is the second of what it keeps stacked in one `gru.bias`.
    """

    def __init__(self, layout, layers, names=None):
        self.native_names = dict(names or {})
        self.canonical_names = {native: canonical for canonical, native in self.native_names.items()}
        self.stacked = {}  # native name: canonical names of its parts, in order
        for canonical, native in sorted(self.native_names.items(), key=lambda pair: pair[1]):
            if native.endswith("]"):
                self.stacked.setdefault(native.rsplit("[", 1)[0], []).append(canonical)
        self.update_first = layout.get("gates", "rzn") == "zrn"
        self.conv = _CONV[layout["conv"]]
        self.dense = _DENSE[layout["dense"]]
        self.gated = _DENSE[layout.get("recurrent", layout["dense"])]  # kernels of recurrent layers
        self.channels_last = layout["activations"] == "channels_last"
        self.flattens = {layer["name"]: layer["flattens"] for layer in layers if layer.get("flattens")}
        self.specs, self.recurrent = {}, set()
        for layer in layers:
            for name, spec in layer["parameters"].items():
                self.specs[layer["name"] + "." + name] = spec
                if spec.get("gates"):
                    self.recurrent.add(layer["name"])

    def canonical(self, name):
        """The canonical name of a parameter or layer, from the framework's."""
        return self.canonical_names.get(name, name)

    def to_canonical(self, arrays):
        """Parameters, gradients or velocities by name, from the framework's names and layouts."""
        found = {}
        for name, array in arrays.items():
            parts = self.stacked.get(name)
            pairs = [(canonical, array[place]) for place, canonical in enumerate(parts)] if parts else []
            for canonical, part in pairs or [(self.canonical(name), array)]:
                found[canonical] = self.parameter_to_canonical(canonical, np.asarray(part))
        return found

    def to_native(self, arrays):
        """The inverse of `to_canonical`."""
        native = {name: self.parameter_to_native(name, array) for name, array in arrays.items()}
        for name, parts in self.stacked.items():
            if all(part in native for part in parts):
                native[name] = np.stack([native.pop(part) for part in parts])
        return {self.native_names.get(name, name): array for name, array in native.items()}

    def parameter_to_canonical(self, name, array):
        """A kernel, bias, gradient or velocity of `name`, from native layout. Unknown names pass unchanged."""
        axes = self._axes(name, array)
        array = array if axes is None else np.transpose(array, axes)
        shape = self._flattened(name)
        if shape is not None and array.ndim == 2 and array.shape[1] == int(np.prod(shape)):
            array = _columns_to_channels_first(array, shape)
        array = self._gates(name, array)
        return np.ascontiguousarray(array).reshape(array.shape)

    def parameter_to_native(self, name, array):
        """The inverse of `parameter_to_canonical`."""
        array = self._gates(name, array)
        shape = self._flattened(name)
        if shape is not None:
            array = _columns_to_channels_last(array, shape)
        axes = self._axes(name, array)
        array = array if axes is None else np.transpose(array, np.argsort(axes))
        return np.ascontiguousarray(array).reshape(array.shape)

    def images_to_native(self, array):
        """A batch of images (N, C, H, W) as the framework wants it; anything else unchanged."""
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if self.channels_last and array.ndim == 4 else array

    def activation_to_canonical(self, layer, array, is_input):
        """What went into or came out of `layer`, channels first."""
        if layer in self.recurrent and not is_input and array.ndim == 3:
            return np.ascontiguousarray(array[:, -1])  # of every step's output, the last
        if self.channels_last and array.ndim == 4:
            return np.ascontiguousarray(array.transpose(0, 3, 1, 2))
        shape = self.flattens.get(layer)
        if (
            self.channels_last
            and is_input
            and shape is not None
            and array.ndim == 2
            and array.shape[1] == int(np.prod(shape))
        ):
            return _columns_to_channels_first(array, shape)
        return array

    def _gates(self, name, array):
        """The gates of a recurrent layer, along the first axis, reset before update or after it: its own inverse."""
        gates = self.specs.get(name, {}).get("gates")
        if not gates or not self.update_first or not array.ndim or len(array) % gates:  # not gates: another layer
            return array
        blocks = np.split(array, gates)
        return np.concatenate([blocks[1], blocks[0], *blocks[2:]])

    def _axes(self, name, array):
        spec = self.specs.get(name, {})
        role = spec.get("role")
        if role == "conv" and array.ndim == 4:
            return self.conv
        if role == "dense" and array.ndim == 2:
            return self.gated if spec.get("gates") else self.dense
        return None

    def _flattened(self, name):
        is_kernel = self.specs.get(name, {}).get("role") == "dense"
        return self.flattens.get(name.rsplit(".", 1)[0]) if self.channels_last and is_kernel else None


def _columns_to_channels_first(array, shape):
    channels, height, width = shape
    array = array.reshape(len(array), height, width, channels).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(array).reshape(len(array), -1)


def _columns_to_channels_last(array, shape):
    channels, height, width = shape
    array = array.reshape(len(array), channels, height, width).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(array).reshape(len(array), -1)
