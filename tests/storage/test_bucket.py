"""A bucket's own troubles: addresses and keys that are wrong, lost connections and answers, lapsed leases."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

import storage.bucket
import storage.leases
import storage.s3
from storage.errors import InputError, StoreError
from storage.leases import ALONE, Leases
from storage.manifest import Manifest, Quarantined, update
from storage.s3 import Objects, Overtaken
from storage.store import Store, place
from storage.upkeep import gc, verify
from tests.storage.test_manifest import ROW
from tests.storage.test_places import RECIPE, arrays


@pytest.fixture
def store(bucket: str) -> Store:
    return Store(bucket)


def lapse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count a lease as lapsed as soon as it is not renewed."""
    monkeypatch.setattr(storage.leases, "LEASE_S", 0.0)


def test_a_bucket_that_is_not_there_is_named(bucket: str) -> None:
    with pytest.raises(InputError, match=r"^s3://nowhere/x: no such bucket: make it first"):
        Store("s3://nowhere/x")


@pytest.mark.parametrize("url", ["s3://", "gs://bucket/x", "http://bucket"])
def test_an_address_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="wanted a folder or s3://BUCKET/PREFIX"):
        Store(url)


def test_only_a_folder_is_made_absolute() -> None:
    assert place("s3://bucket/some/prefix", absolute=True) == "s3://bucket/some/prefix"
    assert place("store") == place(Path("store")) == Path("store")
    assert place("store", absolute=True) == Path.cwd() / "store"


def test_credentials_that_are_refused_are_told_in_one_line(bucket: str, s3_address: str) -> None:
    httpx.post(f"{s3_address}/moto-api/reset-auth", content="0").raise_for_status()  # from now on, check keys
    try:
        with pytest.raises(InputError, match="access refused: see AWS_ACCESS_KEY_ID"):
            Store(bucket)
    finally:
        httpx.post(f"{s3_address}/moto-api/reset-auth", content="inf").raise_for_status()


def test_a_server_out_of_reach_is_told_and_nothing_is_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(RECIPE, arrays(), {})
    monkeypatch.setattr(storage.s3, "RETRY", {"max_retries": 0})
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(StoreError, match=r"error sending request \(every finished record stays") as told:
            Store(f"{store.root}")
        assert "\n" not in str(told.value)
    assert Store(f"{store.root}").records() == [("layers", RECIPE.key)]


def test_a_connection_lost_while_a_record_is_put_leaves_no_record(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, count = Objects.put, iter(range(3))

    def lose(self: Objects, name: str, data: bytes | Path) -> None:
        if next(count, None) is None:
            raise StoreError("connection lost")
        put(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "put", lose)
        with pytest.raises(StoreError, match="connection lost"):
            store.write(RECIPE, arrays(), {})
    assert store.records() == []
    store.write(RECIPE, arrays(), {})
    assert verify(store) == []
    assert store.clear_staging() == 0  # too young: its writer might be alive
    monkeypatch.setattr(storage.bucket, "RUBBISH_S", -60)
    assert store.clear_staging() == 1
    assert verify(store) == []


def test_a_record_whose_last_answer_was_lost_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put_if = Objects.put_if

    def lose_answer(self: Objects, name: str, data: bytes, tag: str | None) -> None:
        put_if(self, name, data, tag)
        raise Overtaken(name)  # by its own first try, as the second finds

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "put_if", lose_answer)
        store.write(RECIPE, arrays(), {})
    assert store.records() == [("layers", RECIPE.key)]
    assert verify(store) == []


def test_a_change_overtaken_by_another_is_made_to_what_is_there_then(store: Store) -> None:
    def change(manifest: Manifest) -> Manifest:
        if not manifest.rows:  # somebody else is faster
            Manifest("demo", (ROW,)).write(store)
        return replace(manifest, quarantined=(Quarantined("x", "y", "z"),))

    update(store, "demo", change)
    found = Manifest.read(store, "demo")
    assert found.rows == (ROW,)
    assert len(found.quarantined) == 1


def test_a_write_that_took_too_long_makes_no_record(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(storage.bucket, "WRITE_S", -1)
        with pytest.raises(StoreError, match="took too long"):
            store.write(RECIPE, arrays(), {})
    assert store.records() == []


def test_the_lease_of_a_killed_build_lapses(
    bucket: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    Objects.open(bucket).put(".leases/0123", b"of a process that was killed")
    with pytest.raises(StoreError, match=r"or was killed a moment ago: try again .* in 5 minutes"):
        gc(store)
    lapse(monkeypatch)
    assert gc(store) == {}
    assert store.backend.files(".leases") == [".leases/clock"]


def test_a_lease_is_renewed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.leases, "RENEW_S", 0.05)
    monkeypatch.setattr(storage.leases, "LEASE_S", 2.0)
    with store.in_use():
        time.sleep(3)
        with pytest.raises(StoreError, match="a build is at work"):
            gc(store)


def test_a_build_whose_lease_lapsed_and_was_removed_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = store.in_use()
    build.__enter__()
    with monkeypatch.context() as patch:
        lapse(patch)
        gc(store)
    with pytest.raises(StoreError, match="others may have cleared up: run again"):
        build.__exit__(None, None, None)


def test_a_build_waits_while_somebody_clears_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.leases, "WAIT_S", 0.02)
    events: list[str] = []

    def build() -> None:
        with store.in_use():
            events.append("build")

    with store.alone():
        waiting = threading.Thread(target=build)
        waiting.start()
        time.sleep(0.2)
        events.append("cleared")
    waiting.join()
    assert events == ["cleared", "build"]


def test_two_cannot_clear_up_at_once_but_a_killed_one_does_not_count(
    bucket: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    Objects.open(bucket).put(ALONE, b"of a process that was killed")
    with pytest.raises(StoreError, match="somebody is clearing up"):
        gc(store)
    lapse(monkeypatch)
    assert gc(store) == {}
    assert not Leases(Objects.open(bucket)).objects.head(ALONE)


def test_only_one_takes_the_place_of_a_lease_that_lapsed(bucket: str) -> None:
    leases = Leases(Objects.open(bucket))
    leases.objects.put(ALONE, b"of a process that was killed")
    found = leases.objects.head(ALONE)
    assert found is not None
    with leases._held(ALONE, found[1]), pytest.raises(StoreError, match="somebody is clearing up"):
        leases._held(ALONE, found[1]).__enter__()
