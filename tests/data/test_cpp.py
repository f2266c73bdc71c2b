"""<dlrosetta/data.hpp> gives C++ versions the very numbers that dlrosetta.data gives Python ones."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dlrosetta import data
from dlrosetta.data import cifar

HEADERS = Path(data.__file__).parent / "cpp"
WRITES = """
#include <dlrosetta/data.hpp>
#include <iostream>

template <typename T>
void write(const std::vector<T>& values, const std::string& path) {
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

int main() try {
    auto [train, test] = dlrosetta::data::cifar10();
    write(train.images, "train_images"), write(train.labels, "train_labels");
    write(test.images, "test_images"), write(test.labels, "test_labels");
} catch (const std::exception& error) {
    std::cerr << error.what();
    return 1;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cpp")
    (folder / "writes.cpp").write_text(WRITES, encoding="utf-8")
    command = ["g++", "-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-I", HEADERS, "writes.cpp", "-o", "writes"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "writes"


def run(program, folder, **environ):
    environ = {**os.environ, **environ}
    return subprocess.run([program], cwd=folder, env=environ, capture_output=True, text=True, check=False)


def same_as_python(folder):
    for name, (images, labels) in zip(("train", "test"), data.cifar10(), strict=True):
        assert np.array_equal(np.fromfile(folder / f"{name}_images", np.float32), images.ravel())
        assert np.array_equal(np.fromfile(folder / f"{name}_labels", np.int64), labels)


@pytest.mark.parametrize("named", ["sample", "/no/such/folder"])
def test_the_sample(program, tmp_path, monkeypatch, named):
    monkeypatch.setenv("ROSETTA_DATA", named)
    assert run(program, tmp_path).returncode == 0
    same_as_python(tmp_path)


@pytest.mark.parametrize("variable", ["ROSETTA_DATA", "XDG_DATA_HOME"])
def test_the_real_layout(program, tmp_path, monkeypatch, variable):
    monkeypatch.delenv("ROSETTA_DATA", raising=False)
    root = tmp_path if variable == "ROSETTA_DATA" else tmp_path / "dlrosetta" / "data"
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for name in cifar.TRAIN_FILES + cifar.TEST_FILES:
        draw.integers(0, 256, cifar.RECORDS * cifar.RECORD_BYTES, np.uint8).tofile(folder / name)
    monkeypatch.setenv(variable, str(tmp_path))
    assert run(program, tmp_path).returncode == 0
    same_as_python(tmp_path)


def test_a_damaged_copy_is_an_error_in_the_same_words(program, tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "data_batch_1.bin").write_bytes(b"x" * 100)
    monkeypatch.setenv("ROSETTA_DATA", str(tmp_path))
    with pytest.raises(data.DataError) as caught:
        data.cifar10()
    done = run(program, tmp_path)
    assert (done.returncode, done.stderr) == (1, str(caught.value))
