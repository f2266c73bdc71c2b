"""Mixed precision: what the reference makes of it, and who is proven in it. Frameworks are of nothing but numpy."""

import json
from types import ModuleType

import jsonschema
import numpy as np
import planted
import pytest
from planted import TEXT
from test_schemas import SCHEMAS

from dlrosetta import bfloat16, golden, matrix, paths, products, texts
from dlrosetta.frameworks import load
from dlrosetta.proof import run
from dlrosetta.proof.checks import LEAST, WIDEST, Judge

# An adapter's switch: dense layers take their products in bfloat16, rounded to nearest.
SWITCH = (
    "def set_dtype(dtype):\n    pass",
    """
def set_dtype(dtype):
    pass


def nearest(array):
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)


def prepare_version(version, dtype):
    if dtype == "bfloat16":
        version.Dense.__call__ = lambda self, x: nearest(nearest(x) @ nearest(self.weight).T + self.bias)
""",
)
DTYPES = ('dtypes = ["float32", "float64"]', 'dtypes = ["float32", "float64", "bfloat16"]')


def near(array):
    return np.all(array.view(np.uint32) & np.uint32(0xFFFF) == 0)


def test_what_is_rounded_is_bfloat16_up_or_down_and_on_average_itself():
    array = np.linspace(-3, 3, 30_000, dtype=np.float32).reshape(3, -1)
    one, other = (bfloat16.rounding(seed)(array) for seed in (1, 2))
    assert near(one) and one.shape == array.shape
    assert np.all(np.abs(one - array) < 2.0**-7 * np.abs(array))
    assert not np.array_equal(one, other)
    assert np.array_equal(one, bfloat16.rounding(1)(array))
    assert abs(np.mean((one - array)[array > 0])) < 1e-4 < np.std(one - array)
    assert np.array_equal(bfloat16.rounding(3)(one), one)  # what bfloat16 holds stays


@pytest.mark.parametrize("product", ["a @ b", "np.matmul(a, b)", "np.matmul(a @ np.eye(5, dtype='f'), b)"])
def test_products_are_rounded_however_they_are_written_and_so_are_their_gradients(tmp_path, product):
    from autograd import grad

    path, module = tmp_path / "reference.py", ModuleType("reference")
    path.write_text(
        f"import autograd.numpy as np\n\ndef f(a, b):\n    return {product}\n\ndef g(a):\n    return a * 1.1\n"
    )
    products.replace(module, path, bfloat16.rounded_matmul(bfloat16.rounding(1)))
    a, b = (np.random.default_rng(seed).normal(size=(5, 5)).astype(np.float32) for seed in (1, 2))
    found = module.f(a, b)
    assert near(found) and 1e-4 < np.linalg.norm(found - a @ b) / np.linalg.norm(a @ b) < 3e-2
    assert not near(module.g(a))
    gradient = grad(lambda a: (1.1 * module.f(a, b)).sum())(a)
    exact = 1.1 * np.tile(b.sum(1), (5, 1))
    assert near(gradient) and np.linalg.norm(gradient - exact) / np.linalg.norm(exact) < 3e-2


@pytest.mark.parametrize("name", ["cnn", "gpt", "gru", "resnet50"])
def test_a_golden_bounds_activations_by_bfloat16_and_what_stays_in_float32_by_float32(name):
    found = golden.load(texts.load(texts.find(paths.stone_dirs())[name])).tensors
    for key, one in found.items():
        if key.removeprefix("loud ").removeprefix("quiet ").startswith(("optimizer/", "photo/", "features")):
            assert one.bfloat16 == one.rounding, key
        elif key.startswith(("logits", "output/", "evaluation logits")):
            assert 2.0**-9 < one.bfloat16 < 2.0**-5, key
        else:
            assert one.bfloat16 >= one.rounding, key


@pytest.fixture(scope="module")
def machine(tmp_path_factory, template):
    """Frameworks that are asked for bfloat16: cells of `prove`, and the document and the table of `compare`."""
    place = planted.Place(tmp_path_factory.mktemp("bfloat16"), template)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROSETTA_CACHE", str(place.cache))
        place.plant("mixed", adapter=[SWITCH], toml=[DTYPES])
        place.plant("pretends", toml=[DTYPES])
        place.plant("lacks")
        place.plant("biasless", ("@ self.weight.T + self.bias", "@ self.weight.T"), toml=[DTYPES])
        other = SWITCH[1].replace("+ self.bias", "")
        place.plant("forgets", adapter=[(SWITCH[0], other)], toml=[DTYPES])
        rate = ("self.velocity[name] = MOMENTUM * self", "self.velocity[name] = 1.01 * MOMENTUM * self")
        place.plant("drifts", rate, adapter=[SWITCH], toml=[DTYPES])
        slugs = ["mixed", "pretends", "lacks", "biasless", "forgets", "drifts"]
        done, cells = place.prove(*slugs, arguments=["--dtype", "bfloat16"])
        shown = place.call("compare", TEXT, "--frameworks", "mixed,biasless", "--budget", "1", "--dtype", "bfloat16")
    (file,) = place.results.iterdir()
    return place, done, cells, shown, file


