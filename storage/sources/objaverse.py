"""Objaverse 1.0 as a source of objects: chosen by uid, by LVIS category or at random, fetched when needed.

The folder that files are fetched into has the layout of the server, which is Objaverse's own:

    object-paths.json.gz        {uid: glbs/000-023/<uid>.glb}
    lvis-annotations.json.gz    {category: [uid]}
    metadata/000-023.json.gz    {uid: {name, license, user, viewerUrl, …}} of the objects of that part
    glbs/000-023/<uid>.glb

and beside them `ledger.jsonl`, what became of every object (see `storage.sources.ledger`).
"""

import difflib
import gzip
import json
import re
import struct
import threading
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from render.scene import Mesh
from storage.digests import digest_bytes, digest_file
from storage.download import DownloadConfig, Downloader
from storage.errors import InputError
from storage.sources.glb import read_object
from storage.sources.glb_limits import USUAL_LIMITS, GlbLimits
from storage.sources.ledger import FETCHED, Entry, Ledger

Licence = Literal["cc0", "by", "by-sa", "by-nc", "by-nc-sa", "by-nd", "by-nc-nd"]

_UID = re.compile(r"[0-9a-f]{32}")
_PATH = re.compile(r"glbs/(\d{3}-\d{3})/([0-9a-f]{32})\.glb")
_SPDX = {"cc0": "CC0-1.0"}  # the others are CC-<label>-4.0


class ObjaverseConfig(BaseModel, frozen=True, extra="forbid"):
    """Which objects of Objaverse, from where, and under which licences."""

    uids: Path | None = None
    """A file of uids, one a line; # begins a comment."""
    lvis: tuple[str, ...] = ()
    """LVIS categories, such as mug or knife."""
    sample: int | None = Field(default=None, ge=1)
    """So many at random of those that uids or lvis name, or of all; a larger sample contains the smaller."""
    seed: int = 0
    """Of the sample."""
    licences: tuple[Licence, ...] = ("cc0", "by", "by-sa", "by-nc", "by-nc-sa")
    """Licences to use, by Objaverse's labels; as a rule those that allow derivatives."""
    base_url: str = "https://huggingface.co/datasets/allenai/objaverse/resolve/main"
    """Where the layout above begins: Hugging Face, or a mirror."""
    folder: Path = Path("data/objaverse")
    """Where files are kept; what the objaverse package fetched (~/.objaverse/hf-objaverse-v1) is used too."""
    download: DownloadConfig = DownloadConfig()
    """How files are asked for."""

    @model_validator(mode="after")
    def _something_is_chosen(self) -> Self:
        if self.uids is None and not self.lvis and self.sample is None:
            raise ValueError("wanted one of uids, lvis and sample: which objects?")
        if self.uids is not None and self.lvis:
            raise ValueError("wanted one of uids and lvis, not both")
        return self


@dataclass(frozen=True, slots=True)
class Annotation:
    """What Objaverse says of an object's origin."""

    title: str
    licence: str  # Objaverse's label; empty: not stated
    author: str
    url: str

    @classmethod
    def of(cls, stated: dict[str, Any]) -> Self:
        """Take it out of an entry of metadata/."""
        user = stated.get("user") or {}
        author = user.get("displayName") or user.get("username") or ""
        url = stated.get("viewerUrl") or stated.get("uri") or ""
        return cls(str(stated.get("name", "")), str(stated.get("license") or ""), str(author), str(url))


