"""`rosetta new`: what it writes is sound, and following what `rosetta prove` then says leads to a proven cell."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import planted
import pytest
from planted import ROSETTA, make_environment, replace_function

from dlrosetta import frameworks, paths, scaffold, sections, texts
from dlrosetta.errors import RosettaError, UsageError
from dlrosetta.proof import run

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A folder of texts that holds the real `cnn`, and one of frameworks that does not exist yet."""
    monkeypatch.setenv("ROSETTA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ROSETTA_DATA", "sample")
    folder = tmp_path / "stone" / "cnn"
    folder.mkdir(parents=True)
    for name in ("text.toml", "golden.npz", "reference.py"):
        shutil.copy(texts.find(paths.stone_dirs())["cnn"] / name, folder)
    return tmp_path / "stone", tmp_path / "frameworks"


def rosetta(*arguments):
    command = [ROSETTA, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_new_framework_is_described_and_its_versions_are_begun(places):
    stone, folder = places
    done = rosetta("new", "framework", "tiny", "--dir", folder, "--stone", stone)
    assert (done.returncode, done.stderr) == (0, "")
    wrote = re.findall(r"(?m)^wrote (.+)$", done.stdout)
    names = ["adapter.py", "framework.toml", "requirements.in"]
    assert wrote == [*(str(folder / "tiny" / name) for name in names), str(stone / "cnn" / "cnn_tiny.py")]
    assert frameworks.load(folder / "tiny").title == "tiny"
    version = (stone / "cnn" / "cnn_tiny.py").read_text(encoding="utf-8")
    assert [part.name for part in sections.split(version)] == ["", *sections.NAMES]
    assert "\nDROPOUT3 = 0.5\n" in version
    assert "\n# conv1: weight (50, 3, 3, 3), bias (50,)\n" in version
    assert f"Next: rosetta env lock tiny --frameworks-dir {folder}\n" in done.stdout
    assert f"Next: rosetta prove cnn --frameworks tiny --stone {stone} --frameworks-dir {folder}\n" in done.stdout


def infer_only(folder):
    scaffold.framework("tiny", str(folder), [], (), ())
    facts = folder / "tiny" / "framework.toml"
    facts.write_text(facts.read_text(encoding="utf-8").replace('can = ["train", "infer"]', 'can = ["infer"]'))


def test_who_does_not_train_gets_no_sections_of_training(places):
    stone, folder = places
    infer_only(folder)
    (written,) = scaffold.version("cnn", "tiny", (str(stone),), (str(folder),)).files
    found = [part.name for part in sections.split(written.read_text(encoding="utf-8"))]
    assert found == ["", *(name for name in sections.NAMES if name not in sections.OF_TRAINING)]
    assert "def predict(model, images)" in written.read_text(encoding="utf-8")


def test_what_is_written_is_formatted_and_leaves_no_mark_unfilled(places):
    stone, folder = places
    scaffold.framework("tiny", str(folder), ["cnn"], (str(stone),), ())
    scaffold.text("mine", str(stone), ["torch"], (), ())
    files = [*folder.rglob("*.py"), *stone.rglob("*tiny.py"), *(stone / "mine").glob("*.py")]
    assert len(files) == 4
    ruff = [sys.executable, "-m", "ruff"]
    config = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    for command in (["format", "--check"], ["check", "--ignore", "I001"]):  # where it lies decides the order of imports
        done = subprocess.run([*ruff, *command, *config, *files], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    for path in [*folder.rglob("*.*"), *(stone / "mine").iterdir()]:
        assert not re.search(r"__[A-Z]+__", path.read_text(encoding="utf-8")), path


def test_the_adapter_has_every_function_that_a_worker_calls_and_each_says_what_it_wants(places):
    _, folder = places
    scaffold.framework("tiny", str(folder), [], (), ())
    module = {}
    exec((folder / "tiny" / "adapter.py").read_text(encoding="utf-8"), module)
    worker = "".join(path.read_text(encoding="utf-8") for path in (paths.PACKAGE / "worker").glob("*.py"))
    called = set(re.findall(r"\badapter\.(\w+)\b", worker)) - {"py"}
    assert {"describe", "forward", "synchronize"} <= called <= set(module)
    for name in called:
        function = module[name]
        assert function.__doc__.endswith("."), name
        with pytest.raises(NotImplementedError, match=rf"^adapter function {name}: expected .+\. Next: .+"):
            function(*["x"] * (function.__code__.co_argcount))


def test_a_new_text_is_complete(places):
    stone, _ = places
    done = rosetta("new", "text", "mine", "--dir", stone)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Next: rosetta golden mine --stone {stone}\n" in done.stdout
    assert texts.load(stone / "mine").title == "Mine"
    done = rosetta("golden", "mine", "--stone", stone)
    assert (done.returncode, done.stderr) == (0, "")
    assert (stone / "mine" / "golden.npz").is_file()


def test_prove_asks_for_the_lock_and_then_for_the_adapter(places):
    stone, folder = places
    scaffold.framework("tiny", str(folder), ["cnn"], (str(stone),), ())
    prove = ("prove", "cnn", "--frameworks", "tiny", "--stone", stone, "--frameworks-dir", folder, "--dtype", "float32")
    done = rosetta(*prove)
    assert done.returncode == 1
    assert "rosetta env lock tiny" in " ".join(done.stdout.split())
    make_environment(folder / "tiny")
    done = rosetta(*prove)
    assert done.returncode == 1
    assert "NotImplementedError: adapter function describe: expected a dict" in " ".join(done.stdout.split())


def follow(text, tiny):
    """Write each function that `prove` asks for until it asks no more; return the cell and what was asked for."""
    asked = []
    while True:
        cells = run.prove(text, [tiny], ["float32"])
        found = re.match(r"NotImplementedError: (adapter function )?(\w+): expected", cells[0].reason or "")
        if not found:
            break
        in_adapter, name = bool(found[1]), found[2]
        assert (in_adapter, name) not in asked
        asked.append((in_adapter, name))
        assert cells[0].verdict == "failed"
        if not in_adapter:  # the version's own function: its section and line are named
            assert cells[0].first_departure["section"] in sections.NAMES
        path = tiny.adapter if in_adapter else run.version_of(text, tiny)
        replace_function(path, name, planted.solution(name, in_adapter))
    return cells[0], asked


def test_following_what_prove_says_leads_to_a_proven_cell(places):
    stone, folder = places
    scaffold.text("mine", str(stone), [], (), ())
    scaffold.framework("tiny", str(folder), ["mine"], (str(stone),), ())
    make_environment(folder / "tiny")
    assert rosetta("golden", "mine", "--stone", stone).returncode == 0
    text, tiny = texts.load(stone / "mine"), frameworks.load(folder / "tiny")
    cell, asked = follow(text, tiny)
    assert cell.verdict == "proven", (cell.reason, asked)
    assert len(asked) == len(planted.SOLUTION)
    assert [cell.verdict for cell in run.prove(text, [tiny], ["float32", "float64"])] == ["proven", "proven"]
    done = rosetta("run", "mine", "tiny", "--stone", stone, "--frameworks-dir", folder)
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"test accuracy (0\.\d+)\n", done.stdout)[1]) > 0.5


