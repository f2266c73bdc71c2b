"""What a stretch of steps is in a worker: a fence, as many steps as were asked for, and a fence, in that order."""

from dlrosetta.worker.session import Session

LAYOUT = {"conv": "OIHW", "dense": "OI", "activations": "channels_first"}


class Adapter:
    """Notes what it is asked for."""

    def __init__(self):
        self.asked = []

    def train_step(self, version, state, inputs, labels):
        self.asked.append(f"step {inputs}")
        return f"loss of {inputs}"

    def synchronize(self, state, value=None):
        self.asked.append(f"fence {value or ''}".strip())

    def to_numpy(self, value):
        self.asked.append(f"read {value}")
        return 0.0


def session():
    one = Session(Adapter(), LAYOUT)
    one.trains, one.prepared = True, [("a", 0), ("b", 1)]
    return one


def test_steps_are_between_two_fences_and_the_last_loss_is_read_behind_them():
    one = session()
    told = one.steps(3)
    last = "loss of a"
    assert one.adapter.asked == ["fence", "step a", "step b", "step a", f"fence {last}", f"read {last}", f"read {last}"]
    assert set(told) >= {"seconds", "worked_s", "late_s"} and told["seconds"] > 0


def test_of_a_loader_alone_each_batch_is_waited_for():
    one = session()
    one.feeding = iter([("a", 0), ("b", 1)])
    one.feed(2, work=False)
    assert one.adapter.asked == ["fence", "fence a", "fence b", "fence"]
