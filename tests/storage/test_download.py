"""Downloads from a server that misbehaves: nothing is in place unless it is whole, and nothing is lost."""

import fcntl
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from storage.download import DownloadConfig, Downloader
from storage.errors import InputError
from tests.objaverse_server import ObjaverseServer, serving

NAME = "glbs/000-000/file.glb"
CONTENT = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(200)) * 100  # 640 kB
CONFIG = DownloadConfig(attempts=3, backoff_s=0.001, timeout_s=0.3)


@pytest.fixture
def server() -> Iterator[ObjaverseServer]:
    with serving({NAME: CONTENT}) as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "file.glb"


def accept(path: Path) -> None:
    """Every file is whole."""


def whole(path: Path) -> None:
    if path.read_bytes() != CONTENT:
        raise InputError("not all of it", code="torn")


def fetch(server: ObjaverseServer, target: Path, config: DownloadConfig = CONFIG, check=accept) -> None:
    Downloader(config).fetch(server.base_url + NAME, target, check)


@pytest.mark.parametrize("fault", ["", "drop", "truncate", "damage", "hang", "plain", 429, 500, 503])
def test_a_file_arrives_whole_in_spite_of(server: ObjaverseServer, target: Path, fault: int | str) -> None:
    server.faults[NAME].extend([fault, fault])
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def test_a_transfer_that_broke_off_is_resumed(server: ObjaverseServer, target: Path) -> None:
    server.faults[NAME].extend(["drop", "drop"])
    fetch(server, target)
    half = len(CONTENT) // 2
    assert server.asked(NAME) == ["", f"bytes={half}-", f"bytes={half + half // 2}-"]


def test_another_run_resumes_what_this_one_gave_up(server: ObjaverseServer, target: Path) -> None:
    server.faults[NAME].extend(["drop", "hang", 500])
    with pytest.raises(InputError, match=r"500 Internal Server Error \(3 attempts\)") as error:
        fetch(server, target)
    assert error.value.code == "unavailable"
    assert not target.exists()
    fetch(server, target)
    assert server.asked(NAME)[-1] == f"bytes={len(CONTENT) // 2}-"
    assert target.read_bytes() == CONTENT


def test_a_part_of_another_version_is_not_continued(server: ObjaverseServer, target: Path) -> None:
    server.faults[NAME].append("drop")
    with pytest.raises(InputError):
        fetch(server, target, CONFIG.model_copy(update={"attempts": 1}))
    server.files[NAME] = changed = CONTENT[::-1] + b"more"
    fetch(server, target)
    assert target.read_bytes() == changed


def test_a_part_longer_than_the_file_is_dropped(server: ObjaverseServer, target: Path) -> None:
    target.parent.mkdir()
    target.with_name(".file.glb.part").write_bytes(CONTENT + b"more")
    target.with_name(".file.glb.tag").write_text(hashlib.sha256(CONTENT).hexdigest())
    fetch(server, target)
    assert target.read_bytes() == CONTENT


def test_bytes_that_stay_wrong_are_never_put_in_place(server: ObjaverseServer, target: Path) -> None:
    server.faults[NAME].extend(["damage"] * 3)
    with pytest.raises(InputError, match="sha256 is") as error:
        fetch(server, target)
    assert error.value.code == "checksum"
    assert not target.exists()


def test_the_check_decides_where_the_server_states_nothing(server: ObjaverseServer, target: Path) -> None:
    server.faults[NAME].extend(["plain", "plain", "plain"])
    fetch(server, target, check=whole)
    target.unlink()
    server.files[NAME] = b"something else"
    server.faults[NAME].extend(["plain"] * 3)
    with pytest.raises(InputError, match="not all of it") as error:
        fetch(server, target, check=whole)
    assert error.value.code == "torn"
    assert not target.exists()


@pytest.mark.parametrize(("status", "code"), [(404, "not-found"), (410, "not-found"), (403, "refused")])
def test_a_refusal_is_final(server: ObjaverseServer, target: Path, status: int, code: str) -> None:
    server.faults[NAME].append(status)
    with pytest.raises(InputError, match=str(status)) as error:
        fetch(server, target)
    assert error.value.code == code
    assert len(server.asked(NAME)) == 1


@pytest.mark.parametrize("fault", ["", "plain"])
def test_a_file_over_the_limit_is_refused(server: ObjaverseServer, target: Path, fault: str) -> None:
    server.faults[NAME].append(fault)
    with pytest.raises(InputError) as error:
        fetch(server, target, CONFIG.model_copy(update={"max_bytes": 1000}))
    assert error.value.code == "too-large"
    assert not target.exists()


def test_a_server_that_trickles_is_given_up(server: ObjaverseServer, target: Path) -> None:
    with pytest.raises(InputError, match="took longer than") as error:
        fetch(server, target, CONFIG.model_copy(update={"attempt_s": 1e-9, "attempts": 2}))
    assert error.value.code == "unavailable"


def test_no_server_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ConnectError") as error:
        Downloader(CONFIG).fetch("http://127.0.0.1:9/file.glb", tmp_path / "file.glb", accept)
    assert error.value.code == "unavailable"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/file", "nonsense"])
def test_only_http_is_spoken(tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError) as error:
        Downloader(CONFIG).fetch(url, tmp_path / "file.glb", accept)
    assert error.value.code == "refused"


def test_a_file_put_in_place_while_another_process_waits_for_it_stays_whole(
    server: ObjaverseServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finished_first(file: BinaryIO, operation: int) -> None:
        """Get the lock from a process that has just renamed what it wrote, the file that is open here."""
        file.write(CONTENT)
        file.flush()
        target.with_name(f".{target.name}.part").replace(target)

    monkeypatch.setattr(fcntl, "flock", finished_first)
    fetch(server, target)
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def test_threads_that_want_one_file_get_one_file(server: ObjaverseServer, target: Path) -> None:
    downloader = Downloader(CONFIG.model_copy(update={"attempts": 20, "backoff_s": 0.01}))
    url = server.base_url + NAME
    threads = [threading.Thread(target=downloader.fetch, args=(url, target, accept)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() == CONTENT
