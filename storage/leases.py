"""Who is at work in a bucket: small objects that their holders renew; one that lapsed does not count.

All times are the server's: clocks of the machines that share a store need not agree.
"""

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from storage.errors import StoreError
from storage.s3 import Objects, Overtaken

LEASES = ".leases"
ALONE, CLOCK = f"{LEASES}/alone", f"{LEASES}/clock"
LEASE_S = 300.0  # a lease not renewed for so long counts no more: its holder was killed, or sleeps
RENEW_S = 60.0
WAIT_S = 2.0  # between looks at somebody who is alone


@dataclass(frozen=True)
class Leases:
    """The leases of one store."""

    objects: Objects

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Hold a lease beside others; waits while somebody is alone.

        Each side puts its own lease before it looks for the other's, so that one at least sees the other.
        """
        with self._held(f"{LEASES}/{uuid.uuid4().hex}"):
            while self._is_live(ALONE):
                time.sleep(WAIT_S)
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the only lease; StoreError where there is another. Those that lapsed are removed."""
        found = self.objects.head(ALONE)
        lapsed = found[1] if found is not None and not is_live(found[0], self.server_time()) else None
        with self._held(ALONE, lapsed):
            now = self.server_time()
            leases = [lease for lease in self.objects.below(LEASES) if lease.name not in (ALONE, CLOCK)]
            if any(is_live(lease.modified, now) for lease in leases):
                raise StoreError(
                    f"{self.objects.url}: a build is at work in this store, or was killed a moment ago:"
                    f" try again when it has ended, or in {LEASE_S / 60:.0f} minutes"
                )
            self.objects.delete([lease.name for lease in leases])
            yield

    def server_time(self) -> datetime:
        """Return the time by the server's clock."""
        self.objects.put(CLOCK, b"")
        put = self.objects.head(CLOCK)
        assert put is not None
        return put[0]

    @contextlib.contextmanager
    def _held(self, name: str, lapsed: str | None = None) -> Iterator[None]:
        """Put a lease, renew it in the background and remove it; StoreError where it was lost meanwhile.

        lapsed: ETag of a lease of that name whose place it takes.
        """
        holder = uuid.uuid4().hex.encode()
        try:
            self.objects.put_if(name, _lease(holder), lapsed)
        except Overtaken:
            message = f"{self.objects.url}: somebody is clearing up in this store: try again later"
            raise StoreError(message) from None
        ended = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(name, holder, ended), daemon=True)
        renewing.start()
        try:
            yield
        finally:
            ended.set()
            renewing.join()
            is_kept = self._tag(name, holder) is not None
            if is_kept:
                self.objects.delete([name])
        if not is_kept:
            message = "was out of reach for so long that others may have cleared up: run again"
            raise StoreError(f"{self.objects.url}: {message}")

    def _renew(self, name: str, holder: bytes, ended: threading.Event) -> None:
        """Put a lease again and again, on condition that it is still its holder's."""
        while not ended.wait(RENEW_S):
            with contextlib.suppress(Overtaken, StoreError):  # out of reach: the next try may find it again
                if tag := self._tag(name, holder):
                    self.objects.put_if(name, _lease(holder), tag)

    def _tag(self, name: str, holder: bytes) -> str | None:
        """Return the ETag of a lease; None where it is no longer its holder's."""
        found = self.objects.get(name)
        return found[1] if found is not None and found[0].startswith(holder) else None

    def _is_live(self, name: str) -> bool:
        found = self.objects.head(name)
        return found is not None and is_live(found[0], self.server_time())


def _lease(holder: bytes) -> bytes:
    """Return what a lease holds: each time something new, so that its ETag tells a renewed one."""
    return holder + b" " + uuid.uuid4().hex.encode()


def is_live(modified: datetime, now: datetime) -> bool:
    """Tell whether a lease that was put or renewed at a time counts now."""
    return (now - modified).total_seconds() < LEASE_S
