"""What a GPU tells of itself beside the wall clock: its own time, the memory that it held, and how it multiplies.

An adapter's optional `device()` answers a `Device` where the framework computes on one, and None on a CPU, of which
nothing here is asked. Whatever a framework does not tell stays as it is in this class, and the adapter says why.

JAX, TensorFlow and PyTorch each carry several frameworks: what they tell stands here once. An adapter hands its own
module over, so that nothing is imported here.
"""

import os


class Device(object):
    def mark(self):
        """A moment in the queue of what is submitted, for `seconds`; None where the framework has no events."""
        return None

    def seconds(self, start, end):
        """Seconds by the device's clock between two marks, once a fence has waited for the second; None without."""
        return None

    def reset_memory(self):
        """Count the largest memory anew from here, where that can be."""

    def peak_memory(self):
        """The most bytes that arrays ever held on the device, since `reset_memory`; None where nobody counts."""
        return None

    def full_float32(self):
        """Let products and convolutions of float32 be computed in float32, and not in TF32."""

    def arithmetic(self):
        """How it computes: `tf32`, whether float32 may be computed in TF32 anywhere; `autotune`, whether kernels of
        convolutions are tried out first. Either is left out where the framework does not tell.
        """
        return {}


class Events(Device):
    """CUDA events, by a class of the framework's as PyTorch and Paddle have it."""

    def __init__(self, event_class):
        self.event_class = event_class

    def mark(self):
        event = self.event_class(enable_timing=True)
        event.record()
        return event

    def seconds(self, start, end):
        return start.elapsed_time(end) / 1000  # it counts milliseconds


class Jax(Device):
    """JAX has no events, and counts the most bytes in use from the start of the process.
    https://docs.jax.dev/en/latest/device_memory_profiling.html
    """

    def __init__(self, jax):
        self.jax = jax

    def peak_memory(self):
        return (self.jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")

    def full_float32(self):
        self.jax.config.update("jax_default_matmul_precision", "float32")  # of convolutions too

    def arithmetic(self):
        tf32 = self.jax.config.jax_default_matmul_precision not in ("float32", "highest")
        return {"tf32": tf32, "autotune": "xla_gpu_autotune_level=0" not in os.environ.get("XLA_FLAGS", "")}


class TensorFlow(Device):
    """TensorFlow has no events. https://www.tensorflow.org/api_docs/python/tf/config/experimental"""

    def __init__(self, tf):
        self.tf = tf

    def reset_memory(self):
        self.tf.config.experimental.reset_memory_stats("GPU:0")

    def peak_memory(self):
        return self.tf.config.experimental.get_memory_info("GPU:0")["peak"]

    def full_float32(self):
        self.tf.config.experimental.enable_tensor_float_32_execution(False)

    def arithmetic(self):
        tf32 = self.tf.config.experimental.tensor_float_32_execution_enabled()
        return {"tf32": tf32, "autotune": os.environ.get("TF_CUDNN_USE_AUTOTUNE", "1").lower() not in ("0", "false")}


class Torch(Events):
    """https://docs.pytorch.org/docs/stable/notes/cuda.html; memory is what tensors hold, not what is kept for them."""

    def __init__(self, torch):
        super().__init__(torch.cuda.Event)
        self.torch = torch

    def reset_memory(self):
        self.torch.cuda.reset_peak_memory_stats()

    def peak_memory(self):
        return self.torch.cuda.max_memory_allocated()

    def full_float32(self):
        self.torch.backends.cuda.matmul.fp32_precision = "ieee"
        self.torch.backends.cudnn.conv.fp32_precision = "ieee"  # by default in TF32
        self.torch.backends.cudnn.rnn.fp32_precision = "ieee"

    def arithmetic(self):
        parts = (self.torch.backends.cuda.matmul, self.torch.backends.cudnn.conv, self.torch.backends.cudnn.rnn)
        tf32 = any(part.fp32_precision == "tf32" for part in parts)
        return {"tf32": tf32, "autotune": self.torch.backends.cudnn.benchmark}


def of(adapter):
    """The adapter's device; where it has none, one that tells nothing."""
    found = getattr(adapter, "device", lambda: None)()
    return Device() if found is None else found
