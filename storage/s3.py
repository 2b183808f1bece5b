"""Objects in a bucket of S3 or of a server that speaks like it, by name below one prefix.

Address and credentials come from the standard variables: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and so on.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from storage.backend import WHAT_STAYS
from storage.errors import InputError, StoreError, one_line

if TYPE_CHECKING:
    from obstore.store import RetryConfig

# A server that restarts is waited for: about a minute.
RETRY: "RetryConfig" = {"max_retries": 10, "retry_timeout": timedelta(minutes=3)}
METADATA_SERVER = "169.254.169.254"  # where a machine in Amazon's cloud finds credentials
VARIABLES = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL"


class Overtaken(Exception):
    """An object is no longer what a conditional write was made for."""


@dataclass(frozen=True)
class Found:
    """An object in a listing."""

    name: str
    size: int
    modified: datetime  # by the server's clock


@dataclass(frozen=True)
class Objects:
    """The objects under a prefix; StoreError where the bucket cannot be reached or refuses."""

    url: str  # s3://bucket/prefix
    client: S3Store = field(compare=False, repr=False)

    @classmethod
    def open(cls, url: str) -> Self:
        """Reach a bucket; InputError where there is none, or it refuses these credentials."""
        with _explained(url, opening=True):
            client = S3Store.from_url(url, retry_config=RETRY)
            obstore.list_with_delimiter(client)
        return cls(url, client)

    def get(self, name: str) -> tuple[bytes, str] | None:
        """Return an object's bytes and its ETag; None where there is none."""
        with _explained(self.url):
            try:
                found = obstore.get(self.client, name)
            except FileNotFoundError:
                return None
            return bytes(found.bytes()), str(found.meta["e_tag"])

    def head(self, name: str) -> tuple[datetime, str] | None:
        """Return when an object was put, and its ETag; None where there is none."""
        with _explained(self.url):
            try:
                found = obstore.head(self.client, name)
            except FileNotFoundError:
                return None
            return found["last_modified"], str(found["e_tag"])

    def put(self, name: str, data: bytes | Path) -> None:
        """Write an object, whatever is there."""
        with _explained(self.url):
            obstore.put(self.client, name, data)

    def put_if(self, name: str, data: bytes, tag: str | None) -> None:
        """Write an object that still has an ETag, or (None) that does not exist; else Overtaken."""
        with _explained(self.url):
            try:
                obstore.put(self.client, name, data, mode="create" if tag is None else {"e_tag": tag})
            except (AlreadyExistsError, PreconditionError, FileNotFoundError) as error:
                raise Overtaken(name) from error

    def below(self, folder: str) -> list[Found]:
        """Return the objects under a folder, at any depth."""
        with _explained(self.url):
            batches = obstore.list(self.client, f"{folder}/")
            metas = [meta for batch in batches for meta in batch]
        return [Found(meta["path"], meta["size"], meta["last_modified"]) for meta in metas]

    def children(self, folder: str = "") -> tuple[list[str], list[str]]:
        """Return the names of the folders and of the objects that are directly in a folder."""
        with _explained(self.url):
            found = obstore.list_with_delimiter(self.client, f"{folder}/" if folder else None)
        return list(found["common_prefixes"]), [meta["path"] for meta in found["objects"]]

    def delete(self, names: Sequence[str]) -> None:
        """Remove objects; those that are not there are none."""
        with _explained(self.url):
            obstore.delete(self.client, names)


@contextlib.contextmanager
def _explained(url: str, *, opening: bool = False) -> Iterator[None]:
    """Say in one line what went wrong: InputError where, at opening, what the user gave is wrong."""
    try:
        yield
    except (BaseError, FileNotFoundError) as error:
        reason, advice, code = _reason(error)
        if opening and code:
            raise InputError(f"{url}: {reason}: {advice}", code=code) from error
        raise StoreError(f"{url}: {reason} ({advice or WHAT_STAYS})") from error
    except ValueError as error:  # of the URL, or of a variable
        if not opening:
            raise
        raise InputError(f"{url}: {one_line(error)}", code="config") from error


def _reason(error: Exception) -> tuple[str, str, str]:
    """Return what an error says in short, what to do about it, and the code of an InputError or nothing."""
    text = in_short(error)
    if "NoSuchBucket" in text:
        return "no such bucket", "make it first, or correct the address", "missing-bucket"
    if METADATA_SERVER in text:
        return "no credentials", f"set {VARIABLES}", "credentials"
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or "InvalidAccessKeyId" in text:
        return "access refused", f"see {VARIABLES}", "credentials"
    return text, "", ""


def in_short(error: Exception) -> str:
    """Return what an error of obstore's says, without the tree of its causes."""
    return one_line(error).partition(" Debug source")[0]
