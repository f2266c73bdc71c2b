"""Downloads that survive a bad line: resumed, checked against the publisher's checksum, unpacked beside and renamed.

pooch, the library for this, needs packages that the old frameworks' interpreters lack; this module runs on all of them.
What is on disk under its final name is always whole: everything else carries another name until it is checked.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import socket
import tarfile
import tempfile
import time
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from dlrosetta.data.errors import DataError

CHUNK = 1 << 16
STALL_S = 30.0  # seconds without a byte before a connection counts as dead
TRIES = 5
PAUSE_S = 1.0  # before the second try; doubled each time
MOST_MEMBERS = 200000  # IMDb's archive has 100,000 files
MOST_UNPACKED = 8 * 2**30


def download(address, path, checksum, most_bytes, progress=None, tries=None, stall=None, pause=None):
    """Fetch `address` to `path`; `most_bytes` is the most that is accepted. `checksum` is "algorithm:hexdigest"; None
    where the publisher states none and the caller checks the content.

    What an interrupted call left in `path + ".part"` is resumed where the server allows. Raises DataError.
    """
    part = path + ".part"
    problem = None
    for number in range(TRIES if tries is None else tries):
        if number:
            time.sleep((PAUSE_S if pause is None else pause) * 2 ** (number - 1))
        try:
            _receive(address, part, most_bytes, progress, STALL_S if stall is None else stall)
        except HTTPError as error:
            problem = "the server answered %d %s" % (error.code, error.reason)
            if error.code == 416:  # the part is longer than the file: it is another file's
                _remove(part)
            elif error.code < 500 and error.code not in (408, 429):
                break
            continue
        except (URLError, HTTPException, socket.timeout, ConnectionError, EOFError) as error:
            problem = str(getattr(error, "reason", error)) or type(error).__name__
            continue
        except OSError as error:
            raise DataError(
                "%s: could not be written: %s" % (part, error.strerror),
                "free space, or set ROSETTA_DATA to another folder",
            ) from error
        received = None if checksum is None else _digest(part, checksum.split(":")[0])
        if checksum is None or received == checksum.split(":")[1]:
            os.rename(part, path)
            return
        _remove(part)
        problem = "expected checksum %s. Received: %s" % (checksum, received)
    raise DataError(
        "%s could not be downloaded: %s" % (address, problem),
        "try again later, or fetch it yourself and unpack it into %s" % os.path.dirname(path),
    )


def unpack(archive, root, name):
    """Unpack the folder `name` of a tar archive into `root`: checked, beside, then renamed. Raises DataError."""
    beside = tempfile.mkdtemp(prefix=".%s." % name, suffix=".tmp", dir=root)
    try:
        with tarfile.open(archive) as tar:
            _extract(tar, beside)
        made = os.path.join(beside, name)
        if not os.path.isdir(made):
            raise DataError(
                "%s: expected a folder %s in it. Received: %s" % (archive, name, ", ".join(sorted(os.listdir(beside))))
            )
        os.rename(made, os.path.join(root, name))
    except (tarfile.TarError, EOFError) as error:
        raise DataError("%s: expected a tar archive. Received: %s" % (archive, error)) from error
    except OSError as error:
        problem = "%s: could not be unpacked: %s" % (archive, error.strerror or error)
        raise DataError(problem, "free space in %s" % root) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextlib.contextmanager
def locked(root, name):
    """Hold the lock on one data set: of two programs at once the second waits, and then finds it there."""
    try:
        os.makedirs(root, exist_ok=True)
        file = open(os.path.join(root, ".%s.lock" % name), "w")  # noqa: SIM115 (its errors are told apart below)
    except OSError as error:
        raise DataError(
            "%s: expected a folder that can be written. Received: %s" % (root, error.strerror),
            "set ROSETTA_DATA to another folder",
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Redirects(HTTPRedirectHandler):
    """Follow a redirect only to https, or within this machine: a download must not be led onto a line that others can
    write on.
    """

    def redirect_request(self, request, response, code, message, headers, address):
        if not _is_safe(address):
            raise DataError("%s: expected a redirect to https. Received: %s" % (request.full_url, address))
        return HTTPRedirectHandler.redirect_request(self, request, response, code, message, headers, address)


def _is_safe(address):
    parts = urlsplit(address)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1"))


def _receive(address, part, most_bytes, progress, stall):
    """Append to `part` what it lacks of `address`, or write it anew where the server does not resume."""
    if not _is_safe(address):
        raise DataError("expected an https address. Received: %s" % address)
    done = os.path.getsize(part) if os.path.exists(part) else 0
    request = Request(address, headers={"User-Agent": "dlrosetta"})
    if done:
        request.add_header("Range", "bytes=%d-" % done)
    with contextlib.closing(build_opener(_Redirects).open(request, timeout=stall)) as response:
        resumed = response.getcode() == 206 and response.headers.get("Content-Range", "").startswith("bytes %d-" % done)
        done = done if resumed else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length is not None else None
        with open(part, "ab" if resumed else "wb") as file:
            while True:
                chunk = response.read(CHUNK)
                if not chunk:
                    break
                done += len(chunk)
                if done > most_bytes:
                    file.truncate(0)
                    raise DataError("%s: expected at most %d bytes. Received: more" % (address, most_bytes))
                file.write(chunk)
                if progress is not None:
                    progress(done, total)
    if total is not None and done < total:
        raise EOFError("the connection ended after %d of %d bytes" % (done, total))


def _extract(tar, target):
    """Write plain files and folders of an open archive below `target`; anything else, or anywhere else, is refused."""
    size = 0
    for count, member in enumerate(tar, 1):
        path = os.path.normpath(os.path.join(target, member.name))
        if not path.startswith(os.path.join(os.path.normpath(target), "")) and path != os.path.normpath(target):
            raise DataError("%s: expected members inside the folder. Received: %r" % (tar.name, member.name))
        if not (member.isfile() or member.isdir()):
            raise DataError(
                "%s: expected plain files and folders. Received: %r, which is neither" % (tar.name, member.name)
            )
        size += member.size
        if count > MOST_MEMBERS or size > MOST_UNPACKED:
            raise DataError(
                "%s: expected at most %d files of %d bytes. Received: more" % (tar.name, MOST_MEMBERS, MOST_UNPACKED)
            )
        if member.isdir():
            os.makedirs(path, exist_ok=True)
            continue
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.closing(tar.extractfile(member)) as source, open(path, "wb") as file:
            shutil.copyfileobj(source, file)


def _digest(path, algorithm):
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _remove(path):
    with contextlib.suppress(OSError):
        os.unlink(path)
