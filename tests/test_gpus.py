"""GPUs from recorded outputs of nvidia-smi, and the one that a comparison is to use. No GPU is at hand."""

import json
import os
from dataclasses import replace
from pathlib import Path

import planted
import pytest
from planted import TEXT

from dlrosetta import client, commands, frameworks, gpus, machine, paths, rounds, texts, timed
from dlrosetta.doctor import shown
from dlrosetta.errors import UsageError
from dlrosetta.proof import run

RECORDED = Path(__file__).parent / "recorded"
MIB = 2**20
A100 = "GPU-513536b6-7d19-9063-b049-1e69664bb298"
FIRST, SECOND = "MIG-bd4c1a2b-57e1-5df5-ac76-30cd1423b65e", "MIG-82b0c2d6-8829-56e4-9c64-f7ba16ae6c95"


def recorded(name):
    return (RECORDED / name).read_text(encoding="utf-8")


def listed():
    """What `-L` would say of the recorded A100: the listing is of another machine, whose GPU 5 is given its uuid, and
    has three instances instead of four of another size.
    """
    return recorded("dgx_a100_mig.txt").replace("GPU-4fb17cd5-cad8-31a6-34d3-08434d926140", A100)


def smi(folder, *files, listing="", more=""):
    """A PATH on which nvidia-smi prints these recordings; several are joined to one machine's."""
    one, *others = (recorded(file) for file in files)
    parts = [text[text.index("<gpu ") : text.index("</gpu>") + 6] for text in others]
    folder.mkdir(exist_ok=True)
    (folder / "log.xml").write_text(one.replace("</nvidia_smi_log>", "".join(parts) + "</nvidia_smi_log>"), "utf-8")
    (folder / "list.txt").write_text(listing, encoding="utf-8")
    program = folder / "nvidia-smi"
    script = f'#!/bin/sh\n{more}\n[ "$1" = -L ] && exec cat {folder}/list.txt\nexec cat {folder}/log.xml\n'
    program.write_text(script, encoding="utf-8")
    program.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


# -- what is here ------------------------------------------------------------------------------------------------------


def test_a_device_under_mig():
    (gpu,) = gpus.parse(recorded("a100_mig.xml"))
    assert (gpu.name, gpu.driver, gpu.uuid) == ("NVIDIA A100-SXM4-80GB", "535.54.03", A100)
    assert (gpu.memory, gpu.used) == (81920 * MIB, 50 * MIB)
    assert (gpu.mig, gpu.busy, gpu.clock, gpu.most_clock) == (True, None, 1275.0, 1410.0)  # of itself it has no use
    assert [one.index for one in gpu.instances] == [0, 1, 2, 3]
    assert {(one.memory, one.used, one.profile, one.uuid) for one in gpu.instances} == {
        (19968 * MIB, 12 * MIB, None, None)
    }


def test_a_device_that_is_whole():
    (gpu,) = gpus.parse(recorded("a5000.xml"))
    assert (gpu.name, gpu.driver, gpu.memory, gpu.used) == (
        "NVIDIA RTX A5000", "590.44.01", 24564 * MIB, 22437 * MIB,
    )  # fmt: skip
    assert (gpu.mig, gpu.instances, gpu.busy, gpu.too_hot, gpu.capped) == (False, (), 0.0, False, False)


@pytest.mark.parametrize(("file", "kind"), [("a5000.xml", "event"), ("t4.xml", "throttle")])
def test_why_clocks_are_low_whatever_the_driver_calls_it(file, kind):
    assert not gpus.parse(recorded(file))[0].too_hot
    for reason, told in (("hw_thermal_slowdown", (True, False)), ("sw_power_cap", (False, True))):
        name = f"<clocks_{kind}_reason_{reason}>"
        (gpu,) = gpus.parse(recorded(file).replace(name + "Not Active", name + "Active"))
        assert (gpu.too_hot, gpu.capped) == told


