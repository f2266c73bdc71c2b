"""Texts and frameworks of one's own: --stone and --frameworks-dir, or their variables, work for every command."""

import os
import re
import shutil

import pytest
from planted import TEXT

# Each with what it says once it finds them; `bare` is a framework without a version, so that nothing need run.
COMMANDS = {
    "rosetta": ((), r"bare"),
    "read": (("read", TEXT, "tiny"), "def build_model"),
    "prove": (("prove", TEXT, "--frameworks", "bare"), "no version: expected"),
    "compare": (("compare", TEXT, "--frameworks", "bare"), "no version: expected"),
    "run": (("run", TEXT, "tiny"), "as its author wrote it"),
    "golden": (("golden", TEXT), "golden.npz"),
    "env list": (("env", "list"), "bare"),
    "env create": (("env", "create", "tiny"), "tiny: ready"),
    "env remove": (("env", "remove", "bare"), "bare: no environment was there"),
    "env lock": (("env", "lock", "bare"), "requirements.lock is written"),
    "new text": (("new", "text", "other", "--framework", "tiny"), "other_tiny.py"),
    "new framework": (("new", "framework", "other", "--text", TEXT), f"{TEXT}_other.py"),
    "new version": (("new", "version", TEXT, "bare"), f"{TEXT}_bare.py"),
}


@pytest.fixture
def mine(place):
    place.plant("tiny", ("def main():\n", "def main():\n    print('as its author wrote it')\n    return\n"))
    place.plant("bare", environment=False)
    place.version("bare").unlink()
    (place.frameworks / "bare" / "requirements.in").write_text("")
    (place.frameworks / "bare" / "requirements.lock").write_text("")
    return place


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, how) for name in COMMANDS for how in ("options", "variables")),
        *((name, "neither") for name in ("rosetta", "read", "prove", "env list", "new version")),
    ],
)
def test_every_command_finds_them(mine, name, how, tmp_path):
    command, said = COMMANDS[name]
    if command[:1] == ("new",) and command[1] != "version":
        command = (*command, "--dir", tmp_path / "new")
    options = ["--frameworks-dir", mine.frameworks]
    if command[:1] != ("env",):
        options += ["--stone", mine.stone]
    none = dict.fromkeys(("ROSETTA_STONE", "ROSETTA_FRAMEWORKS"))
    more = {**mine.closed(), **({} if how == "variables" else none)}
    done = mine.call(*command, *(options if how == "options" else ()), **more)
    if how == "neither":
        assert said not in done.stdout
        assert done.returncode == (0 if command in ((), ("env", "list")) else 2)
    else:
        assert done.returncode == 0, done.stderr
        assert said in done.stdout


def test_several_folders_and_the_last_one_wins(mine, tmp_path):
    """By repeating the option, by a list in the variable, and both together: options come after variables."""
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for number, folder in enumerate(folders):
        for name in (f"only_{folder.name}", "shared"):
            shutil.copytree(mine.frameworks / "tiny", folder / "frameworks" / name)
            toml = folder / "frameworks" / name / "framework.toml"
            toml.write_text(toml.read_text().replace("0.0.0", f"{number}.0.0"))
            shutil.copytree(mine.stone / TEXT, folder / "stone" / name)
            title = folder / "stone" / name / "text.toml"
            title.write_text(title.read_text().replace('title = "Mine"', f'title = "Title {number}"'))
            (folder / "stone" / name / f"{name}_tiny.py").write_text("# %% Model\n")
            (folder / "stone" / name / f"{name}_shared.py").write_text(f"# %% Model\nnumber = {number}\n")

    def seen(options, variable):
        frameworks = [part for one in options for part in ("--frameworks-dir", folders[one] / "frameworks")]
        stones = [part for one in options for part in ("--stone", folders[one] / "stone")]
        environ = {
            "ROSETTA_FRAMEWORKS": os.pathsep.join(str(folders[one] / "frameworks") for one in variable),
            "ROSETTA_STONE": os.pathsep.join(str(folders[one] / "stone") for one in variable),
        }
        rows = mine.call("env", "list", *frameworks, **environ).stdout.splitlines()
        found = {row.split()[0]: row.split() for row in rows if row}
        release = next(word for word in found["shared"] if word.endswith(".0.0"))
        read = mine.call("read", "shared", "shared", *frameworks, *stones, **environ).stdout
        (number,) = [line.split()[-1] for line in read.splitlines() if "number = " in line]
        assert release == f"{number}.0.0"
        return {slug for slug in found if slug.startswith("only_")}, int(number)

    assert seen([0, 1], []) == ({"only_a", "only_b"}, 1)
    assert seen([1, 0], []) == ({"only_a", "only_b"}, 0)
    assert seen([], [2, 1]) == ({"only_b", "only_c"}, 1)
    assert seen([0], [1, 2]) == ({"only_a", "only_b", "only_c"}, 0)


@pytest.mark.parametrize("name", ["rosetta", "prove", "run", "golden", "env create"])
def test_a_folder_that_is_none_is_a_wrong_call(mine, name):
    command = COMMANDS[name][0]
    if name != "golden":  # which needs no framework
        done = mine.call(*command, "--frameworks-dir", "/no/such/folder")
        expected = "Error: Expected a folder of frameworks. Received: /no/such/folder, which is not a folder"
        assert (done.returncode, done.stdout, done.stderr.strip()) == (2, "", expected)
        done = mine.call(*command, ROSETTA_FRAMEWORKS="/no/such/folder")
        assert (done.returncode, done.stderr.strip()) == (2, expected)
    if not name.startswith("env "):
        done = mine.call(*command, "--stone", "/no/such/folder")
        expected = "Error: Expected a folder of texts. Received: /no/such/folder, which is not a folder"
        assert (done.returncode, done.stdout, done.stderr.strip()) == (2, "", expected)


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        (("prove", "mime"), TEXT),
        (("compare", "mime"), TEXT),
        (("run", "mime", "tiny"), TEXT),
        (("read", "mime", "tiny"), TEXT),
        (("golden", "mime"), TEXT),
        (("new", "version", "mime", "tiny"), TEXT),
        (("new", "framework", "other", "--text", "mime", "--dir", "/nowhere"), TEXT),
        (("prove", TEXT, "--frameworks", "tiny,bear"), "bare"),
        (("compare", TEXT, "--frameworks", "bear"), "bare"),
        (("run", TEXT, "bear"), "bare"),
        (("read", TEXT, "tiny", "bear"), "bare"),
        (("new", "version", TEXT, "bear"), "bare"),
        (("new", "text", "other", "--framework", "bear", "--dir", "/nowhere"), "bare"),
        (("env", "create", "bear"), "bare"),
        (("env", "remove", "bear"), "bare"),
        (("env", "lock", "bear"), "bare"),
        (("prove", TEXT, "--frameworkz", "tiny"), "--frameworks"),
        (("compare", TEXT, "--profil", "full"), "--profile"),
        (("compare", TEXT, "--budge", "3"), "--budget"),
        (("env", "list", "--jso"), "--json"),
    ],
)
def test_what_is_unknown_is_2_and_suggests_one_s_own(mine, command, meant):
    done = mine.call(*command)
    assert (done.returncode, done.stdout) == (2, "")
    text = " ".join(done.stderr.split())
    assert re.search(rf"Did you mean (one of: )?'?{meant}'?", text), text
    assert "Traceback" not in text