def test_and_so_it_does_where_nothing_is_trained(places):
    stone, folder = places
    scaffold.text("mine", str(stone), [], (), ())
    infer_only(folder)
    scaffold.version("mine", "tiny", (str(stone),), (str(folder),))
    make_environment(folder / "tiny")
    assert rosetta("golden", "mine", "--stone", stone).returncode == 0
    cell, asked = follow(texts.load(stone / "mine"), frameworks.load(folder / "tiny"))
    assert (cell.verdict, cell.scope) == ("proven", "evaluation"), (cell.reason, asked)
    assert {name for in_adapter, name in asked if not in_adapter} == {"batches", "build_model", "predict", "evaluate"}


def test_a_version_of_its_own(places):
    stone, _ = places
    done = rosetta("new", "version", "cnn", "torch", "--stone", stone)
    assert done.returncode == 0
    assert done.stdout.startswith(f"wrote {stone / 'cnn' / 'cnn_torch.py'}\n")
    assert (
        (stone / "cnn" / "cnn_torch.py").read_text(encoding="utf-8").startswith('"""CNN on CIFAR-10 in PyTorch."""\n')
    )
    again = rosetta("new", "version", "cnn", "torch", "--stone", stone)
    assert again.returncode == 2
    assert "which is there and stays" in again.stderr


