"""What unchanged inputs came to, so that a build with nothing to do opens none of them.

For each input a small JSON file in <store>/.seen/ keeps the size, times and inode of every file and folder it
consists of, and its outcome. While none of them has changed and every record is there, the outcome stands.
It is a cache: deleting it costs time and nothing else.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from flows.outcome import Outcome, Planned
from storage.backend import SEEN
from storage.digests import digest_bytes
from storage.manifest import SCHEMA_VERSION, ClipRow
from storage.records import FramesData, LayersData, ObjectData, SkeletonData
from storage.store import Store

VERSION = 1  # to be raised when an input that is the same comes to something else
VERSIONS = {data.KIND: data.VERSION for data in (ObjectData, LayersData, FramesData, SkeletonData)}
_COARSEST_CLOCK_S = 2  # of file systems: what was written that recently may be written again unseen

Signature = dict[str, list[int] | None]  # file or folder → size, times and inode; None: not there


@dataclass(frozen=True)
class Seen:
    """The inputs of one store that were looked at with the same settings."""

    store: Store
    settings: Mapping[str, Any]  # all that decides an outcome beside the input's own files (JSON values)
    remembers: bool = True  # not in a dry run, which writes nothing

    def outcome(self, name: str, files: Callable[[], Iterable[Path]], make: Callable[[], Outcome]) -> Outcome:
        """Return what the input `name` came to before, else what `make` returns, and remember that.

        files: lists every file that the input may consist of, and every folder whose contents matter.
        An outcome with something quarantined in it is made anew each time.
        """
        entry = self._entry(name)
        recalled = self._recall(entry)
        if recalled is not None:
            return recalled
        started_ns = time.time_ns()
        before = signature(files())
        made = make()
        is_stable = _is_settled(before, started_ns) and signature(before) == before
        if self.remembers and is_stable and not made.quarantined:
            self._remember(entry, before, made)
        return made

    def _entry(self, name: str) -> str:
        """Return the name of the file that remembers an input."""
        decides = [VERSION, name, dict(self.settings), VERSIONS, SCHEMA_VERSION]
        digest = digest_bytes(json.dumps(decides, sort_keys=True).encode())  # ASCII: names need not be UTF-8
        return f"{SEEN}/{digest[:2]}/{digest}.json"

    def _recall(self, entry: str) -> Outcome | None:
        try:
            remembered = json.loads(self.store.backend.read(entry) or b"")
            planned = tuple(Planned(**values) for values in remembered["planned"])
            rows = tuple(ClipRow.from_json(row) for row in remembered["rows"])
            files, paths = remembered["files"], tuple(remembered["paths"])
        except (OSError, ValueError, LookupError, TypeError):  # never seen, or cut short by a power cut
            return None
        there = all(self.store.has(record.kind, record.key) for record in planned)
        return Outcome(rows, planned, paths=paths) if there and signature(files) == files else None

    def _remember(self, entry: str, files: Signature, made: Outcome) -> None:
        done = replace(made, planned=tuple(replace(planned, reason="") for planned in made.planned))
        self.store.backend.put(entry, json.dumps({"files": files, **asdict(done)}).encode())


def signature(paths: Iterable[str | Path]) -> Signature:
    """Return what shows that files or folders have changed, without reading them.

    The change time (ctime) cannot be set, so a file put back with its old date is noticed too.
    """
    return {str(path): _stat(path) for path in paths}


def files_below(folder: Path) -> list[Path]:
    """Return a folder, and every file and folder below it; linked folders are followed once."""
    found, pending, met = [], [folder], set[str]()
    while pending:
        current = pending.pop()
        found.append(current)
        real = os.path.realpath(current)  # Path.resolve fails on a link to itself
        if real not in met and os.path.isdir(current):
            met.add(real)
            with suppress(OSError):  # gone meanwhile, or not to be read: whoever opens the input says so
                pending += current.iterdir()
    return found


def _stat(path: str | Path) -> list[int] | None:
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _is_settled(files: Signature, now_ns: int) -> bool:
    """Tell whether all files are older than the coarsest clock's tick."""
    newest_ns = max((max(stat[1], stat[2]) for stat in files.values() if stat is not None), default=0)
    return newest_ns < now_ns - _COARSEST_CLOCK_S * 10**9
