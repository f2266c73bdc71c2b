"""Reading text.toml and framework.toml, with errors that name file, key, expected and received."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from dlrosetta.errors import RosettaError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file. Raises RosettaError where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RosettaError(f"{path}: expected readable TOML. Received: {error}") from error


def require(table: dict[str, Any], key: str, kind: type, path: Path, default: Any = None) -> Any:
    """Return `table[key]`, checked to be a `kind`. Without a default the key must be there."""
    if key not in table:
        if default is not None:
            return default
        raise RosettaError(f"{path}: expected a key {key!r} ({kind.__name__}). Received: none")
    value = table[key]
    if not isinstance(value, kind):
        raise RosettaError(f"{path}: expected {key!r} to be {kind.__name__}. Received: {value!r}")
    return value
