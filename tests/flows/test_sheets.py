"""A contact sheet of a mesh file shows it lit and in its own colours."""

from pathlib import Path

import numpy as np

from flows.pictures import GAP, LABEL_HEIGHT
from flows.sheets import PANEL_HEIGHT, contact_sheet
from render.scene import Material, Mesh
from storage.sources.glb_writer import write_glb
from storage.store import Store


def test_sheet_of_a_mesh_file(tmp_path: Path) -> None:
    quad = Mesh(
        vertices=np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32),
        faces=np.array([[0, 1, 2], [0, 2, 3]], np.int32),
        normals=np.tile(np.array([0, 0, 1], np.float32), (4, 1)),
        uvs=np.zeros((4, 2), np.float32),
        colors=np.ones((4, 4), np.float32),
        material_ids=np.zeros(2, np.int32),
        materials=(Material(base_color_factor=(1, 0, 0, 1)),),
    )
    write_glb(quad, tmp_path / "quad.glb")
    sheet = contact_sheet(str(tmp_path / "quad.glb"), Store(tmp_path / "store"), "none")
    line = LABEL_HEIGHT + PANEL_HEIGHT
    assert sheet.shape == (LABEL_HEIGHT + 2 * line + GAP, 6 * PANEL_HEIGHT + 5 * GAP, 3)
    middle = LABEL_HEIGHT + LABEL_HEIGHT + PANEL_HEIGHT // 2
    lit, unlit = sheet[middle, PANEL_HEIGHT // 2], sheet[middle + line + GAP, PANEL_HEIGHT // 2]
    assert unlit.tolist() == [255, 0, 0]
    assert lit[0] > 150
    assert sheet[:LABEL_HEIGHT].max() > 200  # the heading
