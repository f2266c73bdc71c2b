"""Where packages come from: pip's settings, translated for uv, whose own variables win over them.

People on closed networks have told pip; nobody should have to tell it again.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dlrosetta.errors import RosettaError


def uv_settings(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the environment for uv and the flags to add, from pip's settings and uv's own, which win."""
    # These name an environment other than the one that is being made.
    result = {k: v for k, v in environ.items() if k not in ("UV_PYTHON", "UV_SYSTEM_PYTHON", "VIRTUAL_ENV")}
    pip = pip_settings(environ)
    own_index = {"UV_DEFAULT_INDEX", "UV_INDEX_URL"} & set(environ)
    links = [link for link in pip.get("find-links", "").split() if _there(link)]
    if links and "UV_FIND_LINKS" not in environ:
        result["UV_FIND_LINKS"] = ",".join(links)
    if "index-url" in pip and not own_index:
        result["UV_DEFAULT_INDEX"] = pip["index-url"]
    extra = [link for link in pip.get("extra-index-url", "").split() if _there(link)]
    if extra and not {"UV_INDEX", "UV_EXTRA_INDEX_URL"} & set(environ):
        result["UV_INDEX"] = " ".join(extra)
        # pip takes the best version of all its indexes; uv would stop at the first that knows the package's name.
        result.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    if "cert" in pip:
        result.setdefault("SSL_CERT_FILE", pip["cert"])
    # uv has no variable for this one; UV_NO_INDEX is what people try.
    no_index = environ.get("UV_NO_INDEX") or ("" if own_index else pip.get("no-index", ""))
    return result, ["--no-index"] if no_index.lower() in ("1", "true", "yes", "on", "y", "t") else []


def pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what `pip install` would use, by long option name, from its configuration files and variables.

    Order and precedence as in https://pip.pypa.io/en/stable/topics/configuration/
    """
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}}
    for file in _pip_files(environ):
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            received = " ".join(str(error).split())
            raise RosettaError(f"{file}: Expected pip's configuration. Received: {received}") from None
        for section, values in sections.items():
            items = parser.items(section) if parser.has_section(section) else []
            values.update((key.replace("_", "-").lstrip("-"), value) for key, value in items if value)
    variables = {key[4:].lower().replace("_", "-"): v for key, v in environ.items() if key.startswith("PIP_") and v}
    return sections["global"] | sections["install"] | variables


def _pip_files(environ: Mapping[str, str]) -> list[Path]:
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return []
    home = Path(environ.get("HOME") or Path.home())
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    system = [Path(part) / "pip" for part in environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(os.pathsep) if part]
    folders = [*reversed(system), Path("/etc")]
    if sys.platform == "darwin":
        folders.insert(0, Path("/Library/Application Support/pip"))
    if not (named and Path(named).exists()):  # as pip: a named file stands for the user's
        mac = home / "Library/Application Support/pip"
        folders += [home / ".pip", mac if sys.platform == "darwin" and mac.is_dir() else config / "pip"]
    files = [folder / "pip.conf" for folder in (*folders, Path(sys.prefix))]
    return [*files, Path(named)] if named else files


def places(environ: Mapping[str, str], flags: list[str]) -> bool:
    """Whether somebody has said where packages come from."""
    names = ("UV_FIND_LINKS", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")
    return "--no-index" in flags or any(environ.get(name) for name in names)


def _there(link: str) -> bool:
    """Whether a link is remote, or local and existing; uv refuses to start over a folder that is not."""
    parts = urlsplit(link)
    path = {"": link, "file": unquote(parts.path)}.get(parts.scheme)
    return path is None or Path(path).expanduser().exists()
