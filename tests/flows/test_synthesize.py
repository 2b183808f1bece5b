"""Synthetic sessions land in a folder that holds sessions and, to those who look, nothing else."""

from pathlib import Path

import numpy as np

from flows.sessions import sessions_in
from flows.synthesize import SynthesizeConfig, synthesize_sessions
from render.synthesis import SynthesisConfig
from storage.video import read_video


def test_a_folder_of_sessions_of_procedural_objects_holds_no_broken_ones(tmp_path: Path) -> None:
    small = SynthesisConfig(num_frames=16, num_cameras=1, width=48, height=36)
    config = SynthesizeConfig(procedural=1, synthesis=small)
    made = synthesize_sessions([0], config, tmp_path)
    assert sessions_in(tmp_path) == list(made.folders)
    assert synthesize_sessions([0], config, tmp_path).made == ()


def test_gloves_replace_skin_in_the_videos(tmp_path: Path) -> None:
    def green_pixels(gloves: bool) -> int:
        small = SynthesisConfig(
            num_frames=16, num_cameras=1, width=64, height=48, studio="a", gloves=gloves, participant="b"
        )
        config = SynthesizeConfig(procedural=1, synthesis=small)
        (session,) = synthesize_sessions([0], config, tmp_path).made  # the change is noticed
        frames = np.stack(list(read_video(next(session.rglob("*.mp4"))))).astype(int)
        red, green, blue = frames[..., 0], frames[..., 1], frames[..., 2]
        return int(((green > red + 40) & (green > blue + 20)).sum())

    assert green_pixels(gloves=True) > green_pixels(gloves=False) + 20
