"""The worker's end of the private pipe: one JSON object a line, each request answered once, in order.

A thread reads requests, so that the worker ends at once when the program at the other end is gone, even in the middle
of a long computation: no orphan keeps a device busy.
"""

import json
import os
import queue
import threading


class Channel(object):
    """Requests come from file descriptor `reader`, answers and events go to `writer`."""

    def __init__(self, reader, writer):
        self._reader = os.fdopen(reader, "rb")
        self._writer = os.fdopen(writer, "wb")
        self._requests = queue.Queue()
        thread = threading.Thread(target=self._read)
        thread.daemon = True
        thread.start()

    def _read(self):
        for line in iter(self._reader.readline, b""):
            self._requests.put(json.loads(line.decode("utf-8")))
        os._exit(3)  # the other end closed: nobody is left to answer

    def receive(self):
        """Wait for the next request."""
        return self._requests.get()

    def send(self, message):
        """Write one message. Floats keep every digit; NaN and infinity travel as JSON's usual extensions."""
        self._writer.write(json.dumps(message).encode("utf-8") + b"\n")
        self._writer.flush()