def test_instances_get_the_profiles_and_uuids_of_the_listing():
    (gpu,) = gpus.named(gpus.parse(recorded("a100_mig.xml")), listed())
    assert [(one.profile, one.uuid and one.uuid[:8]) for one in gpu.instances] == [
        ("2g.10gb", "MIG-bd4c"), ("2g.10gb", "MIG-82b0"), ("2g.10gb", "MIG-7bd5"), (None, None),
    ]  # fmt: skip
    alone = replace(gpu, uuid="GPU-b9e81bd3")
    assert gpus.named([alone], listed())[0].instances[0].uuid is None  # of another device


def test_nvidia_smi_is_asked_for_its_listing_only_where_something_is_divided(tmp_path):
    more = f'echo "$@" >> {tmp_path}/asked'
    found, error = gpus.look(smi(tmp_path / "a", "t4.xml", "a5000.xml", more=more))
    assert [gpu.name for gpu in found] == ["Tesla T4", "NVIDIA RTX A5000"] and error is None
    assert (tmp_path / "asked").read_text() == "-q -x\n"
    (gpu,), _ = gpus.look(smi(tmp_path / "b", "a100_mig.xml", listing=listed(), more=more))
    assert gpu.instances[1].uuid == SECOND
    assert (tmp_path / "asked").read_text() == "-q -x\n-q -x\n-L\n"


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", "Failed to initialize NVML"),
        ("echo 'No devices were found'; exit 0", "No devices were found"),
        ("exit 6", "failed"),
    ],
)
def test_an_nvidia_smi_that_fails(tmp_path, more, error):
    found, told = gpus.look(smi(tmp_path, "t4.xml", more=more))
    assert found == [] and told.startswith(error)


def test_a_machine_without_nvidia_smi(tmp_path):
    assert gpus.look({"PATH": str(tmp_path)}) == ([], None)


