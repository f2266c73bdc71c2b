"""A stretch of work between two fences, by the wall's clock, by that of this process, and by the device's own."""

import time


def timed(adapter, device, state, batches, step):
    """`step(inputs, labels)` of each batch between two fences; without a step, wait for each batch. Answer `seconds`,
    those that all threads of this process `worked_s` meanwhile, by how many the last result was `late_s` behind the
    closing fence, and `device_s`, those by a GPU's own clock, None where nobody tells.
    """
    result = None
    adapter.synchronize(state)
    worked, start, began = time.process_time(), time.perf_counter(), device.mark()
    for inputs, labels in batches:
        if step:
            result = step(inputs, labels)
        else:
            adapter.synchronize(state, inputs)  # of some loaders a batch is a promise until it is asked for
    ended = device.mark()
    adapter.synchronize(state, result)
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    own = device.seconds(began, ended) if step else None
    return {"seconds": seconds, "worked_s": worked, "late_s": late(adapter, result), "device_s": own}


def late(adapter, result):
    """Seconds that reading a result takes beyond what reading it once more takes: none, if a fence has waited for it.
    Without a result, none.
    """
    if result is None:
        return 0.0
    start = time.perf_counter()
    adapter.to_numpy(result)
    read = time.perf_counter()
    adapter.to_numpy(result)
    return max(0.0, (read - start) - (time.perf_counter() - read))
