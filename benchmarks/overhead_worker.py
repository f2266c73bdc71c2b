"""Runs inside a framework's environment; see overhead.py. Prints two lists of seconds as JSON."""

import json
import sys
import time
import types

job = json.loads(sys.argv[1])
package = types.ModuleType("dlrosetta")
package.__path__ = [job["worker"].rsplit("/", 1)[0]]
sys.modules["dlrosetta"] = package

from dlrosetta.worker.__main__ import _load_adapter  # noqa: E402
from dlrosetta.worker.session import Session  # noqa: E402

adapter = _load_adapter(job["adapter"])
adapter.describe()
session = Session(adapter, job["layout"])
session.open(job["version"], "float32", job["layers"], job["constants"])
session.create(0)
session.prepare(job["steps"])
version, state, batches = session.version, session.state, session.prepared


def own_loop():
    """The loop of the version's main: its own train_step, called as its author calls it."""
    for images, labels in batches:
        if state.optimizer is None or "keras" in job["version"]:
            loss = version.train_step(state.model, images, labels)
        else:
            loss = version.train_step(state.model, state.optimizer, images, labels)
    return loss


def timed(function):
    adapter.synchronize(state)
    start = time.perf_counter()
    loss = function()
    adapter.synchronize(state, loss)
    return time.perf_counter() - start


harness, own = [], []
for number in range(job["rounds"] + 3):
    pair = [lambda: harness.append(session.steps(job["steps"])["seconds"]), lambda: own.append(timed(own_loop))]
    for action in pair if number % 2 else reversed(pair):
        action()
print(json.dumps([harness[3:], own[3:]]))