def test_a_result_says_which_devices_there_are_but_not_their_numbers(tmp_path, monkeypatch):
    there = smi(tmp_path / "smi", "a100_mig.xml", "a5000.xml", listing=listed())["PATH"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "gpus" not in machine.facts()
    monkeypatch.setenv("PATH", there)
    found = machine.facts()["gpus"]
    assert found == [
        {
            "name": "NVIDIA A100-SXM4-80GB", "memory_bytes": 81920 * MIB, "driver": "535.54.03",
            "mig": ["2g.10gb"] * 3 + [None],
        },
        {"name": "NVIDIA RTX A5000", "memory_bytes": 24564 * MIB, "driver": "535.54.03", "mig": None},
    ]  # fmt: skip
    assert "GPU-" not in json.dumps(found) and "MIG-" not in json.dumps(found)


def test_the_doctor_shows_instances_by_the_uuid_that_chooses_them(tmp_path, capsys):
    found, _ = gpus.look(smi(tmp_path, "a100_mig.xml", listing=listed()))
    document = {
        "machine": {
            "cpu": "a CPU", "allowed": 1, "cores": 1, "free": 0, "memory": 0, "workers": {},
            "gpus": [json.loads(json.dumps(gpu, default=vars)) for gpu in found],
        },
        "roof": {"flops_per_s": {}, "bytes_per_s": {}, "reasons": {}},
        "steps": {}, "vector": "AVX2", "not_ready": [], "findings": [],
    }  # fmt: skip
    shown.show(document)
    told = " ".join(capsys.readouterr().out.split())
    assert f"NVIDIA A100-SXM4-80GB, driver 535.54.03, {A100}" in told
    assert f"MIG 2g.10gb, 20 GB, {FIRST}" in told and "MIG 3, 20 GB, of no known uuid" in told


# -- choosing one ------------------------------------------------------------------------------------------------------

A5000, T4 = "GPU-12345678-aaaa-bbbb-cccc-0123456789ab", "GPU-d37e67a5-91dd-3774-a5cb-99096249601a"


@pytest.fixture
def three(tmp_path):
    """The environment of a machine with a T4, an A5000 and an A100 that is divided."""
    return smi(tmp_path / "smi", "t4.xml", "a5000.xml", "a100_mig.xml", listing=listed())


@pytest.mark.parametrize(
    ("name", "title", "seen"),
    [
        ("cuda", "Tesla T4", T4),
        ("cuda:0", "Tesla T4", T4),
        ("cuda:1", "NVIDIA RTX A5000", A5000),
        (A5000, "NVIDIA RTX A5000", A5000),
        ("GPU-1234", "NVIDIA RTX A5000", A5000),
        (SECOND, "NVIDIA A100-SXM4-80GB, MIG 2g.10gb", SECOND),
        ("cpu", "cpu", ""),
    ],
)
def test_a_device_is_chosen(three, name, title, seen):
    found = gpus.choose(name, three)
    assert (found.title, found.environ, found.gpu) == (title, {"CUDA_VISIBLE_DEVICES": seen}, name != "cpu")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cuda:2", "Expected an instance: NVIDIA A100-SXM4-80GB is divided by MIG. Received: cuda:2."),
        (A100, "Expected an instance: NVIDIA A100-SXM4-80GB is divided by MIG."),
        ("cuda:3", "Expected --device below cuda:3: nvidia-smi finds 3 GPUs. Received: cuda:3."),
        ("MIG-", f"{FIRST} (NVIDIA A100-SXM4-80GB, MIG 2g.10gb)"),
        ("GPU-0", "Received: 'GPU-0'."),
        ("tpu", "Expected --device cpu, cuda, cuda:1, or the uuid of a GPU or MIG instance. Received: 'tpu'."),
        ("cuda:-1", "Received: 'cuda:-1'."),
    ],
)
def test_what_cannot_be_chosen(three, name, words):
    with pytest.raises(UsageError) as caught:
        gpus.choose(name, three)
    assert words in caught.value.message and caught.value.hint == "rosetta doctor"


def test_without_a_gpu_only_the_cpu_can_be_chosen(tmp_path):
    environ = {"PATH": str(tmp_path)}
    assert not gpus.choose("cpu", environ).gpu
    with pytest.raises(UsageError, match="Expected --device cpu: nvidia-smi finds no GPUs"):
        gpus.choose("cuda", environ)
    with pytest.raises(UsageError, match="Expected --device with the uuid of a GPU, of which nvidia-smi finds none"):
        gpus.choose("GPU-1", environ)


@pytest.mark.parametrize(
    ("visible", "name", "title", "seen"),
    [
        ("5,3", "cuda:1", "cuda:1", "3"),  # in an order that is CUDA's: which one that is, nobody can tell here
        (f"{A5000[:12]},{T4}", "cuda:0", "NVIDIA RTX A5000", A5000),
        (f"{SECOND}", "cuda:0", "NVIDIA A100-SXM4-80GB, MIG 2g.10gb", SECOND),
    ],
)
def test_numbers_count_what_somebody_else_has_made_visible(three, visible, name, title, seen):
    found = gpus.choose(name, {**three, "CUDA_VISIBLE_DEVICES": visible})
    assert (found.title, found.environ) == (title, {"CUDA_VISIBLE_DEVICES": seen})


@pytest.mark.parametrize(("visible", "count"), [("", "no GPUs"), ("0,-1,1", "1 GPU"), ("-1", "no GPUs")])
def test_what_is_hidden_cannot_be_chosen(three, visible, count):
    with pytest.raises(UsageError, match=f"CUDA_VISIBLE_DEVICES={visible} leaves {count}."):
        gpus.choose("cuda:1", {**three, "CUDA_VISIBLE_DEVICES": visible})


