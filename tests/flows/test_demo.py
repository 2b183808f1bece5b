"""The demo from objects to report, at its smallest: everything is made once, and is what it says it is."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from flows.demo import each_once, held_out_clip
from flows.evaluate import EvaluationConfig, evaluate_model
from flows.generate import GenerateConfig, Motion, compose, generate_clip, generate_motion
from storage.dataset import Dataset
from storage.errors import InputError
from storage.manifest import Manifest, Quarantined
from storage.store import Store
from storage.video import VideoFile

ROOT = Path(__file__).parents[2]
SIZE = {"six_views": {"size": 32}, "layers": {"size": 32}}
SAMPLING = {"num_frames": 4, "stride": 4, "num_inference_steps": 2}
TRAINING = {"dataset": "demo", "iterations": 2, "threads": 1, "memory_estimate": False}
SETTINGS = {
    "procedural": 2,
    "build": {"dataset": "demo", "num_frames": 4, **SIZE},
    "synthesize": {
        "sessions": 2,
        "held_out": 1,
        "cameras": ["camera0"],
        "held_out_cameras": ["camera0", "camera1"],
        "synthesis": {"num_frames": 16, "num_cameras": 2, "width": 96, "height": 72},
    },
    "ingest": {"dataset": "demo", **SIZE},
    "image": {
        "stage": "image",
        "model": str(ROOT / "configs" / "model" / "tiny.yaml"),
        "batch": {"clips": 2},
        **TRAINING,
    },
    "temporal": {
        "stage": "temporal",
        "init_from": "set by the demo",
        "batch": {"clips": 1, "frames": 4, "pick": "window"},
        **TRAINING,
    },
    "evaluate": {"dataset": "demo", "sampling": SAMPLING, "metrics": {"fid_frames": 1}},
}


class Demo:
    """A finished demo's folder, store and what it printed."""

    def __init__(self, folder: Path) -> None:
        self.config, self.out, self.store = folder / "demo.yaml", folder / "out", folder / "store"
        self.config.write_text(yaml.safe_dump(SETTINGS))
        self.told = self.run()

    def run(self) -> dict:
        arguments = ["demo", str(self.config), "-o", str(self.out), "--store", str(self.store), "--json"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Demo:
    return Demo(tmp_path_factory.mktemp("demo"))


def test_the_held_out_clip_is_of_a_session_and_a_camera_that_were_not_trained_on(demo: Demo) -> None:
    rows = Manifest.read(Store(demo.store), "demo").rows
    trained = [row for row in rows if row.split == "train"]
    row = held_out_clip(rows)
    assert row.id == demo.told["clip"] == "synthetic-0-1/camera1"
    assert row.session not in {other.session for other in trained}
    assert row.camera not in {other.camera for other in trained}


def test_the_videos_have_the_frames_that_were_asked_for(demo: Demo) -> None:
    generated, comparison = (VideoFile(demo.out / name) for name in ("generated.mp4", "comparison.mp4"))
    assert generated.num_frames == comparison.num_frames == SAMPLING["num_frames"]
    assert (generated.info.width, generated.info.height) == (32, 32)
    assert generated.info.fps == 24 / SAMPLING["stride"]
    assert comparison.info.height >= 256
    assert comparison.info.width >= 3 * 256


def test_metrics_name_both_baselines_and_what_was_not_computed(demo: Demo) -> None:
    metrics = json.loads((demo.out / "metrics.json").read_text())
    assert metrics == demo.told["metrics"]
    assert metrics["psnr"] > 0
    assert metrics["baselines"]["first_frame"]["psnr"] > 0
    assert metrics["baselines"]["mean_frame"]["psnr"] > 0
    assert {clip["id"] for clip in metrics["clips"]} == {"synthetic-0-1/camera0", "synthetic-0-1/camera1"}
    assert all(metrics["notes"][name] for name in ("lpips", "fid", "mpjpe") if metrics[name] is None)


def test_an_evaluation_says_which_clips_were_trained_on(demo: Demo, tmp_path: Path) -> None:
    def notes(split: str) -> dict[str, str]:
        settings = {"dataset": "demo", "split": split, "max_clips": 1, "sampling": SAMPLING}
        config = EvaluationConfig.model_validate(settings | {"metrics": {"fid_frames": 0}})
        return evaluate_model(demo.out / "temporal" / "model", config, Store(demo.store), tmp_path).metrics[
            "notes"
        ]

    assert notes("train")["clips trained on"].startswith("1 of 1 are not held out: ['")
    assert "clips trained on" not in notes("test")


def test_the_report_shows_videos_and_both_stages(demo: Demo) -> None:
    page = (demo.out / "report.html").read_text()
    assert page.count("data:image/webp") == 2 * 5  # of each clip: two videos, two panels, six views
    assert "Loss, image stage" in page
    assert "Loss, temporal stage" in page


def test_a_second_demo_makes_nothing(demo: Demo) -> None:
    files = [path for path in demo.out.rglob("*") if path.is_file() and path.parent != demo.out]
    before = {path: path.stat().st_mtime_ns for path in files}
    done = demo.run()["done"]
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert done["object clips"].startswith("0 records built")
    assert done["synthetic sessions"].startswith("0 made")
    assert done["session clips"].startswith("0 records built")
    assert {done[stage] for stage in ("image stage", "temporal stage", "evaluation")} == {"there already"}


def test_a_result_that_was_deleted_is_made_again(demo: Demo) -> None:
    lost = [demo.out / "metrics.json", next((demo.out / "clips").rglob("comparison.mp4"))]
    before = [path.read_bytes() for path in lost]
    for path in lost:
        path.unlink()
    done = demo.run()["done"]
    assert done["temporal stage"] == "there already"
    assert done["evaluation"] == "2 clips"
    assert [path.read_bytes() for path in lost] == before


def test_a_file_that_several_stages_set_aside_is_listed_once() -> None:
    built = Quarantined("object:torn", "truncated", "torn.glb: cut short")
    met_again = Quarantined("torn", "truncated", "torn.glb: cut short")
    too_large = Quarantined("sofa", "unrenderable", "no hand can hold it")
    assert each_once([built], [met_again, too_large, too_large]) == (met_again, too_large)


def test_a_clip_generated_again_is_the_one_of_the_evaluation(demo: Demo, tmp_path: Path) -> None:
    config = GenerateConfig.model_validate({"dataset": "demo", "sampling": SAMPLING})
    out = tmp_path / "again.mp4"
    generate_clip(demo.out / "temporal" / "model", demo.told["clip"], config, Store(demo.store), out)
    assert out.read_bytes() == (demo.out / "generated.mp4").read_bytes()


def test_a_session_moves_another_object(demo: Demo, tmp_path: Path) -> None:
    settings = {"sampling": SAMPLING, "ingest": {"dataset": "motions", **SIZE}}
    config = GenerateConfig.model_validate(settings)
    session, mug = demo.out / "sessions" / "synthetic-0-1", next((demo.out / "objects").rglob("*mug.glb"))
    motion = Motion(session, "camera1", mug)
    clip, _ = compose(motion)
    original, _ = compose(Motion(session, "camera1"))
    assert list(clip.cameras) == ["camera1"]
    assert len(clip.objects[0].mesh.faces) != len(original.objects[0].mesh.faces)
    store, out = Store(tmp_path / "store"), tmp_path / "moved.mp4"
    generate_motion(demo.out / "temporal" / "model", motion, config, store, out)
    assert VideoFile(out).num_frames == SAMPLING["num_frames"]
    with pytest.raises(InputError, match="no camera 'camera7'"):
        compose(Motion(session, "camera7"))


def test_sheets_can_be_drawn_of_everything(demo: Demo, tmp_path: Path) -> None:
    glb = next((demo.out / "objects").rglob("*.glb"))
    for number, subject in enumerate((str(glb), "demo", demo.told["clip"])):
        out = tmp_path / f"{number}.png"
        arguments = ["inspect", subject, "-o", str(out), "--store", str(demo.store), "--dataset", "demo"]
        assert CliRunner().invoke(app, arguments).exit_code == 0
        assert out.read_bytes().startswith(b"\x89PNG")


def test_every_clip_keeps_its_session_s_split(demo: Demo) -> None:
    rows = Dataset.open(Store(demo.store), "demo").rows()
    splits = {row.session: {other.split for other in rows if other.session == row.session} for row in rows}
    assert all(len(found) == 1 for found in splits.values())
