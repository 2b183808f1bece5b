"""Refreshing: new and changed sessions land, a broken one is set aside, training follows the dataset."""

import json
import time
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner, Result

import flows.seen
import flows.watch
from flows import ingest
from flows.cli import app
from flows.watch import Watcher, follow
from storage.dataset import Dataset
from storage.store import Store
from tests.flows.conftest import MakeSession

STAGE = """
stage: image
dataset: another
model: configs/model/tiny.yaml
batch: {clips: 1, frames: 4, pick: scattered}
iterations: 1
memory_estimate: false
"""


def manivideo(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.usefixtures("prefect_server")
def test_a_refresh_takes_what_is_new_and_trains_where_the_dataset_changed(
    make_session: MakeSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.seen, "_COARSEST_CLOCK_S", 0)
    folder, stage, models = make_session("a").parent, tmp_path / "stage.yaml", tmp_path / "models"
    stage.write_text(STAGE)
    (folder / "broken").mkdir()

    def refresh(*options: str) -> dict[str, object]:
        command = ("refresh", folder, "--store", tmp_path / "store", "--train", stage, "-o", models, "--json")
        small = ("--set", "layers.size=32", "--set", "six_views.size=32")
        result = manivideo(*command, *small, *options)
        assert result.exit_code == 0, result.stderr
        told = json.loads(result.stdout.splitlines()[-1])
        assert [(entry["input"], entry["code"]) for entry in told["quarantined"]] == [("broken", "config")]
        return {name: told[name] for name in ("built", "model", "trained")}

    everything = {"object": 1, "layers": 2, "frames": 2}
    planned = refresh("--dry-run")
    assert (planned["built"], planned["trained"]) == (everything, True)
    assert not models.exists()
    first = refresh()
    # Nothing moves: the version depends on frames that are still to be made.
    assert first | {"model": planned["model"]} == planned
    assert Path(str(first["model"])).is_dir()

    open_session = ingest._ingest_session
    monkeypatch.setattr(
        ingest,
        "_ingest_session",
        lambda path, job: pytest.fail("opened") if path.name == "a" else open_session(path, job),
    )
    nothing = first | {"built": {}, "trained": False}
    assert refresh("--dry-run") == refresh() == nothing

    make_session("b")
    planned = refresh("--dry-run")
    second = refresh()
    assert second == planned
    assert (second["built"], second["trained"]) == ({}, True)  # the same records under another name
    assert sorted(models.iterdir()) == sorted({Path(str(run["model"])).parent for run in (first, second)})
    assert {row.session for row in Dataset.open(Store(tmp_path / "store"), "captures").rows()} == {"a", "b"}


def test_a_watched_session_is_news_once_it_is_whole_and_again_when_it_changes(
    make_session: MakeSession, tmp_path: Path
) -> None:
    watcher = Watcher(make_session("a").parent, settle_s=0.2)
    assert watcher.look() == []  # it may still be growing
    time.sleep(0.2)
    (session,) = watcher.look()
    assert watcher.look() == [session]  # as long as nobody has been told
    watcher.told([session])
    (session.parent / "b").mkdir()
    time.sleep(0.2)
    assert watcher.look() == []  # b has no session.yaml yet
    (session / "hands.npz").touch()
    assert watcher.look() == []
    time.sleep(0.2)
    assert watcher.look() == [session]


def test_a_watched_folder_that_is_away_for_a_while_ends_no_watch(
    make_session: MakeSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.watch, "announce", lambda *_: None)
    folder = make_session("a").parent
    share = folder.rename(tmp_path / "away")
    lines = follow(folder, {}, settle_s=0.0)
    assert "cannot be looked at now" in next(lines)
    share.rename(folder)
    assert next(lines) == "a: the server has been told"


def test_watching_wants_a_server(tmp_path: Path) -> None:
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        result = manivideo("watch", tmp_path)
    assert result.exit_code == 2
    assert "PREFECT_API_URL" in result.stderr


@pytest.mark.usefixtures("prefect_server")
def test_a_refresh_fails_where_no_session_is_of_use_and_not_where_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "captures").mkdir()
    command = ("refresh", tmp_path / "captures", "--store", tmp_path / "store")
    assert manivideo(*command).exit_code == 0
    (tmp_path / "captures" / "broken").mkdir()
    (tmp_path / "captures" / "broken" / "session.yaml").write_text("name: broken\n")
    result = manivideo(*command)
    assert (result.exit_code, result.stderr.count("nothing usable")) == (1, 1)
