"""`rosetta results`: what result files tell when they are asked, what they must not be able to do, and what may be
published of them.
"""

import json
import socket
from pathlib import Path

import jsonschema
import numpy as np
import planted
import pytest
from planted import TEXT
from planted_results import cell, document, write

from dlrosetta import listing, paths, publish, results, tables
from dlrosetta.errors import RosettaError, UsageError

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture
def asked(place, tmp_path):
    """Runs `rosetta results` with options on some made-up results."""
    write(
        tmp_path / "some",
        old=document(cell("torch", 90.0), cell("flax", 80.0), date="2026-11-01T23:30:00+00:00"),
        new=document(
            cell("torch", 100.0, accuracy=0.75),
            cell("flax", 110.0),
            cell("gluon", None, "cannot", reason="too old"),
            pairs=[{"a": "flax", "b": "torch", "ratio": 1.1, "low": 1.05, "high": 1.2, "differ": True}],
        ),
        gru=document(cell("torch", 700.0), text="gru", cpu="Intel Xeon", track="tuned"),
    )
    return lambda *options, **more: place.call("results", "--results", tmp_path / "some", *options, **more)


def rows(done):
    assert (done.returncode, done.stderr) == (0, "")
    return [(one["text"], one["framework"], one["date"][:10]) for one in json.loads(done.stdout)["cells"]]


def test_each_comparison_has_a_table_of_its_own_below_its_machine(asked):
    done = asked()
    assert (done.returncode, done.stderr) == (0, "")
    amd, intel = done.stdout.split("Intel Xeon, 2 cores")
    assert amd.startswith("AMD EPYC, 2 cores") and "gru" not in amd
    old, new = amd.split("cnn, float32, quick, batches of 64, 2026-11-29")
    assert "cnn, float32, quick, batches of 64, 2026-11-01" in old and "gluon" not in old
    torch = next(line for line in new.splitlines() if line.startswith("torch"))
    assert torch.split() == ["torch", "100", "97.0–104", "0.750", "unknown"]
    assert "gru, float32, tuned, quick, batches of 64, 2026-11-29" in intel
    assert "– cannot" in next(line for line in new.splitlines() if "gluon" in line)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--text", "gru"], [("gru", "torch", "2026-11-29")]),
        (["--framework", "flax"], [("cnn", "flax", "2026-11-01"), ("cnn", "flax", "2026-11-29")]),
        (["--text", "cnn", "--framework", "gluon,torch", "--since", "2026-11-02"],
         [("cnn", "gluon", "2026-11-29"), ("cnn", "torch", "2026-11-29")]),
        (["--machine", "xeon"], [("gru", "torch", "2026-11-29")]),
        (["--until", "2026-11-01"], [("cnn", "flax", "2026-11-01"), ("cnn", "torch", "2026-11-01")]),
        (["--until", "2026-11-01T23:30"], []),
        (["--since", "2026-11-01T23:30", "--until", "2026-11-02", "--framework", "torch"],
         [("cnn", "torch", "2026-11-01")]),
    ],
    ids=str,
)  # fmt: skip
def test_filters(asked, options, found):
    assert rows(asked(*options, "--json")) == found


def test_filters_hold_for_sql_too_and_for_every_table(asked):
    count = "select (select count(*) from runs), (select count(*) from cells), (select count(*) from samples), "
    count += "(select count(*) from pairs)"
    every = json.loads(asked("--json", "--sql", count).stdout)
    assert every["rows"] == [[3, 6, 60, 1]]
    assert json.loads(asked("--json", "--sql", count, "--framework", "flax").stdout)["rows"] == [[2, 2, 24, 0]]


def test_a_question_of_the_user_s_own(asked):
    sql = "select framework, max(speed) as best from cells where text = 'cnn' group by all order by best desc"
    done = asked("--sql", sql)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["framework", "best"], ["flax", "110.55"], ["torch", "100.5"], ["gluon"]
    ]  # fmt: skip
    found = json.loads(asked("--json", "--sql", "select date, changed from cells where framework = 'gluon'").stdout)
    assert found["columns"] == ["date", "changed"] and found["rows"] == [["2026-11-29T10:00:00", None]]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select nothing from cells", "DuckDB could not answer: Binder Error"),
        ("selec 1", "DuckDB could not answer: Parser Error"),
        ("select 1; select 2", "Expected one select. Received: SELECT, SELECT."),
        ("drop table cells", "Expected one select. Received: DROP."),
        ("", "Expected one select. Received: nothing."),
    ],
)
def test_a_wrong_question_is_2_and_says_why(asked, sql, message):
    done = asked("--sql", sql)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr and 'Next: rosetta results --sql "describe cells"' in done.stderr


