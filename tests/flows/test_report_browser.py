"""The page in a browser: videos, layers and confidence keep step, columns sort, keys work, no errors.

What it is made from stands below, loss curves, settings and machine, and no width or colour scheme spoils it.
"""

import base64
import html
import io
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from flows.evaluate import EvaluationConfig
from flows.pictures import Picture
from flows.report import CURVE_BINS, Report, write_report
from flows.sprites import ClipSprites, Sprite, clip_sprites
from model.evaluate import GeneratedClip
from render.scene import Layer
from storage.dataset import ClipWindow
from storage.manifest import ClipRow

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
    *("--hide-scrollbars", "--virtual-time-budget=4000"),
)
SCHEMES = ("dark", "light")  # as the browser counts them
HEIGHT = 5000  # pixels: all of the page
FRAMES = 5
PSNR = {"middle/cam": 20.0, "best/cam": 30.0, "worst/cam": 10.0, "unseen/cam": None}
NOTHING = {"mpjpe": None, "mpjpe_mm": None, "miss_rate": None}
LOSSES = {
    stage: np.geomspace(0.8, 0.02, steps) * np.random.default_rng(steps).uniform(0.8, 1.25, steps)
    for stage, steps in (("image", 500), ("temporal", 37))
}
CONFIGS = {
    "evaluation": EvaluationConfig.model_validate({"sampling": {"seed": 11}}).model_dump(mode="json"),
    "image stage": {"stage": "image", "seed": 12, "pretrained": "/folder" * 40},
}

# A page of some width, whatever the narrowest window of the browser is; the page says what was seen in it.
FRAME = """<!doctype html>
<style>:root { color-scheme: light dark } body { margin: 0 } iframe { border: 0; display: block }</style>
<iframe src="{source}" width="{width}" height="{height}"></iframe>
<script>addEventListener("message", (event) => document.body.dataset.seen = event.data);</script>
"""
# What a person would do, one thing after the other, and what is seen after each.
DRIVE = """
<script>
const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", { key }));
const slide = (frame) => { find("frame").value = frame; find("frame").dispatchEvent(new Event("input")); };
const box = (element) => {
  const { left, top, right, bottom } = element.getBoundingClientRect();
  return [left, top, right, bottom];
};
const texts = (selector) => [...document.querySelectorAll(selector)].map((found) => found.textContent);
const drive = async (acts, look) => {
  const seen = [];
  for (const act of acts) {
    act();
    await new Promise((resolve) => setTimeout(resolve, 100));
    seen.push(look());
  }
  top.postMessage(JSON.stringify(seen), "*");
};
setTimeout(() => drive([ACTS], LOOK), 500);
</script>
"""
CLIPS = """() => ({
  ...document.body.dataset,
  hash: location.hash,
  order: texts("#rows td:first-child"),
  colors: [...document.querySelectorAll("#videos canvas")].map((canvas) => {
    probe.drawImage(canvas, 0, 0);
    return [...probe.getImageData(8, 8, 1, 1).data.slice(0, 3)];
  }),
})"""
PANELS = """() => [...document.querySelectorAll("#panels figure")].map((figure) => {
  const canvas = figure.querySelector("canvas");
  return { label: figure.textContent, png: canvas.toDataURL(), box: box(canvas) };
})"""
BELOW = """() => ({
  headings: texts("h2"),
  curves: [...document.querySelectorAll(".curve")].map((curve) => {
    const [svg, line] = ["svg", "polyline"].map((name) => curve.querySelector(name));
    const labels = [...curve.querySelectorAll("span")].map((label) => [label.textContent, box(label)]);
    const points = line.getAttribute("points");
    return { box: box(svg), line: box(line), points, color: getComputedStyle(line).stroke, labels };
  }),
  configurations: texts("pre"),
  environment: [...document.querySelectorAll("#environment tr")].map((row) =>
    [...row.cells].map((cell) => cell.textContent)),
  note: getComputedStyle(document.querySelector(".note")).color,
  width: document.documentElement.scrollWidth,
})"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed (Debian's package: chromium)")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips, three with pictures, and two stages: every frame of every video has a colour of its own."""
    clips = [
        {"id": name, "psnr": psnr, "baselines": {"first_frame": {"psnr": 15.0}}}
        for name, psnr in PSNR.items()
    ]
    notes = {"lpips": f"weights: {'/folder' * 40}"}
    metrics = {"clips": clips, "baselines": {}, "joints_on_truth": NOTHING, "calibrated": {}, "notes": notes}
    sprites = {name: pictures(name) for name in PSNR if name != "unseen/cam"}
    losses = {stage: values.tolist() for stage, values in LOSSES.items()}
    configs = {name: yaml.safe_dump(settings) for name, settings in CONFIGS.items()}
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(Report("A run", "Four clips.", metrics, sprites, losses, configs), path)
    return path


