"""Locks on files (flock), which the system lets go of when a process is killed."""

from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout

from storage.errors import InputError


def try_to_hold(lock: Path) -> AcquireReturnProxy | None:
    """Return a lock that is held now, or None where another process has it.

    Raises InputError (code "lock") where the file system has no such locks.
    """
    try:
        return FileLock(lock, fallback_to_soft=False).acquire(blocking=False)
    except Timeout:
        return None
    except (OSError, NotImplementedError) as error:
        raise InputError(
            f"{lock}: locking: found {error}, wanted a file system with flock", code="lock"
        ) from None
