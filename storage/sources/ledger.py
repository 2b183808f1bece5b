"""The ledger of a folder of downloads: what became of every object that was asked for.

One JSON object a line, appended; the last line of an object is what holds. A line that a crash has cut off
is passed over, and its object is looked at again.
"""

import json
import logging
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

FETCHED = "fetched"


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of one object."""

    uid: str
    status: str  # FETCHED, or the code of what went wrong
    licence: str = ""
    bytes: int = 0
    sha256: str = ""
    reason: str = ""


class Ledger:
    """Entries by uid; may be shared by threads, and the file by processes of one machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, Entry] = {}
        self._lock = threading.Lock()
        if path.is_file():
            self._read()

    def add(self, entry: Entry) -> None:
        """Append an entry, unless the ledger says so already."""
        line = json.dumps(asdict(entry), ensure_ascii=False) + "\n"
        with self._lock:
            if self.entries.get(entry.uid) == entry:
                return
            self.entries[entry.uid] = entry
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:  # one write: lines of several processes do not mix
                os.write(file, line.encode())
            finally:
                os.close(file)

    def _read(self) -> None:
        data = self.path.read_bytes()
        for number, line in enumerate(data.splitlines(), start=1):
            try:
                entry = Entry(**json.loads(line))
            except (ValueError, TypeError):
                logger.warning("%s: line %d is not an entry, passed over", self.path, number)
            else:
                self.entries[entry.uid] = entry
        if data and not data.endswith(b"\n"):
            with self.path.open("ab") as file:
                file.write(b"\n")