def color(name: str, video: str, frame: int) -> tuple[int, int, int]:
    return (40 * list(PSNR).index(name) + 40, 200 if video == "truth" else 60, 50 * frame + 20)


def pictures(name: str) -> ClipSprites:
    """A clip's pictures, drawn as an evaluation draws them; each layer is a square that moves."""
    truth, generated = (
        np.stack([np.broadcast_to(np.uint8(color(name, video, t)), (32, 32, 3)) for t in range(FRAMES)])
        for video in ("truth", "generated")
    )
    window = ClipWindow(
        normal_steps=np.zeros((FRAMES, len(Layer), 32, 32, 3), np.int8),
        confidence=np.zeros((FRAMES, len(Layer), 32, 32), np.float32),
        frames=truth,
        mask=np.ones((FRAMES, 32, 32), bool),
        background=truth[0],
        views=np.full((6, 32, 32, 4), 90, np.uint8),
        points=np.zeros((5, 3), np.float32),
        joints_2d=np.zeros((FRAMES, 2, 21, 2), np.float32),
    )
    first = 2 * list(PSNR).index(name)
    for frame in range(FRAMES):
        for layer in Layer:
            square = np.s_[frame, layer, 3 * layer : 3 * layer + 9, first + 4 * frame : first + 4 * frame + 8]
            window.normal_steps[square] = (0, 0, -127)
            window.confidence[square] = 0.3 + 0.1 * layer
    row = ClipRow(name, name, "cam", "test", "hoi", (), None, None, True, True, FRAMES, 10.0)
    return clip_sprites(GeneratedClip(row, generated, truth, window.mask, {}), window, 10.0)


def frame_of(sprite: Sprite, frame: int) -> Picture:
    left, top = frame % sprite.columns * sprite.width, frame // sprite.columns * sprite.height
    sheet = np.asarray(Image.open(io.BytesIO(sprite.webp)).convert("RGB"))
    return sheet[top : top + sprite.height, left : left + sprite.width]