def test_one_file_serves_several_frameworks(places):
    stone, _ = places
    started = scaffold.text("mine", str(stone), ["keras_jax", "keras_torch"], (), ())
    assert [path.name for path in started.files] == ["README.md", "reference.py", "text.toml", "mine_keras.py"]


@pytest.mark.parametrize("name", ["Tiny", "tiny-x", "2tiny", "../tiny", "tiny.x", "", "tïny", "tiny\n"])
@pytest.mark.parametrize("kind", ["framework", "text"])
def test_a_name_that_is_none_is_refused_before_anything_is_written(places, kind, name):
    stone, _ = places
    before = sorted(stone.parent.rglob("*"))
    with pytest.raises(UsageError, match="Expected a name of lower-case letters, digits and _"):
        getattr(scaffold, kind)(name, str(stone.parent), [], (), ())
    assert sorted(stone.parent.rglob("*")) == before


def test_a_better_name_is_offered():
    with pytest.raises(UsageError) as caught:
        scaffold.framework("My-Net2", None, [], (), ())
    assert caught.value.hint == "rosetta new framework my_net2"


def test_nothing_that_is_there_is_overwritten(places):
    stone, folder = places
    (stone / "cnn" / "cnn_tiny.py").write_text("mine\n", encoding="utf-8")
    with pytest.raises(UsageError, match="which is there and stays"):
        scaffold.framework("tiny", str(folder), ["cnn"], (str(stone),), ())
    assert not folder.exists()
    with pytest.raises(UsageError, match=r"Expected a new name\. Received: 'torch'"):
        scaffold.framework("torch", str(folder), [], (), ())
    with pytest.raises(UsageError, match=r"Expected a new name\. Received: 'cnn'"):
        scaffold.text("cnn", str(folder), [], (), ())
    (folder / "other").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"Expected a new name\. Received: 'other'"):
        scaffold.text("other", str(folder), [], (), ())
    assert (stone / "cnn" / "cnn_tiny.py").read_text(encoding="utf-8") == "mine\n"


def test_a_folder_that_cannot_be_written(places, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(RosettaError, match=r"Could not write .*file"):
        scaffold.text("mine", str(tmp_path / "file"), [], (), ())


def test_an_installed_program_s_texts_are_not_written_to(places, tmp_path, monkeypatch):
    _, folder = places
    installed = tmp_path / "site-packages" / "dlrosetta"
    shutil.copytree(tmp_path / "stone", installed / "_shipped" / "stone")
    (installed / "_shipped" / "frameworks").mkdir()
    monkeypatch.setattr(paths, "PACKAGE", installed)
    with pytest.raises(UsageError, match="Expected a text in a folder of yours") as caught:
        scaffold.framework("tiny", str(folder), ["cnn"], (), ())
    assert caught.value.hint.startswith(f"cp -r {installed / '_shipped' / 'stone' / 'cnn'} .")
    monkeypatch.chdir(tmp_path)
    assert scaffold._parent(None, "stone") == tmp_path  # no checkout around it: here


def test_in_a_checkout_they_go_where_ours_are():
    assert scaffold._parent(None, "stone") == ROOT / "stone"
    assert scaffold._parent(None, "frameworks") == ROOT / "frameworks"
