"""Runs one version as `python VERSION.py` would, by `python .../dlrosetta/worker/run.py VERSION.py` in its environment.

As for a worker, a package that holds only `dlrosetta.data` and `dlrosetta.worker` stands in for the installed one, so
that nothing of the program's own environment gets onto the module path.
"""

import os
import runpy
import sys
import traceback
import types


def main(version):
    """Run the file as the main program; show its errors as Python would, without the frames of this file."""
    package = types.ModuleType("dlrosetta")
    package.__path__ = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    sys.modules["dlrosetta"] = package
    sys.path[0] = os.path.dirname(version)  # where Python looks first when it is given this file
    sys.argv[:] = [version]
    try:
        runpy.run_path(version, run_name="__main__")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != version:
            trace = trace.tb_next
        traceback.print_exception(type(error), error, trace)
        sys.exit(1)


if __name__ == "__main__":
    main(os.path.abspath(sys.argv[1]))
