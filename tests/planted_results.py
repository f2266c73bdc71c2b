"""Result files as `rosetta compare` writes them, made up: of any text, framework, machine and date."""

import json
import statistics


def cell(framework, speed=100.0, verdict="proven", **more):
    """A cell of twelve rounds around `speed`; None: it was not timed."""
    samples = [(speed or 1.0) * (0.95 + 0.01 * number) for number in range(12)]
    told = {"median": statistics.median(samples), "low": samples[2], "high": samples[9], "samples": samples}
    return {
        "framework": framework,
        "verdict": verdict,
        "scope": "all",
        "switches": [],
        "items_per_second": told if speed else None,
        "import_s": 1.5,
        "first_call_s": 3.0,
        "second_call_s": 0.7,
        "peak_memory_bytes": 2**30,
        "accuracy": None,
        "training": None,
        "reason": None,
        "batch_size": 64,
        "steps_per_round": 2,
        "facts": {"version": "1.2", "device": "cpu", "threads": 2, "python": "3.11.7"},
        "hashes": {},
        **more,
    }


def document(*cells, text="cnn", date="2026-11-29T10:00:00+00:00", cpu="AMD EPYC", **more):
    return {
        "schema": 1,
        "text": text,
        "profile": "quick",
        "track": "default",
        "data": "CIFAR-10",
        "unit": "images",
        "dtype": "float32",
        "date": date,
        "machine": {
            "cpu": cpu,
            "cores": 2,
            "memory_bytes": 16 * 2**30,
            "system": "Linux x86_64",
            "python": "3.11.7",
            "dlrosetta": "0.1.0",
            "load": [0.5, 0.4, 0.3],
        },
        "cells": list(cells),
        "pairs": [],
        "weights": None,
        "agreement": [],
        **more,
    }


def write(folder, **documents):
    """One file a document, named by keyword; return the folder."""
    folder.mkdir(exist_ok=True)
    for name, one in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(one), encoding="utf-8")
    return folder
