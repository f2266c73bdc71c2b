"""Where packages come from: what pip was told, uv is told."""

import os

import pytest

from dlrosetta import indexes
from dlrosetta.errors import RosettaError


def test_pips_variables_become_uvs(tmp_path):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "more").mkdir()
    pip = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": f"{tmp_path}/wheels {tmp_path}/absent https://a.example/",
        "PIP_INDEX_URL": "https://b.example/simple",
        "PIP_EXTRA_INDEX_URL": f"file://{tmp_path}/absent file://{tmp_path}/more https://c.example/simple",
        "PIP_CERT": "/c.pem",
        "VIRTUAL_ENV": "/another",
        "PATH": "/bin",
    }
    environ, flags = indexes.uv_settings(pip)
    assert flags == []
    assert {name: value for name, value in environ.items() if name not in pip} == {
        "UV_FIND_LINKS": f"{tmp_path}/wheels,https://a.example/",
        "UV_DEFAULT_INDEX": "https://b.example/simple",
        "UV_INDEX": f"file://{tmp_path}/more https://c.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "SSL_CERT_FILE": "/c.pem",
    }
    assert "VIRTUAL_ENV" not in environ
    assert environ["PATH"] == "/bin"
    own = {
        "UV_FIND_LINKS": "/mine",
        "UV_INDEX_URL": "https://mine.example/simple",
        "UV_EXTRA_INDEX_URL": "https://mine2.example/simple",
        "SSL_CERT_FILE": "/mine.pem",
        "PIP_NO_INDEX": "1",
    }
    environ, flags = indexes.uv_settings(pip | own)
    assert {name: value for name, value in environ.items() if name not in pip} == own
    assert flags == []
    for variable, expected in (("PIP_NO_INDEX", ["--no-index"]), ("UV_NO_INDEX", ["--no-index"]), ("PIP_X", [])):
        assert indexes.uv_settings({"PIP_CONFIG_FILE": os.devnull, variable: "true"})[1] == expected


def test_pips_files_are_read_in_pips_order(tmp_path, monkeypatch):
    monkeypatch.setattr(indexes.sys, "prefix", str(tmp_path / "prefix"))
    home = {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_CONFIG_DIRS": str(tmp_path / "xdg"),
    }

    def write(file, text):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)

    def index(**more):
        return indexes.pip_settings(home | more)["index-url"]

    write("xdg/pip/pip.conf", "[global]\nindex-url = https://xdg.example\n")
    assert index() == "https://xdg.example"
    write(".pip/pip.conf", "[global]\nindex_url = https://legacy.example\n")
    assert index() == "https://legacy.example"
    write("config/pip/pip.conf", "[global]\nindex-url = https://user.example\nfind-links =\n    /a\n    /b\n")
    assert index() == "https://user.example"
    write("prefix/pip.conf", "[global]\nindex-url = https://site.example\n")
    assert index() == "https://site.example"
    assert indexes.pip_settings(home)["find-links"].split() == ["/a", "/b"]
    write("named.conf", "[global]\nindex-url = https://named.example\n[install]\nno-index = yes\n")
    named = {"PIP_CONFIG_FILE": str(tmp_path / "named.conf")}
    assert index(**named) == "https://named.example"
    assert indexes.uv_settings(home | named)[1] == ["--no-index"]
    assert "find-links" not in indexes.pip_settings(home | named)  # a named file stands for the user's
    write("config/pip/pip.conf", "[install]\nindex-url = https://install.example\n")
    assert index() == "https://install.example"
    assert index(PIP_INDEX_URL="https://variable.example") == "https://variable.example"
    assert index(PIP_INDEX_URL="") == "https://install.example"
    assert indexes.pip_settings(home | {"PIP_CONFIG_FILE": os.devnull}).keys() == {"config-file"}
    write("named.conf", "index-url = https://named.example\n")
    with pytest.raises(RosettaError, match=r"named\.conf: Expected pip's configuration\. Received: "):
        index(**named)
