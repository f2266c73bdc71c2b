"""Result files as tables in DuckDB, which sees nothing else: all rows are read into memory, then files, network and
extensions are taken from it for good, so that a question can answer only from what is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dlrosetta import device_notes
from dlrosetta.errors import UsageError
from dlrosetta.machine import title
from dlrosetta.results import Filters, Result, Today, moment

if TYPE_CHECKING:
    import duckdb

# table: column: type, and what it is. docs/results.md has the same, and a test compares them.
TABLES: dict[str, dict[str, tuple[str, str]]] = {
    "runs": {
        "run": ("BIGINT", "number of the run, which the other tables refer to"),
        "file": ("VARCHAR", "where it lies"),
        "text": ("VARCHAR", "name of the text"),
        "date": ("TIMESTAMP", "end of the run, UTC"),
        "profile": ("VARCHAR", "quick or full"),
        "track": ("VARCHAR", "default or tuned"),
        "dtype": ("VARCHAR", "float32 or bfloat16"),
        "data": ("VARCHAR", "which data set, in words"),
        "unit": ("VARCHAR", "what a speed counts: images, reviews …"),
        "weights": ("VARCHAR", "of a text without training: which weights"),
        "machine": ("VARCHAR", "processor and cores"),
        "cpu": ("VARCHAR", "processor"),
        "cores": ("BIGINT", "cores that were used"),
        "memory_bytes": ("DOUBLE", "memory of the machine"),
        "system": ("VARCHAR", "operating system and architecture"),
        "python": ("VARCHAR", "Python of the program"),
        "dlrosetta": ("VARCHAR", "version of the program"),
        "load": ("DOUBLE", "load of the last minute, at the end of the run"),
        "flops_per_s": ("DOUBLE", "the roof: the best matrix product, where it was measured"),
        "bytes_per_s": ("DOUBLE", "the roof: the best copy, where it was measured"),
        "flops_per_item": ("DOUBLE", "work of one item, where it was counted"),
        "bytes_per_item": ("DOUBLE", "least traffic of one item, where it was counted"),
    },
    "cells": {
        "run": ("BIGINT", "the run"),
        "text": ("VARCHAR", "as of the run, and so are the next five"),
        "date": ("TIMESTAMP", ""),
        "profile": ("VARCHAR", ""),
        "track": ("VARCHAR", ""),
        "dtype": ("VARCHAR", ""),
        "machine": ("VARCHAR", ""),
        "framework": ("VARCHAR", "slug of the framework"),
        "verdict": ("VARCHAR", "proven, waived, differs, cannot or failed"),
        "scope": ("VARCHAR", "all, or evaluation where the framework does not train"),
        "speed": ("DOUBLE", "items a second: the median of the rounds"),
        "low": ("DOUBLE", "lower end of its 95 % interval"),
        "high": ("DOUBLE", "upper end"),
        "rounds": ("BIGINT", "how many rounds were timed"),
        "import_s": ("DOUBLE", "seconds to import the framework"),
        "first_call_s": ("DOUBLE", "seconds of the first step, with compilation"),
        "second_call_s": ("DOUBLE", "seconds of the second step"),
        "step_s": ("DOUBLE", "seconds of a steady step: batch size / speed"),
        "peak_memory_bytes": ("DOUBLE", "largest memory of the process"),
        "peak_device_memory_bytes": ("DOUBLE", "what its arrays held on a GPU at most, where the framework counts it"),
        "device_share": ("DOUBLE", "seconds by a GPU's own clock as a share of the wall's, where it is read"),
        "accuracy": ("DOUBLE", "the text's own metric after training"),
        "training_s": ("DOUBLE", "seconds of training"),
        "epochs": ("BIGINT", "epochs of training"),
        "last_loss": ("DOUBLE", "loss at their end"),
        "batch_size": ("BIGINT", "items of a step"),
        "version": ("VARCHAR", "version of the framework"),
        "device": ("VARCHAR", "what it ran on, as the framework calls it"),
        "gpu": ("VARCHAR", "the GPU that it ran on, where it did and the result names it"),
        "threads": ("BIGINT", "threads that it used"),
        "switches": ("VARCHAR", "of the tuned track, separated by commas"),
        "reason": ("VARCHAR", "why the verdict is not proven"),
        "changed": (
            "VARCHAR",
            "what has changed since, separated by commas: version, adapter, lock, switches; all: it is no longer "
            "there. Empty where it is current, NULL where nothing ran",
        ),
    },
    "pairs": {
        "run": ("BIGINT", "the run"),
        "text": ("VARCHAR", "as of the run"),
        "a": ("VARCHAR", "one framework"),
        "b": ("VARCHAR", "the other"),
        "ratio": ("DOUBLE", "speed of a / speed of b, paired by rounds: the median"),
        "low": ("DOUBLE", "lower end of its 95 % interval"),
        "high": ("DOUBLE", "upper end"),
        "differ": ("BOOLEAN", "false where the interval covers 1"),
    },
    "samples": {
        "run": ("BIGINT", "the run"),
        "framework": ("VARCHAR", "slug of the framework"),
        "round": ("BIGINT", "from 1, in the order of the rounds of this framework"),
        "speed": ("DOUBLE", "items a second of this round"),
    },
}
Row = dict[str, Any]
ROOF = ("flops_per_s", "bytes_per_s")
WORK = ("flops_per_item", "bytes_per_item")
CELL_NUMBERS = ("import_s", "first_call_s", "second_call_s", "peak_memory_bytes", "accuracy")


def rows_of(result: Result, number: int, changed: Sequence[str | None] | None = None) -> dict[str, list[Row]]:
    """The rows of one run for each table. `changed` is that of each cell in turn. Raises ValueError and the like for
    values that no comparison would write.
    """
    document, machine = result.document, result.document["machine"]
    cells = document["cells"]
    roof, work = document.get("roof") or {}, document.get("work") or {}
    shared = {
        "run": number,
        "text": document["text"],
        "date": moment(document["date"]),
        "profile": document["profile"],
        "track": document["track"],
        "dtype": document.get("dtype", "float32"),
        "machine": title(machine),
    }
    run = {
        **shared,
        "file": str(result.path),
        **{key: _word(document.get(key)) for key in ("data", "unit", "weights")},
        **{key: _word(machine[key]) for key in ("cpu", "system", "python", "dlrosetta")},
        "cores": _whole(machine["cores"]),
        "memory_bytes": _number(machine["memory_bytes"]),
        "load": _number(machine["load"][0]) if machine["load"] else None,
        **{key: max(map(_number, roof[key].values()), default=None) if roof.get(key) else None for key in ROOF},  # type: ignore[type-var]
        **{key: _number(work.get(key)) for key in WORK},
    }
    tables: dict[str, list[Row]] = {"runs": [run], "cells": [], "pairs": [], "samples": []}
    for cell, since in zip(cells, changed or [None] * len(cells), strict=True):
        speed, training, facts = cell["items_per_second"] or {}, cell.get("training") or {}, cell.get("facts") or {}
        batch, losses = _whole(cell.get("batch_size")), list(training.get("losses") or [])
        row = {
            **shared,
            **{key: cell[key] for key in ("framework", "verdict", "scope")},
            "speed": _number(speed.get("median")),
            "low": _number(speed.get("low")),
            "high": _number(speed.get("high")),
            "rounds": len(speed["samples"]) if speed else None,
            **{key: _number(cell[key]) for key in CELL_NUMBERS},
            "peak_device_memory_bytes": _number(cell.get("peak_device_memory_bytes")),
            "device_share": device_notes.share(cell),
            "step_s": batch / speed["median"] if speed and batch else None,
            "training_s": _number(training.get("seconds")),
            "epochs": len(losses) if training else None,
            "last_loss": _number(losses[-1]) if losses else None,
            "batch_size": batch,
            "version": _word(facts.get("version")),
            "device": _word(facts.get("device")),
            "gpu": device_notes.gpu(document, cell),
            "threads": _whole(facts.get("threads")),
            "switches": ", ".join(cell.get("switches") or []),
            "reason": cell.get("reason"),
            "changed": since,
        }
        tables["cells"].append(row)
        for position, sample in enumerate(speed.get("samples") or [], 1):
            tables["samples"].append(
                {"run": number, "framework": cell["framework"], "round": position, "speed": _number(sample)}
            )
    for pair in document["pairs"]:
        tables["pairs"].append({"run": number, "text": document["text"], **pair})
    return tables


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _whole(value: Any) -> int | None:
    if value is not None and not -(2**63) <= int(value) < 2**63:
        raise ValueError(f"{value} is no count")
    return None if value is None else int(value)


def _word(value: Any) -> str | None:
    return None if value is None else str(value)


class Tables:
    """The runs in DuckDB, in memory. From here on it reads and writes no file and reaches no network."""

    def __init__(self, results: Sequence[Result], today: Today, filters: Filters | None = None):
        import duckdb

        self.results = list(results)
        rows: dict[str, list[Row]] = {name: [] for name in TABLES}
        for number, one in enumerate(self.results):
            told = [today.changed(one.document, cell) for cell in one.document["cells"]]
            since = [None if words is None else ", ".join(words) for words in told]
            for name, some in rows_of(one, number, since).items():
                rows[name] += some
        settings = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
        self._connection = duckdb.connect(":memory:", config=settings)  # type: ignore[arg-type]
        for name, columns in TABLES.items():
            declared = ", ".join(f'"{column}" {kind}' for column, (kind, _) in columns.items())
            self._connection.execute(f"create table {name} ({declared})")
            lists = ", ".join(f"unnest(?::{kind}[])" for kind, _ in columns.values())
            given = [[row.get(column) for row in rows[name]] for column in columns]
            self._connection.execute(f"insert into {name} select {lists}", given)
        self._filter(filters or Filters())
        lock(self._connection)

    def _filter(self, filters: Filters) -> None:
        """Keep what is asked about, in every table."""
        conditions: list[tuple[str, Any]] = [
            ("list_contains(?::varchar[], text)", list(filters.texts) or None),
            ("list_contains(?::varchar[], framework)", list(filters.frameworks) or None),
            ("contains(lower(machine), lower(?))", filters.machine),
            ("date >= ?", filters.since),
            ("date < ?", filters.until),
        ]
        for condition, value in conditions:
            if value is not None:
                self._connection.execute(f"delete from cells where not {condition}", [value])
        self._connection.execute("delete from runs where run not in (select run from cells)")
        for table, column in (("samples", "framework"), ("pairs", "a"), ("pairs", "b")):
            left = f"(run, {column}) not in (select (run, framework) from cells)"
            self._connection.execute(f"delete from {table} where {left}")

    def cells(self) -> list[Row]:
        """All cells by text, framework and date, with data and unit of their run."""
        columns, rows = self.ask(
            "select cells.*, runs.data, runs.unit, runs.file from cells join runs using (run)"
            " order by text, framework, date, track, dtype, run"
        )
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def ask(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Columns and rows of one select. Raises RosettaError with DuckDB's own words where it cannot be answered."""
        import duckdb

        kinds = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
        try:
            statements = self._connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type not in kinds:
                named = ", ".join(str(one.type).rpartition(".")[2] for one in statements) or "nothing"
                raise UsageError(f"Expected one select. Received: {named}.", 'rosetta results --sql "describe cells"')
            answer = self._connection.execute(statements[0])
            return [column[0] for column in answer.description or []], answer.fetchall()
        except duckdb.Error as error:
            raise UsageError(
                f"DuckDB could not answer: {str(error).strip()}", 'rosetta results --sql "describe cells"'
            ) from error


def lock(connection: duckdb.DuckDBPyConnection) -> None:
    """Take file system, network, extensions and Python's variables from DuckDB, so that no statement gives them back
    (https://duckdb.org/docs/stable/operations_manual/securing_duckdb/overview).
    """
    for setting in (
        "temp_directory = ''",
        "python_enable_replacements = false",
        "memory_limit = '2GB'",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"set {setting}")