class Objaverse:
    """The chosen objects of Objaverse; may be shared by threads."""

    def __init__(self, config: ObjaverseConfig, limits: GlbLimits = USUAL_LIMITS) -> None:
        self.config = config
        self._limits = limits
        self.ledger = Ledger(config.folder / "ledger.jsonl")
        self._downloader = Downloader(config.download)
        self._failed: dict[str, InputError] = {}  # uids and index files: not asked for twice in one run
        self._reading = threading.Lock()  # an index is large: one thread reads it, the others wait

    def __reduce__(self) -> tuple[object, ...]:
        # To another process that sees the same folder: locks cannot be sent, and the files say all the rest.
        return Objaverse, (self.config, self._limits)

    def ids(self) -> list[str]:
        """Return the chosen uids, in the order of their paths: neighbours share a file of metadata."""
        uids = list(dict.fromkeys(self._named()))
        if self.config.sample is not None:
            uids.sort(key=lambda uid: digest_bytes(f"{self.config.seed}:{uid}".encode()))
            uids = uids[: self.config.sample]
        return sorted(uids, key=lambda uid: (self._paths.get(uid, ""), uid))

    def is_here(self, uid: str) -> bool:
        """Tell whether an object's file is here, whole."""
        entry, path = self.ledger.entries.get(uid), self._target(uid)
        if entry is None or entry.status != FETCHED or not path.is_file():
            return False
        return path.stat().st_size == entry.bytes

    def fetch(self, uid: str) -> Path:
        """Return the file of an object, brought here if need be.

        Raises InputError: "unknown-uid", "unsafe-path", "licence", or what `Downloader.fetch` raises.
        """
        if uid in self._failed:
            raise self._failed[uid]
        licence = ""
        try:
            path = self._target(uid)
            licence = self._licence(uid)
            self._check_licence(uid, licence)
            if self.is_here(uid):
                return path
            self._bring(uid, path)
        except InputError as error:
            self._failed[uid] = error
            self.ledger.add(Entry(uid, error.code, licence, reason=str(error)))
            raise
        self.ledger.add(Entry(uid, FETCHED, licence, path.stat().st_size, digest_file(path)))
        return path

    def load(self, uid: str) -> tuple[Mesh, dict[str, str]]:
        """Return a mesh centred on its bounding box, and its provenance."""
        path = self.fetch(uid)
        stated = self._annotation(uid)
        provenance = {
            "source": stated.url,
            "licence": _spdx(stated.licence),
            "author": stated.author,
            "title": stated.title,
            "uid": uid,
        }
        mesh, own = read_object(path, centred=True, limits=self._limits)
        provenance["left_out"] = own.get("left_out", "")
        return mesh, {key: value for key, value in provenance.items() if value}

    def digest(self, uid: str) -> str:
        """Return the sha256 of an object's file, which is fetched if need be."""
        self.fetch(uid)
        return self.ledger.entries[uid].sha256

    def files(self, uid: str) -> list[Path]:
        """Return the file of an object, whether or not it is here; InputError as `fetch` raises."""
        return [self._target(uid)]

    def _named(self) -> list[str]:
        """Return the uids that the config names, before sampling."""
        if self.config.uids is not None:
            return read_uids(self.config.uids)
        if not self.config.lvis:
            return list(self._paths)
        categories = _read_index(self._index("lvis-annotations.json.gz"))
        for name in self.config.lvis:
            if name not in categories:
                near = difflib.get_close_matches(name, categories, n=1)
                suggestion = f" (did you mean '{near[0]}'?)" if near else ""
                raise InputError(f"LVIS has no category '{name}'{suggestion}", code="config")
        return [uid for name in self.config.lvis for uid in categories[name]]

    @property
    def _paths(self) -> dict[str, str]:
        name = "object-paths.json.gz"
        with self._reading:
            return _read_index(self._index(name))

    def _target(self, uid: str) -> Path:
        """Return where an object's file belongs; a path that the index must not name is refused."""
        path = self._paths.get(uid)
        if path is None:
            raise InputError(f"{uid}: not an object of Objaverse", code="unknown-uid")
        matched = _PATH.fullmatch(path)
        if matched is None or matched[2] != uid:
            raise InputError.mismatch(
                "object-paths.json.gz", uid, found=path, wanted="glbs/000-000/<uid>.glb", code="unsafe-path"
            )
        return self.config.folder / path

    def _bring(self, uid: str, path: Path) -> None:
        """Download an object, unless something else has, or a run that ended before it could say so."""
        if path.is_file():
            try:
                return _check_glb(path)
            except InputError:
                path.unlink()
        self._downloader.fetch(self._url(self._paths[uid]), path, _check_glb)

    def _licence(self, uid: str) -> str:
        """Return an object's licence as SPDX names it; empty where none is stated."""
        entry = self.ledger.entries.get(uid)
        if entry is not None and entry.licence:  # spares a no-op build the metadata
            return entry.licence
        return _spdx(self._annotation(uid).licence)

    def _check_licence(self, uid: str, licence: str) -> None:
        allowed = [_spdx(label) for label in self.config.licences]
        if licence not in allowed:
            found, wanted = licence or "none stated", f"one of {', '.join(allowed)}"
            raise InputError.mismatch(uid, "licence", found=found, wanted=wanted, code="licence")

    def _annotation(self, uid: str) -> Annotation:
        part = self._target(uid).parent.name
        with self._reading:
            annotations = _read_annotations(self._index(f"metadata/{part}.json.gz"))
        if uid not in annotations:
            raise InputError(f"metadata/{part}.json.gz: nothing about {uid}", code="unknown-uid")
        return annotations[uid]

    def _index(self, name: str) -> Path:
        """Return an index file, brought here if need be."""
        if name in self._failed:
            raise self._failed[name]
        path = self.config.folder / name
        try:
            self._downloader.fetch(self._url(name), path, _check_json)
        except InputError as error:
            self._failed[name] = error
            raise
        return path

    def _url(self, name: str) -> str:
        return f"{self.config.base_url.rstrip('/')}/{name}"


def read_uids(path: Path) -> list[str]:
    """Read a file of uids; InputError names the first line that is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}", code="config") from error
    uids = []
    for number, line in enumerate(lines, start=1):
        uid = line.partition("#")[0].strip()
        if uid and not _UID.fullmatch(uid):
            raise InputError.mismatch(
                path, f"line {number}", found=repr(uid), wanted="32 hexadecimal digits", code="config"
            )
        uids += [uid] if uid else []
    if not uids:
        raise InputError(f"{path}: no uids in it", code="config")
    return uids


def _spdx(label: str) -> str:
    return f"CC-{label.upper()}-4.0" if label.startswith("by") else _SPDX.get(label, label)


def _check_glb(path: Path) -> None:
    """Refuse what is no GLB, or not all of one: its header states its length (glTF 2.0, Sec. 4.4.2)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(12)
    if len(header) < 12 or header[:4] != b"glTF":
        raise InputError(f"{path.name}: not a GLB: it begins with {header[:4]!r}", code="not-gltf")
    (stated,) = struct.unpack("<I", header[8:])
    if size < stated:
        raise InputError(f"{path.name}: {size} of {stated} bytes", code="truncated")


def _check_json(path: Path) -> None:
    _read_json(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with gzip.open(path) as file:
            content = json.load(file)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{path}: not gzipped JSON: {error}", code="index") from error
    if not isinstance(content, dict):
        raise InputError.mismatch(path, "content", found=type(content).__name__, wanted="keys", code="index")
    return content


@lru_cache(maxsize=2)
def _read_index(path: Path) -> dict[str, Any]:
    """Read an index of all objects: 800 000 lines, so once in a process."""
    return _read_json(path)


@lru_cache(maxsize=8)
def _read_annotations(path: Path) -> dict[str, Annotation]:
    """Read one part of the metadata, some 5 000 objects."""
    return {uid: Annotation.of(stated) for uid, stated in _read_json(path).items()}
