"""Synthetic sessions land in a folder that holds sessions and, to those who look, nothing else."""

from pathlib import Path

from flows.sessions import sessions_in
from flows.synthesize import SynthesizeConfig, synthesize_sessions
from render.synthesis import SynthesisConfig


def test_a_folder_of_sessions_of_procedural_objects_holds_no_broken_ones(tmp_path: Path) -> None:
    small = SynthesisConfig(num_frames=16, num_cameras=1, width=48, height=36)
    config = SynthesizeConfig(procedural=1, synthesis=small)
    made = synthesize_sessions([0], config, tmp_path)
    assert sessions_in(tmp_path) == list(made.folders)
    assert synthesize_sessions([0], config, tmp_path).made == ()
