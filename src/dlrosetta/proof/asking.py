"""What a proof gives a worker: arrays, as files in its scratch folder, and the requests that name them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.numpy import load_file, save

from dlrosetta import draws, golden, reference
from dlrosetta.client import WorkerFailed, one_line, unwritable
from dlrosetta.frameworks import Framework
from dlrosetta.golden import Golden
from dlrosetta.proof import modes
from dlrosetta.texts import Text

Set = tuple[np.ndarray, np.ndarray]
Sets = tuple[Set, Set]


@dataclass(frozen=True)
class Given:
    """What every cell of a text is given, made once: full arrays from the seed, and the goldens by variant."""

    goldens: dict[str | None, Golden]
    parameters: dict[str, np.ndarray]
    train: dict[str, np.ndarray]
    evaluation: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    data: Sets
    devices: int = 1

    @classmethod
    def of(cls, text: Text, goldens: dict[str | None, Golden], data: Sets, devices: int = 1) -> Given:
        """`data` are the sets for training and for testing, each inputs and labels."""
        return cls(
            goldens,
            draws.initial_parameters(text),
            draws.training_batches(text),
            reference.evaluation_batch(text, goldens[None].labels if text.trains else None),
            reference.optimizer_gradients(text) if text.trains else {},
            data,
            devices,
        )

    def golden(self, text: Text, framework: Framework) -> Golden:
        """What this framework is held against: the text's golden, or that of its variant."""
        variant = text.variant_for(framework.slug, self.devices)
        found = self.goldens[variant["name"] if variant else None]
        if text.trains and text.statistics and not framework.trains(True):
            # Of the evaluation pass alone; what the golden has of it decides, and the rest locates.
            found = replace(found, tensors={**golden.evaluated(text), **found.tensors})
        return found


class Answering(Protocol):
    """What can be asked: a worker, or several at once."""

    def ask(self, op: str, **args: Any) -> dict[str, Any]: ...

    def path(self, name: str) -> str: ...

    def alive(self) -> bool: ...


class Asker:
    """Requests with arrays in and out, as files in the worker's scratch folder, each written once."""

    def __init__(self, worker: Answering, given: Given, text: Text):
        self.worker, self.given, self.text = worker, given, text
        train, parameters, gradients = given.train, given.parameters, given.gradients
        # Made when first asked for, and kept as a file alone: together they are many times a text's parameters.
        self._contents: dict[str, Callable[[], dict[str, np.ndarray]]] = {
            "parameters": lambda: parameters,
            "loud parameters": lambda: reference.loud_parameters(text, parameters),
            "flat": lambda: modes.flat(parameters, text),
            "telling": lambda: reference.telling(text, parameters),
            "batch": lambda: {key: array[0] for key, array in train.items()},
            "first": lambda: {key: array[:1] for key, array in train.items()},
            "rest": lambda: {key: array[1:] for key, array in train.items()},
            "loud": lambda: draws.loud({key: array[0] for key, array in train.items()}, reference.LOUD),
            "loud first": lambda: draws.loud({key: array[:1] for key, array in train.items()}, reference.LOUD),
            "loud gradients": lambda: draws.loud(gradients, reference.LOUD_GRADIENT),
            "quiet gradients": lambda: draws.loud(gradients, reference.QUIET_GRADIENT),
            "same": lambda: {key: np.stack([array[0]] * 3) for key, array in train.items()},
            "evaluation": lambda: given.evaluation,
            "perturbed": lambda: modes.perturbed_batch(given.evaluation, text),
            "gradients": lambda: gradients,
        }
        if text.trains and not text.files:
            inputs, labels = given.data[1]
            self._contents["test"] = lambda: {text.input: inputs, "labels": labels.astype(np.int64)}

    def plain(self, op: str, **args: Any) -> dict[str, Any]:
        return self.worker.ask(op, **args)

    def open(self, version: Path, dtype: str, framework: Framework, trains: bool) -> dict[str, Any]:
        """Ask for the version to be loaded; return its constants."""
        self.evaluates = not self.text.files or dtype == "float32"  # loaders of files yield float32
        return self.worker.ask(
            "open",
            version=str(version),
            dtype=dtype,
            layers=self.text.known_layers,
            constants=list(self.text.hyperparameters),
            names=self.text.names_for(framework.slug, framework.version),
            trains=trains,
            labels=self.text.trains,
            files=self.text.files,
            switches=list(framework.switches),
        )["constants"]

    def create(self, constants: dict[str, Any], parameters: str | None = "parameters") -> dict[str, Any]:
        """Ask for a new model of the proof's size, with `constants` of its own; without `parameters` it keeps what it
        drew.
        """
        sizes = self.text.proof.get("constants", {})
        return self.worker.ask(
            "create",
            seed=1,
            constants={**sizes, **constants},
            parameters=self.file(parameters) if parameters else None,
        )

    def create_full(self, constants: dict[str, Any]) -> dict[str, Any]:
        """Ask for a new model of the text's own size, which keeps what it drew."""
        return self.worker.ask("create", seed=1, constants=constants)

    def create_telling(self, constants: dict[str, Any]) -> None:
        """The same with given parameters, such that the metric tells inputs apart."""
        path = Path(self.worker.path("full.safetensors"))
        if not path.exists():
            self._write("full", reference.telling(self.text, draws.initial_parameters(self.text, full=True)))
        self.worker.ask("create", seed=1, constants=constants, parameters=str(path))

    def evaluate(self, batch: str | None) -> float:
        """What the version's own `evaluate` says of a given batch; of its test data for None, or where it reads
        files.
        """
        given = None if batch is None or self.text.files else self.file(batch)
        return float(self.plain("evaluate", batch=given)["metric"])

    def arrays(self, op: str, **args: Any) -> dict[str, np.ndarray]:
        """Ask for arrays; arguments that name given contents are replaced by their files."""
        out = Path(self.worker.path("out.safetensors"))
        known: dict[str, Any] = {
            key: self.file(value) if isinstance(value, str) and value in self._contents else value
            for key, value in args.items()
        }
        self.worker.ask(op, out=str(out), **known)
        try:
            return load_file(out)
        except Exception as error:
            raise WorkerFailed(f"expected a safetensors file from '{op}', received {one_line(error)}") from error
        finally:
            out.unlink(missing_ok=True)

    def file(self, name: str) -> str:
        path = Path(self.worker.path(f"{name}.safetensors"))
        return str(path) if path.exists() else self._write(name, self._contents[name]())

    def _write(self, name: str, arrays: dict[str, np.ndarray]) -> str:
        path = Path(self.worker.path(f"{name}.safetensors"))
        content = save({key: np.ascontiguousarray(array) for key, array in arrays.items()})
        try:
            path.write_bytes(content)
        except OSError as error:
            raise WorkerFailed(unwritable(path.parent, error)) from error
        return str(path)
