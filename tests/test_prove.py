"""`rosetta prove` with versions that go wrong in every way: each costs its own cell, says how, and nothing else."""

import json
import re
import sys

import planted
import pytest
from planted import STEP, TEXT

from dlrosetta import paths

BATCH = "yield images[rows], labels[rows]"


def step(code):
    """An edit: `code` runs first in the version's train step."""
    return (STEP, f"    {code}  # here\n{STEP}")


def start(code):
    """An edit: `code` runs when the version's file is executed."""
    return ("# %% Data", f"{code}\n\n\n# %% Data")


FILL = "import os, contextlib\nfor number in range(3, 64):\n    with contextlib.suppress(OSError):\n        os.write"
FORK = (
    "import os, time\n    if os.fork() == 0:\n        time.sleep(60)\n        os._exit(0)\n"
    "    with open(os.environ['MARK'], 'w') as mark:\n        pass\n    os._exit(5)"
)
# slug: edits of the version; the message of its failure, or None where it is found to differ; the section to be named.
# `# here` stands behind the line to be named.
BROKEN = {
    "syntax": ([("def evaluate(model,", "def evaluate(model, (,  # here\n")], r"SyntaxError: .+", "Evaluation"),
    "missing": (
        [("def evaluate(", "def evaluated(")],
        r"AttributeError: Expected the version to define .*no evaluate",
        "",
    ),
    "exception": ([step('raise RuntimeError("out of luck")')], r"RuntimeError: out of luck", "Train step"),
    "wordless": ([step("raise ValueError")], r"ValueError: no message", "Train step"),
    "surrogate": ([step('raise ValueError("caf\\udce9")')], r"ValueError: caf.", "Train step"),
    "forever": (
        [step("while True: pass")],
        r"no answer to 'train' for 6 s; it was ended \(--patience allows more\)",
        None,
    ),
    "stopped": (
        [step("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)")],
        r"no answer to 'train' for 6 s; it was ended \(--patience allows more\)",
        None,
    ),
    "flood": (
        [step('[print("rosetta" * 100000) for _ in range(200)]\n    while True: pass')],
        r"printed more than 64 MB",
        None,
    ),
    "exits": ([step("raise SystemExit(3)")], r"RuntimeError: the version called exit\(3\)", "Train step"),
    "exits_early": (
        [start("import sys\n\nsys.exit('done')  # here")],
        r"RuntimeError: the version called exit\(done\)",
        "Configuration",
    ),
    "os_exit": ([step("import os; os._exit(7)")], r"exited with status 7 in the middle of a request", None),
    "segfault": ([step("import ctypes; ctypes.string_at(0)")], r"ended by SIGSEGV \(a segmentation fault\)", None),
    "killed": ([step("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")], r"ended by SIGKILL \(.+\)", None),
    "greedy": (
        [step("hoard = [np.ones(2**23) for _ in range(480)]")],  # 64 MB each: 30 GB
        r"held 0\.\d GB of memory, more than 0\.5 GB \(ROSETTA_MEMORY_GB sets the limit\)",
        None,
    ),
    "forges": (
        [start(FILL + '(number, b\'{"id": 2, "ok": true, "result": {}}\\n\')')],
        r"an answer could not be used: KeyError: 'constants'",
        None,
    ),
    "scribbles": (
        [start(FILL + "(number, b'epoch 1: loss 2.3\\n')")],
        r".*private pipe, received b'epoch 1: loss 2\.3'",
        None,
    ),
    "endless": (
        [step(FILL.replace("\n", "\n    ") + "(number, b'x' * 2**27)")],
        r"expected an answer of at most \d+ MB on the private pipe, received more",
        None,
    ),
    "closes": (
        [step("import os; os.closerange(3, 64); raise OSError")],
        r".*(exited with status|private pipe).*",
        None,
    ),
    "forks": ([step(FORK)], r"exited with status 5 in the middle of a request", None),
    "vector_loss": ([("return -np.mean((", "return -((")], None, "Loss"),
    "one_word": (
        [("    return sum((model(x)", '    return "good"\n    return sum((model(x)')],
        r"ValueError: could not convert string.*",
        None,
    ),
    "ragged": ([(BATCH, BATCH.replace("[rows]", "[rows if len(labels) < 999 else rows[1:]]", 1))], None, "Data"),
    "one_hot": (
        [(BATCH, BATCH.replace("labels[rows]", "labels[rows] if len(labels) < 999 else np.eye(10)[labels[rows]]"))],
        None,
        "Data",
    ),
    "cropped": (
        [
            (
                BATCH,
                "yield images[(rows, ...) if len(labels) < 999 else (rows, slice(None), slice(2, 30))], labels[rows]",
            )
        ],
        None,
        "Data",
    ),
    "crops": ([(BATCH, BATCH.replace("[rows]", "[rows, :, 2:]", 1))], r"ValueError: matmul: .+", "Model"),
    "wide": ([("Dense(16, 10)", "Dense(16, 11)  # here")], None, "Model"),
    "lost_layer": (
        [
            ("self.fc1(self.x)", "self.fc1(self.x[:, :-1])"),
            ("return x @ self.weight.T + self.bias", "return x @ self.weight.T + self.bias  # here"),
        ],
        r"ValueError: matmul.*",
        "Model",
    ),
    "not_a_number": ([("    return -np.mean((", "    return np.nan * np.mean((")], None, "Loss"),
}


