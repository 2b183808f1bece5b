"""Downloading files: bounded, retried, resumed where they broke off, checked, and in place only when whole.

A transfer writes into `.<name>.part` beside its target, with the server's validator of those bytes in
`.<name>.tag`: the next attempt, of this process or another, asks for the rest of the same bytes only.
"""

import fcntl
import os
import random
import re
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import BinaryIO

import httpx
from pydantic import BaseModel, Field

from storage.digests import digest_file
from storage.errors import InputError

_LATER = {408, 425, 429, 500, 502, 503, 504}  # statuses that another attempt may not meet
_GONE = {404, 410}
_SHA256 = re.compile(r"[0-9a-f]{64}")

Check = Callable[[Path], None]  # raises InputError where a file that arrived is not whole


class DownloadConfig(BaseModel, frozen=True, extra="forbid"):
    """How patiently files are asked for."""

    connections: int = Field(default=8, ge=1)
    """Files under way at the same time."""
    attempts: int = Field(default=5, ge=1)
    """Times that a file is asked for before it is given up until the next run."""
    backoff_s: float = Field(default=1.0, ge=0)
    """Pause after the first attempt, seconds; it doubles from one to the next."""
    longest_pause_s: float = Field(default=120.0, ge=0)
    """No pause is longer, whatever the server asks for; seconds."""
    timeout_s: float = Field(default=30.0, gt=0)
    """A server that says nothing for so long has hung; seconds."""
    attempt_s: float = Field(default=1800.0, gt=0)
    """An attempt that takes longer is broken off, and resumed by the next; seconds."""
    max_bytes: int = Field(default=2**30, ge=1)
    """A larger file is refused."""


class _TryAgain(Exception):
    """This attempt failed; the next may not."""

    def __init__(self, reason: str, code: str = "unavailable", pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.code, self.pause_s = code, pause_s


@dataclass(frozen=True)
class _Content:
    """What a response says of the whole file that it carries, or carries a part of."""

    tag: str  # equal for equal bytes; empty: the server names none
    sha256: str  # empty: not stated
    size: int | None


class Downloader:
    """Fetches files over one pool of connections; may be shared by threads."""

    def __init__(self, config: DownloadConfig) -> None:
        self.config = config
        self._client = httpx.Client(
            follow_redirects=True,
            timeout=config.timeout_s,
            limits=httpx.Limits(max_connections=config.connections),
            # Offsets of a resumed transfer count the file's own bytes.
            headers={"Accept-Encoding": "identity", "User-Agent": "manivideo"},
        )
        weakref.finalize(self, self._client.close)

    def fetch(self, url: str, target: Path, check: Check) -> None:
        """Bring a file to `target`, or leave it as it is where it is there already.

        `check` refuses a file that is not whole, for servers that state neither its size nor its sha256.
        Raises InputError: "not-found", "refused" or "too-large" at once; after the last attempt
        "unavailable", "truncated", "checksum" or the code of `check`.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, self.config.attempts + 1):
            if target.exists():
                return
            try:
                return self._attempt(url, target, check)
            except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
                raise InputError(f"{url}: {error}", code="refused") from error
            except httpx.TransportError as error:
                failure = _TryAgain(f"{type(error).__name__}: {error}")
            except _TryAgain as error:
                failure = error
            if attempt < self.config.attempts:
                time.sleep(self._pause(attempt, failure))
        raise InputError(f"{url}: {failure} ({self.config.attempts} attempts)", code=failure.code)

    def _attempt(self, url: str, target: Path, check: Check) -> None:
        part, tag = target.with_name(f".{target.name}.part"), target.with_name(f".{target.name}.tag")
        start, known = _begun(part, tag)
        request = {"Range": f"bytes={start}-"} if start else {}
        with self._client.stream("GET", url, headers=request) as response:
            _check_status(url, response)
            content = _describe(response)
            if not _carries(response, start, known, content):
                tag.unlink(missing_ok=True)
                raise _TryAgain("the file has changed since a part of it arrived", pause_s=0)
            with _locked(part) as file:
                kept = start if response.status_code == 206 else 0
                if os.fstat(file.fileno()).st_size < kept:
                    raise _TryAgain("another process has fetched it", pause_s=0)
                file.truncate(kept)
                tag.write_text(content.tag)
                self._receive(response, file, kept, content)
                file.flush()
                try:
                    _check_whole(part, content, check)
                except _TryAgain as error:
                    if error.code != "truncated":
                        file.truncate(0)  # nobody knows which of the bytes are wrong
                    raise
                os.fsync(file.fileno())
                part.replace(target)
        tag.unlink(missing_ok=True)

    def _receive(self, response: httpx.Response, file: BinaryIO, arrived: int, content: _Content) -> None:
        """Append a response's bytes to a file that holds the first `arrived` ones."""
        started = time.monotonic()
        most = self.config.max_bytes
        if content.size is not None and content.size > most:
            raise InputError(f"{response.url}: {content.size} bytes, wanted at most {most}", code="too-large")
        for chunk in response.iter_raw():
            file.write(chunk)
            arrived += len(chunk)
            if arrived > most:
                file.truncate(0)
                raise InputError(f"{response.url}: over {most} bytes", code="too-large")
            if time.monotonic() - started > self.config.attempt_s:
                raise _TryAgain(f"took longer than {self.config.attempt_s:g} s")

    def _pause(self, attempt: int, failure: _TryAgain) -> float:
        """Return the seconds before the next attempt: the server's wish, else twice as long as the last."""
        if failure.pause_s is not None:
            return min(failure.pause_s, self.config.longest_pause_s)
        pause = self.config.backoff_s * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.0)
        return min(pause, self.config.longest_pause_s)


