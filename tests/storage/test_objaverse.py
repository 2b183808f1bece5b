"""Objaverse from a local server in its layout: what is chosen, what is refused, what the ledger says."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.digests import digest_bytes
from storage.download import DownloadConfig
from storage.errors import InputError
from storage.sources.glb_writer import encode_glb
from storage.sources.ledger import Entry, Ledger
from storage.sources.objaverse import Objaverse, ObjaverseConfig
from tests.objaverse_server import ObjaverseServer, objaverse_files, path_of, serving, uid_of
from tests.storage.conftest import box_mesh

GLBS = [encode_glb(box_mesh(), copyright=f"number {number}") for number in range(1, 9)]
LVIS = {"mug": [1, 2], "knife": [3], "teapot": [2, 4]}
LICENCES = {2: "by-nc-nd", 5: "cc0", 6: ""}
PATIENCE = DownloadConfig(attempts=3, backoff_s=0.001, timeout_s=0.3)


@pytest.fixture
def server() -> Iterator[ObjaverseServer]:
    with serving(objaverse_files(GLBS, LVIS, LICENCES)) as running:
        yield running


@pytest.fixture
def config(server: ObjaverseServer, tmp_path: Path) -> ObjaverseConfig:
    return ObjaverseConfig(
        sample=8, base_url=server.base_url, folder=tmp_path / "objaverse", download=PATIENCE
    )


def choose(config: ObjaverseConfig, **values: object) -> Objaverse:
    return Objaverse(ObjaverseConfig.model_validate(config.model_dump() | {"sample": None} | values))


def numbers(source: Objaverse) -> list[int]:
    return sorted(int(uid, 16) for uid in source.ids())


def test_categories_name_objects(config: ObjaverseConfig) -> None:
    assert numbers(choose(config, lvis=("mug", "teapot"))) == [1, 2, 4]


def test_an_unknown_category_is_said_with_the_nearest(config: ObjaverseConfig) -> None:
    with pytest.raises(InputError, match=r"no category 'mugg' .did you mean 'mug'"):
        choose(config, lvis=("mugg",)).ids()


def test_a_file_names_objects(config: ObjaverseConfig, tmp_path: Path) -> None:
    (tmp_path / "uids.txt").write_text(f"# two\n{uid_of(7)}\n\n{uid_of(1)}  # a cup\n{uid_of(7)}\n")
    assert numbers(choose(config, uids=tmp_path / "uids.txt")) == [1, 7]


@pytest.mark.parametrize("text", ["", "# none\n", "../../etc/passwd\n", "0123\n"])
def test_a_file_of_something_else_is_refused(config: ObjaverseConfig, tmp_path: Path, text: str) -> None:
    (tmp_path / "uids.txt").write_text(text)
    with pytest.raises(InputError) as error:
        choose(config, uids=tmp_path / "uids.txt").ids()
    assert error.value.code == "config"


def test_a_larger_sample_contains_the_smaller_and_another_seed_differs(config: ObjaverseConfig) -> None:
    three, six = (set(choose(config, sample=count).ids()) for count in (3, 6))
    assert len(three) == 3
    assert len(six) == 6
    assert three < six
    assert len({tuple(choose(config, sample=3, seed=seed).ids()) for seed in range(5)}) > 1
    assert set(numbers(choose(config, sample=1, lvis=("mug",)))) <= {1, 2}


def test_a_choice_must_be_made(config: ObjaverseConfig) -> None:
    with pytest.raises(ValueError, match="which objects"):
        choose(config)


def test_an_object_comes_with_its_provenance(config: ObjaverseConfig) -> None:
    mesh, provenance = Objaverse(config).load(uid_of(1))
    assert mesh.vertices.shape == box_mesh().vertices.shape
    assert provenance == {
        "source": f"https://sketchfab.com/3d-models/{uid_of(1)}",
        "licence": "CC-BY-4.0",
        "author": "A Maker",
        "title": "Thing 1",
        "uid": uid_of(1),
    }


@pytest.mark.parametrize("number", [2, 6])
def test_licences_without_derivatives_or_unstated_are_refused(
    config: ObjaverseConfig, server: ObjaverseServer, number: int
) -> None:
    source = Objaverse(config)
    with pytest.raises(InputError, match=r"licence: found .* wanted one of CC0-1.0, CC-BY-4.0") as error:
        source.fetch(uid_of(number))
    assert error.value.code == source.ledger.entries[uid_of(number)].status == "licence"
    assert server.asked(path_of(uid_of(number))) == []


def test_a_licence_allowed_later_is_fetched(config: ObjaverseConfig) -> None:
    with pytest.raises(InputError):
        Objaverse(config).fetch(uid_of(2))
    allowing = choose(config, sample=8, licences=("by-nc-nd",))
    assert allowing.fetch(uid_of(2)).read_bytes() == GLBS[1]
    with pytest.raises(InputError, match=r"found CC-BY-4\.0"):
        allowing.fetch(uid_of(1))


def test_a_second_run_asks_for_nothing(config: ObjaverseConfig, server: ObjaverseServer) -> None:
    first = Objaverse(config)
    digests = {uid: first.digest(uid) for uid in (uid_of(1), uid_of(3))}
    assert digests[uid_of(1)] == digest_bytes(GLBS[0])
    asked = len(server.requests)
    second = Objaverse(config)
    assert {uid: second.digest(uid) for uid in digests} == digests
    assert len(server.requests) == asked


def test_the_ledger_says_what_became_of_each(config: ObjaverseConfig, server: ObjaverseServer) -> None:
    source = Objaverse(config)
    server.faults[path_of(uid_of(3))].append(404)
    server.faults[path_of(uid_of(4))].extend([500, "hang", "truncate"])
    server.faults[path_of(uid_of(5))].extend([429, "drop"])
    for number in (1, 3, 4):
        if number != 1:
            with pytest.raises(InputError):
                source.fetch(uid_of(number))
        else:
            source.fetch(uid_of(number))
    source.fetch(uid_of(5))
    entries = Ledger(source.ledger.path).entries
    assert {int(uid, 16): entry.status for uid, entry in entries.items()} == {
        1: "fetched",
        3: "not-found",
        4: "truncated",
        5: "fetched",
    }
    assert entries[uid_of(5)] == Entry(
        uid_of(5), "fetched", "CC0-1.0", len(GLBS[4]), digest_bytes(GLBS[4]), ""
    )
    assert "404" in entries[uid_of(3)].reason


def test_a_failure_is_not_asked_for_again_in_one_run_but_in_the_next(
    config: ObjaverseConfig, server: ObjaverseServer
) -> None:
    source, path = Objaverse(config), path_of(uid_of(3))
    server.faults[path].append(404)
    for _ in range(2):
        with pytest.raises(InputError, match="404"):
            source.fetch(uid_of(3))
    assert len(server.asked(path)) == 1
    assert Objaverse(config).fetch(uid_of(3)).read_bytes() == GLBS[2]


def test_a_file_that_was_cut_or_lost_is_fetched_again(config: ObjaverseConfig) -> None:
    path = Objaverse(config).fetch(uid_of(1))
    path.write_bytes(GLBS[0][:-10])
    assert Objaverse(config).fetch(uid_of(1)).read_bytes() == GLBS[0]
    path.unlink()
    assert Objaverse(config).fetch(uid_of(1)).read_bytes() == GLBS[0]


def test_files_that_something_else_fetched_are_used(config: ObjaverseConfig, server: ObjaverseServer) -> None:
    path = config.folder / path_of(uid_of(1))
    path.parent.mkdir(parents=True)
    path.write_bytes(GLBS[0])
    assert Objaverse(config).digest(uid_of(1)) == digest_bytes(GLBS[0])
    assert server.asked(path_of(uid_of(1))) == []


def test_what_is_not_a_glb_is_not_kept(config: ObjaverseConfig, server: ObjaverseServer) -> None:
    server.files[path_of(uid_of(1))] = b"<html>come back later</html>"
    with pytest.raises(InputError, match="not a GLB") as error:
        Objaverse(config).fetch(uid_of(1))
    assert error.value.code == "not-gltf"
    assert not (config.folder / path_of(uid_of(1))).exists()


@pytest.mark.parametrize(
    "named",
    [
        "../{uid}.glb",
        "{outside}/{uid}.glb",
        "glbs/000-000/../../../{uid}.glb",
        "glbs/a/{uid}.glb",
        "glbs/000-000/{other}.glb",
    ],
)
def test_an_index_cannot_name_a_path_outside(
    config: ObjaverseConfig, server: ObjaverseServer, tmp_path: Path, named: str
) -> None:
    path = named.format(uid=uid_of(1), other=uid_of(2), outside=tmp_path)
    server.files["object-paths.json.gz"] = gzip.compress(json.dumps({uid_of(1): path}).encode())
    server.files[path] = GLBS[0]
    with pytest.raises(InputError, match=r"wanted glbs/000-000/<uid>\.glb") as error:
        Objaverse(config).fetch(uid_of(1))
    assert error.value.code == "unsafe-path"
    assert list(tmp_path.rglob("*.glb")) == []


def test_an_index_that_is_damaged_is_asked_for_again(
    config: ObjaverseConfig, server: ObjaverseServer
) -> None:
    server.faults["object-paths.json.gz"].extend(["truncate", "damage"])
    assert len(Objaverse(config).ids()) == 8


def test_a_torn_ledger_loses_one_line(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for uid in "ab":
        ledger.add(Entry(uid, "fetched", "CC0-1.0", 3, "0" * 64))
    data = ledger.path.read_bytes()
    ledger.path.write_bytes(data[:-20])
    again = Ledger(ledger.path)
    assert set(again.entries) == {"a"}
    again.add(Entry("c", "not-found"))
    assert set(Ledger(ledger.path).entries) == {"a", "c"}


def test_a_ledger_does_not_repeat_itself(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for _ in range(3):
        ledger.add(Entry("a", "licence", "CC-BY-ND-4.0", reason="no"))
    assert len(ledger.path.read_text().splitlines()) == 1