def test_who_computes_in_bfloat16_is_proven(machine):
    _, _, cells, *_ = machine
    assert cells["mixed"]["verdict"] == "proven", cells["mixed"]["reason"]
    names = {check["name"] for check in cells["mixed"]["checks"]}
    assert {"output/fc1", "gradient/fc2.bias", "optimizer/fc1.weight", "bfloat16 in output/fc1", "losses"} <= names


def test_who_computes_in_float32_instead_is_not(machine):
    """All its errors are within the bounds: they are too small."""
    _, _, cells, *_ = machine
    wrong = [check["name"] for check in cells["pretends"]["checks"] if check["verdict"] == "differs"]
    assert wrong == [f"bfloat16 in {kind}output/{layer}" for kind in ("", "loud ") for layer in ("fc1", "fc2")]
    where = cells["pretends"]["first_departure"]
    assert (where["section"], where["layer"]) == ("Model", "fc1")


def test_a_fault_shows_in_bfloat16_too(machine):
    _, done, cells, *_ = machine
    assert done.returncode == 1
    assert (cells["forgets"]["verdict"], cells["forgets"]["first_departure"]["layer"]) == ("differs", "fc1")
    assert cells["drifts"]["first_departure"]["section"] == "Optimizer"  # one in a hundred: that is in float32
    assert cells["lacks"]["verdict"] == "cannot"


def test_a_table_of_its_own_says_so_and_times_only_who_is_proven_in_float32_too(machine):
    place, _, _, shown, file = machine
    document = json.loads(file.read_text(encoding="utf-8"))
    jsonschema.validate(document, json.loads((SCHEMAS / "compare.schema.json").read_text(encoding="utf-8")))
    assert document["dtype"] == "bfloat16" and file.name.startswith(f"{TEXT}-quick-bfloat16-")
    cells = {cell["framework"]: cell for cell in document["cells"]}
    assert cells["mixed"]["verdict"] == "proven" and cells["mixed"]["items_per_second"]
    assert cells["biasless"]["items_per_second"] is None and cells["biasless"]["reason"].startswith("in float32, ")
    title = texts.load(place.stone / TEXT).title
    assert shown.stdout.startswith(f"{title}: how fast in bfloat16?")
    assert "; bfloat16 and float32 mixed," in shown.stdout and "; float32," not in shown.stdout


def test_rosetta_alone_shows_what_is_proven_in_full_precision(machine, monkeypatch):
    place, *_ = machine
    monkeypatch.setenv("ROSETTA_CACHE", str(place.cache))
    text, one = texts.load(place.stone / TEXT), load(place.frameworks / "pretends")
    assert run.recall(text, one, "bfloat16")["verdict"] == "differs"
    assert matrix.cell(text, one) == "not run"


def test_a_golden_without_bounds_for_it_says_what_to_do(place):
    place.plant("mixed", adapter=[SWITCH], toml=[DTYPES])
    text = texts.load(place.stone / TEXT)
    with np.load(text.golden) as stored:
        older = {key: stored[key] for key in stored.files if key != "rounding_bfloat16"}
    np.savez_compressed(text.golden, **older)
    done, _ = place.prove("mixed", arguments=["--dtype", "bfloat16"])
    assert done.returncode == 1 and "has no bounds for bfloat16" in done.stderr
    assert f"Next: rosetta golden {TEXT}" in done.stderr
    done, cells = place.prove("mixed")
    assert cells["mixed"]["verdict"] == "proven"


def test_a_bound_that_half_a_tensor_would_keep_is_not_asked_about():
    text = texts.load(texts.find(paths.stone_dirs())["cnn"])
    known = golden.load(text)
    judge = Judge(text, known, "bfloat16")
    wide = judge.group("step 20", {"velocity/fc1.weight": np.zeros((512, 6400))}, "Train step")
    names = [check.name for check in wide]
    assert names[:12] == [f"step 20/{name}" for name in text.shapes] and names[12:] == ["step 20/velocity/fc2.bias"]
    assert all(check.bound <= WIDEST == 0.5 for check in wide)
    assert known.tensors["step 20/velocity/fc1.weight"].bfloat16 > golden.LARGEST


def test_what_errs_too_much_to_be_asked_about_widens_no_bound_of_its_kin():
    worst = {"g/a": 0.02, "g/b": 0.1, "g/c": 0.3, "loss": 0.4}
    assert golden._shared(worst, 1 / 6) == {"g/a": 0.1, "g/b": 0.1, "g/c": 0.3, "loss": 0.4}
    assert golden._shared(worst) == {"g/a": 0.3, "g/b": 0.3, "g/c": 0.3, "loss": 0.4}


def test_the_least_error_of_a_product_is_above_what_other_precisions_make():
    a, b = (np.random.default_rng(seed).normal(size=(64, 64)).astype(np.float32) for seed in (1, 2))
    exact = a.astype(np.float64) @ b

    def error(product):
        return np.linalg.norm(product.astype(np.float64) - exact) / np.linalg.norm(exact)

    half = (a.astype(np.float16).astype(np.float32) @ b.astype(np.float16).astype(np.float32)).astype(np.float16)
    nearest = ((a @ b).view(np.uint32) + np.uint32(0x8000) & np.uint32(0xFFFF0000)).view(np.float32)
    assert 1000 * error(a @ b) < 2 * error(half) < LEAST < 0.75 * error(nearest)
