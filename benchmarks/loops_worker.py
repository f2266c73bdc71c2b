"""Runs inside a framework's environment; see loops.py. Prints the seconds of both ways, round by round, as JSON."""

import importlib.util
import json
import sys
import time
import types

job = json.loads(sys.argv[1])
package = types.ModuleType("dlrosetta")
package.__path__ = [job["package"]]
sys.modules["dlrosetta"] = package

from dlrosetta.worker.__main__ import _load_adapter  # noqa: E402
from dlrosetta.worker.session import Session  # noqa: E402

adapter = _load_adapter(job["adapter"])
adapter.describe()
session = Session(adapter, job["layout"])
session.open(job["version"], "float32", job["layers"], job["constants"], job["names"], **job["kind"])
if job["batch"]:
    session.version.BATCH_SIZE = job["batch"]
session.create(0)
session.prepare(job["steps"])
version, state, batches = session.version, session.state, session.prepared


def own_loop():
    """The loop of the version's main: its own train_step, called as its author calls it. (Beside a plain loop the
    adapter may call it, which knows what else a step takes.)
    """
    for images, labels in batches:
        if not session.trains:
            loss = version.predict(state.model, images)
        elif job["plain"]:
            loss = adapter.train_step(version, state, images, labels)
        elif "keras" in version.__dict__:
            loss = version.train_step(state.model, images, labels)
        else:
            loss = version.train_step(state.model, *getattr(state, "stepped", (state.optimizer,)), images, labels)
    return loss


def timed(function):
    adapter.synchronize(state)
    start = time.perf_counter()
    loss = function()
    adapter.synchronize(state, loss)
    return time.perf_counter() - start


def harness():
    return session.steps(len(batches))["seconds"]


if job["plain"]:
    spec = importlib.util.spec_from_file_location("plain", job["plain"])
    plain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plain)
    other = plain.make(version, job["text"])
    first, second = (lambda: timed(own_loop)), (lambda: timed(lambda: other(batches)))
else:
    first, second = harness, (lambda: timed(own_loop))

seconds = ([], [])
for number in range(job["warm"] + job["rounds"]):
    for place in (0, 1) if number % 2 else (1, 0):
        seconds[place].append((first, second)[place]())
print(json.dumps([one[job["warm"] :] for one in seconds]))
