"""The page in a browser: both videos are seen and keep step, columns sort, keys work, no errors."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image

from flows.report import Report, write_report
from flows.sprites import ClipSprites, Sprite, sprite

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
    *("--hide-scrollbars", "--virtual-time-budget=4000"),
)
FRAMES = 5
PSNR = {"middle/cam": 20.0, "best/cam": 30.0, "worst/cam": 10.0, "unseen/cam": None}

# What a person would do, one thing after the other, and the colours of both videos after each.
DRIVE = """
<script>
const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const colors = () => [...document.querySelectorAll("#videos canvas")].map((canvas) => {
  probe.drawImage(canvas, 0, 0);
  return [...probe.getImageData(8, 8, 1, 1).data.slice(0, 3)];
});
const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", { key }));
const acts = [
  () => {},
  () => press("ArrowRight"),
  () => { find("frame").value = 4; find("frame").dispatchEvent(new Event("input")); },
  () => press("ArrowRight"),
  () => press("ArrowLeft"),
  () => press("ArrowDown"),
  () => document.querySelector("[data-column=id]").click(),
  () => document.querySelector("[data-column=psnr]").click(),
  () => document.querySelector("[data-column=psnr]").click(),
  () => { location.hash = "clip=best%2Fcam&frame=1&sort=psnr"; },
];
const seen = [];
const next = () => {
  if (!acts.length) return (document.body.dataset.seen = JSON.stringify(seen));
  acts.shift()();
  setTimeout(() => {
    const order = [...document.querySelectorAll("#rows tr")].map((row) => row.cells[0].textContent);
    seen.push({ ...document.body.dataset, order, colors: colors(), hash: location.hash });
    next();
  }, 100);
};
setTimeout(next, 500);
</script>
"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips, three with pictures: every frame of every video has one colour of its own."""
    clips = [
        {"id": name, "psnr": psnr, "baselines": {"first_frame": {"psnr": 15.0}}}
        for name, psnr in PSNR.items()
    ]
    nothing = {"mpjpe": None, "mpjpe_mm": None, "miss_rate": None}
    metrics = {"clips": clips, "baselines": {}, "joints_on_truth": nothing, "calibrated": {}, "notes": {}}
    sprites = {name: solid_sprites(name) for name in PSNR if name != "unseen/cam"}
    path = tmp_path_factory.mktemp("page") / "report.html"
    report = Report("A run", "Four clips.", metrics, sprites, {"image": [1.0, 0.5]}, {"evaluation": "a: 1"})
    write_report(report, path)
    return path


def color(name: str, video: str, frame: int) -> tuple[int, int, int]:
    return (40 * list(PSNR).index(name) + 40, 200 if video == "truth" else 60, 50 * frame + 20)


def solid(colors: Sequence[tuple[int, int, int]]) -> Sprite:
    return sprite([np.broadcast_to(np.uint8(value), (32, 32, 3)) for value in colors])


def solid_sprites(name: str) -> ClipSprites:
    videos = {
        video: solid([color(name, video, frame) for frame in range(FRAMES)])
        for video in ("truth", "generated")
    }
    panels = {label: solid([(frame, 0, 0) for frame in range(FRAMES)]) for label in ("layers", "confidence")}
    return ClipSprites(tuple(range(FRAMES)), 10.0, videos, panels, still=solid([(9, 9, 9)]))


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
    driven = page.with_name("driven.html")
    driven.write_text(page.read_text().replace("</html>", f"{DRIVE}</html>"))
    dom = run(browser, driven, "", "--dump-dom")
    (text,) = re.findall(r'data-seen="([^"]*)"', dom)
    seen = json.loads(html.unescape(text))
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
