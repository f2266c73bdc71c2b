"""Read and write safetensors files with numpy alone, on any Python.

The format (https://github.com/huggingface/safetensors): a little-endian 64-bit header length, a JSON header of
name -> {dtype, shape, data_offsets}, then the raw little-endian buffers. The library itself does not support the old
interpreters that dead frameworks need; a test reads each side's files with the other.
"""

import json
import struct

import numpy as np

_TO_NUMPY = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|b1",
}
_FROM_NUMPY = {np.dtype(value): key for key, value in _TO_NUMPY.items()}
_LONGEST_HEADER = 100 * 1024 * 1024


def save(path, arrays):
    """Write `arrays` (name to numpy array) to `path`. Raises TypeError for a dtype that the format lacks."""
    header, offset, chunks = {}, 0, []
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        array = np.ascontiguousarray(array).reshape(array.shape)  # ascontiguousarray turns () into (1,)
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        if array.dtype not in _FROM_NUMPY:
            raise TypeError("Expected a dtype of %s for %r. Received: %s" % (sorted(_TO_NUMPY), name, array.dtype))
        header[name] = {
            "dtype": _FROM_NUMPY[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
        chunks.append(array)
    text = json.dumps(header).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in chunks:
            file.write(array.tobytes())


def load(path):
    """Return name to numpy array. Raises ValueError where the file is not what the format says."""
    with open(path, "rb") as file:
        blob = file.read()
    if len(blob) < 8:
        raise ValueError("Expected a safetensors file at %s. Received: %d bytes" % (path, len(blob)))
    length = struct.unpack("<Q", blob[:8])[0]
    if length > min(_LONGEST_HEADER, len(blob) - 8):
        raise ValueError("Expected a safetensors header in %s. Received: a length of %d" % (path, length))
    try:
        header = dict(json.loads(blob[8 : 8 + length].decode("utf-8")))
        header.pop("__metadata__", None)
        return {name: _array(blob, 8 + length, entry) for name, entry in header.items()}
    except (KeyError, TypeError, ValueError) as error:
        received = "%s %s" % (type(error).__name__, error)
        raise ValueError("Expected a safetensors header in %s. Received: %s" % (path, received)) from error


def _array(blob, start, entry):
    """The array that one entry of the header describes, in the data that begins at `start`."""
    begin, end = entry["data_offsets"]
    dtype, shape = np.dtype(_TO_NUMPY[entry["dtype"]]), tuple(entry["shape"])
    count = 1
    for size in shape:  # not numpy's product, which overflows
        if not isinstance(size, int) or size < 0:
            raise ValueError("a shape of %r" % (shape,))
        count *= size
    if not 0 <= begin <= end <= len(blob) - start or end - begin != count * dtype.itemsize:
        raise ValueError("bytes %r to %r for %d × %s" % (begin, end, count, dtype))
    return np.frombuffer(blob, dtype, count, start + begin).reshape(shape)
