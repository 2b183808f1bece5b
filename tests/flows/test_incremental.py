"""What a change rebuilds, and what it leaves: the table of docs/incremental.md is this test's own output."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import yaml

import flows.seen
from flows import build, ingest
from flows.build import BuildConfig
from flows.ingest import IngestConfig
from flows.outcome import Outcome, total
from render.layers import LayersConfig
from render.six_views import SixViewConfig
from storage import records
from storage.sources.human_video import keypoints_file
from storage.store import Store
from storage.upkeep import gc, verify
from storage.video import write_video
from tests.flows.conftest import HEIGHT, NUM_FRAMES, WIDTH, MakeSession

PAGE = Path(__file__).parents[2] / "docs" / "incremental.md"
BEGIN, END = "<!-- table -->\n", "<!-- end -->\n"
KINDS = ("object", "layers", "frames")
OBJECTS = BuildConfig(num_frames=3, layers=LayersConfig(size=32), six_views=SixViewConfig(size=32))
CAPTURES = IngestConfig(layers=LayersConfig(size=32), six_views=SixViewConfig(size=32), prune=True)


@dataclass
class Project:
    """A dataset of two sessions (two cameras, one object each) and two objects that move at random.

    One session's object is one of the two, and shares its record.
    """

    objects: Path
    sessions: Path
    store: Store
    size: int = 32
    views_size: int = 32

    def run(self, *, dry_run: bool = False) -> Outcome:
        """Build and ingest all there is into one dataset."""
        sizes = {"layers": LayersConfig(size=self.size), "six_views": SixViewConfig(size=self.views_size)}
        building = OBJECTS.model_copy(update={**sizes, "objects": self.objects, "dataset": "all"})
        ingesting = CAPTURES.model_copy(update={**sizes, "dataset": "all"})
        source = build.open_source(building, self.store)
        built = build.build_objects(source.ids(), source, building, self.store, dry_run=dry_run)
        paths = sorted(self.sessions.iterdir())
        ingested = ingest.join(ingest.ingest_sessions(paths, ingesting, self.store, dry_run=dry_run))
        if not dry_run:
            build.finish(built, building, self.store)
            ingest.finish(ingested, ingesting, self.store)
        return total([built, ingested])


def film(session: Path, camera: str, grey: int) -> None:
    """Give a camera a video that no other has."""
    frames = np.full((NUM_FRAMES, HEIGHT, WIDTH, 3), grey, np.uint8)
    write_video(session / "videos" / f"{camera}.mp4", frames, 24.0)


def add_camera(project: Project) -> None:
    session = project.sessions / "cup"
    cameras = yaml.safe_load((session / "cameras.yaml").read_text())
    camera = cameras["side"] | {"camera_from_world": np.diag([1.0, -1, -1, 1]).tolist()}
    camera["camera_from_world"][2][3] = 0.5
    (session / "cameras.yaml").write_text(yaml.safe_dump(cameras | {"extra": camera}))
    film(session, "extra", 10)


def refit_hands(project: Project) -> None:
    path = project.sessions / "cup" / "hands.npz"
    with np.load(path) as hands:
        arrays = dict(hands)
    arrays["right_pose"] = arrays["right_pose"] + np.float32(0.001)
    np.savez(path, **arrays)


def edit_texture(project: Project) -> None:
    """Paint the mug anew: its vertices stay where they are."""
    path = project.objects / "mug.glb"
    data = path.read_bytes()
    length = int.from_bytes(data[12:16], "little")
    tree = json.loads(data[20 : 20 + length])
    for material in tree["materials"]:
        material["pbrMetallicRoughness"]["baseColorFactor"] = [0.25, 0.5, 0.75, 1]
    text = json.dumps(tree, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + length :]
    head = data[:8] + (20 + len(text) + len(rest)).to_bytes(4, "little")
    path.write_bytes(head + len(text).to_bytes(4, "little") + data[16:20] + text + rest)


def enlarge_views(project: Project) -> None:
    project.views_size = 48


def enlarge_layers(project: Project) -> None:
    project.size = 48


def remove_session(project: Project) -> None:
    shutil.rmtree(project.sessions / "box")


@dataclass(frozen=True)
class Change:
    """A line of the table: what is done, what it rebuilds, and what it says of the reason."""

    title: str
    apply: Callable[[Project], None]
    built: dict[str, int]
    reasons: set[str]  # names of what changed


CHANGES = (
    Change("nothing changed", lambda _: None, {}, set()),
    Change("one camera added to a session", add_camera, {"layers": 1, "frames": 1}, {"new"}),
    Change("hands re-fitted in one session", refit_hands, {"layers": 3}, {"inputs.hands"}),
    Change(
        "an object's texture edited",
        edit_texture,
        {"object": 1, "frames": 1},
        {"inputs.mesh", "inputs.objects/object/mesh"},
    ),
    Change("six-view resolution changed", enlarge_views, {"object": 3}, {"config.size"}),
    Change(
        "layer resolution changed",
        enlarge_layers,
        {"layers": 7, "frames": 7},
        {"config.size", "config.crop.size_px", "inputs.camera"},
    ),
    Change("a session removed", remove_session, {}, set()),
)


@pytest.fixture
def project(objects: Path, make_session: MakeSession, tmp_path: Path) -> Project:
    (objects / "torn.glb").unlink()
    cup, box = make_session("cup"), make_session("box")
    shutil.copy(objects / "mug.glb", cup / "objects" / "box.glb")
    for number, (session, camera) in enumerate(product((cup, box), ("front", "side"))):
        film(session, camera, 50 * number + 30)
    return Project(objects, box.parent, Store(tmp_path / "store"))


def test_each_change_rebuilds_what_depends_on_it_and_the_page_says_so(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.seen, "_COARSEST_CLOCK_S", 0)
    project.run()
    lines = ["| change | " + " | ".join(KINDS) + " |", "|---" * 4 + "|"]
    for change in CHANGES:
        change.apply(project)
        planned = project.run(dry_run=True)
        built, there = project.run().counts()
        assert built == change.built, change.title
        assert planned.counts() == (built, there), change.title
        found = {part.split(":")[0] for plan in planned.missing for part in _reasons(plan.reason)}
        assert found == change.reasons, change.title
        counts = [f"{built[kind]} built, {there[kind]} kept" for kind in KINDS]
        lines.append(f"| {change.title} | " + " | ".join(counts) + " |")
    dropped = Counter({kind: usage.records for kind, usage in gc(project.store).items()})
    lines.append(
        "| then `manivideo store gc` | " + " | ".join(f"{dropped[kind]} dropped" for kind in KINDS) + " |"
    )
    assert verify(project.store) == []
    table = "\n".join(lines) + "\n"
    if os.environ.get("WRITE_DOCS"):
        head, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(head + BEGIN + table + END + rest.partition(END)[2])
    assert table in PAGE.read_text(), "WRITE_DOCS=1 writes the table into docs/incremental.md"


def test_unchanged_inputs_are_not_opened(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows.seen, "_COARSEST_CLOCK_S", 0)
    first = project.run()
    for module, name in ((build, "_build_object"), (ingest, "_ingest_session")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("an input was opened"))
    second = project.run()
    assert second.rows == first.rows
    assert second.counts()[1] == first.counts()[0]


def test_a_file_put_back_with_its_old_date_and_size_is_noticed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.seen, "_COARSEST_CLOCK_S", 0)
    refit_hands(project)  # from now on the file is not compressed: its size stays
    project.run()
    path = project.sessions / "cup" / "hands.npz"
    stat, data = path.stat(), bytearray(path.read_bytes())
    refit_hands(project)
    assert path.stat().st_size == len(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert project.run().counts()[0] == {"layers": 2}


def test_keypoints_put_beside_a_video_later_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.seen, "_COARSEST_CLOCK_S", 0)
    store, video = Store(tmp_path / "store"), tmp_path / "dance.mp4"
    write_video(video, np.zeros((2, HEIGHT, WIDTH, 3), np.uint8), 24.0)
    keypoints = {"format": "coco17", "keypoints": np.ones((2, 17, 3)).tolist()}
    counts = []
    for _ in range(2):
        counts.append(total(ingest.ingest_sessions([video], CAPTURES, store, dry_run=False)).counts())
        keypoints_file(video).write_text(json.dumps(keypoints))
    assert counts == [({"frames": 1}, {}), ({"skeleton": 1}, {"frames": 1})]


def test_every_kind_that_inputs_come_to_has_its_version_remembered() -> None:
    kinds = {value.KIND for value in vars(records).values() if hasattr(value, "KIND")}
    assert set(flows.seen.VERSIONS) == kinds - {"latents"}  # which training makes


def test_what_was_written_just_now_is_looked_at_again(project: Project) -> None:
    project.run()
    assert not list((project.store.root / ".seen").glob("*/*.json"))


def _reasons(reason: str) -> list[str]:
    return reason.removeprefix("changed: ").split("; ")
