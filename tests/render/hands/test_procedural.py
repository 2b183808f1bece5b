"""The procedural hand: MANO's schema, a sound mesh, parts where they belong, the left mirrors the right."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from render.hands.anatomy import DIGITS, RIGHT_DIGITS
from render.hands.model import JOINT_LAYERS, TIPS, face_parts
from render.hands.procedural import build_hand
from render.scene import HAND_LAYERS, SIDES, Layer

MANO_SCHEMA = {
    "v_template": (778, 3),
    "shapedirs": (778, 3, 10),
    "posedirs": (778, 3, 135),
    "J_regressor": (16, 778),
    "J": (16, 3),
    "weights": (778, 16),
    "f": (1538, 3),
    "kintree_table": (2, 16),
    "hands_components": (45, 45),
    "hands_mean": (45,),
}
WRIST_LOOP = [38, 78, 79, 92, 108, 117, 118, 119, 120, 121, 122, 214, 215, 234, 239, 279]
TIP_OF_DIGIT = {"thumb": 744, "index": 320, "middle": 443, "ring": 554, "little": 671}


@pytest.fixture(params=SIDES)
def hand(request: pytest.FixtureRequest) -> dict[str, NDArray]:
    return build_hand(request.param)


def directed_edges(faces: NDArray) -> NDArray:
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)


def test_arrays_have_manos_shapes_and_are_finite(hand: dict[str, NDArray]) -> None:
    assert {key: value.shape for key, value in hand.items()} == MANO_SCHEMA
    assert all(np.isfinite(value).all() for value in hand.values())
    assert hand["kintree_table"][0].tolist() == [4294967295, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14]


def test_surface_is_a_disk_open_at_manos_wrist(hand: dict[str, NDArray]) -> None:
    edges = directed_edges(hand["f"])
    assert len(np.unique(edges, axis=0)) == len(edges)  # manifold and consistently oriented
    twins = {tuple(edge) for edge in edges}
    border = [edge for edge in twins if edge[::-1] not in twins]
    assert sorted(start for start, _ in border) == WRIST_LOOP
    graph = coo_array((np.ones(len(border)), np.array(border).T), shape=(778, 778))
    assert connected_components(graph)[0] == 778 - 16 + 1  # the border is one loop
    undirected = np.unique(np.sort(edges, axis=1), axis=0)
    assert 778 - len(undirected) + 1538 == 1  # Euler characteristic of a disk
    assert len(np.unique(hand["f"])) == 778


def test_faces_look_outwards_and_none_is_a_sliver(hand: dict[str, NDArray]) -> None:
    a, b, c = (hand["v_template"][hand["f"][:, corner]] for corner in range(3))
    assert np.einsum("fc,fc->", a, np.cross(b, c)) > 0
    normals = np.cross(b - a, c - a)
    areas = np.linalg.norm(normals, axis=1) / 2
    assert areas.min() > 0.4e-6  # m²: a face is some 20 mm²
    edges = directed_edges(hand["f"])
    face_of = {tuple(edge): face % 1538 for face, edge in enumerate(edges)}
    unit = normals / (2 * areas[:, None])
    folds = [
        unit[face] @ unit[face_of[end, start]]
        for (start, end), face in face_of.items()
        if (end, start) in face_of
    ]
    assert np.min(folds) > -0.6  # the webs are the sharpest edges


def test_hand_has_a_hands_measures(hand: dict[str, NDArray]) -> None:
    points = hand["v_template"]
    wrist, tip = hand["J"][0], points[TIP_OF_DIGIT["middle"]]
    assert 0.17 < np.linalg.norm(tip - wrist) < 0.20
    fingers = [name for name in DIGITS if name != "thumb"]
    reach = {name: np.linalg.norm(points[TIP_OF_DIGIT[name]] - wrist) for name in fingers}
    assert sorted(fingers, key=lambda name: reach[name]) == ["little", "index", "ring", "middle"]
    palm = points[face_vertices(hand, Layer.PALM)]
    assert 0.07 < np.ptp(palm[:, 2]) < 0.11
    assert 0.02 < np.ptp(palm[:, 1]) < 0.055


def face_vertices(hand: dict[str, NDArray], layer: Layer) -> NDArray:
    return np.unique(hand["f"][face_parts(hand["f"].astype(np.int32), hand["weights"]) == layer])


def test_weights_and_regressor_rows_sum_to_one(hand: dict[str, NDArray]) -> None:
    for rows in (hand["weights"], hand["J_regressor"]):
        assert rows.min() >= 0
        np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-12)
    assert (hand["weights"] > 0).sum(axis=1).max() <= 4


def test_regressed_joints_are_the_anatomys() -> None:
    joints = np.concatenate([digit.joints[:3] for digit in RIGHT_DIGITS.values()])
    np.testing.assert_allclose(build_hand("right")["J"][1:], joints, atol=1e-6)


def test_every_part_is_one_connected_piece_of_a_fair_size(hand: dict[str, NDArray]) -> None:
    faces = hand["f"].astype(np.int64)
    parts = face_parts(faces.astype(np.int32), hand["weights"])
    labels = hand["weights"].argmax(axis=1)
    for layer in HAND_LAYERS:
        own = faces[parts == layer]
        edges = directed_edges(own)
        graph = coo_array((np.ones(len(edges)), edges.T), shape=(778, 778))
        _, piece = connected_components(graph, directed=False)
        assert len(np.unique(piece[np.unique(own)])) == 1
        count = sum(int((labels == joint).sum()) for joint, of in enumerate(JOINT_LAYERS) if of is layer)
        assert count >= 100


def test_tips_lie_at_the_ends_of_their_fingers(hand: dict[str, NDArray]) -> None:
    assert tuple(TIP_OF_DIGIT.values()) == TIPS
    for column, name in enumerate(DIGITS):
        last = 3 + 3 * column
        tip = TIP_OF_DIGIT[name]
        assert hand["weights"][tip].argmax() == last
        own = np.flatnonzero(hand["weights"].argmax(axis=1) == last)
        away = np.linalg.norm(hand["v_template"][own] - hand["J"][last], axis=1)
        assert own[away.argmax()] == tip


def test_joints_lie_inside_the_flesh() -> None:
    hand = build_hand("right")
    a, b, c = (
        hand["v_template"][hand["f"][:, corner]] - hand["J"][1:, None] for corner in range(3)
    )  # [15, F, 3]
    length = [np.linalg.norm(corner, axis=-1) for corner in (a, b, c)]
    triple = np.einsum("jfc,jfc->jf", a, np.cross(b, c))
    dots = [np.einsum("jfc,jfc->jf", p, q) for p, q in ((a, b), (b, c), (c, a))]
    denominator = np.prod(length, axis=0) + dots[0] * length[2] + dots[1] * length[0] + dots[2] * length[1]
    winding = (2 * np.arctan2(triple, denominator)).sum(axis=1) / (4 * np.pi)
    assert winding.min() > 0.9  # solid angle of the skin, less that of the open wrist


def test_left_hand_is_the_mirror_image() -> None:
    left, right = build_hand("left"), build_hand("right")
    flip = np.array([-1, 1, 1])
    np.testing.assert_array_equal(left["v_template"], right["v_template"] * flip)
    np.testing.assert_array_equal(left["shapedirs"], right["shapedirs"] * flip[:, None])
    np.testing.assert_array_equal(left["f"][:, [0, 2, 1]], right["f"])
    np.testing.assert_array_equal(left["weights"], right["weights"])
    np.testing.assert_allclose(left["J_regressor"] @ left["v_template"], right["J"] * flip, atol=1e-15)


@pytest.mark.parametrize("component", range(10))
def test_shape_components_are_smooth_and_of_a_persons_scale(component: int) -> None:
    hand = build_hand("right")
    direction = hand["shapedirs"][..., component]
    size = np.linalg.norm(direction, axis=1)
    assert 0.0003 < size.max() < 0.02
    start, end = directed_edges(hand["f"]).T
    length = np.linalg.norm(hand["v_template"][start] - hand["v_template"][end], axis=1)
    stretch = np.linalg.norm(direction[start] - direction[end], axis=1) / length
    assert stretch.max() < 0.35


def test_shape_components_are_independent() -> None:
    directions = build_hand("right")["shapedirs"].reshape(-1, 10)
    scaled = directions / np.linalg.norm(directions, axis=0)
    assert np.linalg.svd(scaled, compute_uv=False)[-1] > 0.02


def test_building_twice_gives_the_same_bytes() -> None:
    first = build_hand("right")
    build_right = build_hand.__globals__["_right_hand"]
    build_right.cache_clear()
    second = build_hand("right")
    assert all(first[key].tobytes() == second[key].tobytes() for key in first)