def _begun(part: Path, tag: Path) -> tuple[int, str]:
    """Return how many bytes an earlier attempt left, and their tag; 0 where they cannot be resumed."""
    try:
        known = tag.read_text()
        return (part.stat().st_size, known) if known else (0, "")
    except FileNotFoundError:
        return 0, ""


def _check_status(url: str, response: httpx.Response) -> None:
    status = response.status_code
    if status in (200, 206, 416):  # 416: what is left of an earlier attempt is no part of this file
        return
    said = f"{status} {response.reason_phrase}"
    if status in _LATER:
        raise _TryAgain(said, pause_s=_retry_after(response.headers.get("Retry-After", "")))
    raise InputError(f"{url}: {said}", code="not-found" if status in _GONE else "refused")


def _retry_after(value: str) -> float | None:
    """Return the seconds that a Retry-After header (RFC 9110, Sec. 10.2.3) asks for, if it does."""
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _describe(response: httpx.Response) -> _Content:
    """Read size, sha256 and validator of the whole file.

    Hugging Face redirects to where the bytes are, and states their sha256 and size with the redirection.
    """
    linked = {"etag": "", "size": ""}
    for step in (*response.history, response):
        for name in linked:
            linked[name] = step.headers.get(f"X-Linked-{name}", linked[name]).strip('"')
    sha256 = linked["etag"] if _SHA256.fullmatch(linked["etag"]) else ""
    own_tag = response.headers.get("ETag", "")
    tag = sha256 or (own_tag if not own_tag.startswith("W/") else "")
    if response.status_code == 206:
        size = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        size = response.headers.get("Content-Length", "")
    size = linked["size"] or size
    return _Content(tag, sha256, int(size) if size.isdigit() else None)


def _carries(response: httpx.Response, start: int, known: str, content: _Content) -> bool:
    """Tell whether a response carries the whole file, or exactly what was asked for of the same bytes."""
    if response.status_code == 200:
        return True
    given = response.headers.get("Content-Range", "")
    return start > 0 and content.tag == known and given.startswith(f"bytes {start}-")


@contextmanager
def _locked(part: Path) -> Iterator[BinaryIO]:
    """Open a part for appending; another process or thread that writes it has it to itself."""
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _TryAgain("another process is fetching it") from error
        if not part.exists() or not os.path.samestat(os.fstat(file.fileno()), part.stat()):
            raise _TryAgain("another process has put it in place since", pause_s=0)
        yield file


def _check_whole(part: Path, content: _Content, check: Check) -> None:
    size = part.stat().st_size
    if content.size is not None and size != content.size:
        raise _TryAgain(f"{size} of {content.size} bytes arrived", "truncated")
    if content.sha256 and (found := digest_file(part)) != content.sha256:
        raise _TryAgain(f"sha256 is {found}, wanted {content.sha256}", "checksum")
    try:
        check(part)
    except InputError as error:
        raise _TryAgain(str(error), error.code) from error
