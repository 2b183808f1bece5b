"""DexYCB as distributed: hands and object land on its labels, and no file can run code or lead astray."""

import itertools
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from render.camera import project
from render.hands.model import HandModel
from render.hands.procedural import build_hand
from render.scene import Clip
from render.transforms import transform
from storage.errors import InputError
from storage.sources.dexycb import DexYcbSequence, find_sequences
from storage.sources.dexycb_splits import SEQUENCES, Setup, split_of
from tests.dexycb_writer import (
    GRASPED,
    HEIGHT,
    NUM_FRAMES,
    SEQUENCE,
    SERIALS,
    SUBJECT,
    WIDTH,
    labels,
    write_dexycb,
)

HANDS = {side: build_hand(side) for side in ("left", "right")}


@pytest.fixture
def sequence(tmp_path: Path) -> Path:
    return write_dexycb(tmp_path / "dexycb", HANDS["right"])


def load(sequence: Path) -> Clip:
    return DexYcbSequence(sequence, HANDS).load()


def edit_yaml(path: Path, **changes: object) -> None:
    values = yaml.load(path.read_text(), Loader=yaml.FullLoader)
    path.write_text(yaml.dump(values | changes))


@pytest.mark.parametrize("side", ["left", "right"])
def test_joints_land_on_the_labels(tmp_path: Path, side: str) -> None:
    sequence = write_dexycb(tmp_path / "dexycb", HANDS[side], side)
    clip = load(sequence)
    motion = clip.hands[side]
    assert motion.valid.tolist() == [False, True, True, True]
    joints = HandModel(HANDS[side], side)(motion).joints
    for serial in SERIALS:
        pixels, depth = project(joints, clip.cameras[serial])
        assert np.abs(pixels - labels(sequence, serial, "joint_2d")[:, 0])[motion.valid].max() < 0.01
        assert np.abs(depth - labels(sequence, serial, "joint_3d")[:, 0, :, 2])[motion.valid].max() < 1e-5


def test_the_grasped_object_lands_on_the_labels(sequence: Path) -> None:
    clip = load(sequence)
    (moving,) = clip.objects
    assert (moving.name, moving.valid.tolist()) == ("025_mug", [True, False, True, True])
    for serial in SERIALS:
        pose = labels(sequence, serial, "pose_y")[:, GRASPED]
        wanted = moving.mesh.vertices @ pose[:, :, :3].swapaxes(1, 2) + pose[:, None, :, 3]
        world = transform(moving.world_from_object, moving.mesh.vertices)
        found = transform(clip.cameras[serial].camera_from_world, world)
        assert np.abs(found - wanted)[moving.valid].max() < 1e-5


def test_the_world_is_upright(sequence: Path) -> None:
    clip = load(sequence)
    for camera in clip.cameras.values():
        assert np.linalg.inv(camera.camera_from_world)[1, 3] > 0.1  # above the table
        assert camera.camera_from_world[1, 1] < -0.5  # +Y is up in the picture


def test_a_textured_object_keeps_its_colours(sequence: Path) -> None:
    mesh = load(sequence).objects[0].mesh
    texture = mesh.materials[0].base_color_texture
    assert texture is not None
    rows = np.floor(mesh.uvs[:, 1] * 4).astype(int)  # v = 0.9 of the file is the picture's first row
    assert {tuple(texture.pixels[row, 0, :3]) for row in rows} == {(255, 0, 0), (0, 0, 255)}


def test_pictures_are_the_frames(sequence: Path) -> None:
    video = load(sequence).videos[SERIALS[0]]
    frames = list(video.frames())
    assert (video.num_frames, frames[0].shape) == (NUM_FRAMES, (HEIGHT, WIDTH, 3))
    assert [int(frame.mean().round()) for frame in frames] == [60, 100, 140, 180]


def test_sequences_are_found_below_the_root(sequence: Path) -> None:
    assert find_sequences(sequence.parents[1]) == [sequence]
    assert find_sequences(sequence) == []
    assert DexYcbSequence(sequence, HANDS).id == f"{SUBJECT}_{SEQUENCE}"