@pytest.fixture(scope="module")
def everything(tmp_path_factory, template):
    """One run over all that is broken, with two healthy frameworks beside it, one of which is a chatterbox."""
    place = planted.Place(tmp_path_factory.mktemp("prove"), template)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROSETTA_CACHE", str(place.cache))
        place.plant("healthy")
        chatter = 'print(\'{"id": 2, "ok": false, "error": {}}\\n\' * 1000); print(\'x\' * 2**20, file=sys.stderr)'
        place.plant("chatterbox", start("import sys"), step(chatter))
        for slug, (edits, _, _) in BROKEN.items():
            place.plant(slug, *edits, toml=[("[env]\n", f'[env]\nMARK = "{place.folder}/{slug}"\n')])
        arguments = ["--dtype", "float32", "--patience", "6"]
        done, cells = place.prove("healthy", "chatterbox", *BROKEN, arguments=arguments, ROSETTA_MEMORY_GB="0.5")
    return place, done, cells


@pytest.mark.parametrize("slug", BROKEN)
def test_a_version_that_goes_wrong_costs_its_own_cell_and_says_how(everything, slug):
    place, _, cells = everything
    _, message, section = BROKEN[slug]
    cell = cells[slug]
    assert cell["verdict"] == ("failed" if message else "differs")
    if message:
        assert re.fullmatch(message, cell["reason"]), cell["reason"]
    else:  # an answer that is merely wrong is compared, however it is shaped
        assert "could not be used" not in cell["reason"]
    assert "\n" not in cell["reason"] and len(cell["reason"]) < 600
    if section is None:
        return
    where = cell["first_departure"]
    if section:
        assert where["section"] == section
        if "# here" in place.version(slug).read_text(encoding="utf-8"):
            assert where["line"] == place.line(slug, "# here")


def test_the_others_are_untouched(everything):
    _, done, cells = everything
    assert [slug for slug, cell in cells.items() if cell["verdict"] == "proven"] == ["chatterbox", "healthy"]
    assert list(cells) == sorted(cells)
    assert (done.returncode, done.stderr) == (1, "")
    assert cells["healthy"]["reason"] is None and cells["healthy"]["first_departure"] is None


def test_none_of_them_leaves_anything(everything):
    place, _, _ = everything
    assert (place.folder / "forks").exists()
    assert place.left_over() == []
    assert planted.processes_of(place) == []


