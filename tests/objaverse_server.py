"""A local HTTP server in Objaverse's exact layout on Hugging Face, which can be told to misbehave.

As there, `…/resolve/main/<file>` redirects to where the bytes are, and states their size and sha256
(X-Linked-Size, X-Linked-ETag) with the redirection; the bytes are served in ranges.
"""

import gzip
import hashlib
import json
import re
import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ROOT = "/datasets/allenai/objaverse/resolve/main/"
BYTES = "/bytes/"


def uid_of(number: int) -> str:
    return f"{number:032x}"


def path_of(uid: str) -> str:
    return f"glbs/000-{int(uid, 16) % 3:03d}/{uid}.glb"


def annotation(uid: str, licence: str = "by") -> dict[str, Any]:
    """An entry of metadata/ with the keys that are read, and some that are not."""
    return {
        "uri": f"https://api.sketchfab.com/v3/models/{uid}",
        "uid": uid,
        "name": f"Thing {int(uid, 16)}",
        "viewerUrl": f"https://sketchfab.com/3d-models/{uid}",
        "license": licence,
        "user": {"username": "maker", "displayName": "A Maker", "profileUrl": "https://sketchfab.com/maker"},
        "tags": [{"name": "cup"}],
        "faceCount": 12,
    }


def objaverse_files(
    glbs: Sequence[bytes], lvis: Mapping[str, Sequence[int]] = {}, licences: Mapping[int, str] = {}
) -> dict[str, bytes]:
    """Every file of an Objaverse of these objects, which are numbered from 1 on."""
    uids = {uid_of(number): glb for number, glb in enumerate(glbs, start=1)}
    files = {path_of(uid): glb for uid, glb in uids.items()}
    parts: dict[str, dict[str, Any]] = defaultdict(dict)
    for uid in uids:
        parts[path_of(uid).split("/")[1]][uid] = annotation(uid, licences.get(int(uid, 16), "by"))
    indices: dict[str, Any] = {f"metadata/{part}.json.gz": entries for part, entries in parts.items()}
    indices["object-paths.json.gz"] = {uid: path_of(uid) for uid in uids}
    indices["lvis-annotations.json.gz"] = {
        name: [uid_of(number) for number in members] for name, members in lvis.items()
    }
    return files | {name: gzip.compress(json.dumps(content).encode()) for name, content in indices.items()}


class ObjaverseServer(ThreadingHTTPServer):
    """Serves `files`; `faults` has for each file what to do instead, one request after the other.

    A fault is a status (429 comes with `Retry-After: 0`), or "drop" (half of it, then the connection ends),
    "truncate" (half of it, as if it were all), "damage" (one byte differs), "hang" (nothing), "plain" (all,
    with no word about ranges, size or sha256).
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.faults: dict[str, deque[int | str]] = defaultdict(deque)
        self.requests: list[tuple[str, str]] = []  # file and Range header, where bytes were asked for
        self.over = threading.Event()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{ROOT}"

    def asked(self, name: str) -> list[str]:
        """Return the Range headers with which a file was asked for."""
        return [given for file, given in self.requests if file == name]

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is no error here."""


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[ObjaverseServer]:
    """Run a server."""
    with ObjaverseServer(files) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ObjaverseServer

    def do_GET(self) -> None:
        if self.path.startswith(ROOT):
            self._redirect(self.path.removeprefix(ROOT))
        else:
            self._serve(self.path.removeprefix(BYTES))

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _redirect(self, name: str) -> None:
        content = self.server.files.get(name)
        if content is None:
            return self._status(404)
        faults = self.server.faults[name]
        self.send_response(302)
        self.send_header("Location", BYTES + name)
        if not (faults and faults[0] == "plain"):
            self.send_header("X-Linked-ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _serve(self, name: str) -> None:
        content, given = self.server.files[name], self.headers.get("Range", "")
        self.server.requests.append((name, given))
        faults = self.server.faults[name]
        fault = faults.popleft() if faults else ""
        if isinstance(fault, int):
            return self._status(fault)
        if fault == "hang":
            self.server.over.wait(20)
        elif fault in ("plain", "truncate"):
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content if fault == "plain" else content[: len(content) // 2])
            self.close_connection = True
        else:
            self._range(content, given, fault)

    def _range(self, content: bytes, given: str, fault: str) -> None:
        """Serve the bytes that a Range header asks for."""
        asked = re.fullmatch(r"bytes=(\d+)-", given)
        start = int(asked[1]) if asked else 0
        if asked and start >= len(content):
            return self._status(416)
        body = bytearray(content[start:])
        if fault == "damage":
            body[-1] ^= 1
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault == "drop" else body)
        self.close_connection = fault == "drop"

    def _status(self, status: int) -> None:
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "0")
        self.send_header("Content-Length", "0")
        self.end_headers()