def test_a_camera_that_is_not_here_is_left_out(sequence: Path) -> None:
    for file in (sequence / SERIALS[0]).iterdir():
        file.unlink()
    (sequence / SERIALS[0]).rmdir()
    clip = load(sequence)
    assert list(clip.cameras) == list(clip.videos) == [SERIALS[1]]


def test_digests_follow_what_changed(sequence: Path) -> None:
    before = DexYcbSequence(sequence, HANDS).digests()
    with np.load(sequence / "pose.npz") as file:
        arrays = dict(file)
    arrays["pose_m"][2, 0, 5] += 0.1
    np.savez(sequence / "pose.npz", **arrays)
    Image.new("RGB", (WIDTH, HEIGHT)).save(sequence / SERIALS[1] / "color_000002.jpg")
    after = DexYcbSequence(sequence, HANDS).digests()
    assert {part for part in before if before[part] != after[part]} == {"hands", f"videos/{SERIALS[1]}"}
    meta = (sequence / "meta.yml").read_text()
    (sequence / "meta.yml").write_text(meta.replace("- right", "- left"))
    other_side = DexYcbSequence(sequence, HANDS).digests()
    assert {part for part in after if after[part] != other_side[part]} == {"hands"}


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("extrinsics", "../../secret", "unsafe-name"),
        ("mano_calib", ["/etc/passwd"], "unsafe-name"),
        ("serials", ["../.."], "unsafe-name"),
        ("ycb_grasp_ind", 3, "meta"),
        ("ycb_ids", [1, 99, 2], "meta"),
        ("mano_sides", ["both"], "meta"),
        ("num_frames", 0, "meta"),
        ("num_frames", 5, "shape"),
    ],
)
def test_a_bad_meta_is_named(sequence: Path, key: str, value: object, code: str) -> None:
    edit_yaml(sequence / "meta.yml", **{key: value})
    with pytest.raises(InputError) as error:
        load(sequence)
    assert error.value.code == code


