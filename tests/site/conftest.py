"""The site, built once from the tree, and a browser that reads it."""

import json
import shutil
import threading

import pytest
from browsing import opened

from dlrosetta import frameworks, paths, texts
from dlrosetta.proof import run
from dlrosetta.site import build, serve

SWITCHES = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def hashes(framework):
    return run.hashes(texts.load(paths.stone_dirs()[0] / "cnn"), frameworks.find()[framework])


def cell(framework, dtype, verdict, *checks, scope="all", reason=None, departure=None, hashes=hashes):
    """As `prove --json` has it; a check is (name, error, bound, verdict)."""
    named = [dict(zip(("name", "error", "bound", "verdict"), one, strict=True)) for one in checks]
    return {"framework": framework, "dtype": dtype, "verdict": verdict, "scope": scope, "checks": named,
            "first_departure": departure, "reason": reason, "hashes": hashes(framework)}  # fmt: skip


RIGHT = [
    ("configuration/SEED", 0.0, 0.0, "proven"), ("output/conv1", 1e-7, 1e-6, "proven"),
    ("gradient/conv1.weight", 9e-7, 1e-6, "proven"), ("step 20/velocity/fc2.bias", 1e-7, 1e-6, "proven"),
    ("dropout1 rate", 2.5, 6.0, "proven"),
]  # fmt: skip
CELLS = [
    cell("torch", "float32", "proven", *RIGHT),
    cell("torch", "float64", "proven", *[(name, error / 1e9, bound / 1e6, said) for name, error, bound, said in RIGHT]),
    cell("tensorflow", "float64", "waived", *RIGHT, ("step 1/fc1.bias", 5e-8, 1e-7, "waived"), reason="a <b>0.9</b>"),
    cell("keras_torch", "float64", "cannot", reason="float64 in float32 (https://example.org/1)"),
    cell("onnxruntime", "float32", "proven", *RIGHT[:2], scope="evaluation"),
    cell("flax", "float32", "differs", ("output/conv2", 0.5, 1e-6, "differs"), ("loss", None, 1e-6, "differs"),
         departure={"layer": "conv2", "section": "Model", "line": 40}),
    cell("gluon", "float32", "failed", reason="MemoryError"),
    cell("equinox", "float32", "proven", *RIGHT, hashes=lambda slug: {**hashes(slug), "version": "another"}),
]  # fmt: skip


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """The tree's published results, and a proof of `cnn` with every verdict."""
    folder = tmp_path_factory.mktemp("published") / "results"
    shutil.copytree(paths.project_results(), folder)
    (folder / "proofs").mkdir(exist_ok=True)
    (folder / "proofs" / "cnn.json").write_text(json.dumps({"schema": 1, "text": "cnn", "cells": CELLS}))
    return folder


@pytest.fixture(scope="session")
def site(tmp_path_factory, published):
    folder = tmp_path_factory.mktemp("site") / "site"
    build.build(folder, (), (), published)
    return folder


@pytest.fixture(scope="session")
def address(site):
    with serve.Server(site, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.address
        server.shutdown()


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=20_000)  # of a machine that does other things too
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "expected Chromium on the PATH: apt-get install chromium"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=SWITCHES)
        yield started
        started.close()


@pytest.fixture
def page(browser, address):
    """As `opened`."""
    with opened(browser, address) as one:
        yield one