def test_what_is_not_a_number_is_null_in_the_document(everything):
    checks = {check["name"]: check for check in everything[2]["not_a_number"]["checks"]}
    assert checks["loss"]["error"] is None and checks["loss"]["verdict"] == "differs"


def test_a_worker_that_died_answers_for_both_precisions(place):
    place.plant("healthy")
    place.plant("dies", start("import ctypes\nctypes.string_at(0)"))
    done, cells = place.prove("dies", "healthy", arguments=["--patience", "60"])
    assert done.returncode == 1
    assert [cells["healthy", dtype]["verdict"] for dtype in ("float32", "float64")] == ["proven", "proven"]
    reasons = {cells["dies", dtype]["reason"] for dtype in ("float32", "float64")}
    assert reasons == {"ended by SIGSEGV (a segmentation fault)"}


def test_a_liar_on_the_pipe_is_ended_at_once(place):
    """Once the pipe has held anything but the protocol, no later answer can be trusted."""
    edits = BROKEN["scribbles"][0]
    place.plant("scribbles", *edits)
    _, cells = place.prove("scribbles", arguments=["--patience", "60"])
    assert cells["scribbles", "float32"]["reason"] == cells["scribbles", "float64"]["reason"]


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        (("def seed(number):", "def seed(number:"), "SyntaxError: "),
        (
            ("import numpy as np\n\n\ndef describe", "import no_such_framework\n\n\ndef describe"),
            "ModuleNotFoundError: No module",
        ),
        (('"threads": 1', '"threads": {1}'), "TypeError: Object of type set is not JSON serializable"),
        (("def seed(number):", "raise SystemExit\ndef seed(number):"), "RuntimeError: the version called exit"),
    ],
)
def test_an_adapter_that_is_broken(place, adapter, message):
    place.plant("broken", adapter=[adapter])
    done, cells = place.prove("broken")
    assert (done.returncode, done.stderr) == (1, "")
    assert cells["broken"]["verdict"] == "failed"
    assert cells["broken"]["reason"].startswith(message)


def test_the_table_says_it_too_with_section_and_line(place):
    place.plant("broken", step('raise RuntimeError("out\\x1b[2J of [bold]luck[/bold]")'))
    done = place.call("prove", TEXT, "--frameworks", "broken", "--dtype", "float32")
    assert (done.returncode, done.stderr) == (1, "")
    line = place.line("broken", "# here")
    assert "\x1b" not in done.stdout  # a version's words do not move the cursor
    expected = (
        rf"broken float32 ! failed in section Train step, line {line}: RuntimeError: out.\[2J of \[bold\]luck\[/bold\]"
    )
    assert re.search(expected, " ".join(done.stdout.split())), done.stdout


def test_with_verbose_the_traceback_is_shown(place):
    place.plant("broken", step('raise RuntimeError("out of luck")'))
    done = place.call("prove", TEXT, "--frameworks", "broken", "--dtype", "float32", "--verbose")
    assert f'{TEXT}_broken.py", line {place.line("broken", "# here")}, in train_step' in done.stdout


def test_a_model_that_trains_only_from_what_it_is_given_is_found(place):
    """What a proof gives a model may hide what comes of the values that it drew."""
    given = (
        "        for name, array in arrays.items():\n",
        "        self.given = True\n        for name, array in arrays.items():\n",
    )
    place.plant(
        "stuck", given, (STEP, STEP.replace("    optimizer", "    if hasattr(model, 'given'):\n        optimizer"))
    )
    _, cells = place.prove("stuck")
    cell = cells["stuck"]
    assert [check["name"] for check in cell["checks"] if check["verdict"] == "differs"] == [
        "train steps of a model as built"
    ]
    assert cell["reason"] == "train steps of a model as built: error 4, bound 0"
    assert cell["first_departure"]["line"] == place.line("stuck", "def build_model")


