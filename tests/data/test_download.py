"""Downloads against a real server on loopback that cuts off, corrupts, stalls, redirects and forgets how to resume."""

import contextlib
import hashlib
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

from dlrosetta import commands
from dlrosetta.data import DataError, cifar, download, reviews, sources

BODY = bytes(range(256)) * 4000  # about 1 MB
QUICK = {"tries": 4, "stall": 1.0, "pause": 0.01}


def checksum(body):
    return "md5:" + hashlib.md5(body).hexdigest()


class Server:
    """Serves `body`; `faults` are consumed one a request, then it behaves."""

    def __init__(self, body=BODY, faults=(), resumes=True):
        self.body, self.faults, self.resumes, self.asked = body, list(faults), resumes, []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *_):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._http.server_port}/file"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()

    def answer(self, request):
        asked = request.headers.get("Range")
        self.asked.append(asked)
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, int):
            request.send_error(fault)
            return
        if isinstance(fault, str) and "://" in fault:
            request.send_response(302)
            request.send_header("Location", fault)
            request.end_headers()
            return
        body, begin = self.body, 0
        if asked and self.resumes:
            begin = int(asked[len("bytes=") :].split("-")[0])
        request.send_response(206 if begin else 200)
        if begin:
            request.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        request.send_header("Content-Length", str(len(body) - begin))
        request.end_headers()
        rest = body[begin:]
        if fault == "corrupt":
            rest = rest[:-1] + bytes([rest[-1] ^ 1])
        half = rest[: len(rest) // 2]
        with contextlib.suppress(OSError):
            request.wfile.write(half if fault in ("cut", "stall") else rest)
            request.wfile.flush()
        if fault == "stall":
            time.sleep(3)
        request.close_connection = True


def fetch(server, path, **options):
    seen = []
    download.download(
        server.address,
        str(path),
        checksum(BODY),
        2 * len(BODY),
        lambda done, total: seen.append((done, total)),
        **{**QUICK, **options},
    )
    return seen


@pytest.mark.parametrize("fault", ["cut", "stall", "corrupt", 500, 503])
def test_a_fault_is_overcome(tmp_path, fault):
    with Server(faults=[fault]) as server:
        seen = fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert os.listdir(tmp_path) == ["file"]


def test_what_was_received_is_not_asked_for_again(tmp_path):
    with Server(faults=["cut"]) as server:
        fetch(server, tmp_path / "file")
    assert server.asked == [None, f"bytes={len(BODY) // 2}-"]


def test_a_server_that_cannot_resume_starts_anew(tmp_path):
    with Server(faults=["cut"], resumes=False) as server:
        fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY


def test_an_interrupted_download_goes_on_next_time(tmp_path):
    with Server(faults=["cut"]) as server:
        with pytest.raises(DataError):
            fetch(server, tmp_path / "file", tries=1)
        assert os.listdir(tmp_path) == ["file.part"]
        fetch(server, tmp_path / "file")
    assert server.asked[-1] == f"bytes={len(BODY) // 2}-"
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_part_of_another_file_does_not_last(tmp_path):
    (tmp_path / "file.part").write_bytes(b"x" * (len(BODY) + 5))
    with Server(faults=[416]) as server:
        fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_wrong_checksum_leaves_nothing(tmp_path):
    with Server(faults=["corrupt"] * 9) as server, pytest.raises(DataError, match="expected checksum md5:") as caught:
        fetch(server, tmp_path / "file")
    assert os.listdir(tmp_path) == []
    assert str(tmp_path) in caught.value.hint


def test_what_is_not_there_is_asked_for_once(tmp_path):
    with Server(faults=[404, 404]) as server, pytest.raises(DataError, match="404"):
        fetch(server, tmp_path / "file")
    assert len(server.asked) == 1


def test_a_redirect_within_this_machine_is_followed(tmp_path):
    with Server() as there, Server(faults=[there.address]) as server:
        fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY


@pytest.mark.parametrize("address", ["http://example.invalid/file", "ftp://127.0.0.1/file", "file:///etc/passwd"])
def test_a_redirect_to_an_open_line_is_refused(tmp_path, address):
    with (
        Server(faults=[address] * 9) as server,
        pytest.raises(DataError, match=r"redirect to https|not allowed|could not"),
    ):
        fetch(server, tmp_path / "file")
    assert os.listdir(tmp_path) == []


def test_an_open_line_is_refused(tmp_path):
    with pytest.raises(DataError, match="expected an https address"):
        download.download("http://example.invalid/x", str(tmp_path / "x"), checksum(b""), 10, **QUICK)


def test_more_than_expected_is_refused(tmp_path):
    with Server() as server, pytest.raises(DataError, match="at most 1000 bytes"):
        download.download(server.address, str(tmp_path / "file"), checksum(BODY), 1000, **QUICK)


def test_a_full_disk_is_one_clear_line(tmp_path):
    script = f"""
import resource, signal, sys
sys.path.insert(0, {str(os.path.dirname(os.path.dirname(os.path.dirname(download.__file__))))!r})
from dlrosetta.data import DataError, download
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    download.download(sys.argv[1], sys.argv[2], {checksum(BODY)!r}, 10**7)
except DataError as error:
    print(error)
"""
    with Server() as server:
        done = subprocess.run(
            [sys.executable, "-c", script, server.address, str(tmp_path / "file")],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert "could not be written" in done.stdout and "Next: free space" in done.stdout, done


# -- the archive -------------------------------------------------------------------------------------------------------


def archive(members):
    """A gzipped tar; members are (name, bytes) or ready TarInfo objects."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def link(kind):
    info = tarfile.TarInfo("set/link")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    "bad",
    [
        ("../out", b"x"),
        ("/tmp/rosetta-out", b"x"),
        ("set/../../out", b"x"),
        link(tarfile.SYMTYPE),
        link(tarfile.LNKTYPE),
        link(tarfile.CHRTYPE),
    ],
)
def test_an_archive_that_reaches_out_is_refused_whole(tmp_path, bad):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(archive([("set/good", b"x"), bad]))
    with pytest.raises(DataError, match="expected"):
        download.unpack(str(path), str(tmp_path), "set")
    assert os.listdir(tmp_path) == ["a.tar.gz"]
    assert not (tmp_path.parent / "out").exists()


@pytest.mark.parametrize(("limit", "most"), [("MOST_MEMBERS", 2), ("MOST_UNPACKED", 5)])
def test_an_archive_of_more_than_is_accepted_is_refused_whole(monkeypatch, tmp_path, limit, most):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(archive([("set/one", b"xx"), ("set/two", b"xx"), ("set/three", b"xx")]))
    download.unpack(str(path), str(tmp_path), "set")
    assert sorted(os.listdir(tmp_path / "set")) == ["one", "three", "two"]
    monkeypatch.setattr(download, limit, most)
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="Received: more"):
        download.unpack(str(path), str(tmp_path / "other"), "set")
    assert os.listdir(tmp_path / "other") == []


def test_archives_of_a_hundred_thousand_files_are_accepted():
    """The IMDb reviews' has 4 × 12,500 with labels, 50,000 without, and a few about them."""
    assert download.MOST_MEMBERS > 100_100


def test_an_archive_that_is_none_is_refused(tmp_path):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(BODY[:1000])
    with pytest.raises(DataError, match="expected a tar archive"):
        download.unpack(str(path), str(tmp_path), "set")
    assert os.listdir(tmp_path) == ["a.tar.gz"]


# -- a whole set -------------------------------------------------------------------------------------------------------


class Small(NamedTuple):
    """A set in the publisher's layout, but small."""

    name: str
    files: dict[str, bytes]
    body: bytes  # of the archive


def small_cifar10():
    rng = np.random.default_rng(0)
    files = {name: rng.integers(0, 256, (20, 3073), dtype=np.uint8) for name in cifar.TRAIN_FILES + cifar.TEST_FILES}
    for records in files.values():
        records[:, 0] %= 10
    return {f"cifar-10-batches-bin/{name}": records.tobytes() for name, records in files.items()}


def small_imdb():
    files = {"aclImdb/README": b"", "aclImdb/train/unsup/0_0.txt": b"no label"}
    for part in ("train", "test"):
        for label in ("neg", "pos"):
            for number in range(3):
                files[f"aclImdb/{part}/{label}/{number}_{7 if label == 'pos' else 4}.txt"] = (
                    f"a {label} {part} film, {number}".encode()
                )
    return files


SMALL = {"cifar10": small_cifar10, "imdb": small_imdb}


def shrink():
    cifar.RECORDS, reviews.FILES = 20, 3


@pytest.fixture(params=sorted(SMALL))
def small(request, monkeypatch, tmp_path):
    monkeypatch.setattr(cifar, "RECORDS", cifar.RECORDS)  # put back by monkeypatch
    monkeypatch.setattr(reviews, "FILES", reviews.FILES)
    shrink()
    monkeypatch.setenv("ROSETTA_DATA", str(tmp_path / "data"))
    files = SMALL[request.param]()
    return Small(request.param, files, archive(files.items()))


def test_every_set_is_tried():
    assert set(SMALL) == {name for name, source in sources.SOURCES.items() if source.address}


def test_a_set_is_fetched_and_unpacked(small):
    name = small.name
    source = sources.SOURCES[name]
    assert sources.where(name) == (source.sample, "sample", None)
    with Server(small.body, faults=["cut"]) as server:
        folder = sources.fetch(name, address=server.address, checksum=checksum(small.body), **QUICK)
        assert sources.fetch(name, address=server.address, checksum=checksum(small.body)) == folder  # not again
    assert len(server.asked) == 2
    assert sources.where(name) == (source.title, "real", folder)
    assert sorted(os.listdir(sources.data_dir())) == [f".{name}.lock", source.folder]
    for path, body in small.files.items():
        with open(os.path.join(sources.data_dir(), path), "rb") as file:
            assert file.read() == body


@pytest.mark.parametrize("small", ["cifar10"], indirect=True)
def test_what_was_fetched_is_read_as_images(small):
    with Server(small.body) as server:
        sources.fetch("cifar10", address=server.address, checksum=checksum(small.body), **QUICK)
    (images, labels), (test_images, _) = cifar.cifar10()
    record = np.frombuffer(small.files["cifar-10-batches-bin/data_batch_2.bin"], np.uint8).reshape(20, 3073)[3]
    assert labels[23] == record[0]
    assert np.array_equal(images[23], record[1:].reshape(3, 32, 32).astype(np.float32) / 255)
    assert images.shape == (100, 3, 32, 32) and test_images.shape == (20, 3, 32, 32)
    assert np.array_equal(cifar.cifar10(channels_last=True)[0][0], images.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("small", ["imdb"], indirect=True)
def test_what_was_fetched_is_read_as_words_and_bytes(small):
    """Asked for by either of its names, it is one set under one lock."""
    with Server(small.body) as server:
        sources.fetch("imdb_bytes", address=server.address, checksum=checksum(small.body), **QUICK)
    assert sources.where("imdb_bytes") == sources.where("imdb")
    assert sorted(os.listdir(sources.data_dir())) == [".imdb.lock", "aclImdb"]
    (tokens, labels), _ = reviews.imdb(length=6)
    assert tokens.shape == (6, 6) and labels.tolist() == [0, 1, 0, 1, 0, 1]
    _, (inputs, _) = reviews.imdb_bytes(length=18)
    assert inputs[0].astype(np.uint8).tobytes() == b"a neg test film, 0"


@pytest.mark.parametrize(
    ("small", "name"), [(name, name) for name in SMALL] + [("imdb", "imdb_bytes")], indirect=["small"]
)
def test_the_command_line_obtains_it(small, monkeypatch, capsys, name):
    text = SimpleNamespace(data=name)
    with Server(small.body) as server:
        source = sources.SOURCES[small.name]._replace(address=server.address, checksum=checksum(small.body))
        monkeypatch.setitem(sources.SOURCES, small.name, source)
        commands.obtain(text)
        commands.obtain(text)
    assert len(server.asked) == 1
    assert sources.where(text.data).kind == "real"
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", [*sources.SOURCES, *sources.FORMS])
def test_the_sample_stands_in_where_it_cannot_be_obtained(monkeypatch, tmp_path, capsys, name):
    monkeypatch.setenv("ROSETTA_DATA", str(tmp_path))
    with Server(faults=[404] * 2) as server:
        plain = sources.FORMS.get(name, name)
        monkeypatch.setitem(sources.SOURCES, plain, sources.SOURCES[plain]._replace(address=server.address))
        commands.obtain(SimpleNamespace(data=name))
    said = " ".join(capsys.readouterr().err.split())
    assert "404" in said and said.endswith(f"Using {sources.SOURCES[plain].sample}.")


def _fetch(name, address, expected, queue):
    shrink()
    queue.put(sources.fetch(name, address=address, checksum=expected))


def test_two_at_once_fetch_once(small):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    with Server(small.body) as server:
        names = [small.name, "imdb_bytes" if small.name == "imdb" else small.name]
        both = [
            context.Process(target=_fetch, args=(name, server.address, checksum(small.body), queue)) for name in names
        ]
        for one in both:
            one.start()
        folders = {queue.get(timeout=60) for _ in both}
        for one in both:
            one.join()
    assert len(folders) == 1 and len(server.asked) == 1


def test_a_kill_leaves_no_half_set(small):
    source = sources.SOURCES[small.name]
    with Server(small.body, faults=["stall"]) as server:
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        process = context.Process(target=_fetch, args=(small.name, server.address, checksum(small.body), queue))
        process.start()
        part = os.path.join(sources.data_dir(), os.path.basename(source.address) + ".part")
        deadline = time.monotonic() + 60
        while not os.path.exists(part):
            assert process.is_alive() and time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert not os.path.exists(os.path.join(sources.data_dir(), source.folder))
        assert sources.where(small.name).kind == "sample"
        sources.fetch(small.name, address=server.address, checksum=checksum(small.body), **QUICK)
    assert sources.where(small.name).kind == "real"


def test_an_unwritable_folder_is_one_clear_line(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ROSETTA_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(DataError, match="expected a folder that can be written") as caught:
        sources.fetch("cifar10")
    assert "ROSETTA_DATA" in caught.value.hint