def run(browser: str, page: Path, where: str, *flags: str) -> str:
    """Open a page; return what the browser prints, having complained of nothing."""
    profile = page.parent / "profile"
    address = f"{page.as_uri()}#{where}"
    done = subprocess.run(
        [browser, *FLAGS, f"--user-data-dir={profile}", *flags, address],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Seen:
    """A page that something was done to."""

    told: list[Any]  # what was looked for, after each act
    picture: Picture  # of all the page, at the end


def drive(
    browser: str, page: Path, acts: Sequence[str], look: str, *, width: int = 900, scheme: str = "light"
) -> Seen:
    """Do one thing after the other in a page of some width; acts and look are functions in JavaScript."""
    driven, framed, shot = (page.with_name(name) for name in ("driven.html", "framed.html", "shot.png"))
    script = DRIVE.replace("ACTS", ", ".join(acts)).replace("LOOK", look)
    driven.write_text(page.read_text().replace("</html>", f"{script}</html>"))
    frame = {"source": driven.name, "width": str(width), "height": str(HEIGHT)}
    framed.write_text(re.sub(r"\{(source|width|height)\}", lambda found: frame[found[1]], FRAME))
    flags = (f"--window-size={max(width, 500)},{HEIGHT + 200}", f"--screenshot={shot}", "--dump-dom")
    dom = run(browser, framed, "", *flags, f"--blink-settings=preferredColorScheme={SCHEMES.index(scheme)}")
    (text,) = re.findall(r'data-seen="([^"]*)"', dom)
    picture = np.asarray(Image.open(shot).convert("RGB"))[:HEIGHT, :width]
    return Seen(json.loads(html.unescape(text)), picture)


def test_a_screenshot_shows_both_videos_of_the_clip_and_frame_that_the_address_names(
    browser: str, page: Path
) -> None:
    where = urlencode({"clip": "middle/cam", "frame": 3})
    shot = page.parent / "shot.png"
    run(browser, page, where, f"--screenshot={shot}", "--window-size=900,1200")
    picture = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    left, right = (
        np.abs(picture - color("middle/cam", video, 3)).max(axis=-1) < 12 for video in ("truth", "generated")
    )
    assert left.sum() > 300 * 300
    assert right.sum() > 300 * 300
    columns = [np.flatnonzero(mask.sum(axis=0) > 300) for mask in (left, right)]
    assert columns[0].max() < columns[1].min()  # side by side, the truth on the left
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50  # and words around them


def test_frames_keep_step_and_columns_sort(browser: str, page: Path) -> None:
    acts = (
        "() => {}",
        "() => press('ArrowRight')",
        "() => slide(4)",
        "() => press('ArrowRight')",
        "() => press('ArrowLeft')",
        "() => press('ArrowDown')",
        "() => document.querySelector('[data-column=id]').click()",
        *["() => document.querySelector('[data-column=psnr]').click()"] * 2,
        "() => { location.hash = 'clip=best%2Fcam&frame=1&sort=psnr'; }",
    )
    seen = drive(browser, page, acts, CLIPS).told
    shown = [(step["clip"], int(step["frame"])) for step in seen]
    assert shown == [
        ("worst/cam", 0),  # the worst first
        ("worst/cam", 1),  # →
        ("worst/cam", 4),  # the slider
        ("worst/cam", 4),  # → at the end
        ("worst/cam", 3),  # ←
        ("middle/cam", 3),  # ↓
        *[("middle/cam", 3)] * 3,  # sorting chooses nothing
        ("best/cam", 1),  # the address
    ]
    for (clip, frame), step in zip(shown, seen, strict=True):
        for video, found in zip(("truth", "generated"), step["colors"], strict=True):
            assert np.abs(np.subtract(found, color(clip, video, frame))).max() < 12
    worst_first = ["worst/cam", "middle/cam", "best/cam", "unseen/cam"]
    assert seen[0]["order"] == worst_first
    assert seen[6]["order"] == sorted(PSNR)
    assert seen[7]["order"] == worst_first
    assert seen[8]["order"] == ["best/cam", "middle/cam", "worst/cam", "unseen/cam"]  # none stays last
    assert seen[8]["hash"] == "#clip=middle%2Fcam&frame=3&sort=-psnr"
    assert seen[9]["order"] == worst_first


def test_clips_without_any_figure_are_listed_by_name(browser: str, tmp_path: Path) -> None:
    clips = [{"id": name, "psnr": None, "baselines": {}} for name in ("b/cam", "a/cam")]
    metrics = {"clips": clips, "baselines": {}, "joints_on_truth": NOTHING, "calibrated": {}, "notes": {}}
    page = tmp_path / "report.html"
    write_report(Report("A run", "Two clips.", metrics, {}, {}, {}), page)
    (seen,) = drive(browser, page, ["() => {}"], CLIPS).told
    assert (seen["order"], seen["clip"]) == (["a/cam", "b/cam"], "a/cam")


def test_layers_and_confidence_show_the_frame_that_the_slider_chose(browser: str, page: Path) -> None:
    seen = drive(browser, page, ["() => slide(1)", "() => slide(3)"], PANELS)
    sprites = pictures("worst/cam").panels
    for label, sprite in sprites.items():  # no two frames, of no two panels, are nearly alike
        frames = [frame_of(sprite, frame).astype(int) for frame in range(FRAMES)]
        assert min(np.abs(a - b).mean() for a, b in combinations(frames, 2)) > 5, label
    for frame, panels in zip((1, 3), seen.told, strict=True):
        assert [panel["label"] for panel in panels] == ["layers", "confidence"]
        for panel in panels:
            png = base64.b64decode(panel["png"].partition(",")[2])
            drawn = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
            expected = frame_of(sprites[panel["label"]], frame)
            assert np.abs(drawn - expected).max() <= 2, (panel["label"], frame)
    for panel in seen.told[-1]:  # and so it is on the screen
        left, top, right, bottom = map(round, panel["box"])
        part = Image.fromarray(seen.picture[top:bottom, left:right])
        expected = frame_of(sprites[panel["label"]], 3)
        shown = np.asarray(part.resize((expected.shape[1], expected.shape[0])))
        assert np.abs(shown.astype(int) - expected).mean() < 3, panel["label"]


@pytest.fixture(scope="module", params=[(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def below(browser: str, page: Path, request: pytest.FixtureRequest) -> Seen:
    """What stands below the clips, on a wide and a narrow screen."""
    width, scheme = request.param
    return drive(browser, page, ["() => {}"], BELOW, width=width, scheme=scheme)


def test_each_stage_has_its_loss_curve_between_labels_of_its_range(below: Seen) -> None:
    (told,) = below.told
    curves = dict(zip(LOSSES, told["curves"], strict=True))
    assert [name for name in told["headings"] if name.startswith("Loss")] == [
        "Loss, image stage",
        "Loss, temporal stage",
    ]
    for stage, curve in curves.items():
        parts = np.array_split(LOSSES[stage], min(CURVE_BINS, len(LOSSES[stage])))
        means = np.array([part.mean() for part in parts])
        (highest, loss, lowest), x_labels = curve["labels"][:3], curve["labels"][3:]
        assert [float(label[0]) for label in (highest, lowest)] == pytest.approx(
            [means.max(), means.min()], rel=0.01
        )
        assert [label[0] for label in (loss, *x_labels)] == ["loss", "1", "step", str(len(LOSSES[stage]))]

        y = np.array([float(point.split(",")[1]) for point in curve["points"].split()])
        share = (y - y.min()) / np.ptp(y)  # of the way down from the highest label to the lowest
        read = float(highest[0]) * (float(lowest[0]) / float(highest[0])) ** share
        np.testing.assert_allclose(read, means, rtol=0.02)


def test_loss_curves_are_seen_beside_their_labels(below: Seen) -> None:
    for curve in below.told[0]["curves"]:
        left, top, right, bottom = curve["box"]
        assert right - left > 280
        assert bottom - top > 200
        line = curve["line"]
        assert line[0] == pytest.approx(left, abs=1)
        assert line[2] == pytest.approx(right, abs=1)
        assert top <= line[1] < line[3] <= bottom
        labels = [label[1] for label in curve["labels"]]
        assert all(label[3] - label[1] >= 12 for label in labels)  # large enough to be read
        assert all(label[2] <= left for label in labels[:3])  # none lies on the curve
        assert all(label[1] >= bottom for label in labels[3:])
        assert (labels[3][0], labels[5][2]) == pytest.approx((left, right), abs=1)
        for label, end in ((labels[0], line[1]), (labels[2], line[3])):
            assert (label[1] + label[3]) / 2 == pytest.approx(end, abs=2)
        part = below.picture[round(top) : round(bottom), round(left) : round(right)].astype(int)
        is_line = np.abs(part - rgb(curve["color"])).max(axis=-1) < 40
        assert is_line.any(axis=0).mean() > 0.9  # in nearly every column of pixels


def test_settings_and_machine_are_named(below: Seen) -> None:
    (told,) = below.told
    assert [name for name in told["headings"] if name.startswith("Configuration")] == [
        "Configuration: evaluation",
        "Configuration: image stage",
    ]
    evaluation, image = map(yaml.safe_load, told["configurations"])
    assert {"evaluation": evaluation, "image stage": image} == CONFIGS
    assert (evaluation["sampling"]["seed"], image["seed"]) == (11, 12)
    environment = dict(told["environment"])
    assert environment["torch"] == torch.__version__
    processor, cores = environment["processor"].rsplit(", ", 1)
    models = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    assert processor in (models or [platform.machine()])
    assert cores == f"{os.cpu_count()} cores"
    assert environment["GPU"] == (torch.cuda.get_device_name() if torch.cuda.is_available() else "none")
    assert environment["python"] == platform.python_version()


def test_the_page_is_no_wider_than_the_screen_and_can_be_read(below: Seen) -> None:
    (told,) = below.told
    assert told["width"] == below.picture.shape[1]
    background = below.picture[0, 0]
    assert contrast(rgb(told["note"]), background) >= 4.5  # WCAG 2.2, 1.4.3: text
    assert all(contrast(rgb(curve["color"]), background) >= 3 for curve in told["curves"])  # 1.4.11: graphics


def rgb(color: str) -> list[int]:
    """Return the numbers of a computed colour."""
    return [int(number) for number in re.findall(r"\d+", color)[:3]]


def contrast(one: Sequence[int], other: Sequence[int]) -> float:
    """Return the contrast ratio of two colours (WCAG 2.2)."""

    def luminance(color: Sequence[int]) -> float:
        part = np.asarray(color) / 255.0
        linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)
