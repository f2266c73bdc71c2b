"""framework.toml: what is read, what is refused and in which words, and what the shipped folders promise."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dlrosetta import frameworks, machine, paths, texts
from dlrosetta.errors import RosettaError, UsageError
from dlrosetta.proof import run

GOOD = """
title = "Tiny"
language = "python"
python = "3.11"
status = "living"
can = ["train", "infer"]
devices = ["cpu"]
dtypes = ["float32", "float64"]
homepage = "https://tiny.example"
threads = ["TINY_THREADS"]

[release]
version = "1.0"
date = "2026-01-31"

[layout]
conv = "OIHW"
dense = "OI"
activations = "channels_first"

[env]
TINY_FLAGS = "--threads={threads} --home={environment}/home"
"""
SHIPPED = frameworks.find()


def plant(folder: Path, text: str = GOOD) -> Path:
    folder.mkdir(parents=True)
    (folder / "framework.toml").write_text(text, encoding="utf-8")
    return folder


def test_a_folder_becomes_a_framework(tmp_path, monkeypatch):
    tiny = frameworks.load(plant(tmp_path / "tiny"))
    assert (tiny.slug, tiny.title, tiny.python, tiny.status, tiny.release_date) == (
        "tiny", "Tiny", "3.11", "living", "2026-01-31",
    )  # fmt: skip
    assert tiny.can == ("train", "infer")
    assert tiny.layout == {"conv": "OIHW", "dense": "OI", "activations": "channels_first"}
    assert tiny.version_file("cnn") == "cnn_tiny.py"
    assert tiny.environ(4, Path("/e")) == {"TINY_THREADS": "4", "TINY_FLAGS": "--threads=4 --home=/e/home"}
    of_amd = replace(tiny, amd_env={"TINY_KERNELS": "5"})
    for maker, given in ((True, "5"), (False, None)):
        monkeypatch.setattr(machine, "is_amd", lambda maker=maker: maker)
        assert of_amd.environ(4, Path("/e")).get("TINY_KERNELS") == given
    cached = replace(tiny, proof_env={"TINY_CACHE": "{environment}/compiled"})
    assert cached.environ(4, Path("/e")) == tiny.environ(4, Path("/e"))  # what is timed compiles
    assert cached.environ(4, Path("/e"), proof=True)["TINY_CACHE"] == "/e/compiled"
    assert not tiny.default


def test_links_come_first_among_the_libraries(tmp_path, monkeypatch):
    tiny = frameworks.load(plant(tmp_path / "tiny", GOOD + '[links]\n"libx.so.1" = "libx.so.2"\n'))
    assert tiny.links == {"libx.so.1": "libx.so.2"}
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    assert tiny.environ(4, Path("/e"))["LD_LIBRARY_PATH"] == "/e/libraries"
    monkeypatch.setenv("LD_LIBRARY_PATH", "/theirs")
    assert tiny.environ(4, Path("/e"))["LD_LIBRARY_PATH"] == "/e/libraries:/theirs"
    declared = replace(tiny, env={"LD_LIBRARY_PATH": "{environment}/cuda"})
    assert declared.environ(4, Path("/e"))["LD_LIBRARY_PATH"] == "/e/libraries:/e/cuda"
    assert "LD_LIBRARY_PATH" not in replace(tiny, links={}).environ(4, Path("/e"))


def test_what_may_differ(tmp_path):
    text = GOOD.replace('"living"', "{dead = 2019}").replace('python = "3.11"', 'version = "other"\nextension = ".jl"')
    tiny = frameworks.load(plant(tmp_path / "tiny", text))
    assert (tiny.status, tiny.dead, tiny.python) == ("dead since 2019", 2019, None)
    assert tiny.version_file("cnn") == "cnn_other.jl"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "Tiny"', "", "Expected title = a text. Received: nothing."),
        ('title = "Tiny"', "title = 3", "Expected title = a text. Received: 3."),
        ('python = "3.11"', "python = 3.11", "Expected python = \"3.11\", or left out. Received: 3.11."),
        (
            "[env]",
            '[links]\n"libx.so.1" = "../libx.so.2"\n[env]',
            'Expected links = a table of names of libraries, "libx.so.1" = "libx.so.2". '
            "Received: {'libx.so.1': '../libx.so.2'}.",
        ),
        ("threads", "treads", "Unknown key 'treads'. Did you mean 'threads'?"),
        ("dense =", "dens =", "Unknown key 'layout.dens'. Did you mean 'layout.dense'?"),
        ('"OIHW"', '"IOHW"', "Expected layout.conv = one of OIHW, HWIO, OHWI. Received: 'IOHW'."),
        ('["cpu"]', '["gpu"]', "Expected devices = a list of some of cpu, cuda, rocm, metal. Received: ['gpu']."),
        ('["cpu"]', "[]", "Expected devices = a list of some of cpu, cuda, rocm, metal. Received: []."),
        ('"living"', '"alive"', "or {dead = year of the last release}. Received: 'alive'."),
        ('"2026-01-31"', '"January"', "Expected release.date = \"YYYY-MM-DD\". Received: 'January'."),
        ("homepage", "default = 1\nhomepage", "Expected default = true or false. Received: 1."),
        ("homepage", "size_mb = true\nhomepage", "Expected size_mb = a whole number. Received: True."),
        ("homepage", 'compile_s = "4 min"\nhomepage', "Expected compile_s = a whole number. Received: '4 min'."),
        ("homepage", "compile_s = -1\nhomepage", "Expected compile_s = a whole number. Received: -1."),
        ('TINY_FLAGS = "', 'TINY_FLAGS = 1 # "', "Expected env = a table of environment variables and texts."),
        ("[env]", '[lacks]\ngru = ""\n[env]', "Expected lacks = a table of texts (their folders' names) and reasons."),
        ("[layout]", "[layout", "expected readable TOML. Received:"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused(tmp_path, old, new, message):
    assert old in GOOD
    with pytest.raises(RosettaError) as caught:
        frameworks.load(plant(tmp_path / "tiny", GOOD.replace(old, new, 1)))
    assert str(caught.value).startswith(f"{tmp_path / 'tiny' / 'framework.toml'}: ")
    assert message in str(caught.value)


def test_a_table_that_is_none_is_refused(tmp_path):
    text = re.sub(r"(?s)\[release\].*?\n\n", "", GOOD).replace("homepage", 'release = "1.0"\nhomepage')
    with pytest.raises(RosettaError, match=r"Expected \[release\] to be a table. Received: '1.0'."):
        frameworks.load(plant(tmp_path / "tiny", text))


def test_a_folder_name_becomes_a_file_name_and_is_checked(tmp_path):
    with pytest.raises(RosettaError, match="Received: 'Tiny-X'"):
        frameworks.load(plant(tmp_path / "Tiny-X"))


def test_folders_are_listed_and_a_later_one_wins(tmp_path, monkeypatch):
    plant(tmp_path / "a" / "tiny")
    plant(tmp_path / "b" / "tiny", GOOD.replace('"Tiny"', '"Another"'))
    (tmp_path / "a" / "no_framework").mkdir()
    monkeypatch.setenv("ROSETTA_FRAMEWORKS", str(tmp_path / "a"))
    assert frameworks.find()["tiny"].title == "Tiny"
    found = frameworks.find([str(tmp_path / "b")])
    assert found["tiny"].title == "Another"
    assert "no_framework" not in found
    assert list(found) == sorted(found)
    assert "torch" in found


def test_selecting():
    def slugs(names):
        return [framework.slug for framework in frameworks.select(names, SHIPPED)]

    assert slugs("torch, flax,torch") == ["flax", "torch"]
    assert slugs("all") == sorted(SHIPPED)
    assert slugs(None) == ["flax", "keras_tensorflow", "torch"]


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match=r"Unknown framework 'troch'\. Did you mean 'torch'\?") as caught:
        frameworks.select("flax,troch", SHIPPED)
    assert ", ".join(SHIPPED) in caught.value.hint
    with pytest.raises(UsageError, match="No framework is named"):
        frameworks.select(" , ", SHIPPED)


COMMAND = 'command = ["{python}", "{folder}/start", "--lib={environment}/lib", "{data}", "{other}"]\nhomepage'


def test_a_command_of_its_own_is_filled_in(tmp_path):
    tiny = frameworks.load(plant(tmp_path / "tiny"))
    assert tiny.started(Path("/e/bin/python")) == []
    other = frameworks.load(plant(tmp_path / "other", GOOD.replace("homepage", COMMAND)))
    assert other.started(Path("/e/bin/python")) == [
        "/e/bin/python", f"{tmp_path}/other/start", "--lib=/e/lib", str(paths.PACKAGE / "data"), "{other}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("homepage", "command = []\nhomepage", "Expected command = a list of texts, the program first; {python}, "),
        ("homepage", 'command = "R"\nhomepage', "are filled in. Received: 'R'."),
        ('python = "3.11"', 'command = ["R"]', 'Expected python = "3.11" beside command: its environment has one.'),
    ],
)
def test_a_wrong_command_is_refused(tmp_path, old, new, message):
    with pytest.raises(RosettaError, match=re.escape(message)):
        frameworks.load(plant(tmp_path / "tiny", GOOD.replace(old, new, 1)))


def test_the_content_hash_holds_a_worker_of_its_own(tmp_path):
    folder = plant(tmp_path / "tiny", GOOD.replace("homepage", 'command = ["{folder}/worker"]\nhomepage'))
    seen = {frameworks.load(folder).content_hash()}
    for name in ("worker", "other.hpp", "worker"):
        with (folder / name).open("a") as file:
            file.write("a\n")
        seen.add(frameworks.load(folder).content_hash())
    assert len(seen) == 4


def test_the_content_hash_holds_what_a_proof_depends_on(tmp_path):
    folder = plant(tmp_path / "tiny")
    tiny = frameworks.load(folder)
    seen = {tiny.content_hash()}
    for name in ("adapter.py", "requirements.lock"):
        (folder / name).write_text("a\n")
        seen.add(tiny.content_hash())
    with (folder / "framework.toml").open("a") as file:
        file.write("#\n")
    seen.add(tiny.content_hash())
    assert len(seen) == 4
    (folder / "README.md").write_text("a\n")
    assert tiny.content_hash() in seen
    shutil.copytree(folder, tmp_path / "copy" / "tiny")
    assert frameworks.load(tmp_path / "copy" / "tiny").content_hash() == tiny.content_hash()


LACKING = [(slug, text) for slug, one in SHIPPED.items() for text in one.lacks]


@pytest.mark.parametrize(("slug", "text"), LACKING)
def test_a_shipped_framework_lacks_what_is_not_there_and_says_why(slug, text):
    stone = texts.find(paths.stone_dirs())
    assert text in stone
    assert not run.has_version(texts.load(stone[text]), SHIPPED[slug])
    assert "https://" in SHIPPED[slug].lacks[text]


@pytest.mark.parametrize("framework", [each for each in SHIPPED.values() if each.python], ids=lambda each: each.slug)
def test_a_shipped_lock_pins_everything_and_names_no_place(framework):
    text = framework.lock.read_text(encoding="utf-8")
    for file in (framework.lock, framework.requirements):
        assert not re.search(r"https?:|file:|index-url|find-links|(^|\s)/\w", file.read_text(encoding="utf-8")), file
    entries = re.findall(r"(?m)^([a-z]\S*)(.*(?:\n    --hash=.*)*)", text)
    assert entries
    for pin, rest in entries:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][^+\s]*", pin), pin
        # torch's wheel differs by place.
        assert ("--hash=sha256:" in rest) == (not pin.startswith("torch==")), pin
    pins = {pin for pin, _ in entries}
    for line in framework.requirements.read_text(encoding="utf-8").splitlines():
        assert re.split(r"[;\s]", line)[0] in pins, line