def test_a_framework_without_a_version_cannot_and_one_that_lacks_a_precision_neither(place):
    place.plant("half", toml=[('dtypes = ["float32", "float64"]', 'dtypes = ["float32"]')])
    place.plant("none")
    place.version("none").unlink()
    done, cells = place.prove("half", "none", arguments=["--patience", "60"])
    assert done.returncode == 0
    verdicts = {key: cell["verdict"] for key, cell in cells.items()}
    cannot = dict.fromkeys([("half", "float64"), ("none", "float32"), ("none", "float64")], "cannot")
    assert verdicts == {("half", "float32"): "proven", **cannot}
    assert cells["none", "float32"]["reason"] == f"no version: expected {place.version('none')}"
    toml = place.frameworks / "none" / "framework.toml"
    toml.write_text(f'{toml.read_text()}\n[lacks]\n{TEXT} = "because: https://x"\n')
    _, cells = place.prove("none")
    assert {(cell["verdict"], cell["reason"]) for cell in cells.values()} == {("cannot", "because: https://x")}


# -- what is remembered ------------------------------------------------------------------------------------------------


def remembered(place):
    return {path.name: json.loads(path.read_text()) for path in (place.cache / "proofs").glob("*.json")}


def test_a_worker_that_is_started_by_a_command_of_its_own(place):
    command = f'command = ["{{python}}", "{paths.PACKAGE}/worker/__main__.py", "{{folder}}/other.py"]\nhomepage'
    place.plant("other", toml=[("homepage", command)])
    folder = place.frameworks / "other"
    (folder / "adapter.py").rename(folder / "other.py")
    _, cells = place.prove("other")
    assert (cells["other"]["verdict"], cells["other"]["reason"]) == ("proven", None)


def test_a_command_that_is_not_there(place):
    place.plant("other", toml=[("homepage", 'command = ["/no/such/program"]\nhomepage')])
    _, cells = place.prove("other")
    assert (cells["other"]["verdict"], cells["other"]["reason"]) == (
        "failed",
        "the worker could not run: [Errno 2] No such file or directory: '/no/such/program'. "
        "Next: rosetta env remove other, to make it anew",
    )


def test_a_version_that_was_changed_while_it_was_proven_is_not_remembered_as_proven(place):
    """What was read was proven; what lies there now was not."""
    place.plant("healthy")
    place.plant(
        "restless",
        start("with open(__file__, 'a') as file:\n    file.write('# changed\\n')"),
    )
    _, cells = place.prove("healthy", "restless")
    assert cells["restless"]["verdict"] == "proven"
    assert cells["restless"]["hashes"] == {} != cells["healthy"]["hashes"]
    assert [name.split("-")[1] for name in remembered(place)] == ["healthy"]


def test_all_texts_at_once(place, template):
    """The text beside it has the same cells."""
    import shutil

    other = place.stone / "other"
    shutil.copytree(place.stone / TEXT, other)
    place.plant("tiny")
    shutil.copy(place.version("tiny"), other / "other_tiny.py")
    arguments = ("prove", "all", "--frameworks", "tiny", "--dtype", "float32", "--json")
    done = place.call(*arguments)
    found = {one["text"]: [cell["verdict"] for cell in one["cells"]] for one in json.loads(done.stdout)["texts"]}
    assert (found.pop(TEXT), found.pop("other")) == (["proven"], ["proven"])
    assert len(found) > 1 and all(
        verdicts == ["cannot"] for verdicts in found.values()
    )  # ours, which have no such version
    assert done.returncode == 0


def test_the_interpreter_of_these_tests_is_what_the_workers_ran(everything):
    """A check of the fixture: the cells above were real processes of this very Python."""
    place, _, _ = everything
    facts = [document["facts"] for document in remembered(place).values() if document["facts"]]
    assert {fact["python"] for fact in facts} == {".".join(map(str, sys.version_info[:3]))}