@pytest.fixture
def locked():
    return tables.Tables([results.Result(Path("x.json"), document(cell("torch")))], results.Today())


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_text('{file}')",
        "select * from read_csv('{file}')",
        "select * from '{file}'",
        "select * from read_blob('/proc/self/environ')",
        "select * from glob('{folder}/*')",
        "select * from sniff_csv('{file}')",
        "select * from read_csv('http://127.0.0.1:{port}/x.csv')",
        "select * from duckdb_secrets()",
        "select * from variable",
        "select getenv('HOME')",
        "copy cells to '{folder}/out.csv'",
        "copy (select 1) to '{folder}/out.csv'",
        "attach '{folder}/out.db'",
        "export database '{folder}'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "reset lock_configuration",
        "pragma temp_directory = '{folder}'",
    ],
)
def test_sql_reaches_neither_files_nor_network(locked, sql, tmp_path):
    """Through our door, and, without our check of what kind of statement it is, through DuckDB's own."""
    variable = np.array([1])  # Python's own are out of reach too
    secret = tmp_path / "secret.csv"
    secret.write_text("secret\n1\n", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        filled = sql.format(file=secret, folder=tmp_path, port=server.getsockname()[1])
        with pytest.raises(UsageError):
            locked.ask(filled)
        with pytest.raises(Exception, match=r"disabled|does not exist|locked|Cannot change"):
            locked._connection.execute(filled)
        with pytest.raises(TimeoutError):
            server.accept()
    assert len(variable) == 1 and [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


def test_that_test_would_notice(tmp_path):
    import duckdb

    (tmp_path / "secret.csv").write_text("secret\n1\n", encoding="utf-8")
    open_one = duckdb.connect(":memory:")
    assert open_one.execute(f"select * from read_csv('{tmp_path / 'secret.csv'}')").fetchall() == [(1,)]
    tables.lock(open_one)
    with pytest.raises(duckdb.PermissionException):
        open_one.execute(f"select * from read_csv('{tmp_path / 'secret.csv'}')")


def test_every_column_is_described_in_the_docs():
    page = (DOCS / "results.md").read_text(encoding="utf-8")
    for name, columns in tables.TABLES.items():
        _, _, section = page.partition(f"## `{name}`")
        section = section.partition("\n## ")[0]
        listed = [line for line in section.splitlines() if line.startswith("| `")]
        assert listed == [f"| `{column}` | {kind} | {told} |" for column, (kind, told) in columns.items()], name


# -- files that are none -----------------------------------------------------------------------------------------------


def deep(levels):
    return "[" * levels + "]" * levels


BROKEN = {
    "cut.json": (json.dumps(document(cell("torch")))[:-40], "Expected JSON. Received: "),
    "empty.json": ("", "Expected JSON. Received: "),
    "nan.json": (json.dumps(document(cell("torch", accuracy=float("nan")))), "Received: NaN, which is not JSON"),
    "deep.json": (deep(100_000), "Expected JSON. Received: "),
    "foreign.json": ('{"name": "package", "version": 1}', "Expected a result of `rosetta compare`. Received: at $, "),
    "list.json": ("[1, 2]", "[1, 2] is not of type 'object'"),
    "several.json": ('{"schema": 1, "texts": 3}', "Expected a result of `rosetta compare`"),
    "future.json": (json.dumps(document() | {"schema": 2}), "Received: at $.schema, 1 was expected"),
    "date.json": (json.dumps(document() | {"date": "yesterday"}), "Expected a date. Received: at $.date, 'yesterday'"),
    "undated.json": (json.dumps({k: v for k, v in document().items() if k != "date"}), "Expected a date."),
    "huge.json": (json.dumps(document(cell("torch", batch_size=10**400))), "Expected a result file. Received: "),
    "load.json": (json.dumps(document() | {"machine": {**document()["machine"], "load": "high"}}), "could not convert"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_or_foreign_file_costs_a_line(name, place, tmp_path):
    content, message = BROKEN[name]
    folder = write(tmp_path / "some", good=document(cell("torch")))
    (folder / name).write_text(content, encoding="utf-8")
    done = place.call("results", "--results", folder)
    assert done.returncode == 0 and "\ntorch " in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{folder / name}: ") and message in line and len(line) < 500
    told = json.loads(place.call("results", "--results", folder, "--json").stdout)
    assert [one["file"] for one in told["unreadable"]] == [str(folder / name)]


def test_bytes_and_what_is_no_file_cost_a_line_too(place, tmp_path):
    folder = write(tmp_path / "some", good=document(cell("torch")))
    (folder / "bytes.json").write_bytes(b"\xff\xfe\x00")
    (folder / "folder.json").mkdir()
    done = place.call("results", "--results", folder)
    assert done.returncode == 0 and "\ntorch " in done.stdout
    assert [line.partition(": ")[0] for line in done.stderr.splitlines()] == [
        str(folder / "bytes.json"), str(folder / "folder.json")
    ]  # fmt: skip


def test_what_a_file_says_does_not_reach_the_terminal_as_more_than_text(place, tmp_path):
    folder = write(tmp_path / "some", evil=document(cell("\x1b[31mred[bold]x[/bold]\x07"), cpu="[link=x]\x1b]0;t"))
    done = place.call("results", "--results", folder)
    assert done.returncode == 0 and "[bold]x[/bold]" in done.stdout and "[link=x]" in done.stdout
    assert not {"\x1b", "\x07"} & set(done.stdout + done.stderr)


def test_many_texts_in_one_document_and_the_same_run_twice(tmp_path):
    one, two = document(cell("torch")), document(cell("torch"), text="gru")
    write(tmp_path / "a", all={"schema": 1, "texts": [one, two]})
    published = json.loads(json.dumps(one))
    del published["cells"][0]["facts"]["python"]
    write(tmp_path / "b", again=published)
    found = results.find([tmp_path / "a", tmp_path / "b"])
    assert [one.document["text"] for one in found.results] == ["cnn", "gru"] and found.unreadable == []


def test_results_of_before_scopes_are_read():
    """Such lie in results/."""
    found = results.find([paths.project_results()])
    assert found.unreadable == [] and len(found.results) >= 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--results", "/no/such/folder"], "Expected a folder of results. Received: /no/such/folder"),
        (["--text", "cn"], "Received: 'cn'. Did you mean 'cnn'?"),
        (["--framework", "troch"], "Received: 'troch'. Did you mean 'torch'?"),
        (["--since", "yesterday"], "'yesterday' does not match the format"),
        (["--text", "cnn", "publish", "x.json"], "Expected options behind the command: rosetta results publish"),
        (["publsh", "x.json"], "Did you mean 'publish'?"),
    ],
)
def test_a_wrong_call_is_2(asked, options, message):
    done = asked(*options)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in " ".join(done.stderr.split())


def test_nothing_there_says_what_to_do(place, tmp_path):
    (tmp_path / "none").mkdir()
    done = place.call("results", "--results", tmp_path / "none")
    assert done.returncode == 0 and "No result fits." in done.stdout and "Next: rosetta compare" in done.stdout


# -- what has changed since, and publishing: with real comparisons -----------------------------------------------------


@pytest.fixture(scope="module")
def measured(tmp_path_factory, template):
    """A machine with two frameworks, proven and compared."""
    made = planted.Place(tmp_path_factory.mktemp("results"), template)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROSETTA_CACHE", str(made.cache))
        made.plant("tiny")
        made.plant("wrong", ("    return loss\n", "    return 2 * loss\n"))
    done = made.call("compare", TEXT, "--frameworks", "tiny,wrong", "--budget", "1")
    assert done.returncode == 1, done.stderr  # wrong is
    return made


@pytest.fixture
def file(measured):
    """Its result file."""
    (found,) = measured.results.glob("*.json")
    return found


@pytest.fixture
def edited(measured):
    """Edits files of that machine, and puts them back."""
    kept = {}

    def edit(path, *edits):
        kept.setdefault(path, path.read_bytes())
        if edits:
            measured.edit(path, *edits)
        else:
            path.write_bytes(path.read_bytes() + b"\n")

    yield edit
    for path, content in kept.items():
        path.write_bytes(content)


def changed(place):
    done = place.call("results", "--results", place.results, "--framework", "tiny", "--json")
    return json.loads(done.stdout)["cells"][0]["changed"]


def test_what_changed_since_is_said(measured, edited):
    tiny = measured.frameworks / "tiny"
    assert changed(measured) == ""
    edited(tiny / "adapter.py")
    assert changed(measured) == "adapter"
    edited(measured.version("tiny"))
    assert changed(measured) == "version, adapter"
    edited(tiny / "requirements.lock")
    assert changed(measured) == "version, lock"
    shown = measured.call("results", "--results", measured.results).stdout
    assert next(line for line in shown.splitlines() if line.startswith("tiny ")).endswith("version, lock")
    edited(measured.version("tiny"))
    measured.version("tiny").unlink()
    assert changed(measured) == "all"


def test_folders_of_one_s_own_are_held_against_too(measured):
    """By options as by the variables, which all other tests here use."""
    none = dict.fromkeys(("ROSETTA_STONE", "ROSETTA_FRAMEWORKS"))
    options = ("--results", measured.results, "--framework", "tiny", "--json")
    done = measured.call("results", *options, **none)
    assert json.loads(done.stdout)["cells"][0]["changed"] == "all"
    own = ("--stone", measured.stone, "--frameworks-dir", measured.frameworks)
    assert json.loads(measured.call("results", *options, *own, **none).stdout)["cells"][0]["changed"] == ""


def test_a_result_is_published(measured, file, tmp_path):
    done = measured.call("results", "publish", file, "--output", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    (copy,) = (tmp_path / "out").iterdir()
    wrote, *left_out, after = done.stdout.splitlines()
    assert wrote == f"wrote {copy}" and after == f"Next: git add {copy}, and open a pull request with it"
    assert copy.name.startswith(f"{TEXT}-quick-2") and copy.stat().st_mode & 0o777 == file.stat().st_mode & 0o777
    then, now = (json.loads(path.read_text(encoding="utf-8")) for path in (file, copy))
    schema = json.loads((DOCS / "schema" / "compare.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(now, schema)
    assert now["cells"][0] == then["cells"][0] and len(left_out) <= 1
    assert measured.folder.as_posix() not in copy.read_text(encoding="utf-8")
    again = measured.call("results", "publish", file, "--output", tmp_path / "out")
    assert again.returncode == 1 and f"{copy} is there already" in again.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == [copy.name]  # no scratch files either


def refused(measured, file, tmp_path):
    done = measured.call("results", "publish", file, "--output", tmp_path / "out")
    assert (done.returncode, done.stdout) == (1, "")
    assert not (tmp_path / "out").exists()
    return done.stderr


def test_what_has_changed_is_not_published(measured, file, edited, tmp_path):
    edited(measured.version("tiny"))
    told = refused(measured, file, tmp_path)
    assert "tiny: Expected a result of what is here now. Changed since: version." in told
    assert f"Next: rosetta compare {TEXT} --frameworks tiny" in told


def test_what_is_not_proven_here_is_not_published(measured, file, tmp_path):
    told = refused_with(measured, file, tmp_path, ROSETTA_CACHE=tmp_path / "cache")
    assert "tiny: Expected proven in float32. Received: not proven here as it is now." in told
    assert f"Next: rosetta prove {TEXT} --frameworks tiny" in told


def refused_with(measured, file, tmp_path, **environ):
    done = measured.call("results", "publish", file, "--output", tmp_path / "out", **environ)
    assert (done.returncode, done.stdout) == (1, "") and not (tmp_path / "out").exists()
    return done.stderr


def planted_in(file, tmp_path, change):
    found = json.loads(file.read_text(encoding="utf-8"))
    change(found)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one["cells"][0].update(verdict="waived"), "tiny: Expected waived in float32. Received: proven."),
        (lambda one: one["cells"][0]["items_per_second"].update(median=10**6), "Expected the samples' median, "),
        (lambda one: one["cells"][0]["items_per_second"].update(low=10**6), "Expected the samples' median, "),
        (lambda one: one["cells"][0].update(hashes={}), "Expected the hashes of what was measured. Received: none."),
        (lambda one: one["cells"][0].update(items_per_second=None), "Expected a cell that was timed. Received: none."),
        (lambda one: one.update(text="gone"), "Changed since: no longer there."),
        (lambda one: one["cells"][0].update(switches=["compile"]), "Changed since: switches."),
        (
            lambda one: one.update(data="/home/alice/data"),
            "Expected nothing private at data. Received: '/home/alice/data'",
        ),
        (lambda one: one["machine"].update(cpu="box.lan"), "Expected nothing private at machine.cpu."),
        (lambda one: one.update(unit="a/b"), "Expected a plain name at unit. Received: 'a/b'."),
        (lambda one: one.clear(), "changed.json: Expected a result of `rosetta compare`."),
    ],
)
def test_what_is_not_true_or_too_private_is_refused(measured, file, tmp_path, change, message):
    assert message in refused(measured, planted_in(file, tmp_path, change), tmp_path)


PLANTED = {
    "machine.hostname": ("machine", "hostname", "build-7"),
    "machine.user": ("machine", "user", "alice"),
    "machine.note": ("machine", "note", "ask alice"),
    "machine.seen": ("machine", "seen", "10.20.30.40"),
    "cells[0].facts.library": ("facts", "library", "/home/alice/lib/libfoo.so"),
    "cells[0].facts.where": ("facts", "where", r"C:\Users\alice"),
    "cells[0].facts.blas": ("facts", "blas", "built by alice@build-7"),
    "cells[0].facts.gpu": ("facts", "gpu", "GPU-12345678-1234-1234-1234-123456789abc"),
    "cells[0].facts.env": ("facts", "env", {"PATH": "/opt/alice/bin"}),
    "cells[0].facts.more": ("facts", "more", {"/home/alice": 1}),
    "cells[0].facts.source": ("facts", "source", "https://git.example.com/alice"),
    "cells[0].facts.server": ("facts", "server", "gpu1.corp"),
    "cells[0].reason": ("cell", "reason", "waived, see ~alice/notes"),
}  # fmt: skip


@pytest.mark.parametrize("where", PLANTED)
def test_names_hosts_and_paths_are_left_out(measured, file, tmp_path, where):
    part, key, value = PLANTED[where]

    def plant(one):
        {"machine": one["machine"], "facts": one["cells"][0]["facts"], "cell": one["cells"][0]}[part][key] = value

    path = planted_in(file, tmp_path, plant)
    done = measured.call("results", "publish", path, "--output", tmp_path / "out", USER="alice")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"left out: {where} (" in done.stdout
    (copy,) = (tmp_path / "out").iterdir()
    told = copy.read_text(encoding="utf-8")
    assert "alice" not in told and "build-7" not in told and str(value)[-8:] not in told


def test_own_names_are_known(monkeypatch):
    monkeypatch.setenv("USER", "Bob-Smith")
    monkeypatch.setattr(socket, "gethostname", lambda: "workstation.example.org")
    names = publish.own_names()
    assert {"Bob-Smith", "workstation", "workstation.example.org"} <= set(names) and "root" not in names
    assert publish.private("ran for bob-smith", names, "") == "this user's name"
    assert publish.private("on Workstation today", names, "") == "this machine's name"
    assert publish.private("bobsmith's workstations", names, "") is None


@pytest.mark.parametrize(
    "value",
    ["AMD EPYC 7B13", "Intel(R) Xeon(R) Processor", "Linux x86_64", "images/s", "2.13.0+cu126", "a and/or b", "1 / 2",
     "digits (packaged sample)", "ratio 3:4", "NVIDIA H200, 139 GiB"],
)  # fmt: skip
def test_what_is_public_is_kept(value):
    assert publish.private(value, {"alice": ""}, "") is None


def test_versions_may_look_like_addresses():
    assert publish.private("9.1.0.70", {}, "cudnn") is None
    assert publish.private("9.1.0.70", {}, "note") is not None


def test_a_checkout_publishes_into_its_own_folder(monkeypatch, tmp_path):
    assert publish.folder(None) == DOCS.parent / "results"
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "lib" / "dlrosetta")
    with pytest.raises(RosettaError, match="Expected a folder"):
        publish.folder(None)


def test_days_are_whole():
    import datetime

    day = datetime.datetime(2026, 11, 29)
    assert listing.filters(None, None, None, None, day).until == day + datetime.timedelta(days=1)
    assert listing.filters("a, b,", None, None, None, day.replace(hour=1)).until == day.replace(hour=1)
