"""What programs read is what the schemas say: every line on the pipe, `prove` and `compare --json`, result files."""

import inspect
import json
import re
import sys
from pathlib import Path

import jsonschema
import planted
import planted_photos
import pytest
from planted import TEXT

from dlrosetta.worker.session import Session

SCHEMAS = Path(__file__).resolve().parents[1] / "docs" / "schema"
# Stands between the program and a real worker, and writes down every line that passes.
RELAY = """
import os, subprocess, sys, threading
requests, answers = int(os.environ.pop("ROSETTA_READ")), int(os.environ.pop("ROSETTA_WRITE"))
theirs_in, to_worker = os.pipe()
from_worker, theirs_out = os.pipe()
env = dict(os.environ, ROSETTA_READ=str(theirs_in), ROSETTA_WRITE=str(theirs_out))
worker = subprocess.Popen([sys.executable, *sys.argv[2:]], env=env, pass_fds=(theirs_in, theirs_out))
os.close(theirs_in), os.close(theirs_out)

def pass_on(source, target):
    with os.fdopen(source, "rb") as lines, os.fdopen(target, "wb") as onward, open(sys.argv[1], "ab") as log:
        for line in lines:
            log.write(line)
            log.flush()
            onward.write(line)
            onward.flush()

threading.Thread(target=pass_on, args=(requests, to_worker), daemon=True).start()
pass_on(from_worker, answers)
"""


# A train step whose loss is no number after more steps than a proof takes on one model: JSON has no word for that.
DIVERGES = """    model.steps = getattr(model, "steps", 0) + 1
    return loss if model.steps < 23 else np.float32("nan")
"""


def schema(name):
    found = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


@pytest.fixture(scope="module")
def passed(tmp_path_factory, template):
    """The lines that a proof and a full comparison put on the pipe, and the documents that they print."""
    place = planted.Place(tmp_path_factory.mktemp("schemas"), template)
    relay, log = place.folder / "relay.py", place.folder / "lines.txt"
    relay.write_text(RELAY, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROSETTA_CACHE", str(place.cache))
        environments = [
            place.plant("fails", ("def build_model():", "def build_model():\n    raise ValueError")),
            place.plant("tiny"),
            place.plant("diverges", ("    return loss\n", DIVERGES)),
        ]
    place.edit(place.stone / TEXT / "text.toml", ("EPOCHS = 10", "EPOCHS = 2"))
    for slug in ("diverges", "fails", "tiny"):
        place.edit(place.version(slug), ("EPOCHS = 10", "EPOCHS = 2"))
    assert place.call("golden", TEXT).returncode == 0
    planted_photos.write(place.stone)
    planted_photos.write_version(place.stone, "tiny")
    for environment in environments:
        python = environment / "bin" / "python"
        line = f'#!/bin/sh\nexec "{sys.executable}" "{relay}" "{log}" "$@"\n'
        python.write_text(line, encoding="utf-8")
    both = ("--frameworks", "diverges,fails,tiny", "--json")
    proof = place.call("prove", TEXT, *both)
    comparison = place.call("compare", TEXT, *both, "--budget", "1", "--profile", "full")
    place.edit(place.stone / TEXT / "text.toml", ("unit =", "data_parallel = true\nunit ="))
    described = place.frameworks / "tiny" / "framework.toml"
    place.edit(described, ('can = ["train", "infer"]', 'can = ["train", "infer", "data-parallel"]'))
    spread = place.call("prove", TEXT, "--frameworks", "tiny", "--devices", "2", "--json")
    schema("prove").validate(json.loads(spread.stdout))
    place.call("compare", "seen", "--frameworks", "tiny", "--budget", "1", "--profile", "full")
    place.call("roof", "--frameworks", "tiny")
    lines = log.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], proof, comparison, place


def test_every_line_on_the_pipe(passed):
    lines, validator = passed[0], schema("protocol")
    for line in lines:
        validator.validate(line)
    kinds = {"op" if "op" in line else "event" if "event" in line else line["ok"] for line in lines}
    assert kinds == {"op", "event", True, False}  # all four kinds of line have been seen


