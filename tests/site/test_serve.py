"""The server: the loopback address, what was built, and nothing else."""

import http.client
import re
import signal
import subprocess
import sys

import pytest

from dlrosetta.errors import RosettaError
from dlrosetta.site import build, serve


def ask(address, path, method="GET", host=None):
    port = int(address.rpartition(":")[2].strip("/"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={"Host": host or f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def test_it_listens_on_loopback_alone(address):
    assert address.startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/zh/texts/cnn/", "text/html; charset=utf-8"),
        ("/static/site.css", "text/css; charset=utf-8"),
        ("/static/site.js", "text/javascript; charset=utf-8"),
        ("/data/concordance/index.json", "application/json; charset=utf-8"),
        ("/files/stone/cnn/cnn_torch.py", "text/plain; charset=utf-8"),
    ],
)
def test_what_there_is(address, path, kind):
    status, headers, body = ask(address, path)
    assert (status, headers["Content-Type"]) == (200, kind)
    assert len(body) == int(headers["Content-Length"]) > 100
    assert (
        build.POLICY in headers["Content-Security-Policy"] and "frame-ancestors" in headers["Content-Security-Policy"]
    )
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert ask(address, path, "HEAD")[::2] == (200, b"")


OUTSIDE = ("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/static/..%2f..%2f")


@pytest.mark.parametrize("path", ["/no/such", "/static", f"/{build.MARK}", *OUTSIDE])
def test_what_there_is_not(address, path):
    status, headers, body = ask(address, path)
    assert status == 404
    assert b"There is no such page" in body and b"root:" not in body
    assert build.POLICY in headers["Content-Security-Policy"]


def test_what_is_missing_is_told_in_the_language_of_the_address(address):
    assert "没有这个页面" in ask(address, "/zh/no/such")[2].decode()


def test_a_folder_without_its_slash_is_redirected_to_itself(address):
    status, headers, _ = ask(address, "/texts/cnn")
    assert (status, headers["Location"]) == (301, "cnn/")


def test_another_name_for_this_machine_is_refused(address):
    assert ask(address, "/", host="evil.example")[0] == 421


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_other_methods_are_refused(address, method):
    assert ask(address, "/", method)[0] == 501


def test_links_out_of_the_folder_are_not_followed(tmp_path, site):
    (tmp_path / build.MARK).write_text("")
    (tmp_path / "index.html").write_text("here")
    (tmp_path / "secret.html").symlink_to("/etc/passwd")
    with serve.Server(tmp_path, 0) as server:
        assert set(server.files) == {"/index.html"}


def test_a_folder_that_was_not_built_is_refused(tmp_path):
    with pytest.raises(RosettaError, match="Expected pages"):
        serve.Server(tmp_path, 0)


def test_the_command_serves_until_it_is_interrupted(site):
    command = [sys.executable, "-m", "dlrosetta", "site", "serve", str(site), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        address = re.match(r"(http://127\.0\.0\.1:\d+/)", line)[1]
        assert ask(address, "/matrix/")[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


def test_a_port_that_is_taken_is_told(site, address):
    port = address.rpartition(":")[2].strip("/")
    command = [sys.executable, "-m", "dlrosetta", "site", "serve", str(site), "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"Expected a free port. Received: {port}" in done.stderr and "rosetta site serve --port 0" in done.stderr