def test_a_number_is_named_where_all_devices_are_alike(tmp_path):
    environ = smi(tmp_path, "t4.xml", "t4.xml")
    assert gpus.choose("cuda", {**environ, "CUDA_VISIBLE_DEVICES": "1"}).title == "Tesla T4"


@pytest.mark.parametrize(
    ("visible", "title"),
    [(None, "Tesla T4"), (A5000, "NVIDIA RTX A5000"), (SECOND, "NVIDIA A100-SXM4-80GB, MIG 2g.10gb"), ("", "cpu")],
)
def test_what_is_proven_on_one_device_is_not_proven_on_another(three, visible, title, tmp_path, monkeypatch):
    environ = {**three, **({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})}
    assert gpus.in_sight(environ) == title
    text, torch = texts.load(paths.stone_dirs()[0] / "cnn"), frameworks.find()["torch"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    here = run.key(text, torch, "float32")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert (run.key(text, torch, "float32") == here) == (title == "cpu")


def test_an_undivided_name_stands_for_the_first_instance(tmp_path):
    assert gpus.in_sight(smi(tmp_path, "a100_mig.xml", listing=listed())) == "NVIDIA A100-SXM4-80GB"
    assert gpus.in_sight({"PATH": str(tmp_path / "nothing")}) == "cpu"


def test_variables_are_put_back(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    with pytest.raises(KeyError), client.environment({"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "x"}):
        assert client.worker_environment({}, 1)["CUDA_VISIBLE_DEVICES"] == "1"
        raise KeyError
    assert "CUDA_VISIBLE_DEVICES" not in os.environ and os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


# What a framework with CUDA does: its device is what it sees.
SEES = """"device": "cuda" if os.environ.get("CUDA_VISIBLE_DEVICES") == %r else "cpu"
""".strip()


@pytest.mark.parametrize(("name", "fails"), [("cuda:1", "cpu"), ("cpu", "gpu")])
def test_a_comparison_takes_the_device_that_was_chosen_and_times_none_on_another(
    place, three, monkeypatch, capsys, name, fails
):
    """Through the command, with workers that see what they are given."""
    imports = ("import numpy as np", "import os\n\nimport numpy as np")
    place.plant("cpu")
    place.plant("gpu", adapter=[imports, ('"device": "cpu"', '"device": "cuda"')])
    place.plant("sees", adapter=[imports, ('"device": "cpu"', SEES % A5000)])
    for variable, value in {**place.environ(), **three}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(rounds, "ROUND_S", 0.01)
    monkeypatch.setattr(timed, "_verdict", lambda *_: {"verdict": "proven", "reason": None})  # no proof is asked here
    how = ("quick", 0.1, None, False, ("float32",), ("default",), (), name)
    assert commands.compare(TEXT, "cpu,gpu,sees", *how, True, 60.0, (), ()) == 1
    document = json.loads(capsys.readouterr().out)
    cells = {cell["framework"]: cell for cell in document["cells"]}
    (failed,) = [slug for slug, cell in cells.items() if cell["verdict"] == "failed"]
    assert failed == fails and cells["sees"]["items_per_second"]
    asked, ran = ("a GPU", "cpu") if name == "cuda:1" else ("the CPU", "cuda")
    assert cells[failed]["reason"] == f"expected it on {asked}, it ran on {ran}"
    assert document["device"] == ("NVIDIA RTX A5000" if name == "cuda:1" else "cpu")
    assert len(document["machine"]["gpus"]) == 3
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert planted.processes_of(place) == []


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        (("tpu",), "Expected --device cpu, cuda, cuda:1, or the uuid of a GPU or MIG instance. Received: 'tpu'."),
        (("cpu", "cuda"), "Expected one --device: several are for --on ray. Received: cpu, cuda"),
    ],
)
def test_words_of_a_wrong_call(place, devices, words):
    done = place.call("compare", TEXT, *(word for name in devices for word in ("--device", name)))
    assert done.returncode == 2 and words in " ".join(done.stderr.split())
