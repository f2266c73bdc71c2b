"""Fixtures that every test may use; how tests are shared out to processes."""

import os
import signal

# Two processes share the cores: where each starts a thread a core, threads wait for one another, and NumPy was seen to
# take 2.7 times as long. Workers are told how many threads they have; this is for the tests' own, set before NumPy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import planted
import pytest
from xdist.scheduler import LoadFileScheduling

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


class Scheduling(LoadFileScheduling):
    """A file's tests are run by one process, for they share what is slow to start; the planted faults, 1,600 in
    one file with `-m wide`, by one for each text and framework, so that the processes end at about the same time.
    """

    def _split_scope(self, nodeid):
        file, _, test = nodeid.partition("::")
        if "mutations" not in file or "[" not in test:
            return file
        return "-".join([file, *test.partition("[")[2].split("-")[:2]])  # the edit's id: text, framework, name


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return Scheduling(config, log)
