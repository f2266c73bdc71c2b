"""Fixtures that every test may use."""

import signal

import planted
import pytest

# A shell starts what it puts in the background with Ctrl-C ignored, and every process below would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """The tiny text and the framework of nothing but numpy, complete, written once."""
    folder = tmp_path_factory.mktemp("template")
    planted.template(folder)
    return folder


@pytest.fixture
def place(tmp_path, template, monkeypatch):
    """A machine of its own (planted.Place) with the tiny text and no framework yet."""
    found = planted.Place(tmp_path / "machine", template)
    monkeypatch.setenv("ROSETTA_CACHE", str(found.cache))
    return found
