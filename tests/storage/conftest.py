"""Small scenes that the storage tests share."""

from dataclasses import replace

import numpy as np
import pytest

from render.scene import Camera, Clip, HandMotion, Material, Mesh, ObjectMotion, Texture

NUM_FRAMES = 5


def box_mesh() -> Mesh:
    """A textured box, 2 × 4 × 6 cm, with flat normals and two materials."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-2, 2) for z in (-3, 3)], np.float32) / 100
    quads = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    faces = np.concatenate([[4 * k, 4 * k + 1, 4 * k + 2, 4 * k, 4 * k + 2, 4 * k + 3] for k in range(6)])
    outward = np.repeat(np.array([[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]]), 4, 0)
    rng = np.random.default_rng(0)
    checks = rng.integers(0, 256, (8, 16, 4), dtype=np.uint8)
    textured = Material(
        name="printed",
        base_color_factor=(0.123456789, 0.5, 1.0, 0.75),
        base_color_texture=Texture(checks, wrap=("clamp", "mirror"), nearest=True),
        alpha_mode="mask",
        alpha_cutoff=0.25,
        double_sided=False,
    )
    glowing = Material(
        emissive_factor=(0.1, 0.2, 0.3),
        emissive_texture=Texture(checks[::-1].copy()),
        unlit=True,
        alpha_mode="blend",
    )
    return Mesh(
        vertices=corners[quads.reshape(-1)],
        faces=faces.reshape(-1, 3).astype(np.int32),
        normals=outward.astype(np.float32),
        uvs=np.tile(np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32), (6, 1)),
        colors=rng.random((24, 4)).astype(np.float32),
        material_ids=np.repeat(np.array([0, 1], np.int32), 6),
        materials=(textured, glowing),
        emissive_uvs=rng.random((24, 2)).astype(np.float32),
    )


def tiny_clip() -> Clip:
    """Two hands and a box for five frames before two cameras; one pose of each is invalid."""
    rng = np.random.default_rng(1)
    valid = np.array([True, True, False, True, True])

    def hand() -> HandMotion:
        pose = rng.normal(size=(NUM_FRAMES, 48)).astype(np.float32) * valid[:, None]
        translation = rng.normal(size=(NUM_FRAMES, 3)).astype(np.float32) * valid[:, None]
        return HandMotion(pose, rng.normal(size=10).astype(np.float32), translation, valid)

    moving = np.tile(np.eye(4, dtype=np.float32), (NUM_FRAMES, 1, 1))
    moving[:, 0, 3] = np.arange(NUM_FRAMES) / 10 * valid
    box = ObjectMotion("box", box_mesh(), moving, valid, digest="", provenance={"licence": "CC0"})
    eye = np.array([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0.5], [0, 0, 0, 1]])
    front = Camera(48, 32, np.array([[40.0, 0, 23.5], [0, 40.0, 15.5], [0, 0, 1]]), eye)
    side = replace(front, width=32, distortion=np.array([0.1, 0.01, 0.0, 0.0]))
    plate = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)
    return Clip(
        id="take 1",
        fps=29.97,
        num_frames=NUM_FRAMES,
        cameras={"front": front, "side": side},
        hands={"left": hand(), "right": hand()},
        objects=(box,),
        backgrounds={"front": plate},
        participant="p01",
        split="test",
    )


@pytest.fixture
def mesh() -> Mesh:
    return box_mesh()


@pytest.fixture
def clip() -> Clip:
    return tiny_clip()