def test_yaml_cannot_run_code(sequence: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    text = f"serials: !!python/object/apply:os.mkdir ['{trace}']\n"
    (sequence / "meta.yml").write_text(text)
    with pytest.raises(InputError, match="not plain YAML") as error:
        load(sequence)
    assert error.value.code == "yaml"
    assert not trace.exists()
    yaml.load(text, Loader=yaml.UnsafeLoader)
    assert trace.exists()  # so the file was indeed live


class Runs:
    """Makes a folder when an ordinary unpickler reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return Path.mkdir, (self.path,)


def test_arrays_cannot_run_code(sequence: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    np.savez(sequence / "pose.npz", pose_m=np.array([Runs(trace)], object), pose_y=np.zeros(1))
    with pytest.raises(InputError, match=r"not an \.npz of plain arrays"):
        load(sequence)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Runs(trace)))
    assert trace.exists()


def test_a_material_cannot_lead_out_of_its_folder(sequence: Path) -> None:
    models = sequence.parents[1] / "models"
    Image.new("RGB", (4, 4), (9, 9, 9)).save(models / "secret.png")
    (models / "025_mug" / "textured_simple.obj.mtl").write_text("newmtl material_0\nmap_Kd ../secret.png\n")
    assert load(sequence).objects[0].mesh.materials[0].base_color_texture is None


@pytest.mark.parametrize("content", ["EPS", "torn"])
def test_a_texture_of_another_kind_is_refused(sequence: Path, content: str) -> None:
    texture = sequence.parents[1] / "models" / "025_mug" / "texture_map.png"
    if content == "EPS":  # Pillow decodes it by running Ghostscript
        Image.new("RGB", (4, 4)).save(texture, "EPS")
    else:
        texture.write_bytes(texture.read_bytes()[:-30])
    with pytest.raises(InputError, match="a texture") as error:
        load(sequence)
    assert error.value.code == "picture"


@pytest.mark.parametrize(
    "lost",
    [
        f"calibration/intrinsics/{SERIALS[0]}_640x480.yml",
        "calibration/extrinsics_20200702_151821/extrinsics.yml",
        "calibration/mano_20200709-subject-01_right/mano.yml",
        "models/025_mug/textured_simple.obj",
    ],
)
def test_a_missing_file_is_named(sequence: Path, lost: str) -> None:
    (sequence.parents[1] / lost).unlink()
    with pytest.raises(InputError, match=Path(lost).name) as error:
        load(sequence)
    assert error.value.code == "missing-file"


def test_a_missing_picture_is_named_when_it_is_read(sequence: Path) -> None:
    (sequence / SERIALS[0] / "color_000002.jpg").unlink()
    with pytest.raises(InputError, match=r"color_000002\.jpg"):
        list(load(sequence).videos[SERIALS[0]].frames())


@pytest.mark.parametrize(
    ("setup", "counts"),
    [
        ("s0", {"train": 6400, "val": 320, "test": 1280}),
        ("s1", {"train": 5600, "val": 800, "test": 1600}),
        ("s2", {"train": 6000, "val": 1000, "test": 1000}),
        ("s3", {"train": 6000, "val": 800, "test": 1200}),
    ],
)
def test_official_splits_have_their_sizes(setup: Setup, counts: dict[str, int]) -> None:
    clips = itertools.product(range(10), range(SEQUENCES), range(8))
    splits = [split_of(setup, subject=s, number=n, camera=c) for s, n, c in clips]
    assert Counter(splits) == counts


def test_official_splits_follow_names(sequence: Path) -> None:
    assert load(sequence).camera_splits == {}
    for number in range(1, SEQUENCES):  # ours is the last
        (sequence.parent / f"20200709_{number:06d}").mkdir()
    held_out = dict.fromkeys(SERIALS, "val")
    assert DexYcbSequence(sequence, HANDS, "s0").load().camera_splits == held_out
    assert DexYcbSequence(sequence, HANDS, "s3").load().camera_splits == held_out
    assert DexYcbSequence(sequence, HANDS, "s2").load().camera_splits == dict.fromkeys(SERIALS, "train")


def test_official_splits_need_all_sequences(sequence: Path) -> None:
    with pytest.raises(InputError, match="found 1, wanted all 100") as error:
        DexYcbSequence(sequence, HANDS, "s0").load()
    assert error.value.code == "split"


class TestRealFrame:
    """One frame of the data set itself: its labels agree with each other as the reader takes them to."""

    @pytest.fixture
    def frame(self, shared_data: Path) -> Path:
        return shared_data / "motion" / "dexycb_frame"

    @pytest.fixture
    def clip(self, frame: Path, tmp_path: Path) -> Clip:
        """A data set around the real intrinsics file."""
        sequence = write_dexycb(tmp_path / "dexycb", HANDS["right"])
        file = frame / "836212060125_640x480.yml"
        (sequence.parents[1] / "calibration" / "intrinsics" / file.name).write_text(file.read_text())
        return load(sequence)

    def test_joints_project_onto_the_labelled_pixels(self, frame: Path, clip: Clip) -> None:
        real = np.load(frame / "labels.npz")
        camera = replace(clip.cameras["836212060125"], camera_from_world=np.eye(4))
        pixels, _ = project(real["joint_3d"][0], camera)
        assert np.abs(pixels - real["joint_2d"][0]).max() < 1e-3

    def test_objects_project_onto_their_masks(self, frame: Path, clip: Clip) -> None:
        real = np.load(frame / "labels.npz")
        depth_m = np.asarray(Image.open(frame / "depth.png")) / 1000
        camera = replace(clip.cameras["836212060125"], camera_from_world=np.eye(4))
        for ycb_id, pose in zip((5, 6, 13, 18), real["pose_y"], strict=True):
            rows, columns = np.nonzero(real["seg"] == ycb_id)
            centre, depth = project(pose[:, 3], camera)
            off = np.abs(centre - (columns.mean(), rows.mean()))
            assert (off < np.maximum(np.ptp(columns), np.ptp(rows)) / 2).all(), ycb_id
            assert abs(np.median(depth_m[rows, columns]) - depth) < 0.1, ycb_id
