"""Entry of a Python worker: `python .../dlrosetta/worker/__main__.py ADAPTER.py`, the pipe's descriptors in
ROSETTA_READ and ROSETTA_WRITE.

Run by path, so that nothing of the program's own environment is on the module path: a package that holds only
`dlrosetta.data` and `dlrosetta.worker` is put in place of the installed one.
"""

import sys
import time


def _offer_dlrosetta():
    import os
    import types

    package = types.ModuleType("dlrosetta")
    package.__path__ = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    sys.modules["dlrosetta"] = package
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != os.path.dirname(os.path.abspath(__file__))]


def _load_adapter(path):
    import importlib.util

    spec = importlib.util.spec_from_file_location("rosetta_adapter", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["rosetta_adapter"] = module
    spec.loader.exec_module(module)
    return module


def _describe_error(error, path):
    """Message, traceback, and the line of the version's file that was running, where there is one."""
    import re
    import traceback

    line = None
    if isinstance(error, SyntaxError) and error.filename == path:
        line = error.lineno
    for frame, number in traceback.walk_tb(error.__traceback__):
        if path is not None and frame.f_code.co_filename == path:
            line = number
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    if line is None and path is not None:  # a function rewritten by AutoGraph names its origin in the message only
        named = re.findall(r'File "%s", line (\d+)' % re.escape(path), text)
        line = int(named[-1]) if named else None
    message = str(error).strip() or "no message"
    return {"type": type(error).__name__, "message": message, "line": line, "traceback": text}


def serve(channel, adapter_path, hello):
    """Answer requests until told to stop. An error costs the request, not the worker."""
    from dlrosetta.worker.session import Session

    session, version = None, None
    while True:
        request = channel.receive()
        number, operation, fields = request["id"], request["op"], request.get("args", {})
        try:
            if operation == "stop":
                channel.send({"id": number, "ok": True, "result": {}})
                return
            if operation == "hello":
                begin = time.perf_counter()
                adapter = _load_adapter(adapter_path)
                hello["import_s"] = time.perf_counter() - begin
                hello.update(adapter.describe())
                session = Session(adapter, fields["layout"])
                result = hello
            else:
                version = fields.get("version", version)
                if operation == "fit":
                    fields["progress"] = lambda event: channel.send({"id": number, "event": event})  # noqa: B023
                if session is None or operation.startswith("_") or not callable(getattr(Session, operation, None)):
                    raise ValueError(
                        "Expected an operation of docs/protocol.md after 'hello'. Received: %r" % operation
                    )
                result = getattr(session, operation)(**fields)
            channel.send({"id": number, "ok": True, "result": result})
        except SystemExit as error:
            told = RuntimeError("the version called exit(%s)" % (error.code,)).with_traceback(error.__traceback__)
            channel.send({"id": number, "ok": False, "error": _describe_error(told, version)})
        except Exception as error:
            channel.send({"id": number, "ok": False, "error": _describe_error(error, version)})


def main():
    _offer_dlrosetta()
    import os
    import platform

    import numpy

    from dlrosetta.worker.protocol import Channel

    channel = Channel(int(os.environ.pop("ROSETTA_READ")), int(os.environ.pop("ROSETTA_WRITE")))
    hello = {"protocol": 1, "python": platform.python_version(), "numpy": numpy.__version__}
    serve(channel, sys.argv[1], hello)


if __name__ == "__main__":
    main()
