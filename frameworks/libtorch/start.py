"""Starts LibTorch's worker, or runs one version, or compiles one as the library that the worker loads.

    start.py INCLUDE                    the worker, on the descriptors in ROSETTA_READ and ROSETTA_WRITE
    start.py INCLUDE VERSION.cpp        the version's own `main`, as its author wrote it
    start.py INCLUDE --library VERSION.cpp train|infer CONSTANT ...
                                        prints {"library": path} or {"message", "line", "traceback"}

INCLUDE is the folder of <dlrosetta/data.hpp>. What is compiled is kept in the environment's folder `compiled`, under
the hash of all that went into it, and made beside and renamed. Standard library only.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
KEPT = Path(sys.prefix, "compiled")
MOST_KEPT = 16  # files: a version that is being written is compiled often


def package(name):
    return Path(importlib.util.find_spec(name).origin).parent  # not imported: that takes seconds


def flags(include):
    torch = package("torch")
    includes = [torch / "include", torch / "include/torch/csrc/api/include", package("nlohmann_json") / "include"]
    return [
        *("-std=c++20", "-O2", "-g1", "-fPIC"),  # -g1: lines, so that an error can say where it was
        "-DNDEBUG",  # as the wheel is compiled: its classes have other members without
        "-fno-gnu-unique",  # else two versions in one process share what they each define
        *(part for folder in includes for part in ("-isystem", str(folder))),
        *("-I", str(HERE), "-I", str(include)),
        *("-L", str(torch / "lib"), f"-Wl,-rpath,{torch / 'lib'}"),
        *("-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu", "-lc10", "-ldl"),
    ]


def compiled(source, ending, include, *more):
    """Return the path of what g++ makes of the file `source`, or None, and what it said."""
    options = [*flags(include), *more]
    digest = hashlib.sha256(json.dumps([str(source), options, gxx("--version").stdout]).encode())
    for path in sorted([Path(source), *HERE.glob("*.[ch]pp"), *include.rglob("*.hpp")]):
        digest.update(path.read_bytes())
    target = KEPT / f"{Path(source).stem}-{digest.hexdigest()[:16]}{ending}"
    KEPT.mkdir(exist_ok=True)
    with locked(KEPT / ".lock"):
        if target.exists():
            target.touch()
            return target, ""
        for left in filter(Path.is_dir, KEPT.iterdir()):  # by a run that was killed
            shutil.rmtree(left)
        print(f"compiling {Path(source).name}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=KEPT) as beside:
            out = Path(beside, "out")
            done = gxx(str(source), "-o", str(out), *options)  # libraries behind what needs them
            if done.returncode:
                return None, done.stderr
            out.rename(target)
        for old in sorted(KEPT.glob("[!.]*"), key=os.path.getmtime)[:-MOST_KEPT]:
            old.unlink()
    return target, ""


def gxx(*arguments):
    return subprocess.run(["g++", *arguments], capture_output=True, text=True, errors="replace", check=False)


@contextlib.contextmanager
def locked(path):
    """Alone with what is kept; a lock ends with its process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def library(version, use, constants, include):
    """Compile the version with what joins it to the worker. A constant that it does not declare is left out."""
    source = Path(version).read_text(encoding="utf-8")
    declared = [name for name in constants if re.search(rf"^[^/\n]*\b{name}\s*[={{]", source, re.MULTILINE)]
    names = "".join(f"CONSTANT({name})" for name in declared)
    content = hashlib.sha256(source.encode()).hexdigest()
    joined = [
        f'-DVERSION="{version}"',
        f"-DCONSTANTS={names}",
        f"-DCONTENT={content}",
        *(["-DINFERS"] if use == "infer" else []),
    ]
    found, said = compiled(HERE / "joined.cpp", ".so", include, "-shared", *joined)
    if found:
        return {"library": str(found)}
    first = re.search(rf"^{re.escape(version)}:(\d+):(?:\d+:)? (?:fatal )?error: (.*)$", said, re.MULTILINE)
    other = re.search(r"error: (.*)$", said, re.MULTILINE)
    message = first[2] if first else other[1] if other else "g++ failed"
    return {"message": message, "line": int(first[1]) if first else None, "traceback": said[:100_000]}


def main(include, arguments):
    if arguments[:1] == ["--library"]:
        print(json.dumps(library(arguments[1], arguments[2], arguments[3:], include)))
        return
    source = Path(os.path.abspath(arguments[0])) if arguments else HERE / "worker.cpp"
    program, said = compiled(source, "", include)
    if program is None:
        sys.exit(said)
    if not arguments:
        os.environ["ROSETTA_COMPILER"] = json.dumps([sys.executable, *sys.argv, "--library"])
        os.environ["ROSETTA_STARTED"] = str(time.monotonic_ns())
    os.execv(program, [str(program)])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
