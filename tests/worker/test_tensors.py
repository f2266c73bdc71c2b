"""Our safetensors files are read by the library and the library's by us, and what is no such file is refused."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dlrosetta.worker import tensors

DTYPES = ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]


def arrays():
    random = np.random.default_rng(0)
    found = {f"of {dtype}": (random.normal(size=(3, 2, 5)) * 9).astype(dtype) for dtype in DTYPES}
    plain = np.arange(12, dtype=np.float32).reshape(3, 4)
    found |= {
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 3), np.float32),
        "transposed": plain.T,
        "every second": plain[:, ::2],
        "backwards": plain[::-1],
        "big-endian": plain.astype(">f8"),
        "not a number": np.array([np.nan, np.inf, -np.inf, -0.0]),
        "gradient/fc1.weight é": plain,
    }
    return found


def same(received, expected):
    assert set(received) == set(expected)
    for name, array in expected.items():
        assert received[name].shape == array.shape, name
        assert received[name].dtype == array.dtype.newbyteorder("="), name
        assert np.array_equal(received[name], array, equal_nan=array.dtype.kind == "f"), name


def test_the_library_reads_what_we_write(tmp_path):
    tensors.save(str(tmp_path / "ours"), arrays())
    same(load_file(tmp_path / "ours"), arrays())


def test_we_read_what_the_library_writes(tmp_path):
    given = {name: np.array(array.astype(array.dtype.newbyteorder("=")), order="C") for name, array in arrays().items()}
    save_file(given, tmp_path / "theirs", metadata={"format": "np"})
    same(tensors.load(str(tmp_path / "theirs")), given)


def test_round_trip(tmp_path):
    tensors.save(str(tmp_path / "ours"), arrays())
    same(tensors.load(str(tmp_path / "ours")), arrays())
    tensors.save(str(tmp_path / "none"), {})
    assert tensors.load(str(tmp_path / "none")) == {} == load_file(tmp_path / "none")


def test_the_order_in_which_arrays_are_given_does_not_show(tmp_path):
    some = arrays()
    tensors.save(str(tmp_path / "a"), some)
    tensors.save(str(tmp_path / "b"), dict(reversed(some.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_dtype_that_the_format_lacks_is_refused_before_anything_is_written(tmp_path):
    for array in (np.zeros(3, np.complex128), np.array(["a"]), np.array([{}], dtype=object)):
        with pytest.raises(TypeError, match=r"Expected a dtype of .+ for 'x'\. Received: "):
            tensors.save(str(tmp_path / "x"), {"x": array})
    assert not (tmp_path / "x").exists()


def blob(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
WRONG = {
    "nothing": b"",
    "too short": b"1234567",
    "a length beyond the end": blob({}, length=99),
    "a huge length": blob({}, length=2**63),
    "no JSON": blob(b"{x"),
    "no text": blob(b"\xff\xfe"),
    "no object": blob([1]),
    "an entry that is none": blob({"x": 3}),
    "no offsets": blob({"x": {"dtype": "F32", "shape": [2]}}, b"12345678"),
    "three offsets": blob({"x": {**ENTRY, "data_offsets": [0, 4, 8]}}, b"12345678"),
    "offsets that are texts": blob({"x": {**ENTRY, "data_offsets": ["0", "8"]}}, b"12345678"),
    "an unknown dtype": blob({"x": {**ENTRY, "dtype": "F4"}}, b"12345678"),
    "a shape of another size": blob({"x": {**ENTRY, "shape": [3]}}, b"12345678"),
    "a negative shape": blob({"x": {**ENTRY, "shape": [-1, -2]}}, b"12345678"),
    "a shape that is none": blob({"x": {**ENTRY, "shape": "2"}}, b"12345678"),
    "missing data": blob({"x": ENTRY}, b"1234"),
    "negative offsets": blob({"x": {**ENTRY, "data_offsets": [-8, 0]}}, b"12345678"),
    "crossed offsets": blob({"x": {**ENTRY, "data_offsets": [8, 0]}}, b"12345678"),
    "a shape that overflows": blob({"x": {**ENTRY, "shape": [2**33, 2**33], "data_offsets": [0, 0]}}),
    "a pickle": b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00cos\nsystem\n.",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_such_file_is_refused(tmp_path, name):
    (tmp_path / "x").write_bytes(WRONG[name])
    with pytest.raises(ValueError, match="Expected "):
        tensors.load(str(tmp_path / "x"))
    with pytest.raises(Exception, match=r".+"):  # the library's judgement is the same
        load_file(tmp_path / "x")


def test_a_file_that_was_cut_off_anywhere_is_refused(tmp_path):
    tensors.save(str(tmp_path / "whole"), {"x": np.arange(3.0), "y": np.arange(2, dtype=np.int8)})
    whole = (tmp_path / "whole").read_bytes()
    for end in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"Expected "):
            tensors.load(str(tmp_path / "cut"))
