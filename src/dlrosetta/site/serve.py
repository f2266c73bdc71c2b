"""`rosetta site serve`: the built pages on the loopback address, and nothing else.

Only files that were in the folder when the server started are served, by a table of addresses: no path that a request
names is ever joined to a folder, so none can lead out of it, by dots, links or letters.
"""

from __future__ import annotations

import posixpath
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from dlrosetta import console
from dlrosetta.errors import RosettaError
from dlrosetta.site import build, words

LOOPBACK = "127.0.0.1"
HEADERS = {
    "Content-Security-Policy": f"{build.POLICY}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
PLAIN = "text/plain; charset=utf-8"  # of all that is not made to be shown: versions, notebooks
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".json": "application/json",
         ".svg": "image/svg+xml", ".png": "image/png", ".ipynb": "application/json"}  # fmt: skip


class Server(ThreadingHTTPServer):
    """`files` are the addresses that there are."""

    daemon_threads = True

    def __init__(self, folder: Path, port: int):
        """Raises RosettaError where `folder` was not made by `rosetta site build`, OSError where the port is taken."""
        if not (folder / build.MARK).is_file():
            raise RosettaError(f"Expected pages. Received: {folder}, which `rosetta site build` has not made.",
                               "rosetta site build")  # fmt: skip
        self.files = {
            "/" + path.relative_to(folder).as_posix(): path
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.is_symlink() and path.name != build.MARK
        }
        super().__init__((LOOPBACK, port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader who went on before a page had come is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self.server_address[1]}/"


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD of what there is; for all else the page for what is missing, with status 404."""

    server: Server
    server_version, sys_version = "dlrosetta", ""

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        # A page elsewhere that has a name of its own lead here is not to read what is here.
        host = (self.headers.get("Host") or "").rpartition(":")[0] or self.headers.get("Host")
        if host not in (LOOPBACK, "localhost"):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return
        asked = unquote(urlsplit(self.path).path)
        found = self.server.files.get(asked + "index.html" if asked.endswith("/") else asked)
        if found is None and asked + "/index.html" in self.server.files:
            self.send_response(HTTPStatus.MOVED_PERMANENTLY)
            self.send_header("Location", posixpath.basename(urlsplit(self.path).path) + "/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        status = HTTPStatus.OK if found else HTTPStatus.NOT_FOUND
        if found is None:
            language = next((one for one in words.LANGUAGES if asked.startswith(f"/{one}/")), "")
            found = self.server.files[f"/{language}/404.html" if language else "/404.html"]
        content = found.read_bytes()
        kind = TYPES.get(found.suffix)
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if kind else PLAIN)
        self.send_header("Content-Length", str(len(content)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a reader's pages are nobody's business."""


def show(folder: str | None, port: int) -> int:
    """Serve until Ctrl-C."""
    where = Path(folder).resolve() if folder else build.default()
    try:
        server = Server(where, port)
    except OSError as error:
        said = f"Expected a free port. Received: {port}: {error.strerror}."
        raise RosettaError(said, "rosetta site serve --port 0") from error
    with server:
        console.out().print(f"{server.address}   Ctrl-C ends it", soft_wrap=True, markup=False)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0
