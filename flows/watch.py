"""Telling a Prefect server of sessions that appeared in a folder, or changed, once they are whole.

The event's payload holds parameters of the flow `refresh`, which a trigger in prefect.yaml starts with them.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect.events import Event, Resource
from prefect.events.clients import get_events_client
from websockets.exceptions import WebSocketException

from flows.seen import Signature, signature
from flows.sessions import is_session, session_files, sessions_in
from storage.errors import one_line

EVENT = "manivideo.session.added"


@dataclass
class Sighting:
    """How a session's files were found last."""

    files: Signature
    since_s: float  # they have been so; of the monotonic clock
    told: bool = False


@dataclass
class Watcher:
    """A folder of sessions; all of them are news at first, since they may have come while nobody watched."""

    folder: Path
    settle_s: float  # a session whose files have stayed as they are for so long is taken for whole
    seen: dict[Path, Sighting] = field(default_factory=dict)

    def look(self) -> list[Path]:
        """Return the whole sessions that have not been told of as they are now."""
        now_s = time.monotonic()
        for path in sessions_in(self.folder):
            files = signature(session_files(path))
            if path not in self.seen or self.seen[path].files != files:
                self.seen[path] = Sighting(files, now_s)
        return [path for path, sighting in self.seen.items() if self._is_news(path, sighting, now_s)]

    def told(self, sessions: list[Path]) -> None:
        """Take note that somebody has been told of these sessions."""
        for path in sessions:
            self.seen[path].told = True

    def _is_news(self, path: Path, sighting: Sighting, now_s: float) -> bool:
        return not sighting.told and is_session(path) and now_s - sighting.since_s >= self.settle_s


def follow(folder: Path, parameters: Mapping[str, Any], settle_s: float) -> Iterator[str]:
    """Tell the server of a folder's sessions, for ever; yield what people are to know of it."""
    watcher = Watcher(folder, settle_s)
    while True:
        yield from _news(watcher, parameters)
        time.sleep(max(settle_s / 4, 0.1))


def _news(watcher: Watcher, parameters: Mapping[str, Any]) -> Iterator[str]:
    """Tell the server what is new; a folder or server that is out of reach is tried again the next time."""
    try:
        sessions = watcher.look()
    except OSError as error:
        yield f"{watcher.folder}: cannot be looked at now: {one_line(error)}"
        return
    if not sessions:
        return
    names = ", ".join(path.name for path in sessions)
    try:
        announce(sessions, watcher.folder, parameters)
    except (OSError, WebSocketException) as error:
        yield f"{names}: the server cannot be told yet: {one_line(error)}"
    else:
        watcher.told(sessions)
        yield f"{names}: the server has been told"


def announce(sessions: list[Path], folder: Path, parameters: Mapping[str, Any]) -> None:
    """Emit an event that starts the flow `refresh` with `parameters` (JSON values).

    Returns when the server has the event; raises what the connection raises where it has not.
    """
    event = Event(
        event=EVENT,
        resource=Resource({"prefect.resource.id": f"manivideo.folder.{folder}"}),
        payload={"sessions": [path.name for path in sessions], **parameters},
    )
    asyncio.run(_emit(event))


async def _emit(event: Event) -> None:
    async with get_events_client(reconnection_attempts=1, checkpoint_every=1) as client:
        await client.emit(event)