def operations():
    return {one["properties"]["op"]["const"] for one in schema("protocol").schema["$defs"]["request"]["oneOf"]}


def test_every_operation_is_described_and_used(passed):
    public = {name for name, _ in inspect.getmembers(Session, inspect.isfunction) if not name.startswith("_")}
    assert operations() == public | {"hello", "stop"}
    used = {line["op"] for line in passed[0] if "op" in line}
    assert operations() - used == {"stop"}  # the program ends workers by closing the pipe
    page = (SCHEMAS.parent / "protocol.md").read_text(encoding="utf-8")
    assert set(re.findall(r"(?m)^\| `(\w+)` \|", page)) == operations()


def test_the_requests_arguments_are_those_of_our_worker(passed):
    for request in schema("protocol").schema["$defs"]["request"]["oneOf"]:
        name, arguments = request["properties"]["op"]["const"], request["properties"]["args"]
        if hasattr(Session, name):
            parameters = list(inspect.signature(getattr(Session, name)).parameters.values())[1:]
            given = {one.name for one in parameters} - {"progress"}
            needed = {one.name for one in parameters if one.default is one.empty} - {"progress"}
            assert (set(arguments["properties"]), set(arguments["required"])) == (given, needed), name


def test_prove_json(passed):
    document = json.loads(passed[1].stdout)
    schema("prove").validate(document)
    verdicts = {(cell["framework"], cell["dtype"]): cell["verdict"] for cell in document["cells"]}
    assert verdicts == {
        ("diverges", "float32"): "proven", ("diverges", "float64"): "proven",
        ("fails", "float32"): "failed", ("fails", "float64"): "failed",
        ("tiny", "float32"): "proven", ("tiny", "float64"): "proven",
    }  # fmt: skip


def test_compare_json_and_its_result_file(passed):
    document, validator = json.loads(passed[2].stdout), schema("compare")
    validator.validate(document)
    (file,) = passed[3].results.glob(f"*{TEXT}*")
    assert json.loads(file.read_text(encoding="utf-8")) == document
    diverges, fails, tiny = document["cells"]
    assert (fails["verdict"], fails["items_per_second"], fails["accuracy"]) == ("failed", None, None)
    assert tiny["accuracy"] > 0.3 and len(tiny["training"]["losses"]) == 2
    assert diverges["training"]["losses"] == [None, None] and diverges["accuracy"] > 0.3
    assert tiny["batch_size"] == 64 and len(tiny["items_per_second"]["samples"]) >= 8


@pytest.mark.parametrize("number", [1, 2])
def test_json_is_strict_and_alone_on_stdout(passed, number):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    done = passed[number]
    assert done.returncode == 1  # one of the two cells failed
    assert done.stderr == ""
    json.loads(done.stdout, parse_constant=refuse)
    assert done.stdout.startswith("{\n") and done.stdout.endswith("}\n")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("prove", {"schema": 2}),
        ("prove", {"cells": [{"framework": "torch"}]}),
        ("compare", {"profile": "slow"}),
        ("compare", {"pairs": [{"a": "x", "b": "y"}]}),
        ("protocol", {"op": "dance"}),
        ("protocol", {"id": 0}),
        ("protocol", {"args": {"layout": {}, "more": 1}}),
    ],
)
def test_the_schemas_refuse_what_is_wrong(passed, name, change):
    right = {
        "prove": json.loads(passed[1].stdout),
        "compare": json.loads(passed[2].stdout),
        "protocol": {"id": 1, "op": "hello", "args": {"layout": {}}},
    }[name]
    schema(name).validate(right)
    with pytest.raises(jsonschema.ValidationError):
        schema(name).validate({**right, **change})


def test_all_texts_in_one_document(place):
    place.plant("tiny")
    done = place.call("prove", "all", "--frameworks", "tiny", "--dtype", "float32", "--json")
    document = json.loads(done.stdout)
    schema("prove").validate(document)
    assert {"cnn", TEXT} <= {one["text"] for one in document["texts"]}
